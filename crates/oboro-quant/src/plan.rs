//! How many of its best every lane must keep.
//!
//! Positions fall into lanes, a public map. If vectors were shuffled when the
//! index was built, the `R` truly best ones are a random subset of positions.
//! A lane that keeps `r` entries loses a true one only if more than `r` of the
//! `R` fall into it. For a lane of `s` among `n` positions, each of the
//! `C(R, r + 1)` subsets falls into it with probability at most
//! `(s / n)^(r + 1)`, so over all `n / s` lanes
//!
//! `P[any loss] <= lanes * C(R, r + 1) * (s / n)^(r + 1)`.

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
        let candidates = candidates.min(vectors);
        let mut best: Option<(f64, Self)> = None;
        for group_blocks in GROUP_BLOCKS {
            for depth in DEPTHS {
                let plan = Self::with(vectors, candidates, group_blocks, depth);
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
        Ok(best.expect("keeping every row displaces nothing").1)
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
        let subset = self.depth + 1;
        let share = (rows as f64 / self.vectors as f64).min(1.0);
        let mut log = (self.lanes() as f64).ln() + subset as f64 * share.ln();
        for i in 0..subset {
            log += ((self.candidates - i) as f64 / (i + 1) as f64).ln();
        }
        log.exp().min(1.0)
    }

    /// Entries kept over all lanes that stand for a vector, at least.
    fn kept(&self) -> usize {
        let blocks = self.vectors.div_ceil(BLOCK);
        // A last block holds `full` vectors; count what its lanes hold at least.
        let whole = self.vectors / BLOCK / self.group_blocks;
        let rest = self.vectors - whole * self.group_blocks * BLOCK;
        debug_assert!(whole * self.group_blocks <= blocks);
        whole * LANES * self.rows().min(self.depth)
            + LANES * (rest / LANES).min(self.depth).saturating_sub(1)
            + if rest <= BLOCK { rest } else { 0 }
    }

    /// Cost in units of one comparison of 16 lanes; only ratios matter.
    fn cost(&self) -> f64 {
        let rows = (self.groups() * self.rows()) as f64;
        let row = match self.depth {
            4 => 6.0,
            8 => 9.0,
            16 => 16.0,
            _ => 40.0,
        };
        let keys = (self.lanes() * self.depth) as f64;
        let stages = (self.keep() as f64).log2() + 4.0;
        rows * row + keys * stages * 0.25
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
