#![allow(clippy::unwrap_used)]

use super::*;
use crate::TrainOptions;
use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

/// Coordinates of falling variance, mixed by random reflections: what a cut
/// into runs of coordinates quantizes badly.
fn vectors(rows: usize, dimension: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let unit = |rng: &mut ChaCha20Rng| (rng.next_u64() >> 40) as f32 / (1 << 24) as f32 - 0.5;
    let axes: Vec<Vec<f32>> = (0..4)
        .map(|_| (0..dimension).map(|_| unit(&mut rng)).collect())
        .collect();
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    (0..rows)
        .flat_map(|_| {
            let mut row: Vec<f32> = (0..dimension)
                .map(|j| (unit(&mut rng) + unit(&mut rng)) * 0.8f32.powi(j as i32))
                .collect();
            for axis in &axes {
                let square: f32 = axis.iter().map(|v| v * v).sum();
                let dot: f32 = axis.iter().zip(&row).map(|(a, b)| a * b).sum();
                for (value, a) in row.iter_mut().zip(axis) {
                    *value -= 2.0 * dot / square * a;
                }
            }
            row
        })
        .collect()
}

fn options(subquantizers: usize, centroids: usize) -> OpqOptions {
    OpqOptions::new(subquantizers, centroids, [5; 32])
}

/// How far the matrix times its transpose is from the identity.
fn off(transform: &OpqTransform) -> f32 {
    let dimension = transform.dimension();
    let rows: Vec<&[f32]> = transform.values().chunks_exact(dimension).collect();
    let mut off = 0f32;
    for (i, a) in rows.iter().enumerate() {
        for (j, b) in rows.iter().enumerate() {
            let dot: f32 = a.iter().zip(*b).map(|(a, b)| a * b).sum();
            off = off.max((dot - if i == j { 1.0 } else { 0.0 }).abs());
        }
    }
    off
}

#[test]
fn mixed_vectors_are_quantized_with_less_error_on_others_too() {
    let (dimension, subquantizers, centroids) = (16, 4, 16);
    let data = vectors(3000, dimension, 1);
    let trained =
        OpqTransform::train(&data, dimension, &options(subquantizers, centroids)).unwrap();
    assert_eq!(trained.distortions.len(), 21);
    assert!(off(&trained.transform) < 1e-5);
    let others = vectors(1000, dimension, 2);
    let error = |transform: Option<&OpqTransform>| {
        let (mut data, mut others) = (data.clone(), others.clone());
        if let Some(transform) = transform {
            transform.apply_rows(&mut data).unwrap();
            transform.apply_rows(&mut others).unwrap();
        }
        let train = TrainOptions::new(subquantizers, centroids, [1; 32]);
        let codebook = Codebook::train(&data, dimension, &train).unwrap();
        codebook.distortion(&others).unwrap()
    };
    let (plain, turned) = (error(None), error(Some(&trained.transform)));
    assert!(turned < 0.8 * plain, "{turned} {plain}");
    let (first, last) = (trained.distortions[0], trained.distortions[20]);
    assert!(last < 0.8 * first, "{:?}", trained.distortions);
}

#[test]
fn distances_and_inner_products_stay() {
    let dimension = 10;
    let data = vectors(500, dimension, 3);
    let trained = OpqTransform::train(&data, dimension, &options(3, 8)).unwrap();
    let mut turned = data.clone();
    trained.transform.apply_rows(&mut turned).unwrap();
    assert_ne!(turned, data);
    for i in (0..490).step_by(7) {
        let row = |data: &[f32], i: usize| data[i * dimension..][..dimension].to_vec();
        for metric in [crate::Metric::L2, crate::Metric::InnerProduct] {
            let before = metric.distance(&row(&data, i), &row(&data, i + 9));
            let after = metric.distance(&row(&turned, i), &row(&turned, i + 9));
            assert!((before - after).abs() < 1e-5, "{before} {after}");
        }
        // One vector alone becomes the same bits as in a batch.
        let mut one = row(&data, i);
        trained.transform.apply(&mut one).unwrap();
        assert_eq!(one, row(&turned, i));
    }
}

#[test]
fn training_does_not_depend_on_threads() {
    for (dimension, subquantizers) in [(8, 2), (13, 4)] {
        let data = vectors(900, dimension, 4);
        let train = |threads| {
            let options = OpqOptions {
                threads,
                iterations: 4,
                ..options(subquantizers, 16)
            };
            let trained = OpqTransform::train(&data, dimension, &options).unwrap();
            (trained.transform.to_bytes(), trained.distortions)
        };
        let one = train(1);
        assert!(one == train(2) && one == train(3));
    }
}

/// Constant coordinates, equal vectors, fewer vectors than coordinates, one
/// and two coordinates: always an orthogonal map that does no harm.
#[test]
fn degenerate_data_gives_an_orthogonal_map() {
    let mut constant = vectors(300, 12, 5);
    constant
        .chunks_exact_mut(12)
        .for_each(|row| row[3..9].fill(0.0));
    for (data, dimension, subquantizers, centroids) in [
        (constant, 12, 4, 16),
        (vec![0.0; 80], 4, 2, 4),
        (vec![2.5; 80], 4, 2, 4),
        (vectors(20, 64, 6), 64, 8, 16),
        (vectors(50, 1, 7), 1, 1, 16),
        (vectors(50, 2, 7), 2, 2, 16),
        (vectors(50, 3, 7), 3, 2, 16),
    ] {
        let options = OpqOptions {
            iterations: 5,
            ..options(subquantizers, centroids)
        };
        let trained = OpqTransform::train(&data, dimension, &options).unwrap();
        assert!(off(&trained.transform) < 1e-5, "{dimension}");
        let least = trained.distortions.iter().copied().fold(f64::MAX, f64::min);
        assert!(least <= trained.distortions[0]);
    }
}

#[test]
fn bytes_round_trip() {
    let data = vectors(200, 6, 8);
    let transform = OpqTransform::train(&data, 6, &options(2, 8))
        .unwrap()
        .transform;
    let again = OpqTransform::from_bytes(&transform.to_bytes()).unwrap();
    assert!(again == transform);
}

#[test]
fn fail_bytes_truncated_trailing_oversized_or_flipped() {
    let bytes = OpqTransform::identity(3).unwrap().to_bytes();
    for len in 0..bytes.len() {
        assert!(OpqTransform::from_bytes(&bytes[..len]).is_err(), "{len}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(OpqTransform::from_bytes(&longer).is_err());
    for dimension in [0, 2, 4, 16_385, 65_536, u32::MAX] {
        let mut bytes = bytes.clone();
        bytes[8..12].copy_from_slice(&dimension.to_le_bytes());
        assert!(OpqTransform::from_bytes(&bytes).is_err(), "{dimension}");
    }
    // Every flip in magic, dimension and the exponents of the ones; low bits
    // of a value make another map, which is what sealing is for.
    for at in (0..12).chain([14, 15]) {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            let flipped = OpqTransform::from_bytes(&bytes);
            // The sign of a one may flip: that is a reflection.
            assert!(flipped.is_err() || (at, bit) == (15, 7), "{at} {bit}");
        }
    }
    for value in [f32::NAN, f32::INFINITY, 2.0] {
        let mut bytes = bytes.clone();
        bytes[12..16].copy_from_slice(&value.to_le_bytes());
        assert!(OpqTransform::from_bytes(&bytes).is_err());
    }
}

#[test]
fn fail_vectors_of_another_dimension() {
    let transform = OpqTransform::identity(4).unwrap();
    assert!(transform.apply(&mut [0.0; 8]).is_err());
    assert!(transform.apply(&mut [0.0; 3]).is_err());
    assert!(transform.apply_rows(&mut [0.0; 9]).is_err());
    assert!(OpqTransform::identity(0).is_err());
}

#[test]
fn fail_options_and_data_that_do_not_fit() {
    let data = vectors(100, 6, 8);
    assert!(OpqTransform::train(&data, 7, &options(2, 8)).is_err());
    assert!(OpqTransform::train(&data, 6, &options(7, 8)).is_err());
    assert!(OpqTransform::train(&data, 6, &options(2, 257)).is_err());
    assert!(OpqTransform::train(&data, 6, &options(2, 101)).is_err());
    let mut bad = data.clone();
    bad[17] = f32::NAN;
    assert_eq!(
        OpqTransform::train(&bad, 6, &options(2, 8)).err(),
        Some(QuantError::NotFinite { row: 2 })
    );
    let cancelled = options(2, 8);
    cancelled.cancel.store(true, Ordering::Relaxed);
    assert_eq!(
        OpqTransform::train(&data, 6, &cancelled).err(),
        Some(QuantError::Cancelled)
    );
}
