//! `oboro insert`: new vectors for an index that exists, while it is searched.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use oboro_index::{CompactionPolicy, LiveIndex, OnExisting};
use oboro_owner::{InsertOptions, InsertReport, VectorSource};
use oboro_vectors::IdKind;
use serde::Serialize;

use super::build::{bars, named_failure, stop_on_signal};
use crate::failure::{Failure, Outcome};
use crate::figures::{counted, round};
use crate::global::Global;
use crate::input::{Input, RecordArgs, at_least_one};
use crate::output::{self, Report};
use crate::place::{Opened, Place};
use crate::progress::Progress;
use crate::shutdown;

/// Rows of a commit at a searcher, and in a folder, where nobody waits for them.
const SERVED_BATCH: usize = 8_192;
const FOLDER_BATCH: usize = 65_536;

/// Options of `oboro insert`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Vectors: .fvecs, .bvecs, .npy, .fbin, .u8bin, .parquet (not compressed, or with Snappy,
    /// GZIP or LZ4), .arrow or .feather (not compressed, or with LZ4); `-` for standard input
    #[arg(value_name = "VECTORS")]
    pub(crate) vectors: PathBuf,
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) records: RecordArgs,
    /// Where an id is there already, let the new vector take its place
    #[arg(long)]
    pub(crate) upsert: bool,
    /// Insert all rows in one step, or none where one cannot be taken or its id is there
    #[arg(long)]
    pub(crate) strict: bool,
    /// Rows of a commit; 8192 at a searcher and 65536 in a folder when not given
    #[arg(long, value_name = "N", conflicts_with = "strict", value_parser = at_least_one)]
    pub(crate) batch: Option<usize>,
    /// Pass over rows whose ids are there: what an insert that was stopped has done
    #[arg(long, conflicts_with_all = ["strict", "upsert"])]
    pub(crate) resume: bool,
    /// Begin with this row, counted from 0
    #[arg(long, default_value_t = 0, value_name = "ROW")]
    pub(crate) from_row: u64,
    /// In a folder, leave small segments as they are
    #[arg(long)]
    pub(crate) no_compact: bool,
    /// Threads for encoding and sealing; all cores when not given
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
}

/// What was inserted.
#[derive(Serialize)]
pub(crate) struct Inserted {
    /// Rows that are settled: committed, refused or passed over.
    rows: u64,
    inserted: u64,
    replaced: u64,
    /// Rows that were left out because their id was there.
    existing: u64,
    refused: Refused,
    commits: u64,
    vectors: u64,
    generation: u64,
    segments: u64,
    seconds: f64,
    vectors_per_second: f64,
    /// Whether Ctrl-C ended it before the last row.
    stopped: bool,
    /// Whether the keeper could not be told yet of the newest state.
    unrecorded: bool,
}

/// Rows that the index cannot take.
#[derive(Serialize)]
struct Refused {
    rows: u64,
    /// How many for each reason.
    reasons: BTreeMap<&'static str, u64>,
    /// The first of them.
    first: Vec<Row>,
    /// What to do about those.
    advice: Vec<&'static str>,
}

#[derive(Serialize)]
struct Row {
    row: u64,
    reason: String,
}

/// Runs `oboro insert`.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    changed(options, options.upsert, global)
}

/// Runs `oboro upsert`.
pub(crate) fn upsert(options: &Options, global: &Global) -> Outcome<()> {
    if options.resume {
        return Err(Failure::usage(
            "--resume passes over ids that are there, and upsert replaces their vectors; leave --resume away",
        ));
    }
    changed(options, true, global)
}

fn changed(options: &Options, upsert: bool, global: &Global) -> Outcome<()> {
    let cancel = Arc::new(AtomicBool::new(false));
    stop_on_signal(&cancel)?;
    let progress = Progress::new(global);
    let input = Input::open(&options.vectors, options.records.format.as_deref())?;
    let (mut place, key) = options.place.open()?;
    let encoder = place.encoder(key)?;
    let dimension = encoder.descriptor().dimension as usize;
    let mut source = input.records(&options.records, Some(dimension))?;
    if upsert && source.id_kind() == IdKind::Rows {
        return Err(Failure::usage(
            "these vectors have no ids, and by their row numbers they would replace others; name ids with --ids or --ids-column",
        ));
    }
    let present = match &place {
        Opened::Folder(live) if options.resume => Some(ids(live)),
        _ => None,
    };
    let is_present = present
        .as_ref()
        .map(|present| |id| present.binary_search(&id).is_ok());
    let usual = match &place {
        Opened::Folder(_) => FOLDER_BATCH,
        Opened::Served(_) => SERVED_BATCH,
    };
    let settings = InsertOptions {
        batch: options.batch.unwrap_or(usual),
        on_existing: if upsert {
            OnExisting::Replace
        } else {
            OnExisting::Refuse
        },
        strict: options.strict,
        from_row: options.from_row,
        present: is_present
            .as_ref()
            .map(|known| known as &(dyn Fn(u64) -> bool + Sync)),
        threads: options.threads,
        cancel: Arc::clone(&cancel),
        progress: Some(bars(&progress)),
    };
    let source: &mut dyn VectorSource = &mut source;
    if options.from_row >= source.rows() as u64 && options.from_row > 0 {
        progress.remark(format_args!(
            "there are {} rows, so none comes at or after row {}",
            output::count(source.rows() as u64),
            output::count(options.from_row)
        ));
    }
    let report = place.insert(&*encoder, source, &settings, |error| {
        named_failure(error, |error| input.failure(error))
    })?;
    if matches!(place, Opened::Folder(_)) && !options.no_compact && !report.stopped {
        let bar = progress.bar("merging, bytes", Some(0));
        let merged = place.compact(&CompactionPolicy::default(), &cancel, &bar);
        bar.finish_and_clear();
        // Ctrl-C ends the merging only: the rows are there.
        if let Err(failure) = merged
            && !cancel.load(Ordering::Relaxed)
        {
            return Err(Failure::new(
                failure.kind,
                format_args!(
                    "all rows are settled ({} inserted, {} replaced), but segments could not be merged afterwards: {}",
                    report.changed.inserted, report.changed.replaced, failure.message
                ),
            ));
        }
    }
    if let Some(failure) = nothing_taken(&report) {
        return Err(failure);
    }
    let inserted = Inserted::new(&report, &place)?;
    output::print(&inserted, global.json)?;
    if report.stopped {
        // Exit runs no destructors, and a copy of standard input must not stay.
        drop(input);
        // As programs end that a signal ends; what was committed stays.
        std::process::exit(shutdown::INTERRUPTED);
    }
    Ok(())
}

/// A file of which no row can be taken is another one than was meant.
fn nothing_taken(report: &InsertReport) -> Option<Failure> {
    let refused = report.refused.total();
    let settled = report.changed.inserted + report.changed.replaced + report.changed.refused;
    let (row, reason) = report.refused.first().first()?;
    (settled + report.present == 0 && !report.stopped).then(|| {
        let advice = reason.advice().map(|advice| format!("; {advice}"));
        Failure::input(format_args!(
            "nothing was inserted, since not one of {} can be taken: row {} {reason}{}",
            counted(refused, "row"),
            output::count(*row),
            advice.unwrap_or_default()
        ))
    })
}

/// What to do about the refused rows that are named, each thing once.
fn advice(report: &InsertReport) -> Vec<&'static str> {
    let named = report.refused.first().iter();
    let mut advice: Vec<_> = named.filter_map(|(_, reason)| reason.advice()).collect();
    advice.sort_unstable();
    advice.dedup();
    advice
}

/// The ids of an index, ascending.
fn ids(live: &LiveIndex) -> Vec<u64> {
    let mut all: Vec<u64> = live
        .index()
        .segments()
        .iter()
        .flat_map(|segment| {
            let alive = move |position: &usize| segment.is_alive(*position as u32);
            (0..segment.len())
                .filter(alive)
                .map(|position| segment.ids()[position])
        })
        .collect();
    all.sort_unstable();
    all
}

impl Inserted {
    fn new(report: &InsertReport, place: &Opened) -> Outcome<Self> {
        let changed = &report.changed;
        let standing = place.state()?;
        Ok(Self {
            rows: report.rows,
            inserted: changed.inserted,
            replaced: changed.replaced,
            existing: changed.refused + report.present,
            refused: Refused {
                rows: report.refused.total(),
                reasons: report.refused.counts().collect(),
                first: report
                    .refused
                    .first()
                    .iter()
                    .map(|(row, reason)| Row {
                        row: *row,
                        reason: reason.to_string(),
                    })
                    .collect(),
                advice: advice(report),
            },
            commits: report.commits,
            vectors: standing.vectors,
            generation: standing.generation,
            segments: standing.segments,
            seconds: round(report.seconds, 4),
            vectors_per_second: round(
                (changed.inserted + changed.replaced) as f64 / report.seconds.max(1e-9),
                4,
            ),
            stopped: report.stopped,
            unrecorded: place.unrecorded(),
        })
    }
}

impl Report for Inserted {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let count = output::count;
        writeln!(
            out,
            "{} inserted, {} replaced, in {} and {:.2} s ({:.0} a second)",
            counted(self.inserted, "vector"),
            count(self.replaced),
            counted(self.commits, "commit"),
            self.seconds,
            self.vectors_per_second
        )?;
        if self.existing > 0 {
            writeln!(
                out,
                "{} left out, of ids that are there already (--upsert replaces the vectors)",
                counted(self.existing, "row")
            )?;
        }
        if self.refused.rows > 0 {
            let reasons = self.refused.reasons.iter();
            let reasons: Vec<String> = reasons
                .map(|(name, rows)| format!("{name} {}", count(*rows)))
                .collect();
            writeln!(
                out,
                "{} refused ({})",
                counted(self.refused.rows, "row"),
                reasons.join(", ")
            )?;
            for row in &self.refused.first {
                writeln!(out, "  row {} {}", count(row.row), row.reason)?;
            }
            let more = self.refused.rows - self.refused.first.len() as u64;
            if more > 0 {
                writeln!(out, "  and {} more", count(more))?;
            }
            for advice in &self.refused.advice {
                writeln!(out, "  {advice}")?;
            }
        }
        if self.commits > 0 {
            writeln!(
                out,
                "{} in {}, generation {}",
                counted(self.vectors, "vector"),
                counted(self.segments, "segment"),
                self.generation
            )?;
        }
        unrecorded(out, self.unrecorded)?;
        if self.stopped {
            writeln!(
                out,
                "stopped after row {}; go on with --from-row {}",
                count(self.rows),
                self.rows
            )?;
        }
        Ok(())
    }
}

/// The line for a state that no keeper has recorded.
pub(super) fn unrecorded(out: &mut dyn Write, unrecorded: bool) -> io::Result<()> {
    if !unrecorded {
        return Ok(());
    }
    writeln!(
        out,
        "The keeper could not be told yet: until it is, nobody would notice an older copy of the index."
    )
}
