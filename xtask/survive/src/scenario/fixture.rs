//! Small indexes whose every number follows from a formula.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chacha20::ChaCha20Rng;
use oboro_ckks::{EncryptedCodebook, Packing, ParameterSet, PublicKey, SecretKey, TableScale};
use oboro_index::{
    Descriptor, EpochKey, Extra, Index, IndexError, IndexWriter, Model, OwnerKey, QueryModel,
    RecordEncoding, RecordLayout, RecordOpener, Rotation, permutation, verify,
};
use oboro_quant::{BlockedCodes, Codebook, Metric, Subspaces, code_bits};
use rand_core::SeedableRng;

use crate::Outcome;

pub(super) const DIMENSION: usize = 10;
pub(super) const SUBQUANTIZERS: usize = 4;
pub(super) const CENTROIDS: usize = 16;

/// The index's folder in a scenario's.
pub(super) const INDEX: &str = "index";

/// Any error as a sentence.
pub(super) fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub(super) fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub(super) fn owner() -> OwnerKey {
    OwnerKey::generate(&mut rng(1))
}

/// The keeper's pair of an epoch.
pub(super) fn keeper(epoch: u64) -> (SecretKey, PublicKey) {
    let mut rng = rng(100 + epoch as u8);
    let secret = SecretKey::generate(ParameterSet::N2048Q50, &mut rng);
    let public = secret.public_key(&mut rng);
    (secret, public)
}

/// The id of the index that a build of this number makes.
pub(super) const fn index_id(number: u8) -> [u8; 16] {
    [number; 16]
}

pub(super) fn epoch_key(number: u8, epoch: u64) -> EpochKey {
    owner().epoch_key(&index_id(number), epoch, true)
}

/// A number from 0 to 255 that looks random.
fn mix(i: usize) -> f32 {
    let x = (i as u32).wrapping_mul(0x9e37_79b9);
    ((x ^ (x >> 15)).wrapping_mul(0x85eb_ca6b) >> 24) as f32
}

/// The ids that an index should hold, each with the version of its vector.
pub(super) type Content = BTreeMap<u64, u32>;

/// The first version of each.
pub(super) fn fresh(ids: impl IntoIterator<Item = u64>) -> Content {
    ids.into_iter().map(|id| (id, 0)).collect()
}

pub(super) fn vector(id: u64, version: u32) -> Vec<f32> {
    (0..DIMENSION)
        .map(|j| mix((id as usize * 50 + version as usize) * DIMENSION + j))
        .collect()
}

pub(super) fn tags(id: u64, version: u32) -> u64 {
    (id % 2) | (u64::from(version % 2) << 1)
}

pub(super) fn extra(id: u64, version: u32) -> Extra {
    Extra {
        id: (!id.is_multiple_of(5)).then(|| format!("vector {id}")),
        payload: vec![version as u8; (id % 4) as usize],
    }
}

const TAGS: [&str; 2] = ["odd", "changed"];
const EXTRA_BYTES: u32 = 32;

pub(super) fn codebook() -> Outcome<Codebook> {
    let subspaces = Subspaces::new(DIMENSION, SUBQUANTIZERS).map_err(words)?;
    let width = subspaces.width();
    let values = (0..SUBQUANTIZERS * CENTROIDS * width)
        .map(|i| {
            let used = subspaces.range(i / (CENTROIDS * width)).len();
            if i % width < used {
                mix(i + 77_777)
            } else {
                0.0
            }
        })
        .collect();
    Codebook::from_values(subspaces, CENTROIDS, values).map_err(words)
}

/// Builds index `number` of this content, in two segments.
pub(super) fn build(folder: &Path, number: u8, content: &Content, force: bool) -> Outcome<()> {
    begin(folder, number, force)
        .map_err(words)
        .and_then(|writer| finish(writer, number, content))
}

pub(super) fn begin(folder: &Path, number: u8, force: bool) -> Result<IndexWriter, IndexError> {
    let owner = owner();
    IndexWriter::create(
        folder.join(INDEX),
        &owner.storage_key(),
        Some(&owner.release_key()),
        index_id(number),
        force,
    )
}

/// Vectors in the order of their ids, and where each goes in its segment.
pub(super) struct Rows {
    pub(super) ids: Vec<u64>,
    pub(super) vectors: Vec<f32>,
    pub(super) extras: Vec<Extra>,
    pub(super) places: Vec<u32>,
    /// By place, as the tags are.
    pub(super) codes: Vec<u8>,
    pub(super) tags: Vec<u64>,
}

impl Rows {
    pub(super) fn new(content: &[(u64, u32)], rng: &mut ChaCha20Rng) -> Outcome<Self> {
        let places = permutation(content.len(), rng);
        let vectors: Vec<f32> = content
            .iter()
            .flat_map(|&(id, version)| vector(id, version))
            .collect();
        let encoded = codebook()?.encode(&vectors).map_err(words)?;
        let mut codes = vec![0; encoded.len()];
        let mut by_place = vec![0; content.len()];
        let rows = encoded.chunks_exact(SUBQUANTIZERS).zip(content);
        for (&place, (code, &(id, version))) in places.iter().zip(rows) {
            let place = place as usize;
            codes[place * SUBQUANTIZERS..][..SUBQUANTIZERS].copy_from_slice(code);
            by_place[place] = tags(id, version);
        }
        Ok(Self {
            ids: content.iter().map(|(id, _)| *id).collect(),
            vectors,
            extras: content.iter().map(|&(id, v)| extra(id, v)).collect(),
            places,
            codes,
            tags: by_place,
        })
    }
}

/// Fills and commits what [`begin`] began.
pub(super) fn finish(mut writer: IndexWriter, number: u8, content: &Content) -> Outcome<()> {
    let owner = owner();
    let mut rng = rng(number);
    let codebook = codebook()?;
    let encoding = RecordEncoding::INTEGERS;
    let layout = RecordLayout {
        extra_bytes: EXTRA_BYTES,
        ..RecordLayout::plain(encoding, DIMENSION)
    };
    let content: Vec<(u64, u32)> = content.iter().map(|(id, v)| (*id, *v)).collect();
    let (first, second) = content.split_at(content.len() / 3);
    for content in [first, second] {
        let rows = Rows::new(content, &mut rng)?;
        let mut segment = writer
            .begin_segment(&owner.record_key(), layout, content.len(), &mut rng)
            .map_err(words)?;
        segment
            .put_with_extras(&rows.places, &rows.ids, &rows.vectors, &rows.extras)
            .map_err(words)?;
        let codes = BlockedCodes::from_rows(&rows.codes, SUBQUANTIZERS, code_bits(CENTROIDS))
            .map_err(words)?;
        writer
            .add_segment(segment, &codes, &rows.tags)
            .map_err(words)?;
    }
    let packing = packing(&codebook)?;
    let public = keeper(1).1;
    let (scale, encrypted) = encrypted(&codebook, packing, &public, &mut rng)?;
    writer.set_codebook(&encrypted, &mut rng);
    let id = index_id(number);
    let key = owner.descriptor_key();
    let descriptor = Descriptor {
        index_id: id,
        epoch: 1,
        dimension: DIMENSION as u32,
        metric: Metric::L2,
        rotation: Rotation::None,
        candidates_max: 4096,
        record_encoding: encoding,
        extra_bytes: EXTRA_BYTES,
        tags: TAGS.map(|name| key.tag_hash(&id, name)).to_vec(),
        query_model: None,
        packing,
        scale,
        codebook_digest: encrypted.masks().digest(),
        public_key: public,
    };
    let model = Model {
        codebook,
        metric: Metric::L2,
        rotation: Rotation::None,
        encoding,
        norm_bound: NORM_BOUND,
        query: QueryModel::default(),
    };
    writer
        .set_model(owner.model_key().seal(&id, &model, &mut rng))
        .map_err(words)?;
    writer
        .commit(&descriptor, &key, &mut rng)
        .map(|_| ())
        .map_err(words)
}

const NORM_BOUND: f64 = 2000.0;

fn packing(codebook: &Codebook) -> Outcome<Packing> {
    let width = codebook.subspaces().width();
    Packing::compact_query(ParameterSet::N2048Q50, SUBQUANTIZERS, width, CENTROIDS).map_err(words)
}

fn encrypted(
    codebook: &Codebook,
    packing: Packing,
    public: &PublicKey,
    rng: &mut ChaCha20Rng,
) -> Outcome<(TableScale, EncryptedCodebook)> {
    let terms = codebook.table_terms(Metric::L2);
    let (norm, bound) = (terms.norm(), terms.offset_bound());
    let scale = TableScale::new(&packing, NORM_BOUND, norm, bound).map_err(words)?;
    let encrypted = EncryptedCodebook::encrypt(
        packing,
        &scale,
        public,
        terms.centroids(),
        terms.offsets(),
        rng,
    )
    .map_err(words)?;
    Ok((scale, encrypted))
}

/// Opens the index and reads all of it: it must be sound, and hold exactly this.
pub(super) fn whole(folder: &Path, key: &EpochKey, content: &Content) -> Outcome<Index> {
    let path = folder.join(INDEX);
    let client = owner().client_key();
    let report = verify(&path, key, Some(&client)).map_err(words)?;
    if let Some(problem) = report.all_problems().next() {
        return Err(problem.to_owned());
    }
    let index = Index::open(&path, key).map_err(words)?;
    let descriptor =
        Descriptor::from_bytes(client.descriptor_key(), index.descriptor_bytes()).map_err(words)?;
    let model = index.model_bytes().ok_or("the model is gone")?;
    owner()
        .model_key()
        .open(&descriptor.index_id, model)
        .map_err(words)?;
    let opener = RecordOpener::new(
        client.record_key(),
        descriptor.index_id,
        descriptor.record_layout(),
    );
    let codebook = codebook()?;
    let mut found = BTreeMap::new();
    for segment in index.segments() {
        for (position, &id) in (0..).zip(segment.ids()) {
            if !segment.is_alive(position) {
                continue;
            }
            let mut wire = Vec::new();
            segment.append_record(position, &mut wire).map_err(words)?;
            let record = opener.open(&wire).map_err(words)?;
            let version = content.get(&id).copied().unwrap_or_default();
            let expected = vector(id, version);
            let code = codebook.encode(&expected).map_err(words)?;
            if record.id != id
                || record.vector != expected
                || record.extra != extra(id, version)
                || segment.tags().map(|all| all[position as usize]) != Some(tags(id, version))
                || segment.codes().row(position as usize) != code
            {
                return Err("a vector, its code, tags or extra bytes are not its id's".to_owned());
            }
            if found.insert(id, version).is_some() {
                return Err("an id is there twice".to_owned());
            }
        }
    }
    if found != *content || index.vectors() != content.len() as u64 {
        return Err(format!(
            "{} vectors were expected and {} are there, or others",
            content.len(),
            found.len()
        ));
    }
    Ok(index)
}

/// The files of an index, within the scenario's folder.
pub(super) fn files(index: &Index) -> BTreeSet<PathBuf> {
    let names = index.files().iter().map(|(name, _)| name.as_str());
    names
        .chain(["LOCK"])
        .map(|name| Path::new(INDEX).join(name))
        .collect()
}
