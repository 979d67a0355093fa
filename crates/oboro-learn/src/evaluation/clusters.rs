//! NMI: k-means with as many clusters as classes, then the mutual information
//! of clusters and classes.

use crate::LearnError;
use crate::data::below;
use chacha20::ChaCha20Rng;
use oboro_simd::Arch;
use oboro_simd::assign::{Transposed, assign};
use oboro_vectors::Matrix;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Points that a thread takes at a time.
const CHUNK: usize = 1024;

/// Most rounds of Lloyd's algorithm.
const ROUNDS: usize = 50;

/// Rounds end when the distortion falls by less than this share.
const IMPROVEMENT: f64 = 1e-5;

/// Vectors put into clusters by k-means.
///
/// A codebook's k-means (`oboro-quant`) stops at 256 centroids; here there are
/// as many as classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clusters {
    assignment: Vec<u32>,
}

impl Clusters {
    /// k-means++ seeding and Lloyd's rounds over rows scaled to unit length,
    /// the same for the same seed on any number of threads.
    ///
    /// # Errors
    /// When `clusters` is zero or above the number of rows.
    pub fn learn(rows: &Matrix<f32>, clusters: usize, seed: [u8; 32]) -> Result<Self, LearnError> {
        if clusters == 0 || clusters > rows.rows() {
            return Err(LearnError::Setting {
                what: "the number of clusters",
                actual: clusters.to_string(),
                wanted: "choose between 1 and the number of vectors",
            });
        }
        let width = rows.dimension();
        let mut points = rows.data().to_vec();
        points.par_chunks_mut(width).for_each(scale_to_unit);
        let mut rng = ChaCha20Rng::from_seed(seed);
        let mut centroids = seed_centroids(&points, width, clusters, &mut rng);
        let mut assignment = vec![0u32; rows.rows()];
        let mut values = vec![0f32; rows.rows()];
        let mut previous = f64::INFINITY;
        for _ in 0..ROUNDS {
            assign_all(&points, width, &centroids, &mut assignment, &mut values);
            // |x|^2 is one, or zero for a zero vector: a constant either way.
            let distortion: f64 = values.iter().map(|&v| 2.0 * f64::from(v) + 1.0).sum();
            if previous - distortion <= IMPROVEMENT * distortion.abs() {
                break;
            }
            previous = distortion;
            update(&points, width, &mut assignment, &values, &mut centroids);
        }
        Ok(Self { assignment })
    }

    /// The cluster of each row.
    #[must_use]
    pub fn assignment(&self) -> &[u32] {
        &self.assignment
    }

    /// The normalized mutual information of clusters and `labels`.
    ///
    /// # Errors
    /// When there are not as many labels as rows.
    pub fn nmi(&self, labels: &[u32]) -> Result<f64, LearnError> {
        normalized_mutual_information(&self.assignment, labels)
    }
}

/// Twice the mutual information of two labelings over the sum of their
/// entropies; 1 when both have a single class.
///
/// # Errors
/// When the labelings differ in length.
pub fn normalized_mutual_information(a: &[u32], b: &[u32]) -> Result<f64, LearnError> {
    if a.len() != b.len() {
        return Err(LearnError::Length {
            what: "the list of labels",
            actual: b.len(),
            expected: a.len(),
        });
    }
    let count = |keys: &mut dyn Iterator<Item = (u32, u32)>| {
        // Ordered, so that sums are the same bits every time.
        let mut counts: BTreeMap<(u32, u32), f64> = BTreeMap::new();
        keys.for_each(|key| *counts.entry(key).or_insert(0.0) += 1.0);
        counts
    };
    let first = count(&mut a.iter().map(|&a| (a, 0)));
    let second = count(&mut b.iter().map(|&b| (b, 0)));
    let joint = count(&mut a.iter().copied().zip(b.iter().copied()));
    let n = a.len() as f64;
    let entropy = |counts: &BTreeMap<(u32, u32), f64>| -> f64 {
        counts.values().map(|&c| -c / n * (c / n).ln()).sum()
    };
    let both = entropy(&first) + entropy(&second);
    if both <= 0.0 {
        return Ok(1.0);
    }
    let mutual: f64 = joint
        .iter()
        .map(|((a, b), &c)| {
            let (a, b) = (first[&(*a, 0)], second[&(*b, 0)]);
            c / n * (c * n / (a * b)).ln()
        })
        .sum();
    Ok((2.0 * mutual / both).max(0.0))
}

fn scale_to_unit(row: &mut [f32]) {
    let squared: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    if squared > 0.0 {
        let factor = 1.0 / squared.sqrt();
        for value in row {
            *value = (f64::from(*value) * factor) as f32;
        }
    }
}

/// k-means++: each centroid is a point drawn with probability proportional to
/// its squared distance from those already drawn.
fn seed_centroids(
    points: &[f32],
    width: usize,
    clusters: usize,
    rng: &mut ChaCha20Rng,
) -> Vec<f32> {
    let count = points.len() / width;
    let mut nearest = vec![f32::INFINITY; count];
    let mut centroids = Vec::with_capacity(clusters * width);
    let mut drawn = below(rng, count);
    loop {
        let centroid = &points[drawn * width..][..width];
        centroids.extend_from_slice(centroid);
        if centroids.len() == clusters * width {
            return centroids;
        }
        let sums: Vec<f64> = nearest
            .par_chunks_mut(CHUNK)
            .zip(points.par_chunks(CHUNK * width))
            .map(|(nearest, points)| {
                let mut sum = 0.0;
                for (nearest, point) in nearest.iter_mut().zip(points.chunks_exact(width)) {
                    *nearest = nearest.min(squared(point, centroid));
                    sum += f64::from(*nearest);
                }
                sum
            })
            .collect();
        drawn = draw(rng, &sums, &nearest).unwrap_or_else(|| below(rng, count));
    }
}

/// A point drawn with probability proportional to its distance; `None` when
/// every point equals a centroid.
fn draw(rng: &mut ChaCha20Rng, sums: &[f64], nearest: &[f32]) -> Option<usize> {
    let total: f64 = sums.iter().sum();
    let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut target = unit * total;
    let mut last = None;
    for (chunk, (&sum, nearest)) in sums.iter().zip(nearest.chunks(CHUNK)).enumerate() {
        if target >= sum {
            target -= sum;
            if let Some(i) = nearest.iter().rposition(|&d| d > 0.0) {
                last = Some(chunk * CHUNK + i);
            }
            continue;
        }
        for (i, &distance) in nearest.iter().enumerate() {
            if distance > 0.0 {
                last = Some(chunk * CHUNK + i);
                if target < f64::from(distance) {
                    return last;
                }
                target -= f64::from(distance);
            }
        }
        return last;
    }
    // Rounding may leave the target just beyond the end.
    last
}

fn squared(a: &[f32], b: &[f32]) -> f32 {
    Arch::detect().vectorize(
        #[inline(always)]
        || {
            let mut sums = [0f32; 16];
            let (a_chunks, a_rest) = a.as_chunks::<16>();
            let (b_chunks, b_rest) = b.as_chunks::<16>();
            for (a, b) in a_chunks.iter().zip(b_chunks) {
                for lane in 0..16 {
                    sums[lane] += (a[lane] - b[lane]) * (a[lane] - b[lane]);
                }
            }
            for (lane, (&x, &y)) in a_rest.iter().zip(b_rest).enumerate() {
                sums[lane] += (x - y) * (x - y);
            }
            sums.iter().sum()
        },
    )
}

fn assign_all(
    points: &[f32],
    width: usize,
    centroids: &[f32],
    assignment: &mut [u32],
    values: &mut [f32],
) {
    let table = Transposed::with_half_norms(centroids, centroids.len() / width, width, width);
    points
        .par_chunks(CHUNK * width)
        .zip(assignment.par_chunks_mut(CHUNK))
        .zip(values.par_chunks_mut(CHUNK))
        .for_each(|((points, assignment), values)| {
            assign(Arch::detect(), points, width, &table, assignment, values);
        });
}

/// Moves every centroid to the mean of its points; a centroid without points
/// takes the point farthest from its own.
fn update(
    points: &[f32],
    width: usize,
    assignment: &mut [u32],
    values: &[f32],
    centroids: &mut [f32],
) {
    let clusters = centroids.len() / width;
    let mut counts = vec![0u32; clusters];
    for &cluster in assignment.iter() {
        counts[cluster as usize] += 1;
    }
    if counts.contains(&0) {
        let mut far: Vec<usize> = (0..assignment.len()).collect();
        far.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
        let mut far = far.into_iter();
        for empty in 0..clusters {
            if counts[empty] > 0 {
                continue;
            }
            // A cluster of one keeps its point.
            let Some(taken) = far.find(|&i| counts[assignment[i] as usize] > 1) else {
                break;
            };
            counts[assignment[taken] as usize] -= 1;
            counts[empty] = 1;
            assignment[taken] = empty as u32;
        }
    }
    let mut sums = vec![0f64; centroids.len()];
    for (point, &cluster) in points.chunks_exact(width).zip(assignment.iter()) {
        let sums = &mut sums[cluster as usize * width..][..width];
        for (sum, &value) in sums.iter_mut().zip(point) {
            *sum += f64::from(value);
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

    /// `per` points near each of `clusters` directions.
    fn directions(clusters: usize, per: usize, width: usize) -> (Matrix<f32>, Vec<u32>) {
        let mut data = Vec::new();
        let mut labels = Vec::new();
        for i in 0..clusters * per {
            let class = i % clusters;
            for j in 0..width {
                let on = if j == class % width { 5.0 } else { 0.0 };
                let sign = if class < width { 1.0 } else { -1.0 };
                data.push(on * sign + ((i * 31 + j * 17) % 13) as f32 / 40.0);
            }
            labels.push(class as u32);
        }
        (Matrix::new(width, data).unwrap(), labels)
    }

    #[test]
    fn clusters_that_are_there_are_found() {
        let (rows, labels) = directions(16, 40, 9);
        let found: Vec<f64> = (0..8)
            .map(|seed| {
                let clusters = Clusters::learn(&rows, 16, [seed; 32]).unwrap();
                clusters.nmi(&labels).unwrap()
            })
            .collect();
        assert!(found.iter().any(|&nmi| nmi > 1.0 - 1e-9), "{found:?}");
        assert!(found.iter().all(|&nmi| nmi > 0.9), "{found:?}");
    }

    #[test]
    fn one_thread_and_many_agree() {
        let (rows, _) = directions(300, 10, 20);
        let run = |threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
                .install(|| Clusters::learn(&rows, 290, [1; 32]).unwrap())
        };
        assert_eq!(run(1), run(4));
    }

    #[test]
    fn equal_points_do_not_break_it() {
        let rows = Matrix::new(2, vec![0.0; 20]).unwrap();
        let clusters = Clusters::learn(&rows, 4, [0; 32]).unwrap();
        assert_eq!(clusters.assignment().len(), 10);
        let nmi = clusters.nmi(&[3; 10]).unwrap();
        assert!((0.0..=1.0).contains(&nmi), "{nmi}");
    }

    #[test]
    fn fail_more_clusters_than_rows() {
        let rows = Matrix::new(2, vec![1.0; 6]).unwrap();
        assert!(Clusters::learn(&rows, 4, [0; 32]).is_err());
        assert!(Clusters::learn(&rows, 0, [0; 32]).is_err());
        assert!(normalized_mutual_information(&[1], &[1, 2]).is_err());
    }
}
