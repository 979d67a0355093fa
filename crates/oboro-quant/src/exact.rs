//! Exact search, to measure everything else against.

use crate::error::{check_finite, check_rows};
use crate::metric::dot;
use crate::{Metric, QuantError};
use oboro_simd::Arch;
use oboro_simd::assign::{Transposed, products};
use rayon::prelude::*;
use std::collections::BinaryHeap;

/// Rows of the base that are transposed together.
const SPAN: usize = 16_384;

/// Rows of the base whose products a thread computes at a time.
const ROWS: usize = 512;

/// Queries that a thread takes at a time.
const QUERIES: usize = 16;

/// The `k` nearest of every query: `(distances, ids)`, each `queries * k`
/// values, ascending by distance and then id; ids are row numbers of `base`.
///
/// `base` and `queries` are rows of `dimension` values in the caller's space;
/// they need not be prepared for the metric. With fewer rows than `k`, each
/// query has as many results as there are rows. `threads` is the size of the
/// pool, 0 for the current one.
///
/// # Errors
/// When the values are not whole rows or not finite, or `k` is zero.
pub fn search(
    base: &[f32],
    dimension: usize,
    queries: &[f32],
    k: usize,
    metric: Metric,
    threads: usize,
) -> Result<(Vec<f32>, Vec<u64>), QuantError> {
    let rows = check_rows(base, dimension)?;
    check_rows(queries, dimension)?;
    check_finite(base, dimension)?;
    check_finite(queries, dimension)?;
    if k == 0 || rows > u32::MAX as usize {
        return Err(QuantError::OutOfRange {
            what: "the number of neighbours",
            actual: k,
            minimum: 1,
            maximum: rows,
        });
    }
    let k = k.min(rows);
    crate::train::in_pool(threads, || {
        search_in_pool(base, dimension, queries, k, metric)
    })
}

fn search_in_pool(
    base: &[f32],
    dimension: usize,
    queries: &[f32],
    k: usize,
    metric: Metric,
) -> Result<(Vec<f32>, Vec<u64>), QuantError> {
    let arch = Arch::detect();
    let count = queries.len() / dimension;
    // Prepared products decide who is kept, with some to spare for their
    // rounding; the distances themselves decide the order.
    let spare = k + 16 + k / 8;
    let mut prepared = queries.to_vec();
    for query in prepared.chunks_exact_mut(dimension) {
        metric.prepare_query(query);
    }
    let mut heaps: Vec<BinaryHeap<u64>> = (0..count).map(|_| BinaryHeap::new()).collect();
    for (span, values) in base.chunks(SPAN * dimension).enumerate() {
        let tiles: Vec<Transposed> = values
            .par_chunks(ROWS * dimension)
            .map(|tile| transpose(tile, dimension, metric))
            .collect();
        heaps
            .par_chunks_mut(QUERIES)
            .zip(prepared.par_chunks(QUERIES * dimension))
            .for_each_init(Vec::new, |out, (heaps, queries)| {
                for (tile, rows) in tiles.iter().enumerate() {
                    let padded = rows.count().next_multiple_of(16);
                    out.clear();
                    out.resize(heaps.len() * padded, 0.0f32);
                    products(arch, queries, rows, out);
                    let first = span * SPAN + tile * ROWS;
                    for (heap, out) in heaps.iter_mut().zip(out.chunks_exact(padded)) {
                        keep_best(heap, &out[..rows.count()], first, spare);
                    }
                }
            });
    }
    let results: Vec<Vec<(f32, u64)>> = heaps
        .into_par_iter()
        .zip(queries.par_chunks_exact(dimension))
        .map(|(heap, query)| {
            let mut found: Vec<(f32, u64)> = heap
                .into_iter()
                .map(|key| {
                    let id = (key & 0xffff_ffff) as usize;
                    let row = &base[id * dimension..][..dimension];
                    (metric.distance(query, row), id as u64)
                })
                .collect();
            found.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            found.truncate(k);
            found
        })
        .collect();
    Ok(results.into_iter().flatten().unzip())
}

fn transpose(tile: &[f32], dimension: usize, metric: Metric) -> Transposed {
    let rows = tile.len() / dimension;
    if metric == Metric::L2 {
        return Transposed::with_half_norms(tile, rows, dimension, dimension);
    }
    let offsets = vec![0.0; rows];
    if metric == Metric::Cosine {
        let mut unit = tile.to_vec();
        for row in unit.chunks_exact_mut(dimension) {
            let norm = dot(row, row).sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|v| *v /= norm);
            }
        }
        return Transposed::new(&unit, rows, dimension, dimension, &offsets);
    }
    Transposed::new(tile, rows, dimension, dimension, &offsets)
}

/// Bits that order as the numbers do.
fn ordered(value: f32) -> u32 {
    let bits = value.to_bits();
    bits ^ ((bits as i32 >> 31) as u32 | 0x8000_0000)
}

/// The number of these [`ordered`] bits.
fn from_ordered(bits: u32) -> f32 {
    f32::from_bits(bits ^ (!(bits as i32 >> 31) as u32 | 0x8000_0000))
}

fn keep_best(heap: &mut BinaryHeap<u64>, values: &[f32], first: usize, keep: usize) {
    let mut limit = match heap.peek() {
        Some(&key) if heap.len() == keep => from_ordered((key >> 32) as u32),
        _ => f32::INFINITY,
    };
    for (chunk, values) in values.chunks(16).enumerate() {
        if !values
            .iter()
            .fold(false, |any, &value| any | (value <= limit))
        {
            continue;
        }
        for (i, &value) in values.iter().enumerate() {
            if value <= limit {
                let key = u64::from(ordered(value)) << 32 | (first + chunk * 16 + i) as u64;
                heap.push(key);
                if heap.len() > keep {
                    heap.pop();
                }
                if heap.len() == keep
                    && let Some(&key) = heap.peek()
                {
                    limit = from_ordered((key >> 32) as u32);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn vectors(rows: usize, dimension: usize, seed: u64) -> Vec<f32> {
        let mut state = seed | 1;
        (0..rows * dimension)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                // Few values, so that ties are frequent.
                ((state >> 60) as f32) - 7.5
            })
            .collect()
    }

    #[test]
    fn ordered_bits_order_as_numbers_do() {
        let numbers = [
            f32::NEG_INFINITY,
            -3.0,
            -1e-20,
            0.0,
            1e-20,
            2.5,
            f32::INFINITY,
        ];
        for pair in numbers.windows(2) {
            assert!(ordered(pair[0]) < ordered(pair[1]));
        }
        for number in numbers {
            assert_eq!(from_ordered(ordered(number)), number);
        }
    }

    #[test]
    fn agrees_with_sorting_all_distances() {
        for (rows, dimension, k) in [(1, 3, 5), (700, 2, 10), (1500, 17, 40), (100, 97, 100)] {
            let base = vectors(rows, dimension, 3);
            let queries = vectors(19, dimension, 5);
            for metric in Metric::ALL {
                let (distances, ids) = search(&base, dimension, &queries, k, metric, 2).unwrap();
                let found = k.min(rows);
                for (q, query) in queries.chunks_exact(dimension).enumerate() {
                    let mut all: Vec<(f32, u64)> = base
                        .chunks_exact(dimension)
                        .enumerate()
                        .map(|(id, row)| (metric.distance(query, row), id as u64))
                        .collect();
                    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    let expected: Vec<f32> = all[..found].iter().map(|x| x.0).collect();
                    // Cosines that are equal but for rounding may outnumber the
                    // spare candidates here; the others are exact.
                    for (distance, expected) in distances[q * found..].iter().zip(&expected) {
                        let slack = if metric == Metric::Cosine { 1e-6 } else { 0.0 };
                        assert!((distance - expected).abs() <= slack);
                    }
                    if metric != Metric::Cosine {
                        let expected: Vec<u64> = all[..found].iter().map(|x| x.1).collect();
                        assert_eq!(ids[q * found..][..found], expected);
                    }
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_the_result() {
        let base = vectors(2000, 8, 7);
        let queries = vectors(40, 8, 9);
        let one = search(&base, 8, &queries, 10, Metric::L2, 1).unwrap();
        assert_eq!(one, search(&base, 8, &queries, 10, Metric::L2, 2).unwrap());
    }

    #[test]
    fn fail_bad_input() {
        assert!(search(&[1.0; 5], 2, &[1.0; 2], 1, Metric::L2, 1).is_err());
        assert!(search(&[1.0; 4], 2, &[1.0; 3], 1, Metric::L2, 1).is_err());
        assert!(search(&[1.0; 4], 2, &[1.0; 2], 0, Metric::L2, 1).is_err());
        assert_eq!(
            search(&[1.0, 1.0, f32::NAN, 1.0], 2, &[1.0; 2], 1, Metric::L2, 1),
            Err(QuantError::NotFinite { row: 1 })
        );
    }
}
