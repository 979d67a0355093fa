//! `oboro learn`: embeddings from images, measured, and on to a private index.

mod bridge;
mod demo;
mod embed;
mod embedded;
mod eval;
mod named;
mod pages;
mod recipe;
mod report;
mod sets;
mod train;

use clap::Subcommand;
use oboro_learn::LearnError;

use crate::failure::{Failure, Outcome};
use crate::global::Global;
use crate::or_failure::IntoFailure;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train a network on labelled images
    Train(Box<train::Options>),
    /// Embed images with a trained network, for `oboro build`
    Embed(embed::Options),
    /// Measure embeddings exactly: R@k, R-precision, MAP@R, nDCG@k
    Eval(eval::Options),
    /// Write one HTML page: curves, maps, the Poincaré disk, neighbours
    Report(report::Options),
    /// From images to private search in one go; no network, no set-up
    Demo(demo::Options),
}

/// Runs the verb.
pub(crate) fn run(command: &Command, global: &Global) -> Outcome<()> {
    match command {
        Command::Train(options) => train::run(options, global),
        Command::Embed(options) => embed::run(options, global),
        Command::Eval(options) => eval::run(options, global),
        Command::Report(options) => report::run(options, global),
        Command::Demo(options) => demo::run(options, global),
    }
}

impl IntoFailure for LearnError {
    fn into_failure(self) -> Failure {
        match self {
            Self::Setting { .. } | Self::Device { .. } => Failure::usage(self),
            Self::Write { .. }
            | Self::Checkpoint { .. }
            | Self::Diverged { .. }
            | Self::Cancelled => Failure::failed(self),
            error => Failure::input(error),
        }
    }
}
