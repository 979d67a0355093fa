//! Where each number of a batch of vectors lies in the ring.
//!
//! Slots and strides are those of [`mod@crate::packing`]: S slots, L = N/(2S)
//! coefficients each, sub-space i in slot i. A batch has B = L vectors and one
//! ciphertext for each of the d dimensions of a sub-space:
//!
//! * batch, ciphertext j: coefficient v of slot i is x_v,i\[j\];
//! * codebook block b, ciphertext j: coefficient 0 of slot i is
//!   c_i,2b\[j\] + √-1·c_i,2b+1\[j\];
//! * Σ_j of the products: coefficient v of slot i is
//!   ⟨x_v,i,c_i,2b⟩ + √-1·⟨x_v,i,c_i,2b+1⟩.
//!
//! A constant of each slot times a polynomial: nothing wraps around and every
//! coefficient is a target. Per vector that is K·d/(2L) products and K/(2L)
//! elements of reply, the least that the ring allows.

use crate::key::exact;
use crate::{CkksError, Packing, ParameterSet};

/// The shape of batches of vectors and of the codebook they are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchPacking {
    set: ParameterSet,
    subquantizers: usize,
    width: usize,
    centroids: usize,
}

/// More dimensions than this a sub-space has not.
const MAX_WIDTH: usize = 4096;

impl BatchPacking {
    /// A packing of `subquantizers` (M) sub-spaces of `width` (d) dimensions,
    /// `centroids` (K) each.
    ///
    /// # Errors
    /// When the shape does not fit the ring.
    pub fn new(
        set: ParameterSet,
        subquantizers: usize,
        width: usize,
        centroids: usize,
    ) -> Result<Self, CkksError> {
        // Checks M and K; the split that batches use always fits.
        if !(1..=MAX_WIDTH).contains(&width) {
            return Err(CkksError::Shape {
                what: "the width of a sub-space",
                actual: width,
                minimum: 1,
                maximum: MAX_WIDTH,
                set: set.name(),
                fix: "raise the number of sub-quantizers",
            });
        }
        let packing = Packing::new(set, subquantizers, width, centroids, width)?;
        Ok(Self {
            set: packing.set(),
            subquantizers: packing.subquantizers(),
            width: packing.width(),
            centroids: packing.centroids(),
        })
    }

    /// The batch packing of the same set, sub-spaces and centroids as a
    /// packing for searching.
    ///
    /// # Errors
    /// When a sub-space is too wide.
    pub fn of(packing: &Packing) -> Result<Self, CkksError> {
        Self::new(
            packing.set(),
            packing.subquantizers(),
            packing.width(),
            packing.centroids(),
        )
    }

    /// The parameter set.
    #[must_use]
    pub const fn set(&self) -> ParameterSet {
        self.set
    }

    /// M, the number of sub-spaces.
    #[must_use]
    pub const fn subquantizers(&self) -> usize {
        self.subquantizers
    }

    /// d, the number of dimensions of the widest sub-space, and of ciphertexts
    /// of a batch.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// K, the number of centroids of each sub-space.
    #[must_use]
    pub const fn centroids(&self) -> usize {
        self.centroids
    }

    /// S, the number of complex slots.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.subquantizers.next_power_of_two()
    }

    /// B, the vectors of a batch.
    #[must_use]
    pub const fn batch(&self) -> usize {
        self.set.degree() / (2 * self.slots())
    }

    /// Blocks of the codebook, two centroids of every sub-space each.
    #[must_use]
    pub const fn blocks(&self) -> usize {
        self.centroids.div_ceil(2)
    }

    /// Length of a padded vector, M·d.
    #[must_use]
    pub const fn vector_len(&self) -> usize {
        self.subquantizers * self.width
    }

    /// Length of the table of one vector, M·K.
    #[must_use]
    pub const fn table_len(&self) -> usize {
        self.subquantizers * self.centroids
    }

    /// Length of a codebook, M·K·d.
    #[must_use]
    pub const fn codebook_len(&self) -> usize {
        self.table_len() * self.width
    }

    /// Batches that hold `vectors` vectors.
    #[must_use]
    pub const fn batches(&self, vectors: usize) -> usize {
        vectors.div_ceil(self.batch())
    }

    /// Length of [`BatchPacking::to_bytes`].
    pub const ENCODED_LEN: usize = 13;

    /// One byte for the set, then M, d and K as 32-bit integers.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[0] = self.set.code();
        let fields = [self.subquantizers, self.width, self.centroids];
        for (field, chunk) in fields.iter().zip(out[1..].chunks_exact_mut(4)) {
            chunk.copy_from_slice(&(*field as u32).to_le_bytes());
        }
        out
    }

    /// Reads what [`BatchPacking::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length, an unknown set, or a shape that does not fit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CkksError> {
        exact("the batch packing", bytes, Self::ENCODED_LEN)?;
        let set =
            ParameterSet::from_code(bytes[0]).ok_or(CkksError::Header("the batch packing"))?;
        let field = |i: usize| {
            let at = 1 + 4 * i;
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
        };
        Self::new(set, field(0), field(1), field(2))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_default_shape_has_the_documented_figures() {
        let p = BatchPacking::new(ParameterSet::N2048Q50, 16, 8, 256).unwrap();
        assert_eq!((p.slots(), p.batch(), p.blocks()), (16, 64, 128));
        assert_eq!(p.batches(65), 2);
        let p = BatchPacking::new(ParameterSet::N4096Q100, 60, 16, 16).unwrap();
        assert_eq!((p.slots(), p.batch(), p.blocks()), (64, 32, 8));
        let p = BatchPacking::new(ParameterSet::N2048Q50, 1, 97, 3).unwrap();
        assert_eq!((p.slots(), p.batch(), p.blocks()), (1, 1024, 2));
        assert_eq!(BatchPacking::from_bytes(&p.to_bytes()).unwrap(), p);
    }

    #[test]
    fn fail_shapes_that_do_not_fit() {
        let new = |m, d, k| BatchPacking::new(ParameterSet::N2048Q50, m, d, k);
        for (m, d, k) in [
            (0, 8, 256),
            (1025, 1, 256),
            (16, 0, 256),
            (16, 4097, 256),
            (16, 8, 257),
            (16, 8, 0),
        ] {
            assert!(new(m, d, k).is_err());
        }
        let bytes = new(16, 8, 256).unwrap().to_bytes();
        for cut in 0..bytes.len() {
            assert!(BatchPacking::from_bytes(&bytes[..cut]).is_err());
        }
        let mut other = bytes;
        other[0] = 9;
        assert!(BatchPacking::from_bytes(&other).is_err());
    }
}
