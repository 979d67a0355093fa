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

impl Nearest {
    pub(super) fn new(packing: &BatchPacking) -> Self {
        let length = packing.subquantizers() * packing.batch();
        Self {
            packing: *packing,
            codes: vec![0; length],
            scores: vec![f32::NEG_INFINITY; length],
        }
    }

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
    nearest: &mut Nearest,
) -> i64 {
    let (k, batch) = (packing.centroids(), packing.batch());
    kernel.arch.vectorize(
        #[inline(always)]
        || {
            let largest = unmask(kernel, rows);
            // The last block of an odd number of centroids has one only.
            let planes = [(&rows.re, 2 * block), (&rows.im, 2 * block + 1)];
            for (plane, centroid) in planes.into_iter().filter(|plane| plane.1 < k) {
                let best = nearest
                    .scores
                    .chunks_exact_mut(batch)
                    .zip(nearest.codes.chunks_exact_mut(batch));
                for ((values, (scores, codes)), offsets) in plane
                    .chunks_exact(batch)
                    .zip(best)
                    .zip(offsets.chunks_exact(k))
                {
                    let offset = offsets[centroid];
                    for ((&value, score), code) in values.iter().zip(scores).zip(codes) {
                        let candidate = value as f32 + offset;
                        let better = u32::from(candidate > *score).wrapping_neg();
                        *score = score.max(candidate);
                        *code = (*code & !better) | (centroid as u32 & better);
                    }
                }
            }
            largest
        },
    )
}
