//! What the benchmarks of indexes have in common.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use chacha20::ChaCha20Rng;
use oboro_ckks::{EncryptedCodebook, Packing, ParameterSet, SecretKey, TableScale};
use oboro_index::*;
use oboro_quant::{BlockedCodes, Metric, Subspaces};
use rand_core::SeedableRng;
use std::path::Path;

pub const DIMENSION: usize = 128;
pub const SUBQUANTIZERS: usize = 16;
pub const INDEX_ID: [u8; 16] = [7; 16];

pub fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([1; 32])
}

pub fn vectors(count: usize) -> Vec<f32> {
    (0..count * DIMENSION)
        .map(|i| ((i as u32).wrapping_mul(0x9e37_79b9) >> 24) as f32)
        .collect()
}

pub fn owner() -> OwnerKey {
    OwnerKey::generate(&mut rng())
}

/// Vectors of an index.
pub fn count() -> usize {
    std::env::var("OBORO_BENCH_VECTORS")
        .ok()
        .map_or(1_000_000, |v| v.parse().unwrap())
}

/// Writes the index without real codes, which cost nothing here.
pub fn build(path: &Path, owner: &OwnerKey, rows: &[f32]) {
    let count = rows.len() / DIMENSION;
    let mut rng = rng();
    let mut writer = IndexWriter::create(
        path,
        &owner.storage_key(),
        Some(&owner.release_key()),
        INDEX_ID,
        true,
    )
    .unwrap();
    let encoding = RecordEncoding::INTEGERS;
    let mut segment = writer
        .begin_segment(
            &owner.record_key(),
            RecordLayout::plain(encoding, DIMENSION),
            count,
            &mut rng,
        )
        .unwrap();
    let places = permutation(count, &mut rng);
    let step = 65_536;
    for (chunk, (places, rows)) in places
        .chunks(step)
        .zip(rows.chunks(step * DIMENSION))
        .enumerate()
    {
        let first = (chunk * step) as u64;
        let ids: Vec<u64> = (first..first + places.len() as u64).collect();
        segment.put(places, &ids, rows).unwrap();
    }
    let bytes: Vec<u8> = (0..BlockedCodes::byte_len(count, SUBQUANTIZERS, 8))
        .map(|i| ((i * 7) >> 3) as u8)
        .collect();
    let codes = BlockedCodes::from_bytes(&bytes, count, SUBQUANTIZERS, 8).unwrap();
    writer.add_segment(segment, &codes, &[]).unwrap();
    let set = ParameterSet::N2048Q50;
    let public = SecretKey::generate(set, &mut rng).public_key(&mut rng);
    let width = Subspaces::new(DIMENSION, SUBQUANTIZERS).unwrap().width();
    let packing = Packing::compact_query(set, SUBQUANTIZERS, width, 256).unwrap();
    let scale = TableScale::new(&packing, 2000.0, 2000.0, 0.0).unwrap();
    let centroids = vec![1.0; SUBQUANTIZERS * 256 * width];
    let codebook =
        EncryptedCodebook::encrypt(packing, &scale, &public, &centroids, None, &mut rng).unwrap();
    writer.set_codebook(&codebook, &mut rng);
    let descriptor = Descriptor {
        index_id: INDEX_ID,
        epoch: 1,
        dimension: DIMENSION as u32,
        metric: Metric::InnerProduct,
        rotation: Rotation::None,
        candidates_max: 4096,
        record_encoding: encoding,
        extra_bytes: 0,
        tags: Vec::new(),
        query_model: None,
        packing,
        scale,
        codebook_digest: codebook.masks().digest(),
        public_key: public,
    };
    writer
        .commit(&descriptor, &owner.descriptor_key(), &mut rng)
        .unwrap();
}
