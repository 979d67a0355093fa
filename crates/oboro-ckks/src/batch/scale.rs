//! Scales of a batch and what noise leaves of them; see [`mod@crate::scale`].
//!
//! Targets are bounded as for queries: (√2/S)·Σ_i max|t_i|·Δ with
//! Δ = Δ_v·Δ_c, kept below 0.4·q. The noise of one target is
//!
//! | term | variance |
//! |---|---|
//! | errors of the batch times the codebook | σ_v²·2(Δ_c·C)²/S |
//! | errors of the codebook times the batch | σ_c²·B(Δ_v·V)²/S |
//! | errors times errors | N·d·σ_v²·σ_c² |
//! | encryption of zero | σ_v² |
//! | bits of c1 that do not travel | 4^t/12·(2N/3), t the bits dropped |
//!
//! V bounds the norm of a vector, C = √(Σ_i max_k |c_ik|²). σ_v² = 27,972 for
//! `N2048_Q50` (under the public key); σ_c² is the same for a codebook that the
//! owner encrypted, but 10.4 for one that the keeper encrypted with its secret
//! key. Δ_v and Δ_c are balanced so that the first two terms are equal:
//!
//! | M = 16, d = 8, K = 256 | noise | w | flooding |
//! |---|---|---|---|
//! | `N2048_Q50`, codebook by the keeper | 2^31.0 | 36 | 5.0 bits |
//! | `N2048_Q50`, codebook by the owner | 2^33.7 | 36 | 2.3 bits |
//! | `N4096_Q100`, codebook by the keeper | 2^56.7 | 86 | 29.3 bits |

use crate::key::exact;
use crate::scale::{Dither, ERROR_VARIANCE, FILL, TERNARY_VARIANCE};
use crate::{BatchPacking, CkksError, ParameterSet};

/// Who encrypted a codebook, which decides how much noise it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodebookOrigin {
    /// The keeper, with its secret key, from shares it cannot read.
    Keeper,
    /// The owner, under the public key.
    Owner,
}

/// Variance of the rounding of a message that is the difference of two rounded
/// ones, as those of a codebook in shares are.
const SHARED_ROUNDING: f64 = 1.0 / 6.0;

/// The scales of batches and their codebook.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchScale {
    packing: BatchPacking,
    vector_norm: f64,
    codebook_norm: f64,
    origin: CodebookOrigin,
    vector_scale: f64,
    centroid_scale: f64,
    dropped_bits: u32,
    noise: f64,
    entry_error: f64,
}

impl BatchScale {
    /// Scales for vectors of norm at most `vector_norm` and a codebook with
    /// `codebook_norm` = √(Σ_i max_k |c_ik|²).
    ///
    /// # Errors
    /// When a bound is not positive and finite, or the modulus leaves less than
    /// 7 bits of precision.
    pub fn new(
        packing: &BatchPacking,
        vector_norm: f64,
        codebook_norm: f64,
        origin: CodebookOrigin,
    ) -> Result<Self, CkksError> {
        let usable = |x: f64| x.is_finite() && x > 1e-30 && x < 1e30;
        if !usable(vector_norm) {
            return Err(CkksError::Bound("bound on the vectors' norm"));
        }
        if !usable(codebook_norm) {
            return Err(CkksError::Bound("norm of the codebook"));
        }
        let set = packing.set();
        let q = set.log2_modulus().exp2();
        let n = set.degree() as f64;
        let slots = packing.slots() as f64;
        let batch = packing.batch() as f64;

        let range = vector_norm * codebook_norm;
        let delta = FILL * q / (std::f64::consts::SQRT_2 / slots * range);
        let fresh = ERROR_VARIANCE * (2.0 * n * TERNARY_VARIANCE + 1.0) + 1.0 / 12.0;
        let codebook_fresh = match origin {
            CodebookOrigin::Keeper => ERROR_VARIANCE + SHARED_ROUNDING,
            CodebookOrigin::Owner => fresh,
        };
        // (Δ_c·C)/(Δ_v·V) at which both contribute the same noise.
        let balance = (codebook_fresh * batch / (2.0 * fresh)).sqrt();
        let centroid_scale = (delta * balance * vector_norm / codebook_norm).sqrt();
        let vector_scale = delta / centroid_scale;

        let vectors = batch * (vector_scale * vector_norm).powi(2) / slots;
        let centroids = 2.0 * (centroid_scale * codebook_norm).powi(2) / slots;
        let (truncated, _) = set.truncation();
        let truncation = f64::from(2 * truncated).exp2() / 12.0 * (n * TERNARY_VARIANCE);
        let variance = fresh * centroids
            + codebook_fresh * vectors
            + n * packing.width() as f64 * fresh * codebook_fresh
            + fresh
            + truncation;
        let noise = variance.sqrt();

        let Dither {
            dropped_bits,
            entry_error,
        } = Dither::new(set, range, packing.subquantizers(), slots, delta, variance)?;
        Ok(Self {
            packing: *packing,
            vector_norm,
            codebook_norm,
            origin,
            vector_scale,
            centroid_scale,
            dropped_bits,
            noise,
            entry_error,
        })
    }

    /// The shape these scales are for.
    #[must_use]
    pub const fn packing(&self) -> &BatchPacking {
        &self.packing
    }

    /// The parameter set.
    #[must_use]
    pub const fn set(&self) -> ParameterSet {
        self.packing.set()
    }

    /// The largest norm a vector may have; longer ones are scaled down to it.
    #[must_use]
    pub const fn vector_norm(&self) -> f64 {
        self.vector_norm
    }

    /// The bound on √(Σ_i max_k |c_ik|²).
    #[must_use]
    pub const fn codebook_norm(&self) -> f64 {
        self.codebook_norm
    }

    /// Who encrypts the codebook.
    #[must_use]
    pub const fn origin(&self) -> CodebookOrigin {
        self.origin
    }

    /// w: the keeper adds a uniform dither below 2^w and drops w bits.
    #[must_use]
    pub const fn dropped_bits(&self) -> u32 {
        self.dropped_bits
    }

    /// log2 of the standard deviation of a target coefficient's noise.
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

    /// Bits between the dither and the noise's standard deviation.
    #[must_use]
    pub fn flooding_bits(&self) -> f64 {
        f64::from(self.dropped_bits) - self.noise.log2()
    }

    /// Standard deviation of a table entry's error, in the units of the data
    /// (squared, as inner products are).
    #[must_use]
    pub const fn table_error(&self) -> f64 {
        self.entry_error
    }

    pub(crate) const fn vector_scale(&self) -> f64 {
        self.vector_scale
    }

    /// By how much centroids are shortened where they stand in for vectors, so
    /// that they keep within the bound of vectors.
    pub(crate) fn shortening(&self) -> f64 {
        (self.vector_norm / self.codebook_norm).min(1.0)
    }

    pub(crate) const fn centroid_scale(&self) -> f64 {
        self.centroid_scale
    }

    /// Δ = Δ_v·Δ_c.
    pub(crate) fn product_scale(&self) -> f64 {
        self.vector_scale * self.centroid_scale
    }

    /// Length of [`BatchScale::to_bytes`].
    pub const ENCODED_LEN: usize = 17;

    /// The two bounds and the origin; the rest follows from them and the packing.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[..8].copy_from_slice(&self.vector_norm.to_le_bytes());
        out[8..16].copy_from_slice(&self.codebook_norm.to_le_bytes());
        out[16] = match self.origin {
            CodebookOrigin::Keeper => 0,
            CodebookOrigin::Owner => 1,
        };
        out
    }

    /// Reads what [`BatchScale::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or bounds that make no scale for `packing`.
    pub fn from_bytes(packing: &BatchPacking, bytes: &[u8]) -> Result<Self, CkksError> {
        exact("the batch scale", bytes, Self::ENCODED_LEN)?;
        let field = |i: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[8 * i..8 * i + 8]);
            f64::from_le_bytes(value)
        };
        let origin = match bytes[16] {
            0 => CodebookOrigin::Keeper,
            1 => CodebookOrigin::Owner,
            _ => return Err(CkksError::Value("the batch scale")),
        };
        Self::new(packing, field(0), field(1), origin)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_figures() {
        for (set, origin, noise, dropped, flooding) in [
            (
                ParameterSet::N2048Q50,
                CodebookOrigin::Keeper,
                "31.0",
                36,
                "5.0",
            ),
            (
                ParameterSet::N2048Q50,
                CodebookOrigin::Owner,
                "33.7",
                36,
                "2.3",
            ),
            (
                ParameterSet::N4096Q100,
                CodebookOrigin::Keeper,
                "56.7",
                86,
                "29.3",
            ),
        ] {
            let packing = BatchPacking::new(set, 16, 8, 256).unwrap();
            let scale = BatchScale::new(&packing, 1.0, 1.2, origin).unwrap();
            assert_eq!(format!("{:.1}", scale.noise_bits()), noise);
            assert_eq!(scale.dropped_bits(), dropped);
            assert_eq!(format!("{:.1}", scale.flooding_bits()), flooding);
            assert!(set.log2_modulus() - f64::from(dropped) <= 16.0);
            assert_eq!(
                BatchScale::from_bytes(&packing, &scale.to_bytes()).unwrap(),
                scale
            );
        }
    }

    #[test]
    fn fail_bounds_that_make_no_scale() {
        let packing = BatchPacking::new(ParameterSet::N2048Q50, 16, 8, 256).unwrap();
        for (v, c) in [
            (0.0, 1.0),
            (f64::NAN, 1.0),
            (1.0, f64::INFINITY),
            (1.0, -1.0),
        ] {
            assert!(BatchScale::new(&packing, v, c, CodebookOrigin::Keeper).is_err());
        }
        let scale = BatchScale::new(&packing, 1.0, 1.0, CodebookOrigin::Keeper).unwrap();
        let bytes = scale.to_bytes();
        for cut in 0..bytes.len() {
            assert!(BatchScale::from_bytes(&packing, &bytes[..cut]).is_err());
        }
        let mut other = bytes;
        other[16] = 2;
        assert!(BatchScale::from_bytes(&packing, &other).is_err());
    }
}
