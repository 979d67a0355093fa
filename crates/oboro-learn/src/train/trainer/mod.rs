//! The training loop.

mod resume;
mod step;

pub use step::Step;

use super::Config;
use super::checkpoint::Best;
use super::images::Images;
use super::metrics::Recorder;
use super::observer::{Observer, Progress, Validated};
use super::optimizer::AdamW;
use super::parallel::Pools;
use super::validation::{Validation, Watched, recall_at_1};
use crate::LearnError;
use crate::backend::is_cpu;
use crate::data::{ClassBalanced, Dataset, ImageLimits};
use crate::losses::AnyLoss;
use crate::model::Network;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Batches that are prepared while a GPU is busy.
const AHEAD: usize = 3;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Finished,
    /// No validation has been better for as long as the patience says.
    Stopped,
    /// It was cancelled, and can be resumed.
    Interrupted,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// Steps done.
    pub step: u64,
    /// The best validation.
    pub best: Option<Best>,
    /// The newest checkpoint.
    pub checkpoint: Option<PathBuf>,
}

/// Trains a network and the proxies of its loss.
///
/// The same settings, data and seed give the same checkpoints, byte for byte,
/// on one thread and on many, interrupted and resumed or not, on a CPU. A GPU
/// adds in another order, from one run to the next too, and takes a batch
/// whole where a CPU cuts it into parts; a checkpoint of either goes on on the
/// other.
pub struct Trainer {
    config: Config,
    // Both without gradients; every step records its own.
    network: Network,
    loss: AnyLoss,
    optimizer: AdamW,
    pools: Pools,
    /// Threads that prepare images where the rest is a GPU's.
    threads: usize,
    device: Device,
    about: serde_json::Value,
    step: u64,
    best: Option<Best>,
    stale: u64,
    run: Option<PathBuf>,
    last: Option<PathBuf>,
    /// The hash of the labels that a checkpoint was made with.
    labels: Option<String>,
}

impl Trainer {
    /// A trainer of `network` and `loss`, which live on `device`.
    ///
    /// # Errors
    /// When a setting is out of range or no thread can be started.
    pub fn new(
        config: Config,
        network: &Network,
        loss: &AnyLoss,
        device: Device,
    ) -> Result<Self, LearnError> {
        config.check()?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            pools: if is_cpu(&device) {
                Pools::new(config.parts.min(cores))?
            } else {
                Pools::none()
            },
            threads: cores,
            config,
            network: network.valid(),
            loss: loss.valid(),
            optimizer: AdamW::default(),
            device: device.without_autodiff(),
            about: serde_json::Value::Null,
            step: 0,
            best: None,
            stale: 0,
            run: None,
            last: None,
            labels: None,
        })
    }

    /// Uses this many threads; the results are the same.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn with_threads(mut self, threads: usize) -> Result<Self, LearnError> {
        self.threads = threads;
        if is_cpu(&self.device) {
            self.pools = Pools::new(threads.min(self.config.parts))?;
        }
        Ok(self)
    }

    /// Stores what the caller says about the run in every checkpoint, such as
    /// the settings of network and loss.
    #[must_use]
    pub fn describe(mut self, about: serde_json::Value) -> Self {
        self.about = about;
        self
    }

    /// The network as it stands.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The loss as it stands.
    #[must_use]
    pub fn loss(&self) -> &AnyLoss {
        &self.loss
    }

    /// Steps done.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Trains to the end, or until `cancel` is set, which ends the run after
    /// the current step or validation with a checkpoint. A validation on the
    /// test part decides nothing ([`Watched`]).
    ///
    /// # Errors
    /// When an image cannot be read, a loss or gradient is not finite
    /// ([`LearnError::Diverged`]), or a checkpoint cannot be written; the
    /// checkpoints before it stay whole.
    pub fn run(
        &mut self,
        dataset: &Dataset,
        validation: Option<&Validation<'_>>,
        cancel: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, LearnError> {
        let labels = dataset.labels();
        self.bind(&labels)?;
        let sampler = ClassBalanced::new(
            &labels,
            self.config.classes,
            self.config.items,
            self.seed("sampler"),
        )?;
        let batches = sampler.batches() as u64;
        let steps = self.config.epochs.saturating_mul(batches);
        let mut recorder = match &self.run {
            Some(run) => Some(Recorder::open(run, self.step)?),
            None => None,
        };
        let input = self.network.settings().input.clone();
        let images = Images {
            dataset,
            input: &input,
            augmentation: self.config.augmentation,
            limits: ImageLimits::default(),
            seed: self.seed("augmentation"),
        };
        let started = Instant::now();
        let first = self.step;
        let batch_size = self.config.batch() as u64;
        // The CPU's own threads are busy with the step.
        let ahead = if is_cpu(&self.device) { 0 } else { AHEAD };
        while self.step < steps && !self.exhausted() {
            let epoch = self.step / batches;
            let done = (self.step % batches) as usize;
            let parts = self.config.parts;
            let batches = sampler.epoch(epoch).skip(done);
            let orders = batches.map(|batch| interleave(&batch, parts));
            let stream = self.step.wrapping_mul(batch_size);
            let ended = images.each(orders, stream, ahead, |batch| {
                if cancel.load(Ordering::Relaxed) {
                    self.save(observer)?;
                    return Ok(ControlFlow::Break(()));
                }
                let classes: Vec<usize> = batch.order.iter().map(|&i| labels[i] as usize).collect();
                let tensor = Tensor::from_data(batch.pixels, &self.device);
                let step = self.learn(tensor, &classes, steps)?;
                let progress = self.progress(&step, epoch, steps, first, started.elapsed());
                observer.stepped(&progress);
                if let Some(recorder) = &mut recorder
                    && (self.step.is_multiple_of(self.config.log_every) || self.step == steps)
                {
                    recorder.step(&progress)?;
                }
                Ok(ControlFlow::Continue(()))
            })?;
            if ended.is_break() {
                return Ok(self.outcome(End::Interrupted));
            }
            let epochs = epoch + 1;
            let last = self.step == steps;
            let mut improved = false;
            if let Some(validation) = validation
                && (epochs.is_multiple_of(self.config.validate_every) || last)
            {
                let validated = self.validate(validation, epochs)?;
                improved = validated.best;
                if let Some(recorder) = &mut recorder {
                    recorder.validation(&validated)?;
                }
                observer.validated(&validated);
            }
            let due = epochs.is_multiple_of(self.config.checkpoint_every);
            if improved || last || due || self.exhausted() {
                self.save(observer)?;
            }
        }
        Ok(self.outcome(if self.step < steps {
            End::Stopped
        } else {
            End::Finished
        }))
    }

    /// The seed of one of the uses of randomness.
    fn seed(&self, of: &str) -> [u8; 32] {
        blake3::derive_key(
            &format!("oboro-learn 1 training {of}"),
            &self.config.seed.to_le_bytes(),
        )
    }

    fn exhausted(&self) -> bool {
        self.config
            .patience
            .is_some_and(|patience| self.stale >= patience)
    }

    fn progress(
        &self,
        step: &Step,
        epoch: u64,
        steps: u64,
        first: u64,
        elapsed: Duration,
    ) -> Progress {
        let done = (self.step - first) as f64;
        let seconds = elapsed.as_secs_f64().max(1e-9);
        Progress {
            step: self.step,
            steps,
            epoch,
            loss: step.loss,
            rate: step.rate,
            gradient_norm: step.gradient_norm,
            images_per_second: done * self.config.batch() as f64 / seconds,
            left: Duration::try_from_secs_f64(seconds / done.max(1.0) * (steps - self.step) as f64)
                .unwrap_or(Duration::MAX),
        }
    }

    fn validate(
        &mut self,
        validation: &Validation<'_>,
        epochs: u64,
    ) -> Result<Validated, LearnError> {
        let threads = match self.pools.workers() {
            0 => self.threads,
            workers => workers,
        };
        let report = validation.run(&self.network, self.config.batch(), threads)?;
        let figure = validation.metric.of(&report);
        let decides = validation.watched == Watched::Validation;
        let best = decides && self.best.is_none_or(|best| figure > best.figure);
        if best {
            self.best = Some(Best {
                step: self.step,
                figure,
            });
            self.stale = 0;
        } else if decides {
            self.stale += 1;
        }
        Ok(Validated {
            step: self.step,
            epoch: epochs,
            watched: validation.watched,
            figure,
            best,
            recall_at_1: recall_at_1(&report),
            map_at_r: report.map_at_r,
        })
    }

    fn outcome(&self, end: End) -> Outcome {
        Outcome {
            end,
            step: self.step,
            best: self.best,
            checkpoint: self.last.clone(),
        }
    }
}

/// The batch in the parts' order: the sampler gives class after class, and
/// every part is to have items of every class.
fn interleave(batch: &[usize], parts: usize) -> Vec<usize> {
    (0..parts)
        .flat_map(|part| batch.iter().skip(part).step_by(parts).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_items_of_every_class() {
        let batch = [10, 11, 12, 20, 21, 22];
        assert_eq!(interleave(&batch, 1), batch);
        assert_eq!(interleave(&batch, 2), [10, 12, 21, 11, 20, 22]);
    }
}
