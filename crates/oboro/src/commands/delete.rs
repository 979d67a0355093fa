//! `oboro delete`: vectors that no search finds any more, at once.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::insert::unrecorded;
use crate::failure::{Failure, Outcome};
use crate::figures::counted;
use crate::global::Global;
use crate::input::GivenIds;
use crate::output::{self, Report};
use crate::place::Place;

/// Options of `oboro delete`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("given").required(true))]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Ids to delete: whole numbers, or text; or name a file of them with --ids-file
    #[arg(long, value_name = "ID,...", value_delimiter = ',', group = "given")]
    pub(crate) ids: Vec<String>,
    /// File of ids, one a line, or .npy or .ivecs; `-` for standard input
    #[arg(long, value_name = "FILE", group = "given")]
    pub(crate) ids_file: Option<PathBuf>,
    /// Take ids as text even where all of them are numbers
    #[arg(long)]
    pub(crate) text_ids: bool,
    /// Delete all of them, or none where one is not there
    #[arg(long)]
    pub(crate) strict: bool,
}

/// What was deleted.
#[derive(Serialize)]
struct Deleted {
    deleted: u64,
    /// Ids that were not there.
    unknown: u64,
    vectors: u64,
    generation: u64,
    /// Deleted vectors that a compaction will take off the disk.
    on_disk: u64,
    /// Whether the keeper could not be told yet of the newest state.
    unrecorded: bool,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let given = match &options.ids_file {
        Some(path) => GivenIds::read(path, options.text_ids)?,
        None => GivenIds::of(options.ids.clone(), options.text_ids)?,
    };
    let (mut place, key) = options.place.open()?;
    let ids = given.numbers(key.client_key().record_key());
    if ids.is_empty() {
        return Err(Failure::input("there are no ids to delete"));
    }
    let changed = place.delete(&ids, options.strict)?;
    let on_disk = place.state()?.deleted;
    output::print(
        &Deleted {
            deleted: changed.deleted,
            unknown: changed.unknown,
            vectors: changed.vectors,
            generation: changed.generation,
            on_disk,
            unrecorded: place.unrecorded(),
        },
        global.json,
    )
}

impl Report for Deleted {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} deleted, {} left, generation {}",
            counted(self.deleted, "vector"),
            output::count(self.vectors),
            self.generation
        )?;
        if self.unknown > 0 {
            writeln!(out, "not there: {}", counted(self.unknown, "id"))?;
        }
        if self.on_disk > 0 {
            writeln!(
                out,
                "No search finds what is deleted; on the disk until `oboro compact` or a merge takes it off: {}.",
                counted(self.on_disk, "vector")
            )?;
        }
        unrecorded(out, self.unrecorded)
    }
}
