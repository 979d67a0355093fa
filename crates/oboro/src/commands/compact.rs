//! `oboro compact`: merges segments and takes deleted vectors off the disk.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use oboro_index::CompactionPolicy;
use serde::Serialize;

use super::build::stop_on_signal;
use crate::failure::Outcome;
use crate::figures::counted;
use crate::global::Global;
use crate::output::{self, Report};
use crate::place::Place;
use crate::progress::Progress;

/// Options of `oboro compact`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) place: Place,
}

/// What was merged.
#[derive(Serialize)]
struct Compacted {
    segments_before: u64,
    segments_after: u64,
    /// Deleted vectors that are gone from the disk.
    dropped: u64,
    generation: u64,
    /// Bytes of originals that a merge had written which was stopped, and with which this
    /// one went on; 0 where there was none.
    resumed_bytes: u64,
    #[serde(skip)]
    of_bytes: u64,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let cancel = Arc::new(AtomicBool::new(false));
    stop_on_signal(&cancel)?;
    let (mut place, _) = options.place.open()?;
    let bar = Progress::new(global).bar("merging, bytes", Some(0));
    let merged = place.compact(&CompactionPolicy::FULL, &cancel, &bar)?;
    bar.finish_and_clear();
    let (resumed_bytes, of_bytes) = merged.resumed.unwrap_or_default();
    output::print(
        &Compacted {
            segments_before: merged.before,
            segments_after: merged.after,
            dropped: merged.dropped,
            generation: merged.generation,
            resumed_bytes,
            of_bytes,
        },
        global.json,
    )
}

impl Report for Compacted {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.resumed_bytes > 0 {
            writeln!(
                out,
                "resumed at {} of {} of originals",
                output::bytes(self.resumed_bytes),
                output::bytes(self.of_bytes)
            )?;
        }
        writeln!(
            out,
            "{}, {} before; gone from the disk: {}; generation {}",
            counted(self.segments_after, "segment"),
            output::count(self.segments_before),
            counted(self.dropped, "deleted vector"),
            self.generation
        )
    }
}
