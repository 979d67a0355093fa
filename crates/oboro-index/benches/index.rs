//! Sealing, writing, opening and verifying. `OBORO_BENCH_VECTORS` changes the
//! number of vectors (1,000,000), of 128 bytes each with codes of 16.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::*;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oboro_index::*;
use oboro_quant::{Metric, Subspaces};
use std::hint::black_box;

fn records(c: &mut Criterion) {
    let owner = owner();
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

fn index(c: &mut Criterion) {
    let count = count();
    let owner = owner();
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
