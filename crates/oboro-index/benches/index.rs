//! Sealing, writing, opening and verifying. `OBORO_BENCH_VECTORS` changes the
//! number of vectors (1,000,000), of 128 bytes each with codes of 16.
#![allow(clippy::unwrap_used, missing_docs)]

use chacha20::ChaCha20Rng;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oboro_ckks::{EncryptedCodebook, Packing, ParameterSet, SecretKey, TableScale};
use oboro_index::*;
use oboro_quant::{BlockedCodes, Metric, Subspaces};
use rand_core::SeedableRng;
use std::hint::black_box;
use std::path::Path;

const DIMENSION: usize = 128;
const SUBQUANTIZERS: usize = 16;
const INDEX_ID: [u8; 16] = [7; 16];

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([1; 32])
}

fn vectors(count: usize) -> Vec<f32> {
    (0..count * DIMENSION)
        .map(|i| ((i as u32).wrapping_mul(0x9e37_79b9) >> 24) as f32)
        .collect()
}

fn records(c: &mut Criterion) {
    let owner = OwnerKey::generate(&mut rng());
    let mut group = c.benchmark_group("record");
    let row = vectors(1);
    for (name, encoding) in [
        ("u8", RecordEncoding::INTEGERS),
        ("f16", RecordEncoding::F16),
    ] {
        let sealer = RecordSealer::new(
            &owner.record_key(),
            INDEX_ID,
            [8; 16],
            RecordLayout::plain(encoding, DIMENSION),
        );
        let mut out = vec![0; sealer.record_len()];
        group.bench_function(format!("seal 128 {name}"), |b| {
            b.iter(|| sealer.seal_into(3, 4, black_box(&row), &mut out));
        });
        let mut wire = Vec::new();
        record::append_wire_header(&[8; 16], 3, &mut wire);
        wire.extend_from_slice(&out);
        let opener = RecordOpener::new(
            &owner.record_key(),
            INDEX_ID,
            RecordLayout::plain(encoding, DIMENSION),
        );
        let (mut scratch, mut vector) = (Vec::new(), vec![0.0; DIMENSION]);
        group.bench_function(format!("open 100 of 128 {name}"), |b| {
            b.iter(|| {
                for _ in 0..100 {
                    opener
                        .open_into(black_box(&wire), &mut scratch, &mut vector)
                        .unwrap();
                }
            });
        });
    }
}

/// Writes the index without real codes, which cost nothing here.
fn build(path: &Path, owner: &OwnerKey, rows: &[f32]) {
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
        packing,
        scale,
        codebook_digest: codebook.masks().digest(),
        public_key: public,
    };
    writer
        .commit(&descriptor, &owner.descriptor_key(), &mut rng)
        .unwrap();
}

fn index(c: &mut Criterion) {
    let count = std::env::var("OBORO_BENCH_VECTORS")
        .ok()
        .map_or(1_000_000, |v| v.parse().unwrap());
    let owner = OwnerKey::generate(&mut rng());
    let rows = vectors(count);
    let key = owner.epoch_key(&INDEX_ID, 1, true);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut group = c.benchmark_group("index");
    group.sample_size(10);
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("write", |b| b.iter(|| build(&path, &owner, &rows)));
    build(&path, &owner, &rows);
    group.bench_function("open", |b| {
        b.iter(|| Index::open(&path, &key).unwrap());
    });
    group.bench_function("verify with client key", |b| {
        b.iter(|| {
            let report = verify(&path, &key, Some(&owner.client_key())).unwrap();
            assert!(report.is_sound());
        });
    });
    let index = Index::open(&path, &key).unwrap();
    // The same codebook again: only what is written counts here.
    let descriptor = index
        .descriptor()
        .next_epoch(
            index.descriptor().public_key.clone(),
            index.descriptor().codebook_digest,
        )
        .unwrap()
        .to_bytes(&owner.descriptor_key());
    let codebook = index.codebook().unwrap();
    let next = owner.epoch_key(&INDEX_ID, 2, true);
    group.bench_function("write the next epoch", |b| {
        b.iter(|| {
            // Given up at the end, which removes it.
            index
                .begin_epoch(&path, &next, &descriptor, &codebook, &mut rng())
                .unwrap();
        });
    });
    group.throughput(Throughput::Elements(100));
    let mut next = 1_u32;
    let mut out = Vec::new();
    group.bench_function("fetch 100 records", |b| {
        b.iter(|| {
            out.clear();
            for _ in 0..100 {
                next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                index.segments()[0]
                    .append_record(next % count as u32, &mut out)
                    .unwrap();
            }
        });
    });
    let plain = vec![0.5; DIMENSION * 1000];
    let subspaces = Subspaces::new(DIMENSION, SUBQUANTIZERS).unwrap();
    for kind in [Rotation::Subspace, Rotation::Full] {
        let map = RotationMatrix::derive(&owner.rotation_seed(), &subspaces, kind, Metric::L2);
        let mut rows = plain.clone();
        group.throughput(Throughput::Elements(1000));
        group.bench_function(format!("rotate 1000 {}", kind.name()), |b| {
            b.iter(|| map.apply_rows(&mut rows).unwrap());
        });
    }
}

criterion_group!(benches, records, index);
criterion_main!(benches);
