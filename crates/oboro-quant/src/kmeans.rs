//! k-means: k-means++ seeding, Lloyd's rounds, repair of empty clusters.
//!
//! Sums are added in the order of the points, in double precision, so the
//! result is the same bits whatever runs beside it.

use crate::QuantError;
use crate::train::below;
use chacha20::ChaCha20Rng;
use oboro_simd::Arch;
use oboro_simd::assign::{Transposed, assign};
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// Points that a thread assigns at a time.
const CHUNK: usize = 8192;

/// Rounds end when the distortion falls by less than this share.
const IMPROVEMENT: f64 = 1e-4;

/// One k-means problem.
pub(crate) struct Job<'a> {
    /// Rows of `width` values.
    pub(crate) points: &'a [f32],
    pub(crate) width: usize,
    pub(crate) centroids: usize,
    pub(crate) iterations: usize,
    pub(crate) seed: [u8; 32],
    /// The stream of the seed that belongs to this job.
    pub(crate) stream: u64,
    pub(crate) cancel: &'a AtomicBool,
    /// Hears of steps done: one for seeding, one for each round.
    pub(crate) step: &'a (dyn Fn(u64) + Sync),
}

/// Learns `centroids * width` values.
pub(crate) fn train(job: &Job<'_>) -> Result<Vec<f32>, QuantError> {
    let mut rng = ChaCha20Rng::from_seed(job.seed);
    rng.set_stream(job.stream);
    let mut centroids = seed_centroids(job, &mut rng)?;
    (job.step)(1);
    refine(job, &mut centroids)?;
    Ok(centroids)
}

/// Lloyd's rounds from given centroids.
pub(crate) fn refine(job: &Job<'_>, centroids: &mut [f32]) -> Result<(), QuantError> {
    let count = job.points.len() / job.width;
    let mut indexes = vec![0u32; count];
    let mut values = vec![0f32; count];
    let norms: Vec<f64> = job
        .points
        .chunks_exact(job.width)
        .map(|p| p.iter().map(|&v| f64::from(v) * f64::from(v)).sum())
        .collect();
    let mut previous = f64::INFINITY;
    for round in 0..job.iterations {
        check_cancelled(job)?;
        assign_all(job, centroids, &mut indexes, &mut values);
        let distortion: f64 = values
            .iter()
            .zip(&norms)
            .map(|(&v, n)| (2.0 * f64::from(v) + n).max(0.0))
            .sum();
        update(job, &mut indexes, &values, &norms, centroids);
        // Repairs and rounding may raise the distortion a little; going on
        // would gain nothing either.
        if previous - distortion <= IMPROVEMENT * distortion {
            (job.step)((job.iterations - round) as u64);
            break;
        }
        previous = distortion;
        (job.step)(1);
    }
    Ok(())
}

fn check_cancelled(job: &Job<'_>) -> Result<(), QuantError> {
    if job.cancel.load(Ordering::Relaxed) {
        Err(QuantError::Cancelled)
    } else {
        Ok(())
    }
}

/// k-means++: each centroid is a point drawn with probability proportional to
/// its squared distance from those already drawn.
fn seed_centroids(job: &Job<'_>, rng: &mut ChaCha20Rng) -> Result<Vec<f32>, QuantError> {
    let (width, count) = (job.width, job.points.len() / job.width);
    // Coordinate by coordinate, so that distances of many points add up side
    // by side.
    let mut columns = vec![0f32; job.points.len()];
    for (i, point) in job.points.chunks_exact(width).enumerate() {
        for (j, &value) in point.iter().enumerate() {
            columns[j * count + i] = value;
        }
    }
    let mut nearest = vec![f32::INFINITY; count];
    let mut centroids = Vec::with_capacity(job.centroids * width);
    let mut drawn = below(rng, count as u64) as usize;
    loop {
        let centroid = &job.points[drawn * width..][..width];
        centroids.extend_from_slice(centroid);
        if centroids.len() == job.centroids * width {
            return Ok(centroids);
        }
        if (centroids.len() / width).is_multiple_of(16) {
            check_cancelled(job)?;
        }
        let sums = shrink_distances(&columns, centroid, &mut nearest);
        let total: f64 = sums.iter().sum();
        drawn = if total > 0.0 {
            draw(rng, &sums, total, &nearest)
        } else {
            // Every point equals a centroid already.
            below(rng, count as u64) as usize
        };
    }
}

/// Points whose distances are summed together.
const SPAN: usize = 256;

/// Lowers `nearest` to the distance from `centroid` where that is smaller;
/// returns the sums over spans of points.
fn shrink_distances(columns: &[f32], centroid: &[f32], nearest: &mut [f32]) -> Vec<f64> {
    let count = nearest.len();
    Arch::detect().vectorize(
        #[inline(always)]
        || {
            nearest
                .chunks_mut(SPAN)
                .enumerate()
                .map(|(span, nearest)| {
                    let mut distance = [0f32; SPAN];
                    let distance = &mut distance[..nearest.len()];
                    for (column, &c) in columns.chunks_exact(count).zip(centroid) {
                        let column = &column[span * SPAN..][..nearest.len()];
                        for (distance, &x) in distance.iter_mut().zip(column) {
                            *distance += (x - c) * (x - c);
                        }
                    }
                    let mut lanes = [0f32; 16];
                    for (i, (nearest, &distance)) in nearest.iter_mut().zip(&*distance).enumerate()
                    {
                        let least = if distance < *nearest {
                            distance
                        } else {
                            *nearest
                        };
                        *nearest = least;
                        lanes[i % 16] += least;
                    }
                    lanes.iter().map(|&lane| f64::from(lane)).sum()
                })
                .collect()
        },
    )
}

/// A point drawn with probability proportional to `nearest`.
fn draw(rng: &mut ChaCha20Rng, sums: &[f64], total: f64, nearest: &[f32]) -> usize {
    let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut target = unit * total;
    let mut last = 0;
    for (sum, (span, nearest)) in sums.iter().zip(nearest.chunks(SPAN).enumerate()) {
        if *sum <= 0.0 {
            continue;
        }
        if target >= *sum {
            target -= sum;
            last = span * SPAN + last_positive(nearest);
            continue;
        }
        for (i, &weight) in nearest.iter().enumerate() {
            if weight > 0.0 {
                last = span * SPAN + i;
                if target < f64::from(weight) {
                    return last;
                }
                target -= f64::from(weight);
            }
        }
        return last;
    }
    // Rounding may leave the target just beyond the end.
    last
}

fn last_positive(weights: &[f32]) -> usize {
    weights
        .iter()
        .rposition(|&weight| weight > 0.0)
        .unwrap_or(0)
}

fn assign_all(job: &Job<'_>, centroids: &[f32], indexes: &mut [u32], values: &mut [f32]) {
    let table = Transposed::with_half_norms(centroids, job.centroids, job.width, job.width);
    job.points
        .par_chunks(CHUNK * job.width)
        .zip(indexes.par_chunks_mut(CHUNK))
        .zip(values.par_chunks_mut(CHUNK))
        .for_each(|((points, indexes), values)| {
            assign(Arch::detect(), points, job.width, &table, indexes, values);
        });
}

/// Moves every centroid to the mean of its points; a centroid without points
/// takes the point that is farthest from its own.
fn update(
    job: &Job<'_>,
    indexes: &mut [u32],
    values: &[f32],
    norms: &[f64],
    centroids: &mut [f32],
) {
    let width = job.width;
    let mut counts = vec![0u32; job.centroids];
    let mut sums = vec![0f64; job.centroids * width];
    for (point, &index) in job.points.chunks_exact(width).zip(indexes.iter()) {
        counts[index as usize] += 1;
        for (sum, &value) in sums[index as usize * width..][..width]
            .iter_mut()
            .zip(point)
        {
            *sum += f64::from(value);
        }
    }
    if counts.contains(&0) {
        let distance = |i: usize| 2.0 * f64::from(values[i]) + norms[i];
        let mut far: Vec<usize> = (0..indexes.len()).collect();
        far.sort_by(|&a, &b| distance(b).total_cmp(&distance(a)).then(a.cmp(&b)));
        let mut far = far.into_iter();
        for empty in 0..job.centroids {
            if counts[empty] > 0 {
                continue;
            }
            // A cluster of one keeps its point.
            let Some(taken) = far.find(|&i| counts[indexes[i] as usize] > 1) else {
                break;
            };
            let donor = indexes[taken] as usize;
            counts[donor] -= 1;
            counts[empty] = 1;
            indexes[taken] = empty as u32;
            for j in 0..width {
                let value = f64::from(job.points[taken * width + j]);
                sums[donor * width + j] -= value;
                sums[empty * width + j] = value;
            }
        }
    }
    for ((centroid, sum), &count) in centroids
        .chunks_exact_mut(width)
        .zip(sums.chunks_exact(width))
        .zip(&counts)
    {
        if count > 0 {
            for (c, sum) in centroid.iter_mut().zip(sum) {
                *c = (sum / f64::from(count)) as f32;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn job<'a>(
        points: &'a [f32],
        width: usize,
        centroids: usize,
        cancel: &'a AtomicBool,
    ) -> Job<'a> {
        Job {
            points,
            width,
            centroids,
            iterations: 25,
            seed: [7; 32],
            stream: 1,
            cancel,
            step: &|_| {},
        }
    }

    #[test]
    fn separated_clusters_are_found() {
        let cancel = AtomicBool::new(false);
        let points: Vec<f32> = (0..400)
            .flat_map(|i| [(i % 4) as f32 * 100.0 + (i / 4 % 3) as f32, 5.0])
            .collect();
        let mut centroids = train(&job(&points, 2, 4, &cancel)).unwrap();
        centroids.truncate(8);
        let mut firsts: Vec<f32> = centroids.chunks(2).map(|c| c[0]).collect();
        firsts.sort_by(f32::total_cmp);
        for (i, first) in firsts.iter().enumerate() {
            assert!((first - (i as f32 * 100.0 + 1.0)).abs() < 0.1, "{firsts:?}");
        }
    }

    #[test]
    fn equal_points_give_finite_centroids() {
        let cancel = AtomicBool::new(false);
        let centroids = train(&job(&[2.5; 300], 3, 16, &cancel)).unwrap();
        assert_eq!(centroids, [2.5; 48]);
    }

    #[test]
    fn empty_clusters_take_far_points() {
        let cancel = AtomicBool::new(false);
        let points = [0.0, 1.0, 10.0, 11.0];
        let job = job(&points, 1, 3, &cancel);
        let mut indexes = [0, 0, 0, 0];
        let norms: Vec<f64> = points.iter().map(|&x| f64::from(x * x)).collect();
        // Values of centroid 0 at 0: half its norm less the inner product.
        let values = [0.0; 4];
        let mut centroids = [0.0, 0.0, 0.0];
        update(&job, &mut indexes, &values, &norms, &mut centroids);
        assert_eq!(centroids, [0.5, 11.0, 10.0]);
    }

    #[test]
    fn fail_cancelled() {
        let cancel = AtomicBool::new(true);
        assert_eq!(
            train(&job(&[1.0, 2.0], 1, 2, &cancel)),
            Err(QuantError::Cancelled)
        );
    }
}
