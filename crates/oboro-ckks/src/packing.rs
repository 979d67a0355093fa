//! Where each number of a query, a codebook and a table lies in the ring.
//!
//! With S slots (a power of two, at least the number M of sub-quantizers) and
//! L = N/(2S), Y = X^L satisfies Y^(2S) = -1. So Z\[Y\]/(Y^(2S)+1) has S complex
//! slots under the canonical embedding (CKKS), and each ring element is S
//! polynomials in X of degree below L with complex coefficients. Sub-space i
//! lives in slot i.
//!
//! * query: coefficient d2-1-j of slot i is q_i\[j\] (reversed);
//! * codebook block: coefficient kk·d2+j of slot i is c_i,k0\[j\] + √-1·c_i,k1\[j\];
//! * product: coefficient kk·d2+d2-1 of slot i is ⟨q_i,c_i,k0⟩ + √-1·⟨q_i,c_i,k1⟩.
//!
//! No other term reaches a target coefficient: two indices kk'·d2+j and
//! d2-1-j' add up to kk·d2+d2-1 only if j = j' and kk = kk', and the largest
//! sum is L+d2-2, which wraps around to at most d2-2, below the first target.
//!
//! Splitting a sub-vector of d values over d1 query ciphertexts of
//! d2 = ⌈d/d1⌉ values each trades query bytes for reply bytes: d1 = 1 is the
//! *compact query*, d1 = d the *compact reply*.

use crate::{CkksError, ParameterSet};

/// The shape of encrypted queries, codebooks and tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Packing {
    set: ParameterSet,
    subquantizers: usize,
    width: usize,
    centroids: usize,
    split: usize,
}

/// More centroids than one byte of code can name are refused.
const MAX_CENTROIDS: usize = 256;

/// Ciphertexts of a table that [`Packing::balanced`] is content with.
const FEW_BLOCKS: usize = 16;

impl Packing {
    /// A packing of `subquantizers` (M) sub-spaces of `width` (d) dimensions,
    /// `centroids` (K) each, every sub-vector split over `split` (d1) query
    /// ciphertexts.
    ///
    /// # Errors
    /// When the shape does not fit the ring.
    pub fn new(
        set: ParameterSet,
        subquantizers: usize,
        width: usize,
        centroids: usize,
        split: usize,
    ) -> Result<Self, CkksError> {
        let shape = |what, actual, maximum, fix| CkksError::Shape {
            what,
            actual,
            minimum: 1,
            maximum,
            set: set.name(),
            fix,
        };
        let most_slots = set.degree() / 2;
        if !(1..=most_slots).contains(&subquantizers) {
            return Err(shape(
                "the number of sub-quantizers",
                subquantizers,
                most_slots,
                "choose fewer or more sub-quantizers",
            ));
        }
        if !(1..=MAX_CENTROIDS).contains(&centroids) {
            return Err(shape(
                "the number of centroids",
                centroids,
                MAX_CENTROIDS,
                "choose 16 or 256 centroids",
            ));
        }
        if width == 0 || split == 0 || split > width {
            return Err(shape(
                "the split of a sub-vector",
                split,
                width,
                "choose a split of at most the sub-vector's width",
            ));
        }
        let packing = Self {
            set,
            subquantizers,
            width,
            centroids,
            split,
        };
        if packing.part() > packing.stride() {
            return Err(shape(
                "the width of a sub-vector's part",
                packing.part(),
                packing.stride(),
                "raise the split or the number of sub-quantizers",
            ));
        }
        Ok(packing)
    }

    /// The packing with the fewest query ciphertexts.
    ///
    /// # Errors
    /// When no split fits the ring.
    pub fn compact_query(
        set: ParameterSet,
        subquantizers: usize,
        width: usize,
        centroids: usize,
    ) -> Result<Self, CkksError> {
        let slots = subquantizers.max(1).next_power_of_two();
        let stride = (set.degree() / 2).checked_div(slots).unwrap_or(0).max(1);
        Self::new(
            set,
            subquantizers,
            width,
            centroids,
            width.div_ceil(stride).max(1),
        )
    }

    /// The packing with the fewest query ciphertexts whose tables travel in at
    /// most 16, or, where none does, in the fewest there are.
    ///
    /// Each block costs the searcher an encryption of zero and the keeper a
    /// decryption, so that with many of them, as wide vectors have, a longer query is
    /// the cheaper one.
    ///
    /// # Errors
    /// When no split fits the ring.
    pub fn balanced(
        set: ParameterSet,
        subquantizers: usize,
        width: usize,
        centroids: usize,
    ) -> Result<Self, CkksError> {
        let mut best = Self::compact_query(set, subquantizers, width, centroids)?;
        for split in best.split + 1..=width {
            if best.blocks() <= FEW_BLOCKS {
                break;
            }
            let longer = Self::new(set, subquantizers, width, centroids, split)?;
            if longer.blocks() < best.blocks() {
                best = longer;
            }
        }
        Ok(best)
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

    /// d, the number of dimensions of the widest sub-space.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// K, the number of centroids of each sub-space.
    #[must_use]
    pub const fn centroids(&self) -> usize {
        self.centroids
    }

    /// d1, the number of query ciphertexts.
    #[must_use]
    pub const fn split(&self) -> usize {
        self.split
    }

    /// d2, the values of a sub-vector in one query ciphertext.
    #[must_use]
    pub const fn part(&self) -> usize {
        self.width.div_ceil(self.split)
    }

    /// S, the number of complex slots.
    #[must_use]
    pub const fn slots(&self) -> usize {
        self.subquantizers.next_power_of_two()
    }

    /// L, the number of coefficients of each slot.
    #[must_use]
    pub const fn stride(&self) -> usize {
        self.set.degree() / (2 * self.slots())
    }

    /// Target coefficients of each slot in one block.
    #[must_use]
    pub const fn positions(&self) -> usize {
        self.stride() / self.part()
    }

    /// Centroids of every sub-space in one block: two to each position.
    #[must_use]
    pub const fn centroids_per_block(&self) -> usize {
        2 * self.positions()
    }

    /// Ring elements that hold the whole codebook (times `split`).
    #[must_use]
    pub const fn blocks(&self) -> usize {
        self.centroids.div_ceil(self.centroids_per_block())
    }

    /// Real numbers that a block's product yields.
    #[must_use]
    pub const fn targets_per_block(&self) -> usize {
        2 * self.slots() * self.positions()
    }

    /// Coefficient of position `position` within a slot.
    #[must_use]
    pub(crate) const fn target(&self, position: usize) -> usize {
        position * self.part() + self.part() - 1
    }

    /// Ring indexes of a block's targets, ordered \[u\]\[position\], u < 2S.
    pub(crate) fn target_indexes(&self) -> impl Iterator<Item = usize> + '_ {
        (0..2 * self.slots()).flat_map(move |u| {
            (0..self.positions()).map(move |p| self.target(p) + self.stride() * u)
        })
    }

    /// Length of a padded query, M·d.
    #[must_use]
    pub const fn query_len(&self) -> usize {
        self.subquantizers * self.width
    }

    /// Length of a table, M·K.
    #[must_use]
    pub const fn table_len(&self) -> usize {
        self.subquantizers * self.centroids
    }

    /// One byte for the set, then M, d, K and d1 as 32-bit integers.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[0] = self.set.code();
        let fields = [self.subquantizers, self.width, self.centroids, self.split];
        for (field, chunk) in fields.iter().zip(out[1..].chunks_exact_mut(4)) {
            chunk.copy_from_slice(&(*field as u32).to_le_bytes());
        }
        out
    }

    /// Length of [`Packing::to_bytes`].
    pub const ENCODED_LEN: usize = 17;

    /// Reads what [`Packing::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length, an unknown set, or a shape that does not fit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CkksError> {
        if bytes.len() != Self::ENCODED_LEN {
            return Err(CkksError::EncodedLength {
                what: "the packing",
                actual: bytes.len(),
                expected: Self::ENCODED_LEN,
            });
        }
        let set = ParameterSet::from_code(bytes[0]).ok_or(CkksError::Header("the packing"))?;
        let field = |i: usize| {
            let at = 1 + 4 * i;
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
        };
        Self::new(set, field(0), field(1), field(2), field(3))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_shape_leaves_no_coefficient_unused() {
        let p = Packing::new(ParameterSet::N2048Q50, 16, 8, 256, 1).unwrap();
        assert_eq!(
            (p.slots(), p.stride(), p.positions(), p.blocks()),
            (16, 64, 8, 16)
        );
        assert_eq!(p.blocks() * p.targets_per_block(), p.table_len());
        let p = Packing::new(ParameterSet::N2048Q50, 16, 8, 256, 8).unwrap();
        assert_eq!((p.positions(), p.blocks()), (64, 2));
    }

    #[test]
    fn fail_shapes_that_do_not_fit() {
        let new = |m, d, k, d1| Packing::new(ParameterSet::N2048Q50, m, d, k, d1);
        assert!(new(0, 8, 256, 1).is_err());
        assert!(new(1025, 1, 256, 1).is_err());
        assert!(new(16, 8, 257, 1).is_err());
        assert!(new(16, 8, 0, 1).is_err());
        assert!(new(16, 8, 256, 9).is_err());
        assert!(new(16, 0, 256, 1).is_err());
        assert!(new(16, 65, 256, 1).is_err());
        assert_eq!(
            Packing::compact_query(ParameterSet::N2048Q50, 16, 65, 256)
                .unwrap()
                .split(),
            2
        );
    }

    #[test]
    fn balanced_packings_are_the_shortest_with_few_blocks() {
        let shape = |m, d| {
            let p = Packing::balanced(ParameterSet::N2048Q50, m, d, 256).unwrap();
            (p.split(), p.blocks())
        };
        assert_eq!(shape(16, 8), (1, 16));
        assert_eq!(shape(25, 4), (1, 16));
        assert_eq!(shape(40, 5), (3, 16));
        assert_eq!(shape(60, 16), (8, 16));
        assert_eq!(shape(120, 8), (8, 16));
        // None has few: the fewest there are, of the shortest query.
        assert_eq!(shape(512, 8), (8, 64));
        assert_eq!(shape(1024, 3), (3, 128));
        // A sub-space too wide for one ciphertext.
        assert_eq!(shape(16, 65), (9, 16));
        let few = Packing::balanced(ParameterSet::N2048Q50, 64, 2, 16).unwrap();
        assert_eq!((few.split(), few.blocks()), (1, 1));
    }

    proptest! {
        /// The claim of the module: no index sum but the intended one lands
        /// on a target, with or without wrap-around.
        #[test]
        fn only_matching_terms_reach_a_target(m in 1usize..64, d in 1usize..48, split in 1usize..8) {
            let split = split.min(d);
            if let Ok(p) = Packing::new(ParameterSet::N2048Q50, m, d, 256, split) {
                let (l, d2) = (p.stride(), p.part());
                for kk in 0..p.positions() { for j in 0..d2 { for j2 in 0..d2 {
                    let sum = (kk * d2 + j) + (d2 - 1 - j2);
                    let landed = sum % l;
                    let is_target = landed % d2 == d2 - 1 && landed / d2 < p.positions();
                    if sum >= l {
                        prop_assert!(landed + 1 < d2);
                    } else if is_target {
                        prop_assert_eq!(j, j2);
                        prop_assert_eq!(landed, p.target(kk));
                    }
                }}}
                prop_assert_eq!(Packing::from_bytes(&p.to_bytes()).unwrap(), p);
            }
        }
    }
}
