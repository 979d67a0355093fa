//! Inserting into a live index, finding ids, compacting. `OBORO_BENCH_VECTORS`
//! changes the number of vectors that are there (1,000,000), of 128 bytes each
//! with codes of 16.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use chacha20::ChaCha20Rng;
use common::*;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use oboro_index::*;
use rand_core::{Rng, SeedableRng};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Vectors of one insert.
const BATCH: usize = 8192;

/// The parts of a new segment, but for its id.
struct Parts {
    vectors: Vec<f32>,
    codes: Vec<u8>,
    positions: Vec<u32>,
}

impl Parts {
    fn new() -> Self {
        Self {
            vectors: vectors(BATCH),
            codes: (0..BATCH * SUBQUANTIZERS).map(|i| (i * 7) as u8).collect(),
            positions: (0..BATCH as u32).collect(),
        }
    }
}

/// A generator that no earlier call gave: the names of files come from it.
fn fresh() -> ChaCha20Rng {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut rng = ChaCha20Rng::from_seed([3; 32]);
    rng.set_stream(CALLS.fetch_add(1, Ordering::Relaxed));
    rng
}

fn live(c: &mut Criterion) {
    let count = count();
    let owner = owner();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build(&path, &owner, &vectors(count));
    let key = || owner.epoch_key(&INDEX_ID, 1, true);
    let mut live = LiveIndex::open(&path, key()).unwrap();
    let mut rng = fresh();
    let parts = Parts::new();
    let mut next_id = count as u64;
    let mut group = c.benchmark_group("live");
    group.sample_size(10);

    group.bench_function("open and order ids", |b| {
        b.iter_batched(
            || Index::open(&path, &key()).unwrap(),
            // The first look-up makes the order.
            |index| index.locate(1).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("seal 8192", |b| {
        let ids: Vec<u64> = (0..BATCH as u64).collect();
        b.iter(|| {
            SegmentSealer::new(&owner.record_key(), live.index().descriptor(), [1; 16])
                .seal(&parts.positions, &ids, &parts.vectors, &[])
                .unwrap()
        });
    });
    let mut insert = |live: &mut LiveIndex, replace: bool| {
        let mut segment_id = [0; 16];
        rng.fill_bytes(&mut segment_id);
        // Replaced ids lie all over the index.
        let ids: Vec<u64> = (0..BATCH as u64)
            .map(|i| match replace {
                true => i * (count / BATCH).max(1) as u64,
                false => next_id + i,
            })
            .collect();
        next_id += BATCH as u64;
        let records =
            SegmentSealer::new(&owner.record_key(), live.index().descriptor(), segment_id)
                .seal(&parts.positions, &ids, &parts.vectors, &[])
                .unwrap();
        let staged = live
            .stage(&NewSegment {
                segment_id,
                ids: &ids,
                codes: &parts.codes,
                tags: &[],
                lists: &[],
                records: &records,
            })
            .unwrap();
        let change = Change {
            stages: vec![staged],
            on_existing: OnExisting::Replace,
            ..Change::default()
        };
        live.commit(change, &mut rng).unwrap();
    };
    // Eight segments at most, as compaction leaves them.
    let tidy = |live: &mut LiveIndex| {
        if let Some(plan) = live.compaction(&CompactionPolicy::default()) {
            let mut rng = fresh();
            let done = plan
                .run(&Throttle::NONE, &AtomicBool::new(false), &mut rng)
                .unwrap();
            live.commit_compaction(done, &mut rng).unwrap();
        }
    };
    for (name, replace) in [("insert", false), ("replace", true)] {
        group.bench_function(format!("seal, stage and commit, {name} 8192"), |b| {
            b.iter_custom(|times| {
                let mut spent = std::time::Duration::ZERO;
                for _ in 0..times {
                    let begun = std::time::Instant::now();
                    insert(&mut live, replace);
                    spent += begun.elapsed();
                    tidy(&mut live);
                }
                spent
            });
        });
    }
    group.throughput(Throughput::Elements(1000));
    group.bench_function("locate 1000", |b| {
        let mut id = 1_u64;
        b.iter(|| {
            for _ in 0..1000 {
                id = id.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                std::hint::black_box(live.locate((id >> 20) % count as u64));
            }
        });
    });
    // Half the ids of the large segment and all small ones.
    let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
    group.throughput(Throughput::Elements(live.index().vectors()));
    group.bench_function("compact everything", |b| {
        b.iter(|| {
            let mut rng = fresh();
            // Given up at the end, which removes it.
            plan.run(&Throttle::NONE, &AtomicBool::new(false), &mut rng)
                .unwrap()
        });
    });
}

criterion_group!(benches, live);
criterion_main!(benches);
