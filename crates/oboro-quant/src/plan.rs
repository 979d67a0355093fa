//! How many of its best every lane must keep.
//!
//! Positions fall into lanes, a public map. If vectors were shuffled when the
//! index was built, the `R` truly best ones are a random subset of positions.
//! A lane that keeps `r` entries loses a true one only if more than `r` of the
//! `R` fall into it. For a lane of `s` among `n` positions, each of the
//! `C(R, r + 1)` subsets falls into it with probability
//! `s (s - 1) .. (s - r) / (n (n - 1) .. (n - r))`, so over all `n / s` lanes
//!
//! `P[any loss] <= lanes * C(R, r + 1) * s (s - 1) .. (s - r) / (n .. (n - r))`,
//!
//! which is at most `lanes * C(R, r + 1) * (s / n)^(r + 1)`.
//!
//! Where lists are probed the best crowd in the nearest. Within a list of `l`
//! places the order is random, so each falls into a lane with probability at
//! most `s' / l`, where `s'` of the list's places lie in that lane, and the
//! bound is `lanes * C(R, r + 1) * (s' / l)^(r + 1)` however they are shared
//! among lists.

use crate::QuantError;
use crate::codes::MAX_VECTORS;
use oboro_simd::scan::BLOCK;
use oboro_simd::select::{DEPTHS, LANES};

/// The most candidates a plan offers.
pub const MAX_CANDIDATES: usize = 4096;

/// The probability of a displaced candidate that a plan stays below.
const ACCEPTED: f64 = 1e-9;

/// Blocks in the smallest and the largest group; a group's rows must be
/// numbered by 16 bits and come in whole batches.
const GROUP_BLOCKS: [usize; 8] = [512, 256, 128, 64, 32, 16, 8, 4];

/// How the best of `n` scores are found: groups of vectors, lanes in a group,
/// and the depth that a lane keeps. Everything depends on public numbers only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SelectionPlan {
    vectors: usize,
    candidates: usize,
    /// The smallest run of vectors, in random order, that all of the best may
    /// lie in.
    cluster: usize,
    group_blocks: usize,
    depth: usize,
    displacement: f64,
}

impl SelectionPlan {
    /// A plan to find the best `candidates` of `vectors` scores; with fewer
    /// vectors than candidates, all are found.
    ///
    /// # Errors
    /// When `vectors` is zero or above 2^32 - 1, or `candidates` is zero or
    /// above [`MAX_CANDIDATES`].
    pub fn new(vectors: usize, candidates: usize) -> Result<Self, QuantError> {
        if vectors == 0 || vectors > MAX_VECTORS {
            return Err(QuantError::OutOfRange {
                what: "the number of vectors to select from",
                actual: vectors,
                minimum: 1,
                maximum: MAX_VECTORS,
            });
        }
        if candidates == 0 || candidates > MAX_CANDIDATES {
            return Err(QuantError::OutOfRange {
                what: "the number of candidates",
                actual: candidates,
                minimum: 1,
                maximum: MAX_CANDIDATES,
            });
        }
        Ok(Self::cheapest(vectors, candidates.min(vectors), vectors))
    }

    /// A plan to find the best `candidates` in `probes` lists of
    /// `list_vectors` places each, as [`crate::Scanner::search_lists`] needs
    /// it. The places of a list are in random order, but the best may all lie
    /// in one list: the probability of a displaced candidate is bounded for
    /// the worst share among lists.
    ///
    /// # Errors
    /// When there are no lists, the list is not whole blocks of 64, or
    /// a number is out of the range of [`Self::new`].
    pub fn for_lists(
        list_vectors: usize,
        probes: usize,
        candidates: usize,
    ) -> Result<Self, QuantError> {
        if list_vectors == 0 || !list_vectors.is_multiple_of(BLOCK) {
            return Err(QuantError::Mismatch {
                what: "the number of places of a list",
                actual: list_vectors,
                expected: list_vectors.next_multiple_of(BLOCK).max(BLOCK),
            });
        }
        let vectors = list_vectors.saturating_mul(probes);
        let plain = Self::new(vectors, candidates)?;
        Ok(Self::cheapest(vectors, plain.candidates, list_vectors))
    }

    /// The cheapest plan that displaces nothing but with a probability below
    /// [`ACCEPTED`].
    fn cheapest(vectors: usize, candidates: usize, cluster: usize) -> Self {
        let mut best: Option<(f64, Self)> = None;
        for group_blocks in GROUP_BLOCKS {
            for depth in DEPTHS {
                let mut plan = Self::with(vectors, candidates, group_blocks, depth);
                plan.cluster = cluster;
                plan.displacement = plan.bound();
                let cost = plan.cost();
                if plan.displacement < ACCEPTED
                    && plan.kept() >= candidates
                    && best.as_ref().is_none_or(|(least, _)| cost < *least)
                {
                    best = Some((cost, plan));
                }
            }
        }
        // The smallest group has 8 rows, and a depth of 8 keeps them all.
        best.expect("keeping every row displaces nothing").1
    }

    /// A plan of a given shape, whatever it displaces.
    pub(crate) fn with(
        vectors: usize,
        candidates: usize,
        group_blocks: usize,
        depth: usize,
    ) -> Self {
        let mut plan = Self {
            vectors,
            candidates,
            cluster: vectors,
            group_blocks,
            depth,
            displacement: 0.0,
        };
        plan.displacement = plan.bound();
        plan
    }

    fn bound(&self) -> f64 {
        let rows = self.rows();
        if rows <= self.depth || self.candidates <= self.depth {
            return 0.0;
        }
        let mut log = (self.lanes() as f64).ln();
        for i in 0..=self.depth {
            // One more of the best drawn, and it too falls into the lane.
            log += ((self.candidates - i) as f64 / (i + 1) as f64).ln();
            if self.cluster == self.vectors {
                let (inside, all) = (rows.saturating_sub(i), self.vectors.saturating_sub(i));
                log += (inside as f64 / all as f64).min(1.0).ln();
            } else {
                // A lane has at most this share of a list's places. Those of
                // other lists are drawn independently, so nothing is gained
                // from places already taken.
                let inside = rows.min(self.cluster.div_ceil(LANES));
                log += (inside as f64 / self.cluster as f64).min(1.0).ln();
            }
        }
        log.exp().min(1.0)
    }

    /// Vectors that lanes keep in all, when each keeps as many as it can.
    fn kept(&self) -> usize {
        let group = self.group_blocks * BLOCK;
        let whole = self.vectors / group * LANES * self.rows().min(self.depth);
        let rest = self.vectors % group;
        let rows = rest / BLOCK * 2;
        // Of the last block, lane `l` has the positions `2 l` and `2 l + 1`.
        let last = rest % BLOCK;
        let partial: usize = (0..LANES)
            .map(|lane| {
                let extra = usize::from(2 * lane < last) + usize::from(2 * lane + 1 < last);
                (rows + extra).min(self.depth)
            })
            .sum();
        whole + partial
    }

    /// Cost in thirds of a nanosecond, as measured; only ratios matter.
    fn cost(&self) -> f64 {
        let rows = (self.groups() * self.rows()) as f64;
        let row = match self.depth {
            4 => 6.0,
            8 => 9.0,
            16 => 12.0,
            _ => 25.0,
        };
        let keys = (self.lanes() * self.depth) as f64;
        let stages = (self.keep() as f64).log2() + 4.0;
        rows * row + keys * stages * 0.5
    }

    /// Number of vectors that scores are selected from.
    #[must_use]
    pub const fn vectors(&self) -> usize {
        self.vectors
    }

    /// Number of candidates found, at most the number of vectors.
    #[must_use]
    pub const fn candidates(&self) -> usize {
        self.candidates
    }

    /// Number of groups that are scanned one after the other.
    #[must_use]
    pub const fn groups(&self) -> usize {
        self.vectors.div_ceil(self.group_blocks * BLOCK)
    }

    /// Number of lanes over all groups.
    #[must_use]
    pub const fn lanes(&self) -> usize {
        self.groups() * LANES
    }

    /// Entries that each lane keeps.
    #[must_use]
    pub const fn depth(&self) -> usize {
        self.depth
    }

    /// Bound on the probability, over the shuffle of the build, that one of
    /// the true candidates is displaced by a full lane.
    #[must_use]
    pub const fn displacement_probability(&self) -> f64 {
        self.displacement
    }

    pub(crate) const fn group_blocks(&self) -> usize {
        self.group_blocks
    }

    /// Positions that share a lane in a group.
    const fn rows(&self) -> usize {
        self.group_blocks * BLOCK / LANES
    }

    /// Keys that merges keep: a power of two, not below the depth.
    pub(crate) const fn keep(&self) -> usize {
        let keep = self.candidates.next_power_of_two();
        if keep < self.depth { self.depth } else { keep }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_stays_below_the_accepted_probability() {
        for vectors in [
            1,
            2,
            31,
            64,
            65,
            255,
            256,
            1000,
            4097,
            100_000,
            1_000_000,
            100_000_000,
        ] {
            for candidates in [1, 10, 40, 100, 400, 1000, 4096] {
                let plan = SelectionPlan::new(vectors, candidates).unwrap();
                assert!(plan.displacement_probability() < 1e-9);
                assert_eq!(plan.candidates(), candidates.min(vectors));
                assert!(plan.kept() >= plan.candidates(), "{plan:?}");
                assert!(plan.groups() * plan.group_blocks() * BLOCK >= vectors);
                assert!(plan.rows() <= 1 << 16);
            }
        }
    }

    /// The bound against a simulation of it: random places of the true
    /// candidates, and how often a lane receives more than it keeps.
    #[test]
    fn the_bound_holds_and_is_not_far_off() {
        let plan = SelectionPlan::with(4096, 256, 4, 4);
        let bound = plan.displacement_probability();
        let mut state = 9u64;
        let trials = 20_000;
        let mut lost = 0;
        for _ in 0..trials {
            let mut taken = [false; 4096];
            let mut lanes = [0u8; 512];
            let mut placed = 0;
            while placed < 256 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let position = (state >> 52) as usize;
                if !taken[position] {
                    taken[position] = true;
                    placed += 1;
                    lanes[position / 8] += 1;
                }
            }
            lost += usize::from(lanes.iter().any(|&count| count > 4));
        }
        let measured = lost as f64 / f64::from(trials);
        assert!(measured <= bound, "{measured} {bound}");
        assert!(measured >= bound / 2.0, "{measured} {bound}");
    }

    #[test]
    fn the_bound_of_known_numbers() {
        // 32 lanes * C(100, 5) * (32 / 1024)^5 or so: 50, which is capped.
        assert_eq!(
            SelectionPlan::with(1024, 100, 16, 4).displacement_probability(),
            1.0
        );
        // 1,024 lanes of 1,024 of 1,048,576: nearly 1024 * C(10, 9) / 1024^9.
        let plan = SelectionPlan::with(1 << 20, 10, 512, 8);
        let expected = 10.0 * 1024f64.powi(-8);
        assert!((plan.displacement_probability() / expected - 1.0).abs() < 0.05);
        // No lane can lose what it has room for.
        assert_eq!(
            SelectionPlan::with(1 << 20, 8, 512, 8).displacement_probability(),
            0.0
        );
        assert_eq!(
            SelectionPlan::with(1 << 20, 4096, 4, 8).displacement_probability(),
            0.0
        );
    }

    #[test]
    fn plans_for_lists_stay_below_the_accepted_probability() {
        for list in [64, 128, 1024, 4096, 1 << 17] {
            for probes in [1, 2, 7, 64, 256] {
                for candidates in [1, 10, 100, 1000, 4096] {
                    let plan = SelectionPlan::for_lists(list, probes, candidates).unwrap();
                    assert!(plan.displacement_probability() < 1e-9);
                    assert_eq!(plan.candidates(), candidates.min(list * probes));
                    assert!(plan.kept() >= plan.candidates(), "{plan:?}");
                }
            }
        }
    }

    /// All of the best in one list of four, and how often a lane receives more
    /// than it keeps.
    #[test]
    fn the_bound_for_lists_holds_when_one_list_has_all() {
        let mut plan = SelectionPlan::with(4 * 1024, 40, 16, 8);
        plan.cluster = 1024;
        let bound = plan.bound();
        // The same spread over all lists is less likely to be lost.
        assert!(plan.displacement_probability() < bound && bound < 0.01);
        let mut state = 3u64;
        let trials = 50_000;
        let mut lost = 0;
        for _ in 0..trials {
            let mut taken = [false; 1024];
            let mut lanes = [0u8; 32];
            let mut placed = 0;
            while placed < 40 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let position = (state >> 54) as usize;
                if !taken[position] {
                    taken[position] = true;
                    placed += 1;
                    lanes[position / 2 % 32] += 1;
                }
            }
            lost += usize::from(lanes.iter().any(|&count| count > 8));
        }
        assert!(lost > 0);
        let measured = lost as f64 / f64::from(trials);
        assert!(measured <= bound, "{measured} {bound}");
    }

    #[test]
    fn fail_lists_out_of_range() {
        assert!(SelectionPlan::for_lists(0, 3, 10).is_err());
        assert!(SelectionPlan::for_lists(65, 3, 10).is_err());
        assert!(SelectionPlan::for_lists(64, 0, 10).is_err());
        assert!(SelectionPlan::for_lists(64, usize::MAX, 10).is_err());
        assert!(SelectionPlan::for_lists(64, 3, 0).is_err());
    }

    #[test]
    fn fail_numbers_out_of_range() {
        assert!(SelectionPlan::new(0, 1).is_err());
        assert!(SelectionPlan::new(1, 0).is_err());
        assert!(SelectionPlan::new(1, MAX_CANDIDATES + 1).is_err());
    }
}
