//! The scale of a table by the query.
//!
//! A table of eight bits whose scale is set by the widest range of a
//! sub-quantizer is too coarse for a query whose neighbours are many times
//! nearer than that: with 120 sub-quantizers on descriptors of pictures, those
//! of pieces without texture. How near the neighbours are is learned from a
//! sample of the codes, which the build or the insertion has shuffled: it is scanned with
//! the coarse table, and the score `T` that a few of the sample reach bounds
//! the sum of every vector of interest.
//!
//! No entry of such a vector is above `T`, so with up to [`MEANS`]
//! sub-quantizers a reach of `T` loses nothing among them. With more, an entry
//! above `MEANS` times the mean, `T / M`, is rare; it counts as less than it
//! is, which brings a vector nearer and moves none of the nearest away.

use crate::{BlockedCodes, Candidate, QuantError, QuantizedTable, Scanner, SelectionPlan};
use oboro_simd::scan::BLOCK;

/// Blocks of the sample: enough that the rank below is a good estimate, and
/// nothing beside a scan of a million vectors.
const SAMPLE_BLOCKS: usize = 64;

/// The best of the sample that must lie within the reach, at least: as an
/// estimate of their score one alone would be too uncertain.
const LEAST_RANK: usize = 16;

/// The reach holds this many times as many vectors as are candidates.
const MARGIN: usize = 2;

/// An entry's reach in means of the entries of a vector of interest.
const MEANS: usize = 32;

impl SelectionPlan {
    /// A plan for [`Scanner::quantize`]: to find, in a sample of the first
    /// `codes` vectors, as many as say how far the best `candidates` of
    /// `vectors` reach.
    ///
    /// # Errors
    /// When `codes` is zero, or a number is out of the range of [`Self::new`].
    pub fn for_sample(codes: usize, candidates: usize, vectors: usize) -> Result<Self, QuantError> {
        let sampled = codes.min(SAMPLE_BLOCKS * BLOCK);
        Self::new(sampled, sample_rank(sampled, candidates, vectors))
    }
}

/// How many of a sample lie within the reach; all of it for a small set.
fn sample_rank(sampled: usize, candidates: usize, vectors: usize) -> usize {
    let share = (MARGIN * candidates).saturating_mul(sampled);
    share
        .div_ceil(vectors.max(1))
        .max(LEAST_RANK)
        .min(sampled.max(1))
}

impl Scanner {
    /// A table of similarities, as [`QuantizedTable::from_similarities`] makes
    /// it, with a scale that suits the best vectors: those at the beginning of
    /// `codes`, which must be in random order, tell how near these are. `mask`
    /// as in [`Self::search_masked`], of the sample at least; `plan` is one
    /// [for a sample](SelectionPlan::for_sample).
    ///
    /// # Errors
    /// When codes, mask, plan and the table's shape do not belong together.
    ///
    /// # Security
    /// As oblivious as a search of the sample.
    pub fn quantize(
        &self,
        similarities: &[f32],
        subquantizers: usize,
        centroids: usize,
        codes: &BlockedCodes,
        mask: Option<&[u64]>,
        plan: &SelectionPlan,
    ) -> Result<QuantizedTable, QuantError> {
        let coarse = QuantizedTable::from_similarities(similarities, subquantizers, centroids)?;
        let best = self.search_sample(codes, &coarse, mask, plan)?;
        let last = best.last().copied().unwrap_or(Candidate::NONE);
        let means = (MEANS as f32 / subquantizers as f32).min(1.0);
        let reach = oblivious_reach(last.score, coarse.step(), subquantizers) * means;
        QuantizedTable::within(similarities, subquantizers, centroids, reach)
    }
}

/// The largest sum of distances that a score may stand for: up to half a step
/// of each entry has been rounded away. Where fewer vectors passed the mask
/// than the rank, the score is the largest, and the reach beyond every range.
#[inline(never)]
fn oblivious_reach(score: u16, step: f32, subquantizers: usize) -> f32 {
    step * (f32::from(score) + 0.5 * subquantizers as f32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::code_bits;
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    /// Scores as exact sums have them.
    fn sums(similarities: &[f32], centroids: usize, rows: &[u8]) -> Vec<f32> {
        let subquantizers = similarities.len() / centroids;
        let tops: Vec<f32> = similarities
            .chunks_exact(centroids)
            .map(|row| row.iter().copied().fold(f32::MIN, f32::max))
            .collect();
        rows.chunks_exact(subquantizers)
            .map(|row| {
                let entries = row.iter().enumerate();
                entries
                    .map(|(m, &code)| tops[m] - similarities[m * centroids + usize::from(code)])
                    .sum()
            })
            .collect()
    }

    struct Case {
        similarities: Vec<f32>,
        rows: Vec<u8>,
        codes: BlockedCodes,
    }

    /// Vectors of which every twentieth is far nearer than the rest.
    fn clustered(vectors: usize, subquantizers: usize, centroids: usize) -> Case {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let mut unit = || (rng.next_u64() >> 40) as f32 / (1 << 24) as f32;
        // Half of the centroids within a thousandth of the range.
        let similarities: Vec<f32> = (0..subquantizers * centroids)
            .map(|at| match at % centroids {
                near if near < centroids / 2 => -unit() * 1e-3,
                _ => -0.5 - 0.5 * unit(),
            })
            .collect();
        let rows: Vec<u8> = (0..vectors)
            .flat_map(|vector| {
                let among = if vector % 20 == 0 { 2 } else { 1 };
                (0..subquantizers)
                    .map(|_| (unit() * (centroids / among) as f32) as u8)
                    .collect::<Vec<_>>()
            })
            .collect();
        let codes = BlockedCodes::from_rows(&rows, subquantizers, code_bits(centroids)).unwrap();
        Case {
            similarities,
            rows,
            codes,
        }
    }

    fn found(case: &Case, table: QuantizedTable, candidates: usize) -> Vec<u32> {
        let plan = SelectionPlan::new(case.codes.len(), candidates).unwrap();
        let found = Scanner::new()
            .search(&case.codes, &[table], &plan, 1)
            .unwrap();
        found[0].iter().map(|c| c.position).collect()
    }

    #[test]
    fn near_neighbours_are_told_apart_however_wide_the_range() {
        for (subquantizers, centroids) in [(4, 256), (16, 256), (120, 256), (32, 16)] {
            let case = clustered(20_000, subquantizers, centroids);
            let exact = sums(&case.similarities, centroids, &case.rows);
            let mut order: Vec<u32> = (0..exact.len() as u32).collect();
            order.sort_by(|&a, &b| exact[a as usize].total_cmp(&exact[b as usize]));
            let recall = |found: &[u32]| {
                let hits = order[..50].iter().filter(|p| found.contains(p)).count();
                hits as f64 / 50.0
            };
            let plan = SelectionPlan::for_sample(case.codes.len(), 100, case.codes.len()).unwrap();
            let scanner = Scanner::new();
            let fine = scanner
                .quantize(
                    &case.similarities,
                    subquantizers,
                    centroids,
                    &case.codes,
                    None,
                    &plan,
                )
                .unwrap();
            let coarse =
                QuantizedTable::from_similarities(&case.similarities, subquantizers, centroids)
                    .unwrap();
            let (fine, coarse) = (
                recall(&found(&case, fine, 100)),
                recall(&found(&case, coarse, 100)),
            );
            assert!(coarse < 0.6, "M {subquantizers}: {coarse}");
            assert!(fine > 0.9, "M {subquantizers}: {fine}");
        }
    }

    #[test]
    fn vectors_within_the_sample_s_reach_keep_their_order() {
        // Up to 32 sub-quantizers no entry of a vector of interest is cut.
        for subquantizers in [1, 2, 7, 16, 32] {
            let case = clustered(5_000, subquantizers, 256);
            let exact = sums(&case.similarities, 256, &case.rows);
            let plan = SelectionPlan::for_sample(5_000, 100, 5_000).unwrap();
            let table = Scanner::new()
                .quantize(
                    &case.similarities,
                    subquantizers,
                    256,
                    &case.codes,
                    None,
                    &plan,
                )
                .unwrap();
            // As finely as this table tells them apart, not the coarse one.
            let step = table.step();
            assert!(step < 0.1 / 255.0 * subquantizers as f32, "{step}");
            let found = found(&case, table, 100);
            let mut order: Vec<f32> = exact.clone();
            order.sort_by(f32::total_cmp);
            for position in found {
                let allowed = order[99] + step * (subquantizers as f32 + 1.0);
                assert!(exact[position as usize] <= allowed);
            }
        }
    }

    #[test]
    fn too_few_vectors_behind_a_mask_leave_the_widest_range() {
        let case = clustered(5_000, 16, 256);
        let plan = SelectionPlan::for_sample(5_000, 100, 5_000).unwrap();
        let mask = vec![1_u64; case.codes.blocks()];
        let masked = |mask: &[u64]| {
            Scanner::new()
                .quantize(&case.similarities, 16, 256, &case.codes, Some(mask), &plan)
                .unwrap()
        };
        let coarse = QuantizedTable::from_similarities(&case.similarities, 16, 256).unwrap();
        assert_eq!(masked(&mask).entries(), coarse.entries());
        // A mask of the sample alone is enough, and one of everything is none.
        let sample = vec![u64::MAX; plan.vectors().div_ceil(64)];
        let all = vec![u64::MAX; case.codes.blocks()];
        assert_eq!(masked(&sample).entries(), masked(&all).entries());
        assert_ne!(masked(&all).entries(), coarse.entries());
    }

    #[test]
    fn few_vectors_are_all_of_interest() {
        assert_eq!(sample_rank(4_096, 100, 1_000_000), 16);
        assert_eq!(sample_rank(4_096, 100, 10_000), 82);
        assert_eq!(sample_rank(300, 100, 300), 200);
        assert_eq!(sample_rank(300, 256, 300), 300);
        assert_eq!(sample_rank(5, 100, 5), 5);
        assert_eq!(sample_rank(1, 1, 1), 1);
    }

    #[test]
    fn fail_parts_that_do_not_belong_together() {
        let case = clustered(200, 4, 256);
        let scanner = Scanner::new();
        let plan = SelectionPlan::for_sample(200, 10, 200).unwrap();
        let short = [1_u64; 3];
        for (subquantizers, mask, plan) in [
            (2, None, plan),
            (4, Some(&short[..]), plan),
            (4, None, SelectionPlan::for_sample(201, 10, 201).unwrap()),
        ] {
            let similarities = &case.similarities[..subquantizers * 256];
            assert!(
                scanner
                    .quantize(similarities, subquantizers, 256, &case.codes, mask, &plan)
                    .is_err()
            );
        }
        assert!(SelectionPlan::for_sample(0, 10, 200).is_err());
    }
}
