//! The searcher's side of blind k-means: a state machine without input or output.

use std::ops::Range;

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::codebook::{own_blocks, row_batches};
use super::sample::{MaskSeed, SampleBounds};
use super::start::choose;
use super::{Labels, MaskedBatchCodebook, MeanShares};
use crate::{
    BatchCodebook, BatchEvaluator, BatchPacking, BatchScale, BatchSearcherShare, BatchTableShare,
    CkksError, CodebookOrigin, EncryptedBatch, Nearest, PublicKey,
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
const MAX_CANDIDATE_SETS: usize = 4;
/// Standard deviations that lengths measured under noise are raised by.
const LENGTH_MARGIN: f64 = 6.0;

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
enum Phase {
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
    packing: BatchPacking,
    bounds: SampleBounds,
    plan: TrainingPlan,
    seed: MaskSeed,
    key: PublicKey,
    sets: usize,
    phase: Phase,
    scale: BatchScale,
    labels: Labels,
    next: Labels,
    /// Inner products of candidates, `[subquantizer][candidate][candidate]`.
    gram: Vec<Vec<f32>>,
    /// -|c|²/2, `[subquantizer][centroid]`.
    offsets: Vec<f32>,
    installed: Option<Installed>,
    done: Vec<bool>,
    /// Sum of the scores of every batch in this round.
    scores: Vec<f64>,
    gains: Vec<f64>,
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
    const fn items(&self) -> usize {
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

    fn absorb_gram(&mut self, set: usize, batch: usize, tables: &[f32]) {
        let (m, k) = (self.packing.subquantizers(), self.packing.centroids());
        let count = self.sets * k;
        let rows = tables.chunks_exact(m * k).enumerate();
        for (v, row) in rows {
            let candidate = batch * self.packing.batch() + v;
            if candidate < count {
                for (gram, entries) in self.gram.iter_mut().zip(row.chunks_exact(k)) {
                    let at = candidate * count + set * k;
                    gram[at..at + k].copy_from_slice(entries);
                }
            }
        }
    }

    fn absorb_lengths(&mut self, batch: usize, tables: &[f32]) {
        let (m, k) = (self.packing.subquantizers(), self.packing.centroids());
        // The rows were shortened to keep within the vectors' bound.
        let factor = (-0.5 / self.scale.shortening()) as f32;
        for (v, row) in tables.chunks_exact(m * k).enumerate() {
            let centroid = batch * self.packing.batch() + v;
            if centroid < k {
                for slot in 0..m {
                    self.offsets[slot * k + centroid] = row[slot * k + centroid] * factor;
                }
            }
        }
    }

    fn absorb_nearest(&mut self, batch: usize, nearest: &Nearest) {
        let first = batch * self.packing.batch();
        let count = self.packing.batch().min(self.bounds.samples() - first);
        let mut sum = 0.0;
        for slot in 0..self.packing.subquantizers() {
            for (v, &code) in nearest.codes(slot)[..count].iter().enumerate() {
                self.next.set(slot, first + v, code as usize);
            }
            let scores = &nearest.scores(slot)[..count];
            sum += scores.iter().map(|&x| f64::from(x)).sum::<f64>();
        }
        self.scores[batch] = sum;
    }

    /// To the next phase, when all of the present one is absorbed.
    fn advance(&mut self) -> Result<(), CkksError> {
        let rounds = self.plan.rounds;
        self.phase = match self.phase {
            Phase::Gram { set } if set + 1 < self.sets => {
                self.label_candidates(set + 1);
                Phase::Candidates { set: set + 1 }
            }
            Phase::Gram { .. } => {
                self.choose_centroids();
                Phase::Centroids { round: 0 }
            }
            Phase::Lengths { round } if round < rounds => Phase::Assign { round },
            Phase::Lengths { round } if round == rounds => {
                self.scale = self.final_scale()?;
                Phase::Centroids { round: round + 1 }
            }
            Phase::Lengths { .. } => Phase::Finished,
            Phase::Assign { round } => {
                self.fill_empty_clusters();
                std::mem::swap(&mut self.labels, &mut self.next);
                let samples = self.bounds.samples() * self.packing.subquantizers();
                self.gains
                    .push(self.scores.iter().sum::<f64>() / samples as f64);
                Phase::Centroids { round: round + 1 }
            }
            other => other,
        };
        self.done = vec![false; self.items()];
        self.scores = vec![0.0; self.items()];
        Ok(())
    }

    /// A number for every step, in their order.
    const fn pass(&self) -> u32 {
        self.pass_of(self.phase)
    }

    const fn pass_of(&self, phase: Phase) -> u32 {
        let start = 2 * MAX_CANDIDATE_SETS;
        (match phase {
            Phase::Candidates { set } => 2 * set,
            Phase::Gram { set } => 2 * set + 1,
            Phase::Centroids { round } => start + 3 * round,
            Phase::Lengths { round } => start + 3 * round + 1,
            Phase::Assign { round } => start + 3 * round + 2,
            Phase::Finished => start + 3 * self.plan.rounds + 5,
        }) as u32
    }

    /// The generator of the choices of the present step.
    fn generator(&self) -> ChaCha20Rng {
        let mut rng = ChaCha20Rng::from_seed(*self.plan.seed);
        rng.set_stream(self.pass().into());
        rng
    }

    /// Makes K of the candidates clusters of one member each. The first samples
    /// are a random choice: the owner shuffled them.
    fn label_candidates(&mut self, set: usize) {
        self.labels = Labels::none(&self.packing, self.bounds.samples());
        let k = self.packing.centroids();
        for slot in 0..self.packing.subquantizers() {
            for label in 0..k {
                self.labels.set(slot, set * k + label, label);
            }
        }
    }

    fn choose_centroids(&mut self) {
        let mut rng = self.generator();
        self.labels = Labels::none(&self.packing, self.bounds.samples());
        for (slot, mut gram) in std::mem::take(&mut self.gram).into_iter().enumerate() {
            let chosen = choose(&gram, self.packing.centroids(), &mut rng);
            for (label, sample) in chosen.into_iter().enumerate() {
                self.labels.set(slot, sample, label);
            }
            gram.zeroize();
        }
    }

    /// Gives every empty cluster a random half of the largest one's members.
    fn fill_empty_clusters(&mut self) {
        let mut rng = self.generator();
        let k = self.packing.centroids();
        let mut counts = self.next.counts(k);
        for (slot, counts) in counts.chunks_exact_mut(k).enumerate() {
            while let Some(empty) = counts.iter().position(|&count| count == 0) {
                let largest = (0..k).rev().max_by_key(|&label| counts[label]).unwrap_or(0);
                let members: Vec<usize> = (0..self.bounds.samples())
                    .filter(|&sample| self.next.label(slot, sample) == Some(largest))
                    .collect();
                for (index, &sample) in members.iter().enumerate() {
                    // One goes and one stays in any case.
                    let goes = index == 0 || (index > 1 && rng.next_u32() & 1 == 1);
                    if goes {
                        self.next.set(slot, sample, empty);
                        counts[empty] += 1;
                        counts[largest] -= 1;
                    }
                }
                if members.len() < 2 {
                    // Fewer samples than centroids: the sample's bounds exclude it.
                    break;
                }
            }
        }
    }

    /// The scale for the codebook's real lengths and the vectors to come.
    fn final_scale(&self) -> Result<BatchScale, CkksError> {
        let margin = LENGTH_MARGIN * self.scale.table_error() / self.scale.shortening();
        let squared: f64 = self
            .offsets
            .chunks_exact(self.packing.centroids())
            .map(|row| {
                let lowest = row.iter().copied().fold(0f32, f32::min);
                -2.0 * f64::from(lowest) + margin
            })
            .sum();
        BatchScale::new(
            &self.packing,
            self.plan.vector_norm,
            squared.sqrt().min(self.bounds.codebook_norm()),
            CodebookOrigin::Keeper,
        )
    }
}

/// A codebook at the searcher, encrypted, ready to encode vectors.
pub struct TrainedCodebook {
    evaluator: BatchEvaluator,
    means: MeanShares,
    offsets: Zeroizing<Vec<f32>>,
}

impl TrainedCodebook {
    /// Encodes batches; its [`BatchScale`] is the one that vectors have to be
    /// encrypted with.
    #[must_use]
    pub const fn evaluator(&self) -> &BatchEvaluator {
        &self.evaluator
    }

    /// The codebook for batches.
    #[must_use]
    pub const fn codebook(&self) -> &BatchCodebook {
        self.evaluator.codebook()
    }

    /// The searcher's shares of the codebook.
    #[must_use]
    pub const fn means(&self) -> &MeanShares {
        &self.means
    }

    /// -|c|²/2, `[subquantizer][centroid]`, as measured.
    #[must_use]
    pub fn offsets(&self) -> &[f32] {
        &self.offsets
    }

    /// Σ_i max_k |o_ik|, for [`crate::TableScale::new`].
    #[must_use]
    pub fn offset_bound(&self) -> f64 {
        let k = self.evaluator.packing().centroids();
        let largest = |row: &[f32]| row.iter().fold(0f32, |all, x| all.max(x.abs()));
        self.offsets
            .chunks_exact(k)
            .map(|row| f64::from(largest(row)))
            .sum()
    }

    /// A bound on √(Σ_i max_k |c_ik|²), for [`crate::TableScale::new`].
    #[must_use]
    pub const fn codebook_norm(&self) -> f64 {
        self.evaluator.scale().codebook_norm()
    }
}
