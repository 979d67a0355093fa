//! The centres of lists.

use super::{Choices, check_lists};
use crate::error::{check_finite, check_rows};
use crate::kmeans::{self, Job};
use crate::metric::dot;
use crate::train::{in_pool, sample};
use crate::{Metric, Progress, QuantError};
use oboro_simd::Arch;
use oboro_simd::assign::{Transposed, assign, products};
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use zeroize::Zeroize;

/// Rows that a thread works on at a time.
const ROWS: usize = 1024;

/// How coarse centroids are trained.
#[derive(Clone)]
pub struct CoarseOptions {
    /// Number of lists.
    pub lists: usize,
    /// Most rounds of Lloyd's algorithm.
    pub iterations: usize,
    /// Vectors to train on, drawn without replacement; `None` for 64 a list.
    pub sample: Option<usize>,
    /// What everything random is derived from.
    pub seed: [u8; 32],
    /// Size of the thread pool; 0 for the current one. The centroids are the
    /// same for any.
    pub threads: usize,
    /// Set it to stop.
    pub cancel: Arc<AtomicBool>,
    /// Hears of progress.
    pub progress: Option<Progress>,
}

impl CoarseOptions {
    /// The usual options: 10 rounds on 64 vectors a list.
    #[must_use]
    pub fn new(lists: usize, seed: [u8; 32]) -> Self {
        Self {
            lists,
            iterations: 10,
            sample: None,
            seed,
            threads: 0,
            cancel: Arc::default(),
            progress: None,
        }
    }
}

/// The centres of lists.
///
/// # Security
/// They tell where vectors lie. For owner and clients only; wiped when
/// dropped.
pub struct CoarseCentroids {
    /// `[list][dimension]`
    values: Vec<f32>,
    dimension: usize,
}

impl Drop for CoarseCentroids {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

impl CoarseCentroids {
    /// Learns centroids from rows of `dimension` values, already prepared for
    /// the metric.
    ///
    /// # Errors
    /// When the values are not whole rows or not finite, there are no lists,
    /// too many, or more than vectors, or the caller cancels.
    pub fn train(
        vectors: &[f32],
        dimension: usize,
        options: &CoarseOptions,
    ) -> Result<Self, QuantError> {
        let rows = check_rows(vectors, dimension)?;
        let lists = options.lists;
        check_lists(lists)?;
        let wanted = options.sample.unwrap_or(64 * lists).min(rows);
        if wanted < lists {
            return Err(QuantError::TooFewVectors {
                vectors: wanted,
                centroids: lists,
            });
        }
        check_finite(vectors, dimension)?;
        let mut points: Vec<f32> = sample(rows, wanted, options.seed)
            .into_iter()
            .flat_map(|row| &vectors[row as usize * dimension..][..dimension])
            .copied()
            .collect();
        let done = AtomicU64::new(0);
        let total = options.iterations as u64 + 1;
        let step = |count: u64| {
            let done = done.fetch_add(count, Ordering::Relaxed) + count;
            if let Some(progress) = &options.progress {
                progress(done, total);
            }
        };
        let values = in_pool(options.threads, || {
            kmeans::train(&Job {
                points: &points,
                width: dimension,
                centroids: lists,
                iterations: options.iterations,
                seed: options.seed,
                stream: 1,
                cancel: &options.cancel,
                step: &step,
            })
        });
        points.zeroize();
        Ok(Self {
            values: values?,
            dimension,
        })
    }

    /// Centroids that were learned before, row after row.
    ///
    /// # Errors
    /// When the values are not whole rows or not finite, or there are none or
    /// too many.
    pub fn from_values(values: Vec<f32>, dimension: usize) -> Result<Self, QuantError> {
        check_lists(check_rows(&values, dimension)?)?;
        check_finite(&values, dimension)?;
        Ok(Self { values, dimension })
    }

    /// Number of lists.
    #[must_use]
    pub const fn lists(&self) -> usize {
        self.values.len() / self.dimension
    }

    /// Values of a vector.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        self.dimension
    }

    /// The centroids, row after row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The list of the nearest centroid of every vector. For vectors that come
    /// later, where lists have room to grow; see [`Self::assign_balanced`].
    ///
    /// # Errors
    /// When the values are not whole vectors or not finite.
    pub fn assign(&self, vectors: &[f32]) -> Result<Vec<u32>, QuantError> {
        let rows = check_rows(vectors, self.dimension)?;
        check_finite(vectors, self.dimension)?;
        let table = self.transposed();
        let mut indexes = vec![0u32; rows];
        indexes
            .par_chunks_mut(ROWS)
            .zip(vectors.par_chunks(ROWS * self.dimension))
            .for_each(|(indexes, vectors)| {
                let mut values = [0f32; ROWS];
                let values = &mut values[..indexes.len()];
                let width = self.dimension;
                assign(Arch::detect(), vectors, width, &table, indexes, values);
            });
        Ok(indexes)
    }

    /// A list for every vector such that none has more than
    /// `slack * vectors / lists`, rounded up to whole blocks: what lists are
    /// padded to. With a slack of 1 padding is least and more vectors lie in a
    /// list that is not their nearest.
    ///
    /// A full list keeps the vectors nearest to its centroid, the others go to
    /// the nearest of their next choices that takes them (Gale and Shapley's
    /// deferred acceptance); so the result does not depend on the order, but
    /// for ties.
    ///
    /// # Errors
    /// When the values are not whole vectors or not finite, or the slack is
    /// below 1.
    pub fn assign_balanced(&self, vectors: &[f32], slack: f64) -> Result<Vec<u32>, QuantError> {
        let mut choices = self.choices();
        choices.add(self, vectors)?;
        let row = |&vector: &usize| &vectors[vector * self.dimension..][..self.dimension];
        choices.balanced(self, slack, |homeless| {
            Ok(homeless.iter().flat_map(row).copied().collect())
        })
    }

    /// The same for vectors that come in parts and are not kept: [`Choices::add`] takes
    /// them in, [`Choices::balanced`] gives the lists.
    #[must_use]
    pub fn choices(&self) -> Choices {
        Choices::new(self.lists())
    }

    /// For each vector the nearest `choices` lists, nearest first, each with
    /// the bits of its squared distance, which order as the distance does.
    pub(super) fn nearest_lists(&self, vectors: &[f32], choices: usize) -> Vec<(u32, u32)> {
        let rows = vectors.len() / self.dimension;
        let lists = self.lists();
        let padded = lists.next_multiple_of(16);
        let table = self.transposed();
        // Values of a chunk for all lists stay in the second-level cache.
        let chunk = ((1 << 18) / padded).clamp(1, ROWS);
        let mut near = vec![(0u32, 0u32); rows * choices];
        near.par_chunks_mut(chunk * choices)
            .zip(vectors.par_chunks(chunk * self.dimension))
            .for_each(|(near, vectors)| {
                let mut values = vec![0f32; vectors.len() / self.dimension * padded];
                products(Arch::detect(), vectors, &table, &mut values);
                for ((near, row), values) in near
                    .chunks_exact_mut(choices)
                    .zip(vectors.chunks_exact(self.dimension))
                    .zip(values.chunks_exact(padded))
                {
                    let norm = dot(row, row);
                    let key = |list: usize| {
                        let distance = (2.0 * values[list] + norm).max(0.0);
                        (distance.to_bits(), list as u32)
                    };
                    let mut kept: Vec<(u32, u32)> = (0..lists).map(key).collect();
                    if choices < lists {
                        kept.select_nth_unstable(choices);
                        kept.truncate(choices);
                    }
                    kept.sort_unstable();
                    near.copy_from_slice(&kept);
                }
            });
        near
    }

    /// The `probes` lists to search for a prepared query, most similar
    /// centroid first.
    ///
    /// # Errors
    /// When the query has another dimension, or there are not that many lists.
    ///
    /// # Security
    /// The result tells the query's neighbourhood; see the [module](super).
    pub fn probes(
        &self,
        query: &[f32],
        metric: Metric,
        probes: usize,
    ) -> Result<Vec<u32>, QuantError> {
        if query.len() != self.dimension {
            return Err(QuantError::Mismatch {
                what: "the dimension of the query",
                actual: query.len(),
                expected: self.dimension,
            });
        }
        if probes == 0 || probes > self.lists() {
            return Err(QuantError::OutOfRange {
                what: "the number of lists to probe",
                actual: probes,
                minimum: 1,
                maximum: self.lists(),
            });
        }
        let mut order: Vec<(f32, u32)> = self
            .values
            .chunks_exact(self.dimension)
            .zip(0..)
            .map(|(c, list)| {
                let offset = if metric.has_offsets() {
                    dot(c, c) / 2.0
                } else {
                    0.0
                };
                (offset - dot(query, c), list)
            })
            .collect();
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        Ok(order[..probes].iter().map(|&(_, list)| list).collect())
    }

    fn transposed(&self) -> Transposed {
        Transposed::with_half_norms(&self.values, self.lists(), self.dimension, self.dimension)
    }
}
