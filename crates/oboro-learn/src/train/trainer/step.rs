//! One step: gradients, clipping, update.

use super::Trainer;
use crate::LearnError;
use crate::backend::is_cpu;
use crate::train::optimizer::{Update, value_and_norm};
use crate::train::parallel;
use burn::tensor::Tensor;
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng;

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The loss of the batch.
    pub loss: f64,
    /// The learning rate, before the groups' factors.
    pub rate: f64,
    /// The norm of the gradient before it was clipped.
    pub gradient_norm: f64,
}

impl Trainer {
    /// One step on a batch: gradients, clipping, update. `steps` is the
    /// length of the whole run, which the schedule needs.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn learn(
        &mut self,
        images: Tensor<4>,
        labels: &[usize],
        steps: u64,
    ) -> Result<Step, LearnError> {
        let rate = self.config.rate_at(self.step, steps);
        let mut rng = ChaCha20Rng::from_seed(self.seed("loss"));
        rng.set_stream(self.step);
        let found = parallel::gradients(
            &self.pools,
            self.parts(labels.len()),
            &self.network,
            &self.loss,
            images,
            labels,
            &mut rng,
        );
        let found = match found {
            Err(LearnError::NotFinite { what, .. }) => return Err(self.diverged(what, rate)),
            found => found?,
        };
        let mut optimizer = std::mem::take(&mut self.optimizer);
        let (network, loss) = (self.network.clone(), self.loss.clone());
        let config = &self.config;
        let (network, loss, optimizer, (value, gradient_norm)) = self.pools.alone(move || {
            let figures = value_and_norm(
                found.value,
                (&network, &found.network),
                (&loss, &found.loss),
            );
            let (value, gradient_norm) = figures;
            if !value.is_finite() || !gradient_norm.is_finite() {
                return (network, loss, optimizer, figures);
            }
            let update = Update {
                config,
                rate,
                scale: match config.clip {
                    Some(most) if gradient_norm > most => most / (gradient_norm + 1e-6),
                    _ => 1.0,
                },
            };
            let groups = config.groups;
            let network = parallel::put(network, found.moved);
            let network = optimizer.step("network", network, found.network, &update, |path| {
                if path.starts_with("heads.") {
                    groups.head
                } else {
                    groups.backbone
                }
            });
            let loss = optimizer.step("loss", loss, found.loss, &update, |_| groups.proxies);
            (network, loss, optimizer, figures)
        });
        self.network = network;
        self.loss = loss;
        self.optimizer = optimizer;
        if !value.is_finite() {
            return Err(self.diverged("the loss", rate));
        }
        if !gradient_norm.is_finite() {
            return Err(self.diverged("the gradient", rate));
        }
        self.step += 1;
        Ok(Step {
            loss: value,
            rate,
            gradient_norm,
        })
    }

    /// Parts that a batch of so many items is cut into.
    fn parts(&self, items: usize) -> usize {
        if is_cpu(&self.device) {
            self.config.parts.min(items.max(1))
        } else {
            1
        }
    }

    fn diverged(&self, what: &'static str, rate: f64) -> LearnError {
        LearnError::Diverged {
            what,
            step: self.step,
            rate,
            checkpoint: self.last.clone(),
        }
    }
}
