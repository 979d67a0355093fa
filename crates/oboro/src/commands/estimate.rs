//! What a build will take: `oboro build --dry-run` and `--estimate`.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use oboro_owner::Estimate;
use serde::Serialize;

use super::build::{Options, named_failure, prepared};
use crate::failure::Outcome;
use crate::figures::round;
use crate::input::Input;
use crate::keys;
use crate::output::{self, Report};
use crate::progress::Progress;
use crate::usage;

/// One part of so many of what an estimate leaves behind in memory stays there, as pieces
/// that nothing fits into.
const LEFT: u64 = 3;

/// What is expected.
#[derive(Serialize)]
pub(crate) struct Estimated {
    vectors: usize,
    pub(super) seconds: f64,
    stages: Stages,
    /// The most memory that the process will have.
    pub(super) memory_bytes: u64,
    total_bytes: u64,
    files: Vec<File>,
    /// Seconds that the estimate itself took.
    took: f64,
}

#[derive(Serialize)]
struct Stages {
    read: f64,
    train: f64,
    encode: f64,
    trial: f64,
    write: f64,
}

#[derive(Serialize)]
struct File {
    kind: String,
    bytes: u64,
}

/// Measures the first rows and scales up.
pub(super) fn of(
    options: &Options,
    progress: &Progress,
    cancel: &Arc<AtomicBool>,
) -> Outcome<Estimated> {
    let input = Input::open(&options.vectors, options.records.format.as_deref())?;
    let mut source = input.records(&options.records, None)?;
    let (owner, settings) = prepared(options, &source, progress, cancel)?;
    let bar = progress.bar("estimating", None);
    let resident = || usage::status_bytes(usage::OWN, "VmRSS").unwrap_or(0);
    // Before the first rows are built: what is there already comes on top of the build.
    let mut there = resident();
    let estimate = owner
        .estimate(
            &mut source,
            options.folder(),
            &settings,
            &mut keys::os_rng()?,
        )
        .map_err(|error| named_failure(error, |error| input.failure(error)))?;
    bar.finish_and_clear();
    if options.estimate {
        // What the first rows left behind is used again by the build, all but this part
        // of it (by measurement: 6,000 to 1,000,000 vectors of 25 to 960 dimensions).
        there += resident().saturating_sub(there) / LEFT;
    }
    Ok(Estimated::new(&estimate, there))
}

impl Estimated {
    fn new(estimate: &Estimate, resident: u64) -> Self {
        let seconds = &estimate.seconds;
        Self {
            vectors: estimate.vectors,
            seconds: round(seconds.total, 3),
            stages: Stages {
                read: round(seconds.read, 3),
                train: round(seconds.train, 3),
                encode: round(seconds.encode, 3),
                trial: round(seconds.trial, 3),
                write: round(seconds.write, 3),
            },
            memory_bytes: resident + estimate.memory_bytes,
            total_bytes: estimate.total_bytes(),
            files: estimate
                .files
                .iter()
                .map(|(kind, bytes)| File {
                    kind: kind.clone(),
                    bytes: *bytes,
                })
                .collect(),
            took: round(estimate.took, 3),
        }
    }
}

impl Report for Estimated {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} vectors: about {:.1} s here (reading {:.1}, training {:.1}, encoding and sealing {:.1}, trial {:.1}, writing {:.1})",
            output::count(self.vectors as u64),
            self.seconds,
            self.stages.read,
            self.stages.train,
            self.stages.encode,
            self.stages.trial,
            self.stages.write
        )?;
        writeln!(out, "memory  {}", output::bytes(self.memory_bytes))?;
        writeln!(out, "disk    {}", output::bytes(self.total_bytes))?;
        for file in &self.files {
            writeln!(out, "  {:12} {}", output::bytes(file.bytes), file.kind)?;
        }
        writeln!(out, "Nothing was built; this took {:.1} s.", self.took)
    }
}
