//! Fixed-point scales and what noise leaves of them.
//!
//! A query is encoded with scale Δ_q, centroids with Δ_c, so that a table entry
//! t lies in the product with scale Δ = Δ_q·Δ_c. The target coefficients of a
//! block are at most (√2/S)·Σ_i max|t_i|·Δ, because the inverse embedding
//! averages S slots and each slot holds two entries as one complex number. Δ is
//! chosen so that this stays below 0.4·q: nothing wraps around modulo q, and a
//! table beyond the bound is an error, not a result.
//!
//! Every noise term is a sum of products of independent, centred terms, so its
//! variance is exact and its tails are sub-gaussian; `noise` is the standard
//! deviation of one coefficient after [`MAX_ROTATIONS`] rotations of the key, and
//! margins use 8 of them.

use crate::{CkksError, MAX_ROTATIONS, Packing, ParameterSet};

/// Variance of the error, [`oboro_ring::sample::gaussian`].
pub(crate) const ERROR_VARIANCE: f64 = 10.24;
/// Variance of a uniform ternary coefficient.
pub(crate) const TERNARY_VARIANCE: f64 = 2.0 / 3.0;
/// Part of q that targets may fill.
pub(crate) const FILL: f64 = 0.4;
/// Part of q beyond which a decoded target is taken for an error.
pub(crate) const LIMIT: f64 = 0.45;
/// The dither's error is kept at 2^-11 of the range that entries take.
const DITHER_PRECISION: f64 = 2048.0;
/// Bits of a table share on the wire.
const SHARE_BITS: u32 = 16;
/// Bits of precision below which a shape is refused.
const MINIMUM_PRECISION: u32 = 7;

/// How much of a share the keeper drops, and what is left of a table.
pub(crate) struct Dither {
    /// w: the low bits that are drowned and dropped.
    pub(crate) dropped_bits: u32,
    /// Standard deviation of a table entry's error, in the units of the data.
    pub(crate) entry_error: f64,
}

impl Dither {
    /// For tables of `range` = max |Σ_i t_i| that lie in the product with scale
    /// `delta`, whose coefficients have noise of `variance`.
    ///
    /// # Errors
    /// When less than 7 bits of precision are left.
    pub(crate) fn new(
        set: ParameterSet,
        range: f64,
        subquantizers: usize,
        slots: f64,
        delta: f64,
        variance: f64,
    ) -> Result<Self, CkksError> {
        // Entries of one sub-space range over about |q_i|·|c_i| ~ range/M.
        let entry_range = range / subquantizers as f64;
        let to_entry = slots.sqrt() / delta;
        let wanted = (entry_range / DITHER_PRECISION / (to_entry * 0.41))
            .log2()
            .floor();
        // A share's value must also fit its 16 bits.
        let least = (set.log2_modulus().exp2().log2() - f64::from(SHARE_BITS)).ceil();
        let dropped_bits = wanted.max(least) as u32;
        // Dithered rounding to multiples of 2^w has variance at most 4^w / 4,
        // 4^w / 6 on average.
        let dither = f64::from(2 * dropped_bits).exp2() / 6.0;
        let entry_error = to_entry * (variance + dither).sqrt();
        let bits = (entry_range / entry_error).log2();
        if bits < f64::from(MINIMUM_PRECISION) {
            return Err(CkksError::Precision {
                set: set.name(),
                bits,
                minimum: MINIMUM_PRECISION,
            });
        }
        Ok(Self {
            dropped_bits,
            entry_error,
        })
    }
}

/// The scales of one index, fixed when it is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TableScale {
    set: ParameterSet,
    query_norm_bound: f64,
    codebook_norm: f64,
    offset_bound: f64,
    query_scale: f64,
    centroid_scale: f64,
    dropped_bits: u32,
    noise: f64,
    entry_error: f64,
}

impl TableScale {
    /// Scales for queries of norm at most `query_norm_bound`, a codebook with
    /// `codebook_norm` = √(Σ_i max_k |c_ik|²), and offsets with
    /// `offset_bound` = Σ_i max_k |o_ik| (0 without offsets).
    ///
    /// # Errors
    /// When a bound is not positive and finite, or the modulus leaves less
    /// than 7 bits of precision.
    pub fn new(
        packing: &Packing,
        query_norm_bound: f64,
        codebook_norm: f64,
        offset_bound: f64,
    ) -> Result<Self, CkksError> {
        let usable = |x: f64| x.is_finite() && x > 1e-30 && x < 1e30;
        if !usable(query_norm_bound) {
            return Err(CkksError::Bound("bound on the query's norm"));
        }
        if !usable(codebook_norm) {
            return Err(CkksError::Bound("norm of the codebook"));
        }
        if offset_bound != 0.0 && !usable(offset_bound) {
            return Err(CkksError::Bound("bound on the codebook's offsets"));
        }
        let set = packing.set();
        let q = set.log2_modulus().exp2();
        let n = set.degree() as f64;
        let slots = packing.slots() as f64;
        let per_block = packing.centroids_per_block() as f64;

        let range = query_norm_bound * codebook_norm + offset_bound;
        let delta = FILL * q / (std::f64::consts::SQRT_2 / slots * range);
        // Equal contributions of query and codebook to the noise.
        let balance = per_block.sqrt() * codebook_norm / query_norm_bound;
        let query_scale = (delta * balance).sqrt();
        let centroid_scale = delta / query_scale;

        // Error of a public-key encryption, e_pk·u + e0 + e1·s, and rounding.
        let fresh = ERROR_VARIANCE * (2.0 * n * TERNARY_VARIANCE + 1.0) + 1.0 / 12.0;
        // A codebook's grows by one error with every rotation of the key.
        let rotated = fresh + MAX_ROTATIONS as f64 * ERROR_VARIANCE;
        let query_message = (query_scale * query_norm_bound).powi(2) / slots;
        let codebook_message = (centroid_scale * codebook_norm).powi(2) * per_block / slots;
        let (truncated, _) = set.truncation();
        let truncation = f64::from(2 * truncated).exp2() / 12.0 * (n * TERNARY_VARIANCE);
        let variance = rotated * query_message
            + fresh * codebook_message
            + n * packing.split() as f64 * fresh * rotated
            + rotated
            + fresh
            + truncation;
        let noise = variance.sqrt();

        let Dither {
            dropped_bits,
            entry_error,
        } = Dither::new(
            packing.set(),
            range,
            packing.subquantizers(),
            slots,
            delta,
            variance,
        )?;
        Ok(Self {
            set,
            query_norm_bound,
            codebook_norm,
            offset_bound,
            query_scale,
            centroid_scale,
            dropped_bits,
            noise,
            entry_error,
        })
    }

    /// The largest norm a query may have; longer ones are scaled down to it.
    #[must_use]
    pub const fn query_norm_bound(&self) -> f64 {
        self.query_norm_bound
    }

    /// w: the keeper adds a uniform dither below 2^w and drops w bits.
    #[must_use]
    pub const fn dropped_bits(&self) -> u32 {
        self.dropped_bits
    }

    /// log2 of the standard deviation of a coefficient's noise, after as many rotations
    /// of the key as are allowed.
    #[must_use]
    pub fn noise_bits(&self) -> f64 {
        self.noise.log2()
    }

    /// A coefficient's noise stays below this except with probability about
    /// 2^-45: eight standard deviations.
    #[must_use]
    pub fn noise_bound(&self) -> f64 {
        8.0 * self.noise
    }

    /// Bits between the dither and the noise's standard deviation: how deep the
    /// noise of a decrypted table is drowned (IND-CPA-D).
    #[must_use]
    pub fn flooding_bits(&self) -> f64 {
        f64::from(self.dropped_bits) - self.noise.log2()
    }

    /// Bits between the noise bound and the room that targets leave below
    /// q/2: the noise margin.
    #[must_use]
    pub fn margin_bits(&self) -> f64 {
        ((0.5 - FILL) * self.set.log2_modulus().exp2() / self.noise_bound()).log2()
    }

    /// Standard deviation of a table entry's error, in the units of the data
    /// (squared, as inner products are).
    #[must_use]
    pub const fn table_error(&self) -> f64 {
        self.entry_error
    }

    pub(crate) const fn set(&self) -> ParameterSet {
        self.set
    }

    pub(crate) const fn query_scale(&self) -> f64 {
        self.query_scale
    }

    pub(crate) const fn centroid_scale(&self) -> f64 {
        self.centroid_scale
    }

    /// Δ = Δ_q·Δ_c.
    pub(crate) fn product_scale(&self) -> f64 {
        self.query_scale * self.centroid_scale
    }

    /// Length of [`TableScale::to_bytes`].
    pub const ENCODED_LEN: usize = 24;

    /// The three bounds; the rest follows from them and the packing.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[..8].copy_from_slice(&self.query_norm_bound.to_le_bytes());
        out[8..16].copy_from_slice(&self.codebook_norm.to_le_bytes());
        out[16..].copy_from_slice(&self.offset_bound.to_le_bytes());
        out
    }

    /// Reads what [`TableScale::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or bounds that make no scale for `packing`.
    pub fn from_bytes(packing: &Packing, bytes: &[u8]) -> Result<Self, CkksError> {
        crate::key::exact("the table scale", bytes, Self::ENCODED_LEN)?;
        let field = |i: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[8 * i..8 * i + 8]);
            f64::from_le_bytes(value)
        };
        Self::new(packing, field(0), field(1), field(2))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_default_shape_has_the_documented_figures() {
        for (set, noise, flooding) in [
            (ParameterSet::N2048Q50, "32.9", "3.1"),
            (ParameterSet::N4096Q100, "58.6", "27.4"),
        ] {
            let packing = Packing::compact_query(set, 16, 8, 256).unwrap();
            let scale = TableScale::new(&packing, 2.0, 1.0, 0.5).unwrap();
            assert_eq!(format!("{:.1}", scale.noise_bits()), noise);
            assert_eq!(format!("{:.1}", scale.flooding_bits()), flooding);
            assert!(scale.margin_bits() > 8.0);
            assert!(set.log2_modulus() - f64::from(scale.dropped_bits()) <= 16.0);
            assert!(scale.table_error() < 2.5 / 16.0 / 1024.0);
            assert_eq!(
                TableScale::from_bytes(&packing, &scale.to_bytes()).unwrap(),
                scale
            );
        }
    }

    #[test]
    fn fail_bounds_that_make_no_scale() {
        let packing = Packing::compact_query(ParameterSet::N2048Q50, 16, 8, 256).unwrap();
        for (q, c, o) in [
            (0.0, 1.0, 0.0),
            (f64::NAN, 1.0, 0.0),
            (1.0, f64::INFINITY, 0.0),
            (1.0, 1.0, -1.0),
        ] {
            assert!(TableScale::new(&packing, q, c, o).is_err());
        }
        assert!(TableScale::from_bytes(&packing, &[0; 23]).is_err());
    }
}
