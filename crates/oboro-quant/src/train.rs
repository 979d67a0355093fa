//! Training of codebooks.

use crate::error::{check_finite, check_rows};
use crate::kmeans::{self, Job};
use crate::{Codebook, QuantError, Subspaces};
use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Called with the steps done and the steps in all; from several threads.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// How a codebook is trained.
#[derive(Clone)]
pub struct TrainOptions {
    /// Number of sub-quantizers, M: the bytes of a code.
    pub subquantizers: usize,
    /// Number of centroids of each, K, at most 256.
    pub centroids: usize,
    /// Most rounds of Lloyd's algorithm; training stops early when the
    /// distortion no longer falls.
    pub iterations: usize,
    /// Vectors to train on, drawn without replacement; `None` for 256 per
    /// centroid.
    pub sample: Option<usize>,
    /// What everything random is derived from.
    pub seed: [u8; 32],
    /// Size of the thread pool; 0 for the current one. The codebook is the
    /// same for any.
    pub threads: usize,
    /// Set it to stop.
    pub cancel: Arc<AtomicBool>,
    /// Hears of progress.
    pub progress: Option<Progress>,
}

impl TrainOptions {
    /// The usual options: 25 iterations on 256 vectors per centroid.
    #[must_use]
    pub fn new(subquantizers: usize, centroids: usize, seed: [u8; 32]) -> Self {
        Self {
            subquantizers,
            centroids,
            iterations: 25,
            sample: None,
            seed,
            threads: 0,
            cancel: Arc::default(),
            progress: None,
        }
    }
}

impl Codebook {
    /// Learns a codebook from rows of `dimension` values, already prepared
    /// for the metric. Fewer rows than centroids are the centroids, some of
    /// them more than once.
    ///
    /// # Errors
    /// When the values are not whole rows or not finite, there are none, M is
    /// above the dimension, K above 256 or above the sample asked for, or the
    /// caller cancels.
    pub fn train(
        vectors: &[f32],
        dimension: usize,
        options: &TrainOptions,
    ) -> Result<Self, QuantError> {
        let rows = check_rows(vectors, dimension)?;
        let subspaces = Subspaces::new(dimension, options.subquantizers)?;
        let centroids = options.centroids;
        if centroids == 0 || centroids > 256 {
            return Err(QuantError::Centroids { centroids });
        }
        let wanted = options.sample.unwrap_or(256 * centroids).min(rows);
        let all = rows > 0 && rows < centroids && wanted == rows;
        if wanted < centroids && !all {
            return Err(QuantError::TooFewVectors {
                vectors: wanted,
                centroids,
            });
        }
        check_finite(vectors, dimension)?;
        let chosen = if all {
            (0..rows as u32).cycle().take(centroids).collect()
        } else {
            sample(rows, wanted, options.seed)
        };
        let steps = AtomicU64::new(0);
        let total = subspaces.count() as u64 * (options.iterations as u64 + 1);
        let step = |count: u64| {
            let done = steps.fetch_add(count, Ordering::Relaxed) + count;
            if let Some(progress) = &options.progress {
                progress(done, total);
            }
        };
        let parts: Result<Vec<Vec<f32>>, QuantError> = in_pool(options.threads, || {
            (0..subspaces.count())
                .into_par_iter()
                .map(|m| {
                    let range = subspaces.range(m);
                    let width = range.len();
                    let points: Vec<f32> = chosen
                        .iter()
                        .flat_map(|&row| {
                            let start = row as usize * dimension + range.start;
                            vectors[start..start + width].iter().copied()
                        })
                        .collect();
                    let learned = if all {
                        step(options.iterations as u64 + 1);
                        points
                    } else {
                        kmeans::train(&Job {
                            points: &points,
                            width,
                            centroids,
                            iterations: options.iterations,
                            seed: options.seed,
                            // Stream 0 draws the sample.
                            stream: m as u64 + 1,
                            cancel: &options.cancel,
                            step: &step,
                        })?
                    };
                    let mut padded = vec![0.0; centroids * subspaces.width()];
                    for (padded, c) in padded
                        .chunks_exact_mut(subspaces.width())
                        .zip(learned.chunks_exact(width))
                    {
                        padded[..width].copy_from_slice(c);
                    }
                    Ok(padded)
                })
                .collect()
        });
        Self::from_values(subspaces, centroids, parts?.concat())
    }
}

/// Distinct row numbers, ascending: Floyd's algorithm.
pub(crate) fn sample(rows: usize, wanted: usize, seed: [u8; 32]) -> Vec<u32> {
    if wanted == rows {
        return (0..rows as u32).collect();
    }
    let mut rng = ChaCha20Rng::from_seed(seed);
    let mut chosen = std::collections::BTreeSet::new();
    for last in rows - wanted..rows {
        let drawn = below(&mut rng, last as u64 + 1) as u32;
        if !chosen.insert(drawn) {
            chosen.insert(last as u32);
        }
    }
    chosen.into_iter().collect()
}

/// A number below `bound`, each within 2^-64 of equally likely.
pub(crate) fn below(rng: &mut impl Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// Runs `work` in a pool of `threads`, or in the current one for 0.
pub(crate) fn in_pool<R: Send>(
    threads: usize,
    work: impl FnOnce() -> Result<R, QuantError> + Send,
) -> Result<R, QuantError> {
    if threads == 0 {
        return work();
    }
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(work),
        // No thread can be had: the current pool gives the same result.
        Err(_) => work(),
    }
}
