//! Training: batches, gradients, updates, checkpoints and the record of a run.
//!
//! [`Trainer`] takes a network, a loss and a [`Config`]; [`Trainer::run`]
//! draws class-balanced batches from a data set and trains until the epochs
//! are over, validation no longer improves, or it is cancelled. What it
//! validates on comes from the training part ([`Watched::Validation`]); the
//! test part may be measured on the way and decides nothing.
//!
//! A run's folder holds
//!
//! | name | what |
//! |---|---|
//! | `step-N/` | checkpoints ([`Checkpoint`]): the newest ones and the best |
//! | `metrics.jsonl` | a line for each recorded step and validation ([`Line`]) |
//! | `events/` | the same for TensorBoard |
//!
//! # Determinism
//! All randomness comes from the seed: the sampler by epoch, augmentation by
//! step and row, losses by step. A run that is interrupted and resumed writes
//! the same checkpoints, byte for byte, as one that is not, on one thread and
//! on many. Sums of products differ in their last bits between processors with
//! different vector instructions.

mod checkpoint;
mod config;
mod events;
mod images;
mod metrics;
mod observer;
mod optimizer;
mod parallel;
mod parameters;
mod schedule;
mod trainer;
mod validation;

pub use checkpoint::{Best, Checkpoint, NETWORK};
pub use config::Config;
pub use events::EventWriter;
pub use metrics::{EVENTS, Line, METRICS, read_metrics};
pub use observer::{Observer, Progress, Validated};
pub use optimizer::{Group, Groups};
pub use schedule::Schedule;
pub use trainer::{End, Outcome, Step, Trainer};
pub use validation::{Metric, Validation, Watched};
