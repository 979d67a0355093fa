//! Nearest-centroid assignment and blocks of inner products.
//!
//! Both kernels compute `half_norm[k] - <x, c_k>`, which orders centroids as
//! the Euclidean distance does, in one fixed order of single-precision
//! operations without contraction, so results are the same bits everywhere.
//! These run on the owner's machine over the owner's own data and are not
//! oblivious.

use crate::Arch;
use aligned_vec::AVec;

#[cfg(target_arch = "x86_64")]
mod avx512;

/// Centroids in a chunk: the lanes of one 512-bit register.
const CHUNK: usize = 16;

/// Centroids laid out for the kernels: coordinate by coordinate, chunks of 16.
pub struct Transposed {
    /// `[chunk][coordinate][16]`
    values: AVec<f32>,
    /// `[chunk][16]`; infinite where no centroid is.
    half_norms: AVec<f32>,
    count: usize,
    width: usize,
}

impl Transposed {
    /// Lays out `count` rows of `width` values, `stride` values apart; an
    /// `offset` is the value added to the negated inner product.
    ///
    /// # Panics
    /// When `rows` is too short, `count` or `width` is zero, or `offset` has
    /// another length than `count`.
    #[must_use]
    pub fn new(rows: &[f32], count: usize, width: usize, stride: usize, offset: &[f32]) -> Self {
        assert!(count > 0 && width > 0 && stride >= width, "empty centroids");
        assert!(
            rows.len() >= (count - 1) * stride + width,
            "rows do not fit"
        );
        assert_eq!(offset.len(), count, "offsets do not fit");
        let chunks = count.div_ceil(CHUNK);
        let mut values = AVec::<f32>::with_capacity(0, chunks * width * CHUNK);
        values.resize(chunks * width * CHUNK, 0.0);
        let mut half_norms = AVec::<f32>::with_capacity(0, chunks * CHUNK);
        half_norms.resize(chunks * CHUNK, f32::INFINITY);
        for k in 0..count {
            half_norms[k] = offset[k];
            for j in 0..width {
                values[(k / CHUNK * width + j) * CHUNK + k % CHUNK] = rows[k * stride + j];
            }
        }
        Self {
            values,
            half_norms,
            count,
            width,
        }
    }

    /// As [`Self::new`], with half the squared norm of each row as offset.
    ///
    /// # Panics
    /// As [`Self::new`].
    #[must_use]
    pub fn with_half_norms(rows: &[f32], count: usize, width: usize, stride: usize) -> Self {
        let norms: Vec<f32> = (0..count)
            .map(|k| {
                let row = &rows[k * stride..k * stride + width];
                (row.iter()
                    .map(|&v| f64::from(v) * f64::from(v))
                    .sum::<f64>()
                    / 2.0) as f32
            })
            .collect();
        Self::new(rows, count, width, stride, &norms)
    }

    /// Number of rows.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Values in a row.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }
}

/// For each of `indexes.len()` rows of `points`, `stride` values apart, the
/// nearest centroid (the lowest index on a tie) and its value of
/// `half_norm - <x, c>`.
///
/// The squared distance is `2 * value + |x|^2`.
///
/// # Panics
/// When `points` is too short or `values` has another length than `indexes`.
pub fn assign(
    arch: Arch,
    points: &[f32],
    stride: usize,
    centroids: &Transposed,
    indexes: &mut [u32],
    values: &mut [f32],
) {
    let count = indexes.len();
    assert_eq!(values.len(), count, "values do not fit");
    if count == 0 {
        return;
    }
    assert!(
        points.len() >= (count - 1) * stride + centroids.width,
        "points do not fit"
    );
    match arch {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx512` value proves the features of the kernel.
        Arch::Avx512(_) => unsafe { avx512::assign(points, stride, centroids, indexes, values) },
        _ => arch.vectorize(
            #[inline(always)]
            || assign_portable(points, stride, centroids, indexes, values),
        ),
    }
}

#[inline(always)]
fn assign_portable(
    points: &[f32],
    stride: usize,
    centroids: &Transposed,
    indexes: &mut [u32],
    values: &mut [f32],
) {
    let width = centroids.width;
    for (i, (index, value)) in indexes.iter_mut().zip(values).enumerate() {
        let point = &points[i * stride..i * stride + width];
        let mut best = [f32::INFINITY; CHUNK];
        let mut at = [0u32; CHUNK];
        let chunks = centroids.values.chunks_exact(width * CHUNK);
        for (chunk, (rows, offsets)) in chunks
            .zip(centroids.half_norms.chunks_exact(CHUNK))
            .enumerate()
        {
            let mut sum = [0f32; CHUNK];
            sum.copy_from_slice(offsets);
            for (&x, row) in point.iter().zip(rows.chunks_exact(CHUNK)) {
                for (sum, &c) in sum.iter_mut().zip(row) {
                    *sum -= x * c;
                }
            }
            for lane in 0..CHUNK {
                let nearer = sum[lane] < best[lane];
                best[lane] = if nearer { sum[lane] } else { best[lane] };
                at[lane] = if nearer { chunk as u32 } else { at[lane] };
            }
        }
        (*index, *value) = reduce(&best, &at);
    }
}

/// The smallest value over lanes; the lowest index on a tie.
#[inline(always)]
fn reduce(best: &[f32; CHUNK], at: &[u32; CHUNK]) -> (u32, f32) {
    let mut index = at[0] * CHUNK as u32;
    let mut value = best[0];
    for lane in 1..CHUNK {
        let candidate = at[lane] * CHUNK as u32 + lane as u32;
        if best[lane] < value || (best[lane] == value && candidate < index) {
            value = best[lane];
            index = candidate;
        }
    }
    (index, value)
}

/// For each of `queries` (rows of `width` values) against all of `rows`:
/// `offset - <query, row>`, written to `out[query * padded + row]` where
/// `padded` is the number of rows rounded up to 16.
///
/// # Panics
/// When a length does not fit.
pub fn products(arch: Arch, queries: &[f32], rows: &Transposed, out: &mut [f32]) {
    let padded = rows.half_norms.len();
    assert_eq!(queries.len() % rows.width, 0, "queries do not fit");
    assert_eq!(
        out.len(),
        queries.len() / rows.width * padded,
        "out does not fit"
    );
    match arch {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx512` value proves the features of the kernel.
        Arch::Avx512(_) => unsafe { avx512::products(queries, rows, out) },
        _ => arch.vectorize(
            #[inline(always)]
            || products_portable(queries, rows, out),
        ),
    }
}

#[inline(always)]
fn products_portable(queries: &[f32], rows: &Transposed, out: &mut [f32]) {
    let width = rows.width;
    let padded = rows.half_norms.len();
    for (query, out) in queries
        .chunks_exact(width)
        .zip(out.chunks_exact_mut(padded))
    {
        let chunks = rows.values.chunks_exact(width * CHUNK);
        for ((values, offsets), out) in chunks
            .zip(rows.half_norms.chunks_exact(CHUNK))
            .zip(out.chunks_exact_mut(CHUNK))
        {
            let mut sum = [0f32; CHUNK];
            sum.copy_from_slice(offsets);
            for (&x, row) in query.iter().zip(values.chunks_exact(CHUNK)) {
                for (sum, &c) in sum.iter_mut().zip(row) {
                    *sum -= x * c;
                }
            }
            out.copy_from_slice(&sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed | 1;
        (0..count)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                ((state >> 40) as f32 / (1u32 << 24) as f32) - 0.5
            })
            .collect()
    }

    #[test]
    fn nearest_centroids_agree_with_a_plain_search() {
        for (count, width, stride, points) in [
            (1, 1, 1, 3),
            (256, 8, 128, 37),
            (16, 3, 7, 9),
            (100, 97, 97, 5),
            (33, 4, 4, 64),
            (255, 7, 9, 21),
        ] {
            let rows = values(count * width, 3);
            let xs = values((points - 1) * stride + width, 5);
            let centroids = Transposed::with_half_norms(&rows, count, width, width);
            let mut reference: Option<(Vec<u32>, Vec<u32>)> = None;
            for arch in Arch::available() {
                let mut indexes = vec![0; points];
                let mut found = vec![0.0; points];
                assign(arch, &xs, stride, &centroids, &mut indexes, &mut found);
                for (i, (&index, &value)) in indexes.iter().zip(&found).enumerate() {
                    let x = &xs[i * stride..][..width];
                    let distance = |k: usize| -> f64 {
                        rows[k * width..][..width]
                            .iter()
                            .zip(x)
                            .map(|(c, x)| f64::from(c - x).powi(2))
                            .sum()
                    };
                    let nearest = (0..count).map(distance).fold(f64::INFINITY, f64::min);
                    let norm: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
                    assert!((distance(index as usize) - nearest).abs() < 1e-5);
                    assert!((2.0 * f64::from(value) + norm - nearest).abs() < 1e-4);
                }
                let bits: Vec<u32> = found.iter().map(|v| v.to_bits()).collect();
                let reference = reference.get_or_insert((indexes.clone(), bits.clone()));
                assert_eq!(*reference, (indexes, bits), "{}", arch.name());
            }
        }
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        let rows = vec![1.0; 70 * 2];
        let centroids = Transposed::with_half_norms(&rows, 70, 2, 2);
        for arch in Arch::available() {
            let mut indexes = [9; 5];
            let mut found = [0.0; 5];
            assign(arch, &[0.5; 10], 2, &centroids, &mut indexes, &mut found);
            assert_eq!(indexes, [0; 5]);
        }
    }

    #[test]
    fn products_are_the_same_bits_everywhere() {
        for (count, width, queries) in [(40, 128, 7), (16, 3, 1), (1000, 25, 9)] {
            let rows = values(count * width, 8);
            let offsets = values(count, 12);
            let table = Transposed::new(&rows, count, width, width, &offsets);
            let queries = values(queries * width, 10);
            let padded = count.div_ceil(16) * 16;
            let mut reference: Option<Vec<u32>> = None;
            for arch in Arch::available() {
                let mut out = vec![0.0; queries.len() / width * padded];
                products(arch, &queries, &table, &mut out);
                for (q, query) in queries.chunks_exact(width).enumerate() {
                    for k in 0..count {
                        let mut expected = offsets[k];
                        for (x, c) in query.iter().zip(&rows[k * width..]) {
                            expected -= x * c;
                        }
                        assert_eq!(out[q * padded + k].to_bits(), expected.to_bits());
                    }
                }
                let bits: Vec<u32> = out.iter().map(|v| v.to_bits()).collect();
                assert_eq!(
                    *reference.get_or_insert(bits.clone()),
                    bits,
                    "{}",
                    arch.name()
                );
            }
        }
    }
}
