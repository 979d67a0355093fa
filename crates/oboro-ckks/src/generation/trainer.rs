//! The searcher's side of blind k-means: a state machine without input or output.

use std::ops::Range;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::codebook::{own_blocks, row_batches};
use super::sample::{MaskSeed, SampleBounds};
use super::trained::TrainedCodebook;
use super::{Labels, MaskedBatchCodebook, MeanShares};
use crate::{
    BatchEvaluator, BatchPacking, BatchScale, BatchSearcherShare, BatchTableShare, CkksError,
    CodebookOrigin, EncryptedBatch, Nearest, PublicKey,
};

/// How to train.
pub struct TrainingPlan {
    /// Rounds of assignment, at least one; 10 to 15 are usual.
    pub rounds: usize,
    /// The largest norm of the vectors that are to be encoded afterwards.
    pub vector_norm: f64,
    /// Where random choices come from: the first centroids, splits of clusters.
    pub seed: Zeroizing<[u8; 32]>,
}

/// Inner products of candidates take at most this many bytes.
const GRAM_BYTES: usize = 128 << 20;
/// Candidates for the first centroids, in codebooks of K.
pub(super) const MAX_CANDIDATE_SETS: usize = 4;

/// What a training waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The keeper is to encrypt the means of [`BlindTrainer::labels`] with
    /// [`BlindTrainer::scale`]; its answer goes to [`BlindTrainer::install`].
    Centroids,
    /// Every item of [`BlindTrainer::work`] is to be evaluated and absorbed, in
    /// any order and on any number of threads.
    Tables,
    /// [`BlindTrainer::finish`] gives the codebook.
    Finished,
}

/// Which rows an item of work compares with the codebook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkRows {
    /// A batch of the sample, as the owner encrypted it.
    Sample(usize),
    /// A batch of the centroids, [`BlindTrainer::centroid_batch`].
    Centroids(usize),
}

/// One batch against a range of blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Which step it belongs to.
    pass: u32,
    rows: WorkRows,
    blocks: Range<usize>,
}

impl Work {
    /// The rows.
    #[must_use]
    pub const fn rows(&self) -> WorkRows {
        self.rows
    }

    /// The codebook blocks.
    #[must_use]
    pub fn blocks(&self) -> Range<usize> {
        self.blocks.clone()
    }
}

/// What an item of work found.
///
/// # Security
/// Tables or codes in the clear; zeroized on drop.
pub struct Found {
    work: Work,
    result: FoundResult,
}

enum FoundResult {
    /// `[row][subquantizer][centroid]`.
    Tables(Zeroizing<Vec<f32>>),
    Nearest(Nearest),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Candidates as centroids.
    Candidates {
        set: usize,
    },
    /// Candidates against candidates.
    Gram {
        set: usize,
    },
    /// Means of the labels of a round; the last round's is for `scale` to shrink.
    Centroids {
        round: usize,
    },
    /// Centroids against themselves.
    Lengths {
        round: usize,
    },
    /// The sample against the centroids.
    Assign {
        round: usize,
    },
    Finished,
}

/// Trains a codebook that nobody sees.
///
/// # Security
/// Holds the mask seed, tables and labels, never a key; zeroized on drop. What
/// a searcher learns is in the module's page.
pub struct BlindTrainer {
    pub(super) packing: BatchPacking,
    pub(super) bounds: SampleBounds,
    pub(super) plan: TrainingPlan,
    seed: MaskSeed,
    key: PublicKey,
    pub(super) sets: usize,
    pub(super) phase: Phase,
    pub(super) scale: BatchScale,
    pub(super) labels: Labels,
    pub(super) next: Labels,
    /// Inner products of candidates, `[subquantizer][candidate][candidate]`.
    pub(super) gram: Vec<Vec<f32>>,
    /// -|c|²/2, `[subquantizer][centroid]`.
    pub(super) offsets: Vec<f32>,
    installed: Option<Installed>,
    pub(super) done: Vec<bool>,
    /// Sum of the scores of every batch in this round.
    pub(super) scores: Vec<f64>,
    pub(super) gains: Vec<f64>,
}

/// The codebook of the present step.
struct Installed {
    evaluator: BatchEvaluator,
    rows: Vec<EncryptedBatch>,
    means: MeanShares,
}

impl Drop for BlindTrainer {
    fn drop(&mut self) {
        self.gram.zeroize();
        self.offsets.zeroize();
        self.scores.zeroize();
    }
}

impl ZeroizeOnDrop for BlindTrainer {}

impl BlindTrainer {
    /// A training from the start.
    ///
    /// # Errors
    /// When the parts belong to different parameter sets, there are no rounds,
    /// or the bounds make no scale.
    pub fn new(
        packing: &BatchPacking,
        bounds: SampleBounds,
        plan: TrainingPlan,
        seed: MaskSeed,
        key: PublicKey,
    ) -> Result<Self, CkksError> {
        if packing.set() != key.parameter_set() {
            return Err(CkksError::Mismatch {
                left: "the packing",
                right: "the public key",
            });
        }
        if plan.rounds == 0 || plan.rounds > 1000 {
            return Err(CkksError::Bound("number of rounds (at most 1000)"));
        }
        let (m, k) = (packing.subquantizers(), packing.centroids());
        let fits = |sets: &usize| {
            m * (sets * k).pow(2) * size_of::<f32>() <= GRAM_BYTES && sets * k <= bounds.samples()
        };
        let sets = (2..=MAX_CANDIDATE_SETS).rev().find(fits).unwrap_or(1);
        let gram = if sets > 1 {
            vec![vec![0.0; (sets * k).pow(2)]; m]
        } else {
            Vec::new()
        };
        // Checks the bound on vectors before any work is done.
        BatchScale::new(
            packing,
            plan.vector_norm,
            bounds.codebook_norm(),
            CodebookOrigin::Keeper,
        )?;
        let mut trainer = Self {
            packing: *packing,
            bounds,
            plan,
            seed,
            key,
            sets,
            phase: Phase::Candidates { set: 0 },
            scale: bounds.scale(packing)?,
            labels: Labels::none(packing, bounds.samples()),
            next: Labels::none(packing, bounds.samples()),
            gram,
            offsets: vec![0.0; packing.table_len()],
            installed: None,
            done: Vec::new(),
            scores: Vec::new(),
            gains: Vec::new(),
        };
        trainer.label_candidates(0);
        if sets == 1 {
            // The first K samples are a random choice: the owner shuffled them.
            trainer.phase = Phase::Centroids { round: 0 };
        }
        Ok(trainer)
    }

    /// A training that goes on from a [`BlindTrainer::checkpoint`].
    ///
    /// # Errors
    /// As [`BlindTrainer::new`], or when round or labels do not fit.
    pub fn resume(
        packing: &BatchPacking,
        bounds: SampleBounds,
        plan: TrainingPlan,
        seed: MaskSeed,
        key: PublicKey,
        round: usize,
        labels: Labels,
    ) -> Result<Self, CkksError> {
        let mut trainer = Self::new(packing, bounds, plan, seed, key)?;
        labels.check(packing, bounds.samples())?;
        if round > trainer.plan.rounds {
            return Err(CkksError::OutOfOrder("the checkpoint"));
        }
        trainer.labels = labels;
        trainer.phase = Phase::Centroids { round };
        trainer.gram.zeroize();
        Ok(trainer)
    }

    /// The round that begins now and its labels: all that a resumed training
    /// needs besides what [`BlindTrainer::new`] takes. `None` within a round.
    #[must_use]
    pub const fn checkpoint(&self) -> Option<(usize, &Labels)> {
        match self.phase {
            Phase::Centroids { round } if round <= self.plan.rounds => Some((round, &self.labels)),
            _ => None,
        }
    }

    /// What the training waits for.
    #[must_use]
    pub const fn step(&self) -> Step {
        match self.phase {
            Phase::Candidates { .. } | Phase::Centroids { .. } => Step::Centroids,
            Phase::Gram { .. } | Phase::Lengths { .. } | Phase::Assign { .. } => Step::Tables,
            Phase::Finished => Step::Finished,
        }
    }

    /// Steps taken and steps in all, for progress.
    #[must_use]
    pub const fn progress(&self) -> (usize, usize) {
        (self.pass() as usize, self.pass_of(Phase::Finished) as usize)
    }

    /// The mean score after each round so far: the distortion is the mean of
    /// |x|² minus twice the sum of it over all sub-spaces, so it grows.
    #[must_use]
    pub fn gains(&self) -> &[f64] {
        &self.gains
    }

    /// The labels whose means are to be encrypted.
    #[must_use]
    pub const fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The scale of the present codebook.
    #[must_use]
    pub const fn scale(&self) -> &BatchScale {
        &self.scale
    }

    /// The evaluator of the present codebook, while the step is
    /// [`Step::Tables`].
    #[must_use]
    pub fn evaluator(&self) -> Option<&BatchEvaluator> {
        self.installed.as_ref().map(|x| &x.evaluator)
    }

    /// A batch of the present centroids.
    #[must_use]
    pub fn centroid_batch(&self, index: usize) -> Option<&EncryptedBatch> {
        self.installed.as_ref().and_then(|x| x.rows.get(index))
    }

    /// Takes the keeper's answer to [`BlindTrainer::labels`].
    ///
    /// # Errors
    /// At another step, or when the answer is of another shape.
    pub fn install(&mut self, masked: MaskedBatchCodebook) -> Result<(), CkksError> {
        if self.step() != Step::Centroids {
            return Err(CkksError::OutOfOrder("a codebook"));
        }
        let means = self.seed.means(&self.packing, &self.bounds, &self.labels)?;
        let (codebook, rows) = masked.unmask(&means, &self.scale)?;
        let evaluator = BatchEvaluator::new(self.scale, self.key.clone(), codebook)?;
        self.installed = Some(Installed {
            evaluator,
            rows,
            means,
        });
        self.phase = match self.phase {
            Phase::Candidates { set } => Phase::Gram { set },
            Phase::Centroids { round } => Phase::Lengths { round },
            other => other,
        };
        self.done = vec![false; self.items()];
        self.scores = vec![0.0; self.items()];
        Ok(())
    }

    /// Items of the present step.
    pub(super) const fn items(&self) -> usize {
        match self.phase {
            Phase::Gram { .. } => self.packing.batches(self.sets * self.packing.centroids()),
            Phase::Lengths { .. } => row_batches(&self.packing),
            Phase::Assign { .. } => self.packing.batches(self.bounds.samples()),
            _ => 0,
        }
    }

    /// What is still to be evaluated at the step [`Step::Tables`].
    #[must_use]
    pub fn work(&self) -> Vec<Work> {
        (0..self.items())
            .filter(|&index| !self.done.get(index).copied().unwrap_or(false))
            .map(|index| {
                let (rows, blocks) = match self.phase {
                    Phase::Lengths { .. } => {
                        (WorkRows::Centroids(index), own_blocks(&self.packing, index))
                    }
                    _ => (WorkRows::Sample(index), 0..self.packing.blocks()),
                };
                Work {
                    pass: self.pass(),
                    rows,
                    blocks,
                }
            })
            .collect()
    }

    /// Adds the shares of an item of work: the long part of absorbing, which
    /// changes nothing and may run on many threads.
    ///
    /// # Errors
    /// At another step, or as [`BatchEvaluator::tables`].
    pub fn decode(
        &self,
        work: &Work,
        share: &BatchSearcherShare,
        keeper: &BatchTableShare,
    ) -> Result<Found, CkksError> {
        let current = self.step() == Step::Tables && work.pass == self.pass();
        let (true, Some(installed)) = (current, &self.installed) else {
            return Err(CkksError::OutOfOrder("this item of work"));
        };
        let evaluator = &installed.evaluator;
        let result = if matches!(self.phase, Phase::Assign { .. }) {
            FoundResult::Nearest(evaluator.assign(share, keeper, &self.offsets)?)
        } else {
            FoundResult::Tables(evaluator.tables(share, keeper)?.into())
        };
        Ok(Found {
            work: work.clone(),
            result,
        })
    }

    /// Takes what an item of work found; after the last one the next step begins.
    ///
    /// # Errors
    /// When it is of another step or was absorbed before.
    pub fn absorb(&mut self, found: Found) -> Result<(), CkksError> {
        let index = match found.work.rows {
            WorkRows::Sample(index) | WorkRows::Centroids(index) => index,
        };
        let fresh = self.done.get(index) == Some(&false);
        if self.step() != Step::Tables || found.work.pass != self.pass() || !fresh {
            return Err(CkksError::OutOfOrder("this item of work"));
        }
        match (self.phase, &found.result) {
            (Phase::Gram { set }, FoundResult::Tables(tables)) => {
                self.absorb_gram(set, index, tables);
            }
            (Phase::Lengths { .. }, FoundResult::Tables(tables)) => {
                self.absorb_lengths(index, tables);
            }
            (Phase::Assign { .. }, FoundResult::Nearest(nearest)) => {
                self.absorb_nearest(index, nearest);
            }
            _ => return Err(CkksError::OutOfOrder("this item of work")),
        }
        self.done[index] = true;
        if self.done.iter().all(|&done| done) {
            self.advance()?;
        }
        Ok(())
    }

    /// The result of a finished training.
    ///
    /// # Errors
    /// Before [`Step::Finished`].
    pub fn finish(mut self) -> Result<TrainedCodebook, CkksError> {
        let (Step::Finished, Some(installed)) = (self.step(), self.installed.take()) else {
            return Err(CkksError::OutOfOrder("the end"));
        };
        Ok(TrainedCodebook {
            evaluator: installed.evaluator,
            means: installed.means,
            offsets: std::mem::take(&mut self.offsets).into(),
        })
    }
}
