//! Distance tables of eight bits.

use crate::{QuantError, code_bits, codes::MAX_SUBQUANTIZERS};
use aligned_vec::{AVec, ConstAlign};
use oboro_simd::Arch;
use zeroize::Zeroize;

/// A query's distances to all centroids in 8 bits, ready to scan with.
///
/// Each sub-quantizer's entries count up from its nearest centroid, all with
/// one scale, so a sum of entries orders vectors as the sum of similarities
/// does, up to rounding. The largest sum is below 65,535, which the scan keeps
/// for "no vector". A table may be made with a *reach*: entries farther than it
/// from the nearest centroid then stay at the largest value, and those within
/// it are told apart more finely; see [`Scanner::quantize`](crate::Scanner::quantize).
///
/// # Security
/// A table tells a query to who knows the codebook. It is built without
/// branches, addresses or divisions that depend on its values, and wiped when
/// dropped.
pub struct QuantizedTable {
    /// 8 bits: `[m][256]`; 4 bits: `[m rounded up to even][16]`.
    entries: AVec<u8, ConstAlign<64>>,
    subquantizers: usize,
    centroids: usize,
    /// The distance, in units of similarities, that one step stands for.
    step: f32,
}

/// The largest sum of entries; one below what marks "no vector".
const LARGEST_SUM: usize = 65_534;

impl QuantizedTable {
    /// Quantizes similarities, `[m][k]`, larger nearer; sums of them over
    /// sub-quantizers order vectors.
    ///
    /// # Errors
    /// When the length is not `subquantizers * centroids`, or one of these is
    /// out of range.
    pub fn from_similarities(
        similarities: &[f32],
        subquantizers: usize,
        centroids: usize,
    ) -> Result<Self, QuantError> {
        Self::within(similarities, subquantizers, centroids, f32::INFINITY)
    }

    /// As [`Self::from_similarities`], with a scale that suits distances up to
    /// `reach` from the nearest centroid of a sub-quantizer, or up to the
    /// widest range of one where that is less.
    pub(crate) fn within(
        similarities: &[f32],
        subquantizers: usize,
        centroids: usize,
        reach: f32,
    ) -> Result<Self, QuantError> {
        if centroids == 0 || centroids > 256 {
            return Err(QuantError::Centroids { centroids });
        }
        if subquantizers == 0 || subquantizers > MAX_SUBQUANTIZERS {
            return Err(QuantError::OutOfRange {
                what: "the number of sub-quantizers",
                actual: subquantizers,
                minimum: 1,
                maximum: MAX_SUBQUANTIZERS,
            });
        }
        if similarities.len() != subquantizers * centroids {
            return Err(QuantError::Mismatch {
                what: "the number of table entries",
                actual: similarities.len(),
                expected: subquantizers * centroids,
            });
        }
        let (width, rows) = match code_bits(centroids) {
            4 => (16, subquantizers.next_multiple_of(2)),
            _ => (256, subquantizers),
        };
        let mut entries = AVec::<u8, ConstAlign<64>>::with_capacity(64, 0);
        entries.resize(rows * width, 0);
        let largest = (LARGEST_SUM / subquantizers).min(255) as f32;
        let scale = Scale { largest, reach };
        let step = oblivious_quantize(
            Arch::detect(),
            similarities,
            centroids,
            width,
            scale,
            &mut entries,
        );
        Ok(Self {
            entries,
            subquantizers,
            centroids,
            step,
        })
    }

    /// The distance that one step of a score stands for. As secret as the table.
    pub(crate) const fn step(&self) -> f32 {
        self.step
    }

    /// Number of sub-quantizers, M.
    #[must_use]
    pub const fn subquantizers(&self) -> usize {
        self.subquantizers
    }

    /// Number of centroids of a sub-quantizer, K.
    #[must_use]
    pub const fn centroids(&self) -> usize {
        self.centroids
    }

    /// Bits of the codes that this table scans.
    #[must_use]
    pub const fn bits(&self) -> usize {
        code_bits(self.centroids)
    }

    /// The entries; see the type for their order.
    #[must_use]
    pub fn entries(&self) -> &[u8] {
        &self.entries
    }

    /// The score of one row of codes.
    ///
    /// # Panics
    /// When `codes` has another length than there are sub-quantizers, or names
    /// a centroid that is not there.
    #[must_use]
    pub fn score(&self, codes: &[u8]) -> u16 {
        assert_eq!(codes.len(), self.subquantizers, "codes do not fit");
        let width = if self.bits() == 4 { 16 } else { 256 };
        codes
            .iter()
            .zip(self.entries.chunks_exact(width))
            .map(|(&code, row)| u16::from(row[usize::from(code)]))
            .sum()
    }
}

impl Drop for QuantizedTable {
    fn drop(&mut self) {
        self.entries.as_mut_slice().zeroize();
        self.step.zeroize();
    }
}

/// What the scale is made of.
#[derive(Clone, Copy)]
struct Scale {
    /// The largest entry.
    largest: f32,
    /// The distance that it need not tell from larger ones.
    reach: f32,
}

/// Fills the entries; the distance that a step stands for.
#[inline(never)]
fn oblivious_quantize(
    arch: Arch,
    similarities: &[f32],
    centroids: usize,
    width: usize,
    scale: Scale,
    entries: &mut [u8],
) -> f32 {
    arch.vectorize(
        #[inline(always)]
        || quantize(similarities, centroids, width, scale, entries),
    )
}

/// Lanes of a running minimum or maximum.
const LANES: usize = 16;

#[inline(always)]
fn fold(row: &[f32], start: f32, choose: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let mut chunks = row.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = choose(*lane, value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane = choose(*lane, value);
    }
    let mut result = start;
    for lane in lanes {
        result = choose(result, lane);
    }
    result
}

/// `1 / x` for positive `x`: a first guess from the exponent, then Newton
/// steps. A division instruction may take as long as its operands please.
#[inline(always)]
fn reciprocal(x: f32) -> f32 {
    let mut guess = f32::from_bits(0x7ef3_11c3_u32.wrapping_sub(x.to_bits()));
    for _ in 0..4 {
        guess *= 2.0 - x * guess;
    }
    guess
}

/// `a` when greater, otherwise `b`: one instruction.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// `a` when smaller, otherwise `b`: one instruction.
#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

#[inline(always)]
fn quantize(
    similarities: &[f32],
    centroids: usize,
    width: usize,
    Scale { largest, reach }: Scale,
    entries: &mut [u8],
) -> f32 {
    // Adding 1.5 * 2^23 leaves the rounded value in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // The range is kept away from zero (a table of equal entries) so that its
    // reciprocal and the products with it stay finite.
    const LEAST: f32 = 1e-30;
    let mut range = LEAST;
    for row in similarities.chunks_exact(centroids) {
        let top = fold(row, f32::NEG_INFINITY, larger);
        let bottom = fold(row, f32::INFINITY, smaller);
        range = larger(top - bottom, range);
    }
    let range = smaller(range, larger(reach, LEAST));
    let scale = largest * reciprocal(range);
    for (row, entries) in similarities
        .chunks_exact(centroids)
        .zip(entries.chunks_exact_mut(width))
    {
        let top = fold(row, f32::NEG_INFINITY, larger);
        for (entry, &similarity) in entries.iter_mut().zip(row) {
            let distance = smaller((top - similarity) * scale, largest);
            *entry = (distance + ROUND).to_bits() as u8;
        }
        // Codes that name no centroid are far away.
        entries[centroids..].fill(largest as u8);
    }
    range * reciprocal(largest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reciprocals_are_close() {
        let mut x = 1e-30f32;
        while x < 1e30 {
            assert!((reciprocal(x) * x - 1.0).abs() < 1e-6, "{x}");
            x *= 1.37;
        }
    }

    proptest! {
        #[test]
        fn entries_are_rounded_distances_from_the_nearest(
            subquantizers in 1usize..9,
            centroids in prop::sample::select(vec![1usize, 2, 15, 16, 17, 100, 256]),
            exponent in -20i32..20,
            seed in any::<u64>(),
        ) {
            let scale = 2f32.powi(exponent);
            let values: Vec<f32> = (0..subquantizers * centroids)
                .map(|i| {
                    let hash = seed.wrapping_add(i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    ((hash >> 40) as f32 / (1 << 24) as f32 - 0.3) * scale
                })
                .collect();
            let table = QuantizedTable::from_similarities(&values, subquantizers, centroids).unwrap();
            let tops: Vec<f32> = values
                .chunks_exact(centroids)
                .map(|row| row.iter().copied().fold(f32::MIN, f32::max))
                .collect();
            let range = values
                .chunks_exact(centroids)
                .zip(&tops)
                .flat_map(|(row, top)| row.iter().map(move |v| top - v))
                .fold(0.0f32, f32::max);
            let width = if centroids <= 16 { 16 } else { 256 };
            for (m, row) in values.chunks_exact(centroids).enumerate() {
                for (k, v) in row.iter().enumerate() {
                    let exact = if range > 0.0 {
                        f64::from(tops[m] - v) / f64::from(range) * 255.0
                    } else {
                        0.0
                    };
                    let entry = f64::from(table.entries()[m * width + k]);
                    prop_assert!((entry - exact).abs() <= 0.51, "{entry} {exact}");
                }
            }
        }
    }

    #[test]
    fn sums_stay_below_the_mark_for_no_vector() {
        for subquantizers in [1, 256, 257, 258, 1000, 4096] {
            let values: Vec<f32> = (0..subquantizers * 17).map(|i| (i % 17) as f32).collect();
            let table = QuantizedTable::from_similarities(&values, subquantizers, 17).unwrap();
            let largest: usize = table
                .entries()
                .chunks_exact(256)
                .map(|row| usize::from(*row.iter().max().unwrap()))
                .sum();
            assert!(largest < 65_535);
        }
    }

    #[test]
    fn fail_lengths_that_do_not_fit() {
        assert!(QuantizedTable::from_similarities(&[0.0; 5], 2, 3).is_err());
        assert!(QuantizedTable::from_similarities(&[], 0, 3).is_err());
        assert!(QuantizedTable::from_similarities(&[], 3, 0).is_err());
        assert!(QuantizedTable::from_similarities(&[0.0; 257], 1, 257).is_err());
    }
}
