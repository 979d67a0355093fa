//! Unmasking and the nearest centroid, in constant time.

use oboro_simd::Arch;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::evaluate::Kernel;
use crate::BatchPacking;
use crate::embedding::Rows;

/// For each vector of a batch and each sub-space, the centroid that was found
/// and its score.
///
/// # Security
/// The codes of vectors; zeroized on drop.
pub struct Nearest {
    packing: BatchPacking,
    /// `[subquantizer][vector]`.
    codes: Vec<u32>,
    scores: Vec<f32>,
}

impl Drop for Nearest {
    fn drop(&mut self) {
        self.codes.zeroize();
        self.scores.zeroize();
    }
}

impl ZeroizeOnDrop for Nearest {}

/// The best so far, `[subquantizer][vector]`: a score with the centroid in its
/// low bits, which single precision leaves free, so that of equal scores the
/// first centroid's is the larger number.
///
/// One maximum of floating-point numbers then decides both, an instruction that
/// every architecture has. Whatever else keeps a value where a comparison says
/// so, the compiler may turn into a store that happens or not.
pub(super) struct Best(Vec<f64>);

impl Drop for Best {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Bits that hold the centroid.
const TAG: u64 = 0xff;

impl Best {
    pub(super) fn new(packing: &BatchPacking) -> Self {
        let length = packing.subquantizers() * packing.batch();
        Self(vec![f64::NEG_INFINITY; length])
    }

    /// The number for a score and a centroid below 256.
    #[inline(always)]
    const fn key(score: f32, centroid: u64) -> f64 {
        let bits = (score as f64).to_bits();
        f64::from_bits(bits | Self::tag(bits, centroid))
    }

    /// 255 minus the centroid; below zero, where a longer fraction is a smaller
    /// number, the centroid. Its own inverse.
    #[inline(always)]
    const fn tag(bits: u64, centroid: u64) -> u64 {
        let negative = (bits.cast_signed() >> 63).cast_unsigned();
        (centroid ^ !negative) & TAG
    }

    pub(super) fn finish(self, packing: &BatchPacking) -> Nearest {
        let code = |key: &f64| Self::tag(key.to_bits(), key.to_bits()) as u32;
        let score = |key: &f64| f64::from_bits(key.to_bits() & !TAG) as f32;
        Nearest {
            packing: *packing,
            codes: self.0.iter().map(code).collect(),
            scores: self.0.iter().map(score).collect(),
        }
    }
}

impl Nearest {
    /// Appends the codes of the first `vectors` vectors, M bytes a vector.
    ///
    /// # Panics
    /// When a batch has fewer vectors.
    pub fn append_codes(&self, vectors: usize, out: &mut Vec<u8>) {
        let (m, batch) = (self.packing.subquantizers(), self.packing.batch());
        assert!(vectors <= batch, "a batch has {batch} vectors");
        out.reserve(vectors * m);
        for v in 0..vectors {
            out.extend((0..m).map(|slot| self.codes[slot * batch + v] as u8));
        }
    }

    /// The centroids found in sub-space `subquantizer`, one a vector.
    ///
    /// # Panics
    /// When there is no such sub-space.
    #[must_use]
    pub fn codes(&self, subquantizer: usize) -> &[u32] {
        let batch = self.packing.batch();
        &self.codes[subquantizer * batch..(subquantizer + 1) * batch]
    }

    /// Their scores: inner product plus offset.
    ///
    /// # Panics
    /// When there is no such sub-space.
    #[must_use]
    pub fn scores(&self, subquantizer: usize) -> &[f32] {
        let batch = self.packing.batch();
        &self.scores[subquantizer * batch..(subquantizer + 1) * batch]
    }
}

/// Adds the shares of one block modulo q, centres, scales and embeds them into
/// `rows`; returns the largest absolute coefficient.
#[inline(always)]
fn unmask(kernel: &Kernel<'_>, rows: &mut Rows) -> i64 {
    let half = kernel.share.len() / 2;
    let (modulus, shift, factor) = (kernel.modulus, kernel.shift, kernel.factor);
    let mut largest = 0i64;
    for (plane, shares, values) in [
        (&mut rows.re, &kernel.share[..half], &kernel.keeper[..half]),
        (&mut rows.im, &kernel.share[half..], &kernel.keeper[half..]),
    ] {
        for ((out, &x), &v) in plane.iter_mut().zip(shares).zip(values) {
            // The keeper's value may lie one step above q, so reduce twice.
            let sum = x + (u64::from(v) << shift);
            let sum = sum.min(sum.wrapping_sub(modulus));
            let sum = sum.min(sum.wrapping_sub(modulus));
            // Above q/2 stands for a negative number.
            let negative = ((modulus / 2).wrapping_sub(sum) as i64) >> 63;
            let centred = sum as i64 - (modulus as i64 & negative);
            largest = largest.max(centred.abs());
            *out = centred as f64 * factor;
        }
    }
    kernel.embedding.to_slots(rows);
    largest
}

/// [`unmask`] as a function of its own.
#[inline(never)]
pub(super) fn oblivious_unmask_batch(kernel: &Kernel<'_>, rows: &mut Rows) -> i64 {
    let arch: Arch = kernel.arch;
    arch.vectorize(
        #[inline(always)]
        || unmask(kernel, rows),
    )
}

/// Unmasks one block and lets its two centroids compete with the best so far.
#[inline(never)]
pub(super) fn oblivious_assign_block(
    kernel: &Kernel<'_>,
    rows: &mut Rows,
    offsets: &[f32],
    block: usize,
    packing: &BatchPacking,
    best: &mut Best,
) -> i64 {
    let (k, batch) = (packing.centroids(), packing.batch());
    kernel.arch.vectorize(
        #[inline(always)]
        || {
            let largest = unmask(kernel, rows);
            // The last block of an odd number of centroids has one only.
            let planes = [(&rows.re, 2 * block), (&rows.im, 2 * block + 1)];
            for (plane, centroid) in planes.into_iter().filter(|plane| plane.1 < k) {
                let rows = plane
                    .chunks_exact(batch)
                    .zip(best.0.chunks_exact_mut(batch));
                for ((values, best), offsets) in rows.zip(offsets.chunks_exact(k)) {
                    let offset = offsets[centroid];
                    for (&value, best) in values.iter().zip(best) {
                        let key = Best::key(value as f32 + offset, centroid as u64);
                        *best = best.max(key);
                    }
                }
            }
            largest
        },
    )
}

#[cfg(test)]
mod tests {
    use super::Best;

    #[test]
    fn keys_are_in_the_order_of_scores_and_the_first_centroid_wins() {
        let scores = [-1e30, -2.0, -1.0, -1e-40, 0.0, 1e-40, 1.0, 2.0, 1e30];
        for pair in scores.windows(2) {
            assert!(Best::key(pair[0], 0) < Best::key(pair[1], 255));
            assert!(Best::key(pair[0], 4) > Best::key(pair[0], 5));
        }
        let keys = scores.map(|score| Best::key(score, 7));
        let packing =
            crate::BatchPacking::new(crate::ParameterSet::N2048Q50, 1, 1, 8).expect("it fits");
        let nearest = Best(keys.to_vec()).finish(&packing);
        assert_eq!(nearest.scores, scores);
        assert!(nearest.codes.iter().all(|&code| code == 7));
    }
}
