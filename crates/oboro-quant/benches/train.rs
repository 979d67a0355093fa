//! Training, encoding and exact search.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use oboro_quant::{Codebook, Metric, TrainOptions, exact};
use std::hint::black_box;
use std::time::Duration;

fn vectors(rows: usize, dimension: usize) -> Vec<f32> {
    let mut state = 5u64;
    let mut unit = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let centres: Vec<f32> = (0..1000 * dimension).map(|_| unit() * 4.0).collect();
    (0..rows)
        .flat_map(|_| {
            let centre = (unit() * 1000.0) as usize * dimension;
            (0..dimension)
                .map(|j| centres[centre + j] + unit() * 4.0)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn train(criterion: &mut Criterion) {
    const DIMENSION: usize = 128;
    let mut group = criterion.benchmark_group("quantizer");
    let data = vectors(65_536, DIMENSION);
    let mut options = TrainOptions::new(16, 256, [1; 32]);
    group.throughput(Throughput::Elements(65_536));
    for threads in [1, 2] {
        options.threads = threads;
        group.bench_function(
            format!("train 16x256 on 65,536 x 128, threads {threads}"),
            |b| {
                b.iter(|| Codebook::train(black_box(&data), DIMENSION, &options));
            },
        );
    }
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("one thread");
    for (subquantizers, centroids) in [(16, 256), (32, 256), (64, 256), (64, 16)] {
        let options = TrainOptions {
            iterations: 2,
            ..TrainOptions::new(subquantizers, centroids, [1; 32])
        };
        let codebook = Codebook::train(&data, DIMENSION, &options).expect("valid data");
        group.bench_function(
            format!("encode {subquantizers}x{centroids}, 65,536 x 128, threads 1"),
            |b| b.iter(|| one.install(|| codebook.encode(black_box(&data)))),
        );
    }
    let queries = &data[..256 * DIMENSION];
    group.throughput(Throughput::Elements(256));
    group.bench_function("exact 256 queries in 65,536 x 128, threads 1", |b| {
        b.iter(|| exact::search(&data, DIMENSION, black_box(queries), 100, Metric::L2, 1));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = train
}
criterion_main!(benches);
