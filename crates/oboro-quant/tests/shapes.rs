//! The whole path in every shape: train, encode, table, scan, plan. What the
//! scan finds is compared with decoded vectors under the metric itself.
#![allow(clippy::unwrap_used)]

use chacha20::ChaCha20Rng;
use oboro_quant::{
    BlockedCodes, Candidate, Codebook, Metric, QuantizedTable, Scanner, SelectionPlan,
    TrainOptions, code_bits,
};
use rand_core::{Rng, SeedableRng};

/// Vectors that suit the metric: under Lorentz, on the hyperboloid.
fn vectors(rows: usize, dimension: usize, metric: Metric, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut unit = || (rng.next_u64() >> 40) as f32 / (1 << 24) as f32 - 0.5;
    let scale = 4.0 / (dimension as f32).sqrt();
    (0..rows)
        .flat_map(|_| {
            let mut row: Vec<f32> = (0..dimension).map(|_| unit() * scale).collect();
            if metric == Metric::Lorentz {
                let square: f32 = row[1..].iter().map(|v| v * v).sum();
                row[0] = (1.0 + square).sqrt();
            }
            metric.prepare_base(&mut row);
            row
        })
        .collect()
}

fn check(dimension: usize, subquantizers: usize, centroids: usize, metric: Metric) {
    let rows = 320;
    let data = vectors(rows, dimension, metric, 1);
    let options = TrainOptions {
        iterations: 3,
        ..TrainOptions::new(subquantizers, centroids, [2; 32])
    };
    let codebook = Codebook::train(&data, dimension, &options).unwrap();
    let codes = codebook.encode(&data).unwrap();
    let bits = code_bits(centroids);
    let blocked = BlockedCodes::from_rows(&codes, subquantizers, bits).unwrap();
    assert_eq!(bits, if centroids <= 16 { 4 } else { 8 });
    let decoded = codebook.decode(&codes).unwrap();
    let plan = SelectionPlan::new(rows, rows).unwrap();
    let scanner = Scanner::new();
    for query in vectors(3, dimension, metric, 7).chunks_exact(dimension) {
        let mut prepared = query.to_vec();
        metric.prepare_query(&mut prepared);
        let similarities = codebook.similarities(&prepared, metric).unwrap();
        let table =
            QuantizedTable::from_similarities(&similarities, subquantizers, centroids).unwrap();
        let found: Vec<Candidate> = scanner
            .search(&blocked, &[table], &plan, 1)
            .unwrap()
            .remove(0);
        assert_eq!(found.len(), rows);
        // Scores are in the order of distances from what codes stand for, up
        // to half a step of the table for each sub-quantizer.
        let range = similarities
            .chunks_exact(centroids)
            .map(|row| {
                let top = row.iter().copied().fold(f32::MIN, f32::max);
                top - row.iter().copied().fold(f32::MAX, f32::min)
            })
            .fold(0.0, f32::max);
        let top = (65_534 / subquantizers).min(255) as f32;
        let factor = if metric.has_offsets() { 2.0 } else { 1.0 };
        // What codes stand for has no unit length.
        let by_product = if metric == Metric::Cosine {
            Metric::L2
        } else {
            metric
        };
        let distance = |at: u32| -> f32 {
            let row = &decoded[at as usize * dimension..][..dimension];
            let query = if metric == Metric::Cosine {
                &prepared
            } else {
                query
            };
            by_product.distance(query, row) / factor
        };
        let step = range / top;
        let tolerance = (subquantizers as f32 + 1.0) * step + 1e-3;
        for pair in found.windows(2) {
            assert!(pair[0].score <= pair[1].score);
            let (near, far) = (distance(pair[0].position), distance(pair[1].position));
            assert!(
                near <= far + tolerance,
                "D={dimension} M={subquantizers} K={centroids} {}: {near} {far}",
                metric.name()
            );
        }
        // And scores differ by as many steps as distances do.
        let (first, last) = (found[0], found[rows - 1]);
        let steps = f32::from(last.score - first.score);
        let expected = (distance(last.position) - distance(first.position)) / step.max(1e-20);
        assert!(
            (steps - expected).abs() <= subquantizers as f32 + 1.0 + 1e-3 / step.max(1e-20),
            "D={dimension} M={subquantizers} K={centroids} {}: {steps} {expected}",
            metric.name()
        );
    }
}

#[test]
fn four_bit_codes_of_every_metric_from_2_to_4096_dimensions() {
    for metric in Metric::ALL {
        for (dimension, subquantizers) in [
            (2, 1),
            (2, 2),
            (3, 2),
            (3, 3),
            (25, 25),
            (97, 32),
            (128, 64),
            (128, 128),
            (960, 120),
            (960, 128),
            (4096, 128),
        ] {
            check(dimension, subquantizers, 16, metric);
        }
    }
}

#[test]
fn eight_bit_codes_of_every_metric_from_2_to_4096_dimensions() {
    for metric in Metric::ALL {
        for (dimension, subquantizers) in
            [(2, 1), (3, 2), (100, 7), (960, 60), (960, 120), (4096, 64)]
        {
            check(dimension, subquantizers, 256, metric);
        }
    }
}

#[test]
fn few_centroids_are_four_bit_codes_too() {
    for centroids in [1, 2, 15] {
        check(6, 3, centroids, Metric::L2);
    }
}
