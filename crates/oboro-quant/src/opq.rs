//! Optimized product quantization: an orthogonal map, learned from the data,
//! after which sub-spaces are quantized with less error.
//!
//! The non-parametric method of Ge, He, Ke and Sun ("Optimized Product
//! Quantization", 2013): fit codebooks to the turned vectors, then turn the
//! vectors to fit what their codes stand for (the orthogonal Procrustes
//! problem), and again.

use crate::error::{check_finite, check_rows};
use crate::kmeans::{self, Job};
use crate::linear::{matrix, polar, product};
use crate::train::{in_pool, sample};
use crate::{Codebook, Progress, QuantError, Subspaces};
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zeroize::Zeroize;

/// First bytes of an encoded transform; the last is the format's version.
const MAGIC: [u8; 8] = *b"OBOPQTR\x01";

const HEADER: usize = MAGIC.len() + 4;

/// The largest dimension of a transform.
const MAX_DIMENSION: usize = 1 << 14;

/// Rounds of Lloyd's algorithm before the first turn, and after each.
const LLOYD: [usize; 2] = [8, 2];

/// How much of the present map is mixed into the Procrustes problem, as a
/// share of the mean singular value: directions in which the sample hardly
/// varies, or not at all, then stay as they are.
const INERTIA: f64 = 1e-4;

/// An orthogonal map that owner and clients apply to prepared vectors and
/// queries (see [`crate::Metric::prepare_base`]) before they are quantized.
///
/// It changes neither inner products nor distances. A secret rotation inside
/// sub-spaces comes after it and keeps what it gains; a full one would mix
/// again what it took apart, so learn the map from vectors already rotated in
/// full.
///
/// # Security
/// Learned from the vectors, and tells along which directions they vary. For
/// owner and clients only; wiped when dropped.
#[derive(Clone, PartialEq)]
pub struct OpqTransform {
    /// Row-major; a vector is a row and is multiplied from the left.
    values: Vec<f32>,
    dimension: usize,
}

impl Drop for OpqTransform {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

/// How a transform is learned.
#[derive(Clone)]
pub struct OpqOptions {
    /// Number of sub-quantizers, M, of the codes to come.
    pub subquantizers: usize,
    /// Number of centroids of each, K, at most 256.
    pub centroids: usize,
    /// Turns of the vectors.
    pub iterations: usize,
    /// Vectors to learn from, drawn without replacement; `None` for 64 per
    /// centroid, at least four per dimension and 4,096.
    pub sample: Option<usize>,
    /// What everything random is derived from.
    pub seed: [u8; 32],
    /// Size of the thread pool; 0 for the current one. The transform is the
    /// same for any on one kind of processor.
    pub threads: usize,
    /// Set it to stop.
    pub cancel: Arc<AtomicBool>,
    /// Hears of progress: turns done and in all.
    pub progress: Option<Progress>,
}

impl OpqOptions {
    /// The usual options: 20 turns.
    #[must_use]
    pub fn new(subquantizers: usize, centroids: usize, seed: [u8; 32]) -> Self {
        Self {
            subquantizers,
            centroids,
            iterations: 20,
            sample: None,
            seed,
            threads: 0,
            cancel: Arc::default(),
            progress: None,
        }
    }
}

/// What [`OpqTransform::train`] found.
pub struct TrainedOpq {
    /// The transform with the least distortion seen.
    pub transform: OpqTransform,
    /// Mean squared error of quantization on the sample, before the first
    /// turn and after each: the last over the first is the gain to expect.
    pub distortions: Vec<f64>,
}

impl OpqTransform {
    /// The map that changes nothing.
    ///
    /// # Errors
    /// When the dimension is zero or above 16,384.
    pub fn identity(dimension: usize) -> Result<Self, QuantError> {
        check_dimension(dimension)?;
        let mut values = vec![0.0; dimension * dimension];
        values
            .iter_mut()
            .step_by(dimension + 1)
            .for_each(|v| *v = 1.0);
        Ok(Self { values, dimension })
    }

    /// Learns a transform from rows of `dimension` values, already prepared
    /// for the metric.
    ///
    /// # Errors
    /// When the values are not whole rows or not finite, M is above the
    /// dimension, K above 256 or above the number of vectors, or the caller
    /// cancels.
    pub fn train(
        vectors: &[f32],
        dimension: usize,
        options: &OpqOptions,
    ) -> Result<TrainedOpq, QuantError> {
        let rows = check_rows(vectors, dimension)?;
        check_dimension(dimension)?;
        let subspaces = Subspaces::new(dimension, options.subquantizers)?;
        let centroids = options.centroids;
        if centroids == 0 || centroids > 256 {
            return Err(QuantError::Centroids { centroids });
        }
        let usual = (64 * centroids).max(4 * dimension).max(4096);
        let wanted = options.sample.unwrap_or(usual).min(rows);
        if wanted < centroids {
            return Err(QuantError::TooFewVectors {
                vectors: wanted,
                centroids,
            });
        }
        check_finite(vectors, dimension)?;
        let points: Vec<f32> = sample(rows, wanted, options.seed)
            .into_iter()
            .flat_map(|row| &vectors[row as usize * dimension..][..dimension])
            .copied()
            .collect();
        in_pool(options.threads, || {
            Turning {
                points,
                count: wanted,
                subspaces,
                options,
            }
            .run()
        })
    }

    /// Values of a vector.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        self.dimension
    }

    /// The matrix, row-major: a vector is a row and is multiplied from the
    /// left.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Transforms one vector in place.
    ///
    /// # Errors
    /// When the vector has another dimension.
    pub fn apply(&self, vector: &mut [f32]) -> Result<(), QuantError> {
        if vector.len() != self.dimension {
            return Err(QuantError::Mismatch {
                what: "the dimension of the vector",
                actual: vector.len(),
                expected: self.dimension,
            });
        }
        self.apply_rows(vector)
    }

    /// Transforms many vectors in place, row after row, in the current rayon
    /// pool; the result does not depend on its size.
    ///
    /// # Errors
    /// When the values are not whole vectors.
    pub fn apply_rows(&self, rows: &mut [f32]) -> Result<(), QuantError> {
        const ROWS: usize = 256;
        check_rows(rows, self.dimension)?;
        let map = matrix(&self.values, self.dimension, self.dimension);
        rows.par_chunks_mut(ROWS * self.dimension).for_each(|rows| {
            let mut before = rows.to_vec();
            let count = rows.len() / self.dimension;
            product(matrix(&before, count, self.dimension), map, rows);
            before.zeroize();
        });
        Ok(())
    }

    /// The transform as bytes: magic, dimension as a 32-bit and values as
    /// 32-bit little-endian numbers.
    ///
    /// # Security
    /// Seal them; see the type.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + 4 * self.values.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&(self.dimension as u32).to_le_bytes());
        for value in &self.values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are of another kind or version, truncated, too long, or
    /// not an orthogonal matrix's: rows that are no unit vectors are refused.
    /// That they are orthogonal is not checked, which would cost as much as
    /// learning.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, QuantError> {
        let (header, body) = bytes
            .split_at_checked(HEADER)
            .ok_or(QuantError::DecodeTransform("it is too short"))?;
        let (magic, dimension) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(QuantError::DecodeTransform(
                "it is of another kind or version",
            ));
        }
        let dimension =
            u32::from_le_bytes([dimension[0], dimension[1], dimension[2], dimension[3]]) as usize;
        check_dimension(dimension)?;
        if body.len() != 4 * dimension * dimension {
            return Err(QuantError::DecodeTransform(
                "its length does not fit its header",
            ));
        }
        let (words, _) = body.as_chunks::<4>();
        let values: Vec<f32> = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
        let unit = |row: &[f32]| {
            let square: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
            (square - 1.0).abs() < 1e-3
        };
        let transform = Self { values, dimension };
        if !transform.values.chunks_exact(dimension).all(unit) {
            return Err(QuantError::DecodeTransform("a row is not a unit vector"));
        }
        Ok(transform)
    }
}

fn check_dimension(dimension: usize) -> Result<(), QuantError> {
    if dimension == 0 || dimension > MAX_DIMENSION {
        return Err(QuantError::OutOfRange {
            what: "the dimension of a transform",
            actual: dimension,
            minimum: 1,
            maximum: MAX_DIMENSION,
        });
    }
    Ok(())
}

/// The alternation itself.
struct Turning<'a> {
    points: Vec<f32>,
    count: usize,
    subspaces: Subspaces,
    options: &'a OpqOptions,
}

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        self.points.zeroize();
    }
}

impl Turning<'_> {
    fn run(&self) -> Result<TrainedOpq, QuantError> {
        let dimension = self.subspaces.dimension();
        let mut map = OpqTransform::identity(dimension)?;
        let mut best = map.clone();
        let mut distortions: Vec<f64> = Vec::with_capacity(self.options.iterations + 1);
        let mut turned = self.points.clone();
        let mut codebook: Option<Codebook> = None;
        let mut correlation = vec![0.0; dimension * dimension];
        for turn in 0..=self.options.iterations {
            if self.options.cancel.load(Ordering::Relaxed) {
                return Err(QuantError::Cancelled);
            }
            let fitted = self.fit(&turned, codebook.as_ref())?;
            let decoded = fitted.decode(&fitted.encode(&turned)?)?;
            codebook = Some(fitted);
            let distortion = self.distance(&turned, &decoded);
            if distortions.iter().all(|&d| distortion < d) {
                best = map.clone();
            }
            distortions.push(distortion);
            if let Some(progress) = &self.options.progress {
                progress(turn as u64, self.options.iterations as u64);
            }
            if turn == self.options.iterations {
                break;
            }
            let points = matrix(&self.points, self.count, dimension);
            let decoded = matrix(&decoded, self.count, dimension);
            product(points.t(), decoded, &mut correlation);
            let squares: f64 = correlation
                .iter()
                .map(|&v| f64::from(v) * f64::from(v))
                .sum();
            let inertia = (INERTIA * (squares / dimension as f64).sqrt()) as f32;
            for (value, present) in correlation.iter_mut().zip(&map.values) {
                *value += inertia * present;
            }
            let Some(next) = polar(&correlation, dimension) else {
                // Nothing turns the vectors nearer to their codes.
                break;
            };
            map = OpqTransform {
                values: next,
                dimension,
            };
            product(
                points,
                matrix(&map.values, dimension, dimension),
                &mut turned,
            );
        }
        turned.zeroize();
        correlation.zeroize();
        Ok(TrainedOpq {
            transform: best,
            distortions,
        })
    }

    /// A codebook for the turned vectors, from the one before where there is
    /// one.
    fn fit(&self, turned: &[f32], before: Option<&Codebook>) -> Result<Codebook, QuantError> {
        let (dimension, width) = (self.subspaces.dimension(), self.subspaces.width());
        let centroids = self.options.centroids;
        let parts: Result<Vec<Vec<f32>>, QuantError> = (0..self.subspaces.count())
            .into_par_iter()
            .map(|m| {
                let range = self.subspaces.range(m);
                let used = range.len();
                let points: Vec<f32> = turned
                    .chunks_exact(dimension)
                    .flat_map(|row| &row[range.clone()])
                    .copied()
                    .collect();
                let job = Job {
                    points: &points,
                    width: used,
                    centroids,
                    iterations: LLOYD[usize::from(before.is_some())],
                    seed: self.options.seed,
                    stream: m as u64 + 1,
                    cancel: &self.options.cancel,
                    step: &|_| {},
                };
                let learned = match before {
                    None => kmeans::train(&job)?,
                    Some(before) => {
                        let mut start: Vec<f32> = before.values()[m * centroids * width..]
                            [..centroids * width]
                            .chunks_exact(width)
                            .flat_map(|c| &c[..used])
                            .copied()
                            .collect();
                        kmeans::refine(&job, &mut start)?;
                        start
                    }
                };
                let mut padded = vec![0.0; centroids * width];
                for (padded, c) in padded
                    .chunks_exact_mut(width)
                    .zip(learned.chunks_exact(used))
                {
                    padded[..used].copy_from_slice(c);
                }
                Ok(padded)
            })
            .collect();
        Codebook::from_values(self.subspaces, centroids, parts?.concat())
    }

    /// Mean squared distance of two sets of vectors.
    fn distance(&self, a: &[f32], b: &[f32]) -> f64 {
        let sum: f64 = a
            .iter()
            .zip(b)
            .map(|(a, b)| f64::from(a - b) * f64::from(a - b))
            .sum();
        sum / self.count as f64
    }
}

#[cfg(test)]
mod tests;
