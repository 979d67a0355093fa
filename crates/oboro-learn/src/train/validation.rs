//! Validation during training.

use crate::LearnError;
use crate::data::{Dataset, ImageLimits};
use crate::embed::{self, embed};
use crate::evaluation::{Items, Options, Report, Score, evaluate};
use crate::model::Network;
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicBool;

/// The figure by which a validation is judged; more is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// R@1.
    #[default]
    RecallAt1,
    /// MAP@R.
    MapAtR,
}

impl Metric {
    pub(super) fn of(self, report: &Report) -> f64 {
        match self {
            Self::RecallAt1 => recall_at_1(report),
            Self::MapAtR => report.map_at_r,
        }
    }
}

/// Which images a training is measured on, and what their figures decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Watched {
    /// Images set aside from the training part: they decide which checkpoint
    /// is the best and when patience is over.
    Validation,
    /// The test part: for the curves alone. It decides nothing, since figures
    /// of what was chosen on it would flatter.
    #[default]
    Test,
}

impl Watched {
    /// Its name in records of a run.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

pub(super) fn recall_at_1(report: &Report) -> f64 {
    report.recall.first().map_or(0.0, |at| at.value)
}

/// What a network is validated on: every image is a query against all others.
#[derive(Clone, Copy, Debug)]
pub struct Validation<'a> {
    /// The images, of classes that need not be those of the training.
    pub dataset: &'a Dataset,
    /// How embeddings are compared.
    pub score: Score,
    /// What decides which checkpoint is the best.
    pub metric: Metric,
    /// Which images these are.
    pub watched: Watched,
}

impl Validation<'_> {
    /// Embeds the images, `batch` at a time on each thread, and evaluates
    /// them.
    pub(super) fn run(
        &self,
        network: &Network,
        batch: usize,
        threads: usize,
    ) -> Result<Report, LearnError> {
        let options = embed::Options {
            batch,
            threads,
            limits: ImageLimits::default(),
        };
        // Always to its end: a run that is resumed after half a validation
        // would not be the run that was interrupted.
        let never = AtomicBool::new(false);
        let embedded = embed(network, self.dataset, &options, &never, |_| {})?;
        let labels = &embedded.labels;
        let items = match &embedded.hyperbolic {
            Some(points) => Items::both(&embedded.euclidean, points, labels)?,
            None => Items::euclidean(&embedded.euclidean, labels)?,
        };
        let options = Options {
            recall_at: vec![1],
            ndcg_at: vec![1],
            nmi_seed: None,
        };
        evaluate(&items, None, &self.score, &options)
    }
}
