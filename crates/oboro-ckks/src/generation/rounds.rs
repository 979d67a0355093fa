//! What a training makes of tables: the choices of each step, and the next one.

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use zeroize::Zeroize as _;

use super::Labels;
use super::start::choose;
use super::trainer::{BlindTrainer, MAX_CANDIDATE_SETS, Phase};
use crate::{BatchScale, CkksError, CodebookOrigin, Nearest};

/// Standard deviations that lengths measured under noise are raised by.
const LENGTH_MARGIN: f64 = 6.0;

impl BlindTrainer {
    pub(super) fn absorb_gram(&mut self, set: usize, batch: usize, tables: &[f32]) {
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

    pub(super) fn absorb_lengths(&mut self, batch: usize, tables: &[f32]) {
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

    pub(super) fn absorb_nearest(&mut self, batch: usize, nearest: &Nearest) {
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
    pub(super) fn advance(&mut self) -> Result<(), CkksError> {
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
    pub(super) const fn pass(&self) -> u32 {
        self.pass_of(self.phase)
    }

    pub(super) const fn pass_of(&self, phase: Phase) -> u32 {
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
    pub(super) fn label_candidates(&mut self, set: usize) {
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
