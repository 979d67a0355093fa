//! `oboro search`: queries that no server can read.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use serde::Serialize;

use super::connection::{Connection, Run};
use super::filter::FilterNames;
use crate::failure::{Named, Outcome};
use crate::figures::round;
use crate::global::Global;
use crate::input::Input;
use crate::output::{self, Report};
use crate::progress::Progress;
use crate::results::{Found, ResultFile};

/// Options of `oboro search`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Query vectors: .fvecs, .bvecs, .npy, .fbin, .u8bin, .parquet, .arrow or .feather; `-` for
    /// standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: PathBuf,
    /// Format of the queries where the name does not say it
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Neighbours of each query
    #[arg(short, long = "neighbours", default_value_t = 10, value_name = "K")]
    pub(crate) k: usize,
    /// Where ids go: .ivecs, .npy or .json; `-` for standard output
    #[arg(long, default_value = "-", value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Overwrite the output file
    #[arg(long)]
    pub(crate) force: bool,
    /// Search among vectors with some tags: any=a,b;all=c;none=d
    #[arg(long, value_name = "TAGS")]
    pub(crate) filter: Option<FilterNames>,
    /// New folder for payloads, one file QUERY-RANK for each result that has one
    #[arg(long, value_name = "DIR")]
    pub(crate) payload_out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// What a search gave.
#[derive(Serialize)]
struct Searched {
    platform: String,
    queries: usize,
    k: usize,
    rerank: String,
    seconds: f64,
    queries_per_second: f64,
    query_bytes_up: u64,
    reply_bytes_down: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<String>,
    /// Ids and distances of every query, unless they went to a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<Vec<Found>>>,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let file = ResultFile::check(&options.out, options.force)?;
    let mut settings = options.connection.search_options(options.k)?;
    if let Some(folder) = &options.payload_out {
        DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .named("make", folder.display())?;
    }
    let queries = Input::open(&options.queries, options.format.as_deref())?.read()?;
    let connected = options.connection.connect()?;
    if let Some(names) = &options.filter {
        settings.filter = connected.filter(names)?;
    }
    let run = connected.search(
        &queries,
        &settings,
        options.connection.concurrency,
        &Progress::new(global),
    )?;
    if let Some(folder) = &options.payload_out {
        write_payloads(folder, &run)?;
    }
    let found = found(&run);
    if let Some(file) = &file {
        file.write(&found)?;
    }
    let (up, down) = run.bytes();
    let searched = Searched {
        platform: connected.index.platform.to_owned(),
        queries: queries.rows(),
        k: options.k,
        rerank: options.connection.rerank.clone(),
        seconds: round(run.seconds, 4),
        queries_per_second: round(run.per_second(), 4),
        query_bytes_up: up,
        reply_bytes_down: down,
        out: file.is_some().then(|| options.out.display().to_string()),
        results: file.is_none().then_some(found),
    };
    output::print(&searched, global.json)
}

fn found(run: &Run) -> Vec<Vec<Found>> {
    run.results
        .iter()
        .map(|result| {
            let neighbours = result.neighbours.iter();
            neighbours
                .map(|neighbour| {
                    let extra = neighbour.extra.as_ref();
                    Found {
                        id: neighbour.id,
                        text: extra.and_then(|extra| extra.id.clone()),
                        payload: extra
                            .filter(|extra| !extra.payload.is_empty())
                            .map(|extra| BASE64_STANDARD.encode(&extra.payload)),
                        distance: neighbour.distance,
                    }
                })
                .collect()
        })
        .collect()
}

/// One file for each payload, for its user only; queries count from 0, ranks from 1.
fn write_payloads(folder: &Path, run: &Run) -> Outcome<()> {
    for (query, result) in run.results.iter().enumerate() {
        for (rank, neighbour) in result.neighbours.iter().enumerate() {
            let Some(extra) = neighbour.extra.as_ref().filter(|e| !e.payload.is_empty()) else {
                continue;
            };
            let path = folder.join(format!("{query}-{}", rank + 1));
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .and_then(|mut file| file.write_all(&extra.payload))
                .named("write", path.display())?;
        }
    }
    Ok(())
}

impl Report for Searched {
    /// A table for people and for `cut`: query, rank, id, distance. Text ids come from
    /// whoever made the index: nothing in them moves a cursor or ends a line.
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(results) = &self.results else {
            return writeln!(
                out,
                "{} queries in {:.2} s ({:.0} a second); {} up and {} down for each; written to {}",
                self.queries,
                self.seconds,
                self.queries_per_second,
                output::bytes(self.query_bytes_up),
                output::bytes(self.reply_bytes_down),
                self.out.as_deref().unwrap_or("nowhere")
            );
        };
        for (query, neighbours) in results.iter().enumerate() {
            for (rank, neighbour) in neighbours.iter().enumerate() {
                let (rank, distance) = (rank + 1, neighbour.distance);
                match &neighbour.text {
                    Some(id) => {
                        let id = output::shown(id);
                        writeln!(out, "{query}\t{rank}\t{id}\t{distance}")?;
                    }
                    None => writeln!(out, "{query}\t{rank}\t{}\t{distance}", neighbour.id)?,
                }
            }
        }
        Ok(())
    }
}
