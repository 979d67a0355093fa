//! Encoding of masked values: the canonical embedding with integers.
//!
//! A mask may be taken off a message only if encoding is linear and exact, but
//! the embedding is irrational. So its matrix, with the scale multiplied in, is
//! rounded once to integers over 2^f, the same at both roles; sums of products
//! with shares are then exact integers, and only the last step, the division by
//! 2^f, rounds, each role's message by less than one unit. The difference of the
//! two messages is the codebook's message to within one unit, which is far
//! below the error that every encryption adds; and all of it happens before
//! the reduction modulo q.
//!
//! Mathematical libraries differ in the last bits of a cosine or a logarithm, and the
//! roles may run on different ones; an entry that differs by one would multiply a whole
//! mask. Cosines and the scale are therefore rounded to 32 bits first, where such
//! differences vanish: no cosine lies near enough to a boundary, as a test shows, and a
//! scale does with a probability of about 2^-20.
//!
//! With θ_i = π(4i+1)/(2S), slot values z_i have the coefficients
//! p_u = (1/S)·Σ_i (Re z_i·cos θ_i·u + Im z_i·sin θ_i·u), u < 2S.

use std::f64::consts::PI;

use oboro_ring::{Evaluation, Poly, Ring};
use zeroize::Zeroize;

use crate::CkksError;

/// Bits of the largest matrix entry.
const WEIGHT_BITS: i32 = 38;
/// Bits of precision that the rounded matrix has at least.
const LEAST_WEIGHT_BITS: i32 = 22;

/// Bits of cosines and scales that do not depend on a mathematical library.
const WEIGHT_PRECISION: i32 = 32;

/// `x` rounded to a multiple of 2^-`bits`.
fn coarse(x: f64, bits: i32) -> f64 {
    let unit = f64::from(bits).exp2();
    (x * unit).round() / unit
}

/// The integer matrix for one scale.
pub(super) struct LinearMap {
    slots: usize,
    /// f.
    shift: u32,
    /// 2^(64-f) as a constant polynomial.
    high: Poly<Evaluation>,
    /// `[u][slot]`.
    cos: Vec<i64>,
    sin: Vec<i64>,
}

impl LinearMap {
    /// The map that gives values of `unit` the scale `scale`.
    pub(super) fn new(ring: &Ring, slots: usize, unit: f64, scale: f64) -> Result<Self, CkksError> {
        let weight = unit * scale / slots as f64;
        if !weight.is_finite() || weight <= 0.0 {
            return Err(CkksError::Bound("unit of the shares"));
        }
        let bits = weight.log2().ceil() as i32;
        let weight = coarse(weight, WEIGHT_PRECISION - bits);
        let shift = WEIGHT_BITS - bits;
        if shift < 0 || 64 + bits < LEAST_WEIGHT_BITS {
            return Err(CkksError::Bound("scale of the shares"));
        }
        let shift = shift.min(64) as u32;
        let factor = weight * f64::from(shift).exp2();
        let mut cos = Vec::with_capacity(2 * slots * slots);
        let mut sin = Vec::with_capacity(2 * slots * slots);
        for u in 0..2 * slots {
            for slot in 0..slots {
                // The angle modulo a full turn first, for precision.
                let turn = ((4 * slot + 1) * u) % (4 * slots);
                let angle = PI * turn as f64 / (2 * slots) as f64;
                let entry = |x: f64| (coarse(x, WEIGHT_PRECISION) * factor).round() as i64;
                cos.push(entry(angle.cos()));
                sin.push(entry(angle.sin()));
            }
        }
        let mut constant = vec![0i128; ring.degree()];
        constant[0] = 1 << (64 - shift);
        Ok(Self {
            slots,
            shift,
            high: Poly::from_signed_wide(ring, &constant).into_evaluation(ring),
            cos,
            sin,
        })
    }

    /// The message whose slots have in column r the values `real(slot, r)` and
    /// `imaginary(slot, r)`, each below 2^112, r below `columns`.
    ///
    /// # Security
    /// No branch or address depends on a value.
    pub(super) fn message(
        &self,
        ring: &Ring,
        columns: usize,
        real: impl Fn(usize, usize) -> u128,
        imaginary: impl Fn(usize, usize) -> u128,
    ) -> Poly<Evaluation> {
        let stride = ring.degree() / (2 * self.slots);
        let mut high = vec![0i128; ring.degree()];
        let mut low = vec![0i128; ring.degree()];
        let mut column: Vec<(u128, u128)> = vec![(0, 0); self.slots];
        for r in 0..columns {
            for (slot, values) in column.iter_mut().enumerate() {
                *values = (real(slot, r), imaginary(slot, r));
            }
            let weights = self
                .cos
                .chunks_exact(self.slots)
                .zip(self.sin.chunks_exact(self.slots));
            for (u, (cos, sin)) in weights.enumerate() {
                // |weight| <= 2^38 and at most 2^12 terms: 2^98 and 2^114.
                let (mut upper, mut lower) = (0i128, 0i128);
                for (&(re, im), (&c, &s)) in column.iter().zip(cos.iter().zip(sin)) {
                    let (c, s) = (i128::from(c), i128::from(s));
                    upper += (re >> 64) as i128 * c + (im >> 64) as i128 * s;
                    lower += i128::from(re as u64) * c + i128::from(im as u64) * s;
                }
                let at = r + stride * u;
                high[at] = upper + (lower >> 64);
                low[at] = ((lower as u64 as u128) >> self.shift) as i128;
            }
        }
        let upper = Poly::from_signed_wide(ring, &high).into_evaluation(ring);
        let mut message = Poly::from_signed_wide(ring, &low).into_evaluation(ring);
        message.mul_accumulate(ring, &[(&upper, &self.high)]);
        high.zeroize();
        low.zeroize();
        column.iter_mut().for_each(|values| values.zeroize());
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cosine_is_rounded_one_way_here_and_another_way_there() {
        for slots in (0..12).map(|log| 1usize << log) {
            for turn in 0..4 * slots {
                let angle = PI * turn as f64 / (2 * slots) as f64;
                for x in [angle.cos(), angle.sin()] {
                    let scaled = x * f64::from(WEIGHT_PRECISION).exp2();
                    let margin = ((scaled - scaled.floor()) - 0.5).abs();
                    // The last place of a number below 1 is 2^-21 of a unit here.
                    assert!(margin > 2f64.powi(-16), "{slots} {turn} {margin}");
                }
            }
        }
    }
}
