//! Inputs that the decoders accept, or nearly, from which a fuzzer can start.

use std::time::{Duration, SystemTime};

use chacha20::ChaCha20Rng;
use oboro_attest::snp::table::{self, EntryKind};
use oboro_attest::{AttestedRole, Attester, Claims, Subject};
use oboro_channel::{Access, Authority, Grant, Role, Trust};
use oboro_ckks::{
    CodebookMasking, EncryptedCodebook, MaskedDecryptor, QueryEncryptor, SecretKey, TableEvaluator,
};
use oboro_index::keys::{OwnerKey, backup, keeper_public_to_text, keeper_secret_to_text};
use oboro_index::{
    Descriptor, Extra, Model, QueryModel, QueryShape, RecordEncoding, RecordLayout, RecordOpener,
    RecordSealer, Rotation, record,
};
use oboro_protocol::v1;
use oboro_quant::ivf::CoarseCentroids;
use oboro_quant::{Codebook, Metric, OpqTransform, Subspaces};
use oboro_simulated::{SimulatedAttester, measure};
use prost::Message;
use rand_core::SeedableRng;

use crate::ckks::{packing, scale};

mod generation;
#[cfg(feature = "learn")]
mod learn;

type Seeds = Vec<(&'static str, Vec<u8>)>;

fn rng(stream: u64) -> ChaCha20Rng {
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    rng.set_stream(stream);
    rng
}

/// The trust of some authority.
#[must_use]
pub fn trust() -> Trust {
    Trust::from_pem(include_str!("authority.pem")).expect("a stored certificate")
}

/// The owner of everything that the seeds hold.
#[must_use]
pub fn owner() -> OwnerKey {
    OwnerKey::generate(&mut rng(1))
}

const INDEX: [u8; 16] = [3; 16];
const DIMENSION: usize = 8;

fn record_layout() -> RecordLayout {
    RecordLayout {
        extra_bytes: 24,
        ..RecordLayout::plain(RecordEncoding::F32, DIMENSION)
    }
}

/// An opener of the records that the seeds seal.
#[must_use]
pub fn record_opener() -> RecordOpener {
    RecordOpener::new(&owner().record_key(), INDEX, record_layout())
}

/// All seeds by the name of their case.
#[must_use]
pub fn all() -> Seeds {
    let mut seeds = Seeds::new();
    evidence(&mut seeds);
    channel(&mut seeds);
    ciphertexts(&mut seeds);
    index(&mut seeds);
    keys(&mut seeds);
    text(&mut seeds);
    vectors(&mut seeds);
    records(&mut seeds);
    changes(&mut seeds);
    generation::blind(&mut seeds);
    #[cfg(feature = "learn")]
    learn::all(&mut seeds);
    seeds
}

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!(
            "../../../crates/oboro-attest/tests/fixtures/",
            $name
        ))
    };
}

fn two(first: &[u8], second: &[u8]) -> Vec<u8> {
    let length = u16::try_from(first.len()).expect("a short statement");
    [&length.to_le_bytes()[..], first, second].concat()
}

fn evidence(seeds: &mut Seeds) {
    let claims = Claims {
        role: AttestedRole::Keeper,
        session: [1; 32],
        nonce: [2; 32],
        channel_key: [3; 32],
        subject: Subject::new([4; 32]),
        issued_at: 1_780_000_000,
    };
    let simulated = SimulatedAttester::new(measure(b"program"))
        .attest(&claims)
        .expect("the simulated platform is always there");
    seeds.push(("evidence", simulated.clone()));
    let mut frame = vec![2];
    frame.extend((simulated.len() as u32).to_le_bytes());
    frame.extend(&simulated);
    seeds.push(("handshake", frame));
    let certificates = table::encode(&[(EntryKind::Vcek, fixture!("snp/milan.vcek.der"))])
        .expect("a short certificate");
    seeds.push((
        "evidence_snp",
        two(fixture!("snp/milan.report"), &certificates),
    ));
    for (quote, collateral) in [
        (
            &fixture!("dcap/sgx-v3.quote")[..],
            &fixture!("dcap/sgx-v3.collateral.json")[..],
        ),
        (
            fixture!("dcap/tdx-v4.quote"),
            fixture!("dcap/tdx-v4.collateral.json"),
        ),
    ] {
        seeds.push(("evidence_dcap", two(quote, collateral)));
    }
    seeds.push(("evidence_nitro", fixture!("nitro/genuine.cose").to_vec()));
    seeds.push(("evidence_tpm", two(fixture!("tpm/azure.quote"), &[])));
}

fn channel(seeds: &mut Seeds) {
    let mut hello = vec![1, 34, 0, 0, 0, 2, 1];
    hello.extend([9; 32]);
    seeds.push(("handshake", hello));
    seeds.push(("handshake", vec![3, 0, 0, 0, 0]));
    seeds.push(("handshake", vec![4, 1, 0, 0, 0, 1]));
    let pem = include_str!("authority.pem");
    seeds.push(("certificates", pem.as_bytes().to_vec()));
    seeds.push(("certificates", include_bytes!("identity.pem").to_vec()));
    seeds.push(("certificates", include_bytes!("revoked.pem").to_vec()));
}

/// Writes the certificates that the seeds include; the keys of certificates come from a generator that
/// cannot be seeded.
///
/// # Errors
/// Whatever fails, in words.
pub fn write_certificates(folder: &std::path::Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_780_000_000);
    let day = Duration::from_secs(86_400);
    let authority = Authority::generate(now).map_err(|error| text(&error))?;
    let client = authority
        .issue_client(Grant::any(Access::Reader), "alice", now, 365 * day)
        .map_err(|error| text(&error))?;
    let keeper = authority
        .issue(Role::Keeper, now, 365 * day)
        .map_err(|error| text(&error))?;
    let revoked = authority
        .revocation_list(&[client.serial()], 1, now, now + 30 * day)
        .map_err(|error| text(&error))?;
    for (name, content) in [
        ("authority.pem", authority.trust().to_pem()),
        ("identity.pem", keeper.to_pem().to_string()),
        ("revoked.pem", revoked),
    ] {
        std::fs::write(folder.join(name), content).map_err(|error| text(&error))?;
    }
    Ok(())
}

fn kind(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number], bytes].concat()
}

fn ciphertexts(seeds: &mut Seeds) {
    let (packing, scale) = (packing(), scale());
    let secret = SecretKey::generate(packing.set(), &mut rng(2));
    let public = secret.public_key(&mut rng(3));
    let query = QueryEncryptor::new(packing, scale, public.clone())
        .and_then(|encryptor| encryptor.encrypt(&[0.1; 8], &mut rng(4)))
        .expect("a valid query");
    let centroids = vec![0.05; 4 * 16 * 2];
    let codebook =
        EncryptedCodebook::encrypt(packing, &scale, &public, &centroids, None, &mut rng(5))
            .expect("a valid codebook");
    let masks = codebook.masks();
    let (masked, _) = CodebookMasking::mask(&codebook, &mut rng(6));
    let codebook_bytes = codebook.to_bytes();
    let evaluator =
        TableEvaluator::new(packing, scale, public.clone(), codebook).expect("parts that fit");
    let (_, products) = evaluator
        .evaluate(&query, evaluator.zero(&mut rng(7)))
        .expect("a query that fits");
    let decryptor = MaskedDecryptor::new(secret);
    let prepared = decryptor
        .prepare(packing, scale, &masks)
        .expect("masks that fit");
    let share = decryptor
        .decrypt(&prepared, &products, &mut rng(8))
        .expect("products that fit");
    for (number, bytes) in [
        query.to_bytes(),
        products.to_bytes(),
        share.to_bytes(),
        codebook_bytes,
        masks.to_bytes(),
        masked.to_bytes(),
        packing.to_bytes().to_vec(),
    ]
    .into_iter()
    .enumerate()
    {
        seeds.push(("ciphertexts", kind(number as u8, &bytes)));
    }
    let secret = SecretKey::generate(packing.set(), &mut rng(2));
    seeds.push(("ckks_keys", kind(0, &public.to_bytes())));
    seeds.push(("ckks_keys", kind(1, &secret.to_bytes())));
    seeds.push(("ckks_keys", kind(2, &scale.to_bytes())));
    seeds.push(("key_files", keeper_public_to_text(&public).into_bytes()));
    seeds.push((
        "key_files",
        keeper_secret_to_text(&secret).as_bytes().to_vec(),
    ));
    let descriptor = Descriptor {
        index_id: INDEX,
        epoch: 1,
        dimension: DIMENSION as u32,
        metric: Metric::L2,
        rotation: Rotation::None,
        candidates_max: 50,
        record_encoding: RecordEncoding::F32,
        extra_bytes: 24,
        tags: vec![[1; 8], [2; 8]],
        query_model: Some(query_shape()),
        packing,
        scale,
        codebook_digest: masks.digest(),
        public_key: public,
    };
    generation::builds(seeds, &descriptor.public_key.to_bytes());
    let whole = descriptor.to_bytes(&owner().descriptor_key());
    seeds.push(("descriptor", whole[..whole.len() - 64].to_vec()));
    seeds.push(("descriptor", whole));
    seeds.push((
        "messages",
        kind(
            0,
            &v1::SearchRequest {
                index_id: INDEX.to_vec().into(),
                epoch: 1,
                query: query.to_bytes().into(),
                candidates: 10,
                with_records: true,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
    ));
    seeds.push((
        "messages",
        kind(
            2,
            &v1::PrepareRequest {
                index_id: INDEX.to_vec().into(),
                epoch: 1,
                packing: Some(v1::PackingParameters {
                    parameter_set: "N2048_Q50".to_owned(),
                    subquantizers: 4,
                    width: 2,
                    centroids: 16,
                    split: 1,
                }),
                scale: scale.to_bytes().to_vec().into(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
    ));
}

fn changes(seeds: &mut Seeds) {
    let index_id = crate::protocol::INDEX.to_vec();
    let stage = v1::StageRequest {
        index_id: index_id.clone().into(),
        segment_id: vec![4; 16].into(),
        ids: vec![7, 8],
        codes: vec![15; 8].into(),
        tags: vec![1, 2],
        records: vec![9; 18].into(),
        lists: vec![1, 0, 0, 0].into(),
    };
    seeds.push(("messages", kind(16, &stage.encode_to_vec())));
    let commit = v1::CommitRequest {
        index_id: index_id.into(),
        stages: vec![vec![1; 16].into(), vec![2; 16].into()],
        deletes: vec![7, 8, 9],
        on_existing: v1::OnExisting::Replace.into(),
        strict: true,
    };
    seeds.push(("messages", kind(17, &commit.encode_to_vec())));
}

fn index(seeds: &mut Seeds) {
    let sealer = RecordSealer::new(&owner().record_key(), INDEX, [5; 16], record_layout());
    let mut wire = Vec::new();
    record::append_wire_header(&[5; 16], 9, &mut wire);
    let start = wire.len();
    wire.resize(start + sealer.record_len(), 0);
    let extra = Extra {
        id: Some("a name".to_owned()),
        payload: b"a title".to_vec(),
    };
    sealer
        .seal_extra_into(9, 42, &[1.5; DIMENSION], &extra, &mut wire[start..])
        .expect("a short extra");
    seeds.push(("record", wire));
    let mut region = [0; 24];
    extra.encode(&mut region).expect("a short extra");
    seeds.push(("index_parts", [&[0][..], &region].concat()));
    seeds.push(("index_parts", [&[1, 70, 0][..], &[5; 16]].concat()));
    let model = owner().model_key().seal(&[0; 16], &model(), &mut rng(10));
    seeds.push(("index_parts", [&[2][..], &model].concat()));
    // What a seal holds: the bytes without header, nonce and tag are other ones.
    let mut body = vec![3];
    body.extend_from_slice(&(DIMENSION as u32).to_le_bytes());
    body.extend_from_slice(&5_u32.to_le_bytes());
    let model = query_model();
    body.extend(model.opq.iter().flat_map(OpqTransform::to_bytes));
    let values = model.coarse.iter().flat_map(CoarseCentroids::values);
    body.extend(values.flat_map(|value| value.to_le_bytes()));
    seeds.push(("index_parts", [&[3][..], &body].concat()));
    // A journal of two segments, of which the second lacks two of three vectors.
    let mut journal = vec![9, 1, 0];
    journal.extend_from_slice(&[4; 16 + 2 * 32]);
    journal.extend_from_slice(&640_u64.to_le_bytes());
    journal.extend_from_slice(&[5; 32]);
    journal.extend_from_slice(&2_u32.to_le_bytes());
    for (vectors, deleted) in [(70_u32, 0_u32), (3, 2)] {
        journal.extend_from_slice(&[6; 16 + 32]);
        journal.extend_from_slice(&vectors.to_le_bytes());
        journal.extend_from_slice(&deleted.to_le_bytes());
    }
    journal.extend_from_slice(&5_u64.to_le_bytes());
    seeds.push(("index_parts", journal));
    for manifest in [
        &include_bytes!("../../../crates/oboro-index/tests/stored/v3/index/MANIFEST")[..],
        &include_bytes!("../../../crates/oboro-index/tests/stored/v4/index/MANIFEST")[..],
    ] {
        seeds.push(("manifest", manifest.to_vec()));
        seeds.push(("manifest", manifest[..manifest.len() - 64].to_vec()));
    }
    seeds.push(("segments", [&[1, 4, 1][..], &[7; 64 * 4]].concat()));
}

fn model() -> Model {
    let subspaces = Subspaces::new(DIMENSION, 4).expect("a small shape");
    let values = vec![0.5; 4 * 16 * subspaces.width()];
    Model {
        codebook: Codebook::from_values(subspaces, 16, values).expect("of this shape"),
        metric: Metric::L2,
        rotation: Rotation::None,
        encoding: RecordEncoding::F32,
        norm_bound: 1.0,
        query: query_model(),
    }
}

fn query_model() -> QueryModel {
    QueryModel {
        opq: OpqTransform::identity(DIMENSION).ok(),
        coarse: CoarseCentroids::from_values(vec![0.5; 5 * DIMENSION], DIMENSION).ok(),
    }
}

fn query_shape() -> QueryShape {
    QueryShape {
        digest: [3; 32],
        opq: true,
        lists: 5,
        probes_max: 2,
    }
}

fn keys(seeds: &mut Seeds) {
    let owner = owner();
    for text in [
        owner.to_text(),
        owner.client_key().to_text(),
        owner.writer_key().to_text(),
        owner.storage_key().to_text(),
        owner.release_key().to_text(),
    ] {
        seeds.push(("key_files", text.as_bytes().to_vec()));
    }
    let file = backup::BackupFile::new("owner.key", owner.to_text().as_bytes().to_vec().into())
        .expect("a valid name");
    let text = backup::backup_owner(&[file], None, &mut rng(9)).expect("a small backup");
    seeds.push(("backup", text.as_bytes().to_vec()));
}

fn text(seeds: &mut Seeds) {
    seeds.push((
        "configuration",
        b"[search]\nrerank = 200\nallow-simulated = true\n[attest.show]\naddress = \"a:1\"\n"
            .to_vec(),
    ));
    let policies = [
        format!(
            "version = 1\nmax-age = 60\n[[accept]]\nplatform = \"sev-snp\"\nmeasurements = [\"{}\"]\n",
            "ab".repeat(48)
        ),
        "version = 1\n[[accept]]\nplatform = \"simulated\"\n".to_owned(),
        format!(
            "version = 1\n[[accept]]\nplatform = \"nitro\"\nrole = \"keeper\"\nmeasurements = [\"{}\"]\n",
            "cd".repeat(48)
        ),
    ];
    for policy in policies {
        seeds.push(("policy", policy.into_bytes()));
    }
}

fn vectors(seeds: &mut Seeds) {
    let mut fvecs = Vec::new();
    for row in 0..3u32 {
        fvecs.extend(2u32.to_le_bytes());
        fvecs.extend((row as f32).to_le_bytes());
        fvecs.extend(1.0f32.to_le_bytes());
    }
    seeds.push(("vector_files", kind(0, &fvecs)));
    seeds.push(("vector_files", kind(5, &fvecs)));
    seeds.push(("vector_files", kind(1, &[2, 0, 0, 0, 7, 8])));
    let mut fbin = Vec::new();
    fbin.extend(1u32.to_le_bytes());
    fbin.extend(2u32.to_le_bytes());
    fbin.extend([0; 8]);
    seeds.push(("vector_files", kind(3, &fbin)));
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    let padded = format!("{header:<117}\n");
    npy.extend((padded.len() as u16).to_le_bytes());
    npy.extend(padded.as_bytes());
    npy.extend([0; 8]);
    seeds.push(("vector_files", kind(2, &npy)));
}

macro_rules! columns {
    ($seeds:ident, $case:literal, $($name:literal),+) => {
        $($seeds.push(($case, include_bytes!(concat!(
            "../../../crates/oboro-vectors/tests/data/", $name
        )).to_vec()));)+
    };
}

/// Written by pyarrow.
fn records(seeds: &mut Seeds) {
    columns!(
        seeds,
        "parquet",
        "full-plain-v2.parquet",
        "full-gzip-text.parquet",
        "full-lz4-large.parquet",
        "ragged.parquet",
        "half.parquet"
    );
    columns!(
        seeds,
        "arrow",
        "full.arrow",
        "full-lz4.arrows",
        "views.arrow",
        "ragged.arrow",
        "dictionaries.arrows"
    );
    let mut with_ids = vec![0, 6];
    with_ids.extend(b"a\n7\nc\n");
    for row in [[1.0_f32, 2.0], [f32::NAN, 0.0], [3.0, 4.0]] {
        with_ids.extend(2u32.to_le_bytes());
        with_ids.extend(row.into_iter().flat_map(f32::to_le_bytes));
    }
    seeds.push(("records", with_ids));
}
