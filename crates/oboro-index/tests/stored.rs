//! Indexes stored by earlier versions must open, and answer, for ever.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use oboro_ckks::{EncryptedQuery, MaskedDecryptor, MaskedProducts, QueryEncryptor};
use oboro_ckks::{TableEvaluator, TableShare};
use oboro_index::keys::{keeper_public_from_text, keeper_secret_from_text};
use oboro_index::*;
use std::path::{Path, PathBuf};

fn folder(version: u16) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/stored")
        .join(format!("v{version}"))
}

#[test]
fn version_3_opens_and_answers() {
    opens_and_answers(3, 43);
}

#[test]
fn version_4_opens_and_answers() {
    opens_and_answers(4, 53);
}

fn opens_and_answers(version: u16, seed: u8) {
    let folder = folder(version);
    // The files' modes are the repository's, so keys are read as text.
    let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let owner = OwnerKey::from_text(&text("owner.key")).unwrap();
    let client = ClientKey::from_text(&text("client.key")).unwrap();
    let storage = StorageKey::from_text(&text("storage.key")).unwrap();
    let release = ReleaseKey::from_text(&text("release.key")).unwrap();
    let keeper = keeper_secret_from_text(&text("keeper.key")).unwrap();
    let public = keeper_public_from_text(&text("keeper.pub")).unwrap();
    assert_eq!(*owner.client_key().to_text(), *client.to_text());
    assert_eq!(*owner.storage_key().to_text(), *storage.to_text());

    assert_eq!(*owner.release_key().to_text(), *release.to_text());
    let writer = WriterKey::from_text(&text("writer.key")).unwrap();
    assert_eq!(*owner.writer_key().to_text(), *writer.to_text());

    let path = folder.join("index");
    let head = Index::peek(&path).unwrap();
    assert!(head.released);
    let share = release.share(&head.index_id, head.epoch);
    let key = storage.for_epoch(Some(&share), &head.index_id, head.epoch);
    let report = verify(&path, &key, Some(&client)).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.records_opened, lived_contents().len() as u64);
    assert!(report.segments.iter().all(|segment| segment.deleted > 0));
    assert!(report.segments[0].compacted && report.model);
    let index = Index::open(&path, &key).unwrap();
    let descriptor =
        Descriptor::from_bytes(client.descriptor_key(), index.descriptor_bytes()).unwrap();
    assert_eq!(descriptor.public_key_fingerprint(), public.fingerprint());
    assert_eq!(contents(&index, seed), lived_contents());
    assert_eq!(descriptor.query_model.is_some(), listed(seed));
    if let Some(shape) = &descriptor.query_model {
        let key = client.descriptor_key();
        let sealed = index.query_model_bytes().unwrap();
        let found = key
            .open_query_model(&descriptor.index_id, DIMENSION, shape, sealed)
            .unwrap();
        let want = query_model(seed);
        assert!(found.opq == want.opq);
        let values = |model: &QueryModel| model.coarse.as_ref().unwrap().values().to_vec();
        assert_eq!(values(&found), values(&want));
    }
    for (bit, name) in TAGS.iter().enumerate() {
        let found = descriptor.tag_bit(client.descriptor_key(), name);
        assert_eq!(found, Some(bit as u32));
    }
    assert!(
        descriptor
            .tag_bit(client.descriptor_key(), "blue")
            .is_none()
    );
    let sealed = index.model_bytes().unwrap();
    let model = writer
        .model_key()
        .open(&descriptor.index_id, sealed)
        .unwrap();
    assert_eq!(model.codebook.values(), codebook().values());
    assert_eq!(model.encoding, descriptor.record_encoding);
    assert_eq!(model.query.lists(), descriptor.lists());

    // The stored codebook still gives the right table for a fresh query.
    let (packing, scale) = (descriptor.packing, descriptor.scale);
    let query = vector(7);
    let padded = descriptor.subspaces().unwrap().pad(&query);
    let encryptor = QueryEncryptor::new(packing, scale, public.clone()).unwrap();
    let bytes = encryptor.encrypt(&padded, &mut rng(1)).unwrap().to_bytes();
    let encrypted = EncryptedQuery::from_bytes(&packing, &bytes).unwrap();
    let evaluator = TableEvaluator::new(packing, scale, public, index.codebook().unwrap()).unwrap();
    let zero = evaluator.zero(&mut rng(2));
    let (share, products) = evaluator.evaluate(&encrypted, zero).unwrap();
    let decryptor = MaskedDecryptor::new(keeper);
    let prepared = decryptor
        .prepare(packing, scale, &evaluator.masks())
        .unwrap();
    let products = MaskedProducts::from_bytes(&packing, &products.to_bytes()).unwrap();
    let answer = decryptor
        .decrypt(&prepared, &products, &mut rng(3))
        .unwrap()
        .to_bytes();
    let answer = TableShare::from_bytes(&packing, &answer).unwrap();
    let table = evaluator.unmask(&share, &answer).unwrap();
    let want = codebook().similarities(&query, descriptor.metric).unwrap();
    for (a, b) in table.iter().zip(&want) {
        assert!(
            f64::from((a - b).abs()) < 6.0 * scale.table_error(),
            "{a} {b}"
        );
    }
}

#[test]
fn fail_version_2_says_what_to_do() {
    let error = Index::peek(folder(2)).err().unwrap();
    assert!(matches!(
        error,
        IndexError::OldFormat {
            found: 2,
            supported: 4
        }
    ));
    assert_eq!(
        error.to_string(),
        "the index has format version 2 and this program reads version 4; build it again from its vectors"
    );
}
