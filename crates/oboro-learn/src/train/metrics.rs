//! The record of a run: `metrics.jsonl` and TensorBoard's event files.

use super::events::EventWriter;
use super::observer::{Progress, Validated};
use super::validation::Watched;
use crate::LearnError;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The file's name in the run's folder.
pub const METRICS: &str = "metrics.jsonl";
/// The folder of TensorBoard's files.
pub const EVENTS: &str = "events";

/// A line of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Line {
    /// A step.
    Step {
        /// Steps done.
        step: u64,
        /// The epoch, from 0.
        epoch: u64,
        /// The loss of the step's batch.
        loss: f64,
        /// The learning rate.
        rate: f64,
        /// The norm of the gradient before it was clipped.
        gradient_norm: f64,
        /// Images a second so far.
        images_per_second: f64,
    },
    /// A validation.
    Validation {
        /// Steps done.
        step: u64,
        /// Epochs done.
        epoch: u64,
        /// Which images were looked at.
        #[serde(default)]
        part: Watched,
        /// R@1.
        recall_at_1: f64,
        /// MAP@R.
        map_at_r: f64,
        /// Whether the figure that decides is the best so far.
        best: bool,
    },
}

impl Line {
    /// Steps done.
    #[must_use]
    pub fn step(&self) -> u64 {
        match *self {
            Self::Step { step, .. } | Self::Validation { step, .. } => step,
        }
    }
}

/// Reads `metrics.jsonl`.
///
/// # Errors
/// When the file cannot be read or a line is none of its kinds.
pub fn read_metrics(path: &Path) -> Result<Vec<Line>, LearnError> {
    let failed = |source| LearnError::Read {
        path: path.to_owned(),
        source,
    };
    let mut lines = Vec::new();
    for (number, line) in BufReader::new(File::open(path).map_err(failed)?)
        .lines()
        .enumerate()
    {
        let line = line.map_err(failed)?;
        lines.push(
            serde_json::from_str(&line).map_err(|error| LearnError::Malformed {
                path: path.to_owned(),
                what: format!(
                    "line {} is no line of metrics ({error}); remove that line",
                    number + 1
                ),
            })?,
        );
    }
    Ok(lines)
}

/// Writes both.
pub(super) struct Recorder {
    path: PathBuf,
    lines: BufWriter<File>,
    events: EventWriter<BufWriter<File>>,
}

impl Recorder {
    /// Opens the files of a run that has done `step` steps; lines of later
    /// steps, which will be done again, go.
    pub(super) fn open(folder: &Path, step: u64) -> Result<Self, LearnError> {
        let path = folder.join(METRICS);
        let failed = |source| LearnError::Write {
            path: path.clone(),
            source,
        };
        let mut kept = String::new();
        if let Ok(text) = fs::read_to_string(&path) {
            for line in text.lines() {
                // A kill may have cut the last line short.
                let parsed = serde_json::from_str::<Line>(line);
                if parsed.is_ok_and(|parsed| parsed.step() <= step) {
                    kept.push_str(line);
                    kept.push('\n');
                }
            }
        }
        fs::write(&path, kept).map_err(failed)?;
        let lines = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(failed)?;

        let folder = folder.join(EVENTS);
        let failed = |source| LearnError::Write {
            path: folder.clone(),
            source,
        };
        fs::create_dir_all(&folder).map_err(failed)?;
        let now = since_1970();
        let name = format!("events.out.tfevents.{}.{step:08}", now.as_secs());
        let file = File::create(folder.join(name)).map_err(failed)?;
        let events = EventWriter::new(BufWriter::new(file), now.as_secs_f64()).map_err(failed)?;
        Ok(Self {
            lines: BufWriter::new(lines),
            events,
            path,
        })
    }

    pub(super) fn step(&mut self, progress: &Progress) -> Result<(), LearnError> {
        let line = Line::Step {
            step: progress.step,
            epoch: progress.epoch,
            loss: progress.loss,
            rate: progress.rate,
            gradient_norm: progress.gradient_norm,
            images_per_second: progress.images_per_second,
        };
        let scalars = [
            ("train/loss", progress.loss),
            ("train/rate", progress.rate),
            ("train/gradient_norm", progress.gradient_norm),
            ("train/images_per_second", progress.images_per_second),
        ];
        self.write(&line, &scalars)
    }

    pub(super) fn validation(&mut self, validated: &Validated) -> Result<(), LearnError> {
        let line = Line::Validation {
            step: validated.step,
            epoch: validated.epoch,
            part: validated.watched,
            recall_at_1: validated.recall_at_1,
            map_at_r: validated.map_at_r,
            best: validated.best,
        };
        let names = match validated.watched {
            Watched::Validation => ["validation/recall_at_1", "validation/map_at_r"],
            Watched::Test => ["test/recall_at_1", "test/map_at_r"],
        };
        let [recall, map] = names;
        let scalars = [(recall, validated.recall_at_1), (map, validated.map_at_r)];
        self.write(&line, &scalars)
    }

    fn write(&mut self, line: &Line, scalars: &[(&str, f64)]) -> Result<(), LearnError> {
        let mut both = || -> io::Result<()> {
            serde_json::to_writer(&mut self.lines, line)?;
            self.lines.write_all(b"\n")?;
            self.lines.flush()?;
            let now = since_1970().as_secs_f64();
            self.events.scalars(now, line.step(), scalars)
        };
        both().map_err(|source| LearnError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
