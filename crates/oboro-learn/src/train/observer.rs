//! Who watches a training run.

use super::validation::Watched;
use std::path::Path;
use std::time::Duration;

/// Where a run is after a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// The current epoch, from 0.
    pub epoch: u64,
    /// The loss of the step's batch.
    pub loss: f64,
    /// The learning rate of the step, before the groups' factors.
    pub rate: f64,
    /// The norm of the gradient before it was clipped.
    pub gradient_norm: f64,
    /// Images a second, since the run was started or resumed.
    pub images_per_second: f64,
    /// What is left at that pace, validation included.
    pub left: Duration,
}

/// A validation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Validated {
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Which images it was of.
    pub watched: Watched,
    /// The figure that decides.
    pub figure: f64,
    /// Whether it is the best so far; never on the test part.
    pub best: bool,
    /// R@1 of the images.
    pub recall_at_1: f64,
    /// MAP@R of the images.
    pub map_at_r: f64,
}

/// Watches a run; every method does nothing unless it is written.
pub trait Observer {
    /// After every step.
    fn stepped(&mut self, progress: &Progress) {
        let _ = progress;
    }

    /// After a validation.
    fn validated(&mut self, validated: &Validated) {
        let _ = validated;
    }

    /// After a checkpoint is durable.
    fn saved(&mut self, checkpoint: &Path) {
        let _ = checkpoint;
    }
}

/// Watches nothing.
impl Observer for () {}
