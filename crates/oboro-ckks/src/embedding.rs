//! The canonical embedding of Z\[Y\]/(Y^(2S)+1) into S complex slots, for many
//! coefficients of X at once.
//!
//! Slot k is the value at ζ^(4k+1), ζ = exp(πi/2S); the other odd powers are
//! the conjugates. With z_u = (p_u + i·p_(u+S))·ζ^u the slots are
//! Σ_u z_u·exp(2πi·k·u/S): a transform of length S, whose data lie in rows of
//! `batch` neighbours so that every step is plain vector code. All addresses
//! and bounds depend on S and the batch alone.

use std::f64::consts::PI;

/// Twiddle factors for S slots.
pub(crate) struct Embedding {
    slots: usize,
    /// ζ^u as (cos, sin), u < S.
    twist: Vec<(f64, f64)>,
    /// exp(2πi·j/S), j < S/2.
    roots: Vec<(f64, f64)>,
}

/// Rows of real and imaginary parts, `[slot][batch]`.
pub(crate) struct Rows {
    pub(crate) re: Vec<f64>,
    pub(crate) im: Vec<f64>,
    pub(crate) batch: usize,
}

impl Rows {
    pub(crate) fn zero(slots: usize, batch: usize) -> Self {
        Self {
            re: vec![0.0; slots * batch],
            im: vec![0.0; slots * batch],
            batch,
        }
    }
}

impl Embedding {
    pub(crate) fn new(slots: usize) -> Self {
        debug_assert!(slots.is_power_of_two());
        let unit = |angle: f64| (angle.cos(), angle.sin());
        Self {
            slots,
            twist: (0..slots)
                .map(|u| unit(PI * u as f64 / (2 * slots) as f64))
                .collect(),
            roots: (0..slots / 2)
                .map(|j| unit(2.0 * PI * j as f64 / slots as f64))
                .collect(),
        }
    }

    /// Coefficients `[2S][batch]` (rows u and u+S as real and imaginary part)
    /// to slots, in place.
    #[inline(always)]
    pub(crate) fn to_slots(&self, rows: &mut Rows) {
        self.multiply_rows(rows, 1.0, 1.0);
        self.transform(rows, 1.0);
    }

    /// Slots to coefficients: the inverse of [`Embedding::to_slots`].
    #[inline(always)]
    pub(crate) fn to_coefficients(&self, rows: &mut Rows) {
        self.transform(rows, -1.0);
        self.multiply_rows(rows, -1.0, 1.0 / self.slots as f64);
    }

    /// Row u times ζ^(±u) and a factor.
    #[inline(always)]
    fn multiply_rows(&self, rows: &mut Rows, sign: f64, factor: f64) {
        let planes = rows
            .re
            .chunks_exact_mut(rows.batch)
            .zip(rows.im.chunks_exact_mut(rows.batch));
        for (&(cos, sin), (re, im)) in self.twist.iter().zip(planes) {
            let (c, s) = (cos * factor, sin * sign * factor);
            for (x, y) in re.iter_mut().zip(im) {
                (*x, *y) = (*x * c - *y * s, *x * s + *y * c);
            }
        }
    }

    /// Σ_u z_u·exp(±2πi·k·u/S) by decimation in time, radix 2.
    #[inline(always)]
    fn transform(&self, rows: &mut Rows, sign: f64) {
        let (s, batch) = (self.slots, rows.batch);
        let bits = s.trailing_zeros();
        for i in 0..s {
            let j = if bits == 0 {
                0
            } else {
                i.reverse_bits() >> (usize::BITS - bits)
            };
            if i < j {
                for plane in [&mut rows.re, &mut rows.im] {
                    let (low, high) = plane.split_at_mut(j * batch);
                    low[i * batch..(i + 1) * batch].swap_with_slice(&mut high[..batch]);
                }
            }
        }
        let mut half = 1;
        while half < s {
            let run = half * batch;
            let groups = rows
                .re
                .chunks_exact_mut(2 * run)
                .zip(rows.im.chunks_exact_mut(2 * run));
            for (re, im) in groups {
                let (re0, re1) = re.split_at_mut(run);
                let (im0, im1) = im.split_at_mut(run);
                let even = re0.chunks_exact_mut(batch).zip(im0.chunks_exact_mut(batch));
                let odd = re1.chunks_exact_mut(batch).zip(im1.chunks_exact_mut(batch));
                let roots = self.roots.iter().step_by(s / (2 * half));
                for ((&(c, w), (re0, im0)), (re1, im1)) in roots.zip(even).zip(odd) {
                    let w = w * sign;
                    let first = re0.iter_mut().zip(im0);
                    for ((x0, y0), (x1, y1)) in first.zip(re1.iter_mut().zip(im1)) {
                        let tr = *x1 * c - *y1 * w;
                        let ti = *x1 * w + *y1 * c;
                        (*x1, *y1) = (*x0 - tr, *y0 - ti);
                        *x0 += tr;
                        *y0 += ti;
                    }
                }
            }
            half *= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_values_at_the_roots_and_back() {
        for slots in [1usize, 2, 4, 16, 64] {
            let batch = 3;
            let coefficients: Vec<f64> = (0..2 * slots * batch)
                .map(|i| ((i * 37 % 101) as f64) - 50.0)
                .collect();
            let half = slots * batch;
            let mut rows = Rows {
                re: coefficients[..half].to_vec(),
                im: coefficients[half..].to_vec(),
                batch,
            };
            let embedding = Embedding::new(slots);
            embedding.to_slots(&mut rows);
            for k in 0..slots {
                for b in 0..batch {
                    let angle = PI * (4 * k + 1) as f64 / (2 * slots) as f64;
                    let (mut re, mut im) = (0.0, 0.0);
                    for u in 0..2 * slots {
                        re += coefficients[u * batch + b] * (angle * u as f64).cos();
                        im += coefficients[u * batch + b] * (angle * u as f64).sin();
                    }
                    assert!((rows.re[k * batch + b] - re).abs() < 1e-9 * slots as f64 * 100.0);
                    assert!((rows.im[k * batch + b] - im).abs() < 1e-9 * slots as f64 * 100.0);
                }
            }
            embedding.to_coefficients(&mut rows);
            for (got, want) in rows.re.iter().chain(&rows.im).zip(&coefficients) {
                assert!((got - want).abs() < 1e-9);
            }
        }
    }
}
