//! Products of matrices, and the orthogonal matrix nearest to one.
//!
//! Matrices are row-major slices. Each block of rows of a result is computed
//! by itself and in one thread, so results do not depend on how many there
//! are; they are not the same bits on every processor.

use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, LinalgScalar, Slice};
use rayon::prelude::*;

/// Rows of a result that a thread computes at a time.
const ROWS: usize = 256;

/// A row-major slice as a matrix.
///
/// # Panics
/// When the length does not fit.
pub(crate) fn matrix<T>(values: &[T], rows: usize, columns: usize) -> ArrayView2<'_, T> {
    ArrayView2::from_shape((rows, columns), values).expect("whole rows")
}

/// `a b` into `out`, in the current rayon pool.
///
/// # Panics
/// When the sizes do not fit.
pub(crate) fn product<T>(a: ArrayView2<'_, T>, b: ArrayView2<'_, T>, out: &mut [T])
where
    T: LinalgScalar + Send + Sync,
{
    let columns = b.ncols();
    assert_eq!(out.len(), a.nrows() * columns, "the result does not fit");
    out.par_chunks_mut(ROWS * columns)
        .enumerate()
        .for_each(|(chunk, out)| {
            let rows = out.len() / columns;
            let a = a.slice_axis(Axis(0), Slice::from(chunk * ROWS..chunk * ROWS + rows));
            let mut out = ArrayViewMut2::from_shape((rows, columns), out).expect("whole rows");
            general_mat_mul(T::one(), &a, &b, T::zero(), &mut out);
        });
}

/// Rounds of [`polar`] before it gives up; those of a matrix of full rank in
/// single precision are below half of this.
const MOST_ROUNDS: usize = 60;

/// The smallest singular value, as a share of the largest, for which the
/// first rounds are tuned. Smaller ones take more rounds. The scaled step
/// brings the largest down to about this, which must stay well above the
/// rounding of single precision: past zero a direction would be mirrored.
const FLOOR: f64 = 1e-3;

/// How far `X^T X` is from the identity when double precision takes over.
const NEAR: f64 = 1e-3;

/// How far `X^T X` may be from the identity.
const ORTHOGONAL: f64 = 1e-5;

/// The orthogonal matrix nearest to a square one: of its singular value
/// decomposition `U S V^T` the product `U V^T`. It maximizes the trace of
/// `Q^T matrix` over all orthogonal `Q` (the orthogonal Procrustes problem).
/// `None` when the matrix is (nearly) singular or not finite.
///
/// Newton and Schulz's iteration `X (3 I - X^T X) / 2` moves every singular
/// value towards 1 and leaves the vectors alone. The first rounds are scaled
/// to be best for the interval in which the values lie (Chen and Chow,
/// "A stable scaling of Newton-Schulz for improving the sign function
/// computation of a Hermitian matrix", 2014). It needs products only, which a
/// library has fast, where a decomposition would bring 30 more crates.
pub(crate) fn polar(values: &[f32], size: usize) -> Option<Vec<f32>> {
    let bound = norm_bound(values, size);
    if !(bound > 0.0 && bound.is_finite()) {
        return None;
    }
    let mut x: Vec<f32> = values
        .iter()
        .map(|&v| (f64::from(v) / bound) as f32)
        .collect();
    let mut smallest = FLOOR;
    for _ in 0..MOST_ROUNDS {
        let square = 3.0 / (1.0 + smallest + smallest * smallest);
        let scale = square.sqrt();
        let off = step(&mut x, size, scale as f32);
        if off < NEAR {
            // The last two in double precision, so that what remains is the
            // rounding of the result.
            let mut x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            step(&mut x, size, 1.0);
            return (step(&mut x, size, 1.0) < ORTHOGONAL)
                .then(|| x.iter().map(|&v| v as f32).collect());
        }
        smallest = (scale * smallest * (3.0 - square * smallest * smallest) / 2.0).min(1.0);
    }
    None
}

/// A bound on the largest singular value.
fn norm_bound(values: &[f32], size: usize) -> f64 {
    let mut columns = vec![0f64; size];
    let (mut squares, mut largest_row) = (0f64, 0f64);
    for row in values.chunks_exact(size) {
        let mut sum = 0.0;
        for (column, &value) in columns.iter_mut().zip(row) {
            let value = f64::from(value);
            squares += value * value;
            sum += value.abs();
            *column += value.abs();
        }
        largest_row = largest_row.max(sum);
    }
    let largest_column = columns.iter().copied().fold(0.0, f64::max);
    // A little more, so that rounding leaves no value above 1.
    squares.sqrt().min((largest_row * largest_column).sqrt()) * 1.000_01
}

/// `x = scale / 2 * x (3 I - scale^2 x^T x)`, with a scale of 1 once `x^T x`
/// is [`NEAR`] the identity; how far it was from it.
fn step<T>(x: &mut Vec<T>, size: usize, scale: T) -> f64
where
    T: LinalgScalar + Send + Sync + Into<f64> + From<f32>,
{
    let mut gram = vec![T::zero(); size * size];
    let view = matrix(x, size, size);
    product(view.t(), view, &mut gram);
    let mut off = 0f64;
    for (i, row) in gram.chunks_exact(size).enumerate() {
        for (j, &value) in row.iter().enumerate() {
            let distance: f64 = (value.into() - if i == j { 1.0 } else { 0.0 }).abs();
            // NaN counts as far off.
            off = if distance <= off { off } else { distance };
        }
    }
    let scale = if off < NEAR { T::one() } else { scale };
    let half = T::from(0.5) * scale;
    for (i, row) in gram.chunks_exact_mut(size).enumerate() {
        for value in row.iter_mut() {
            *value = T::zero() - half * scale * scale * *value;
        }
        row[i] = row[i] + half * T::from(3.0);
    }
    let mut next = vec![T::zero(); size * size];
    product(matrix(x, size, size), matrix(&gram, size, size), &mut next);
    *x = next;
    off
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    fn values(count: usize, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        (0..count)
            .map(|_| (rng.next_u64() >> 40) as f32 / (1 << 24) as f32 - 0.5)
            .collect()
    }

    /// A rotation by Gram and Schmidt.
    fn rotation(size: usize, seed: u64) -> Vec<f32> {
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for row in values(size * size, seed).chunks_exact(size) {
            let mut row: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
            for _ in 0..2 {
                for other in &rows {
                    let dot: f64 = other.iter().zip(&row).map(|(a, b)| a * b).sum();
                    row.iter_mut().zip(other).for_each(|(r, o)| *r -= dot * o);
                }
            }
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.iter_mut().for_each(|v| *v /= norm);
            rows.push(row);
        }
        rows.concat().iter().map(|&v| v as f32).collect()
    }

    #[test]
    fn products_are_those_of_a_plain_loop_on_any_number_of_threads() {
        for (rows, inner, columns) in [(1, 1, 1), (3, 5, 2), (700, 33, 17), (513, 64, 96)] {
            let a = values(rows * inner, 1);
            let b = values(inner * columns, 2);
            let multiply = |threads: usize| {
                let mut out = vec![7.0; rows * columns];
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap()
                    .install(|| {
                        product(
                            matrix(&a, rows, inner),
                            matrix(&b, inner, columns),
                            &mut out,
                        );
                    });
                out
            };
            let one = multiply(1);
            assert_eq!(one, multiply(3));
            for i in (0..rows).step_by(41) {
                for j in 0..columns {
                    let sum: f64 = (0..inner)
                        .map(|k| f64::from(a[i * inner + k]) * f64::from(b[k * columns + j]))
                        .sum();
                    assert!((f64::from(one[i * columns + j]) - sum).abs() < 1e-4);
                }
            }
        }
    }

    /// Of `Q P` with `Q` a rotation and `P` symmetric and positive the nearest
    /// orthogonal matrix is `Q`.
    #[test]
    fn the_orthogonal_factor_of_a_known_product_is_found() {
        for size in [1, 2, 3, 17, 64, 100] {
            for smallest in [1.0, 1e-2, 1e-4] {
                let (q, axes) = (rotation(size, 3), rotation(size, 4));
                // P = axes^T diagonal axes, from 1 down to `smallest`.
                let mut scaled = axes.clone();
                for (i, row) in scaled.chunks_exact_mut(size).enumerate() {
                    let share = i as f32 / (size.max(2) - 1) as f32;
                    row.iter_mut()
                        .for_each(|v| *v *= (smallest as f32).powf(share) * 40.0);
                }
                let (mut p, mut m) = (vec![0.0; size * size], vec![0.0; size * size]);
                let view = matrix(&axes, size, size);
                product(view.t(), matrix(&scaled, size, size), &mut p);
                product(matrix(&q, size, size), matrix(&p, size, size), &mut m);
                let found = polar(&m, size).unwrap();
                // Rounding of the product moves directions in proportion.
                let tolerance = 1e-5 / smallest as f32;
                let off = found
                    .iter()
                    .zip(&q)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                assert!(off < tolerance, "{size} {smallest}: {off}");
            }
        }
    }

    #[test]
    fn fail_matrices_without_an_orthogonal_factor() {
        assert!(polar(&[0.0; 9], 3).is_none());
        assert!(polar(&[1.0, 0.0, 0.0, 0.0], 2).is_none());
        assert!(polar(&[1.0, f32::NAN, 0.0, 1.0], 2).is_none());
        assert!(polar(&[1.0, f32::INFINITY, 0.0, 1.0], 2).is_none());
    }
}
