//! `oboro eval`: recall against a ground truth or exact search.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use oboro_channel::Role;
use oboro_client::Rerank;
use oboro_quant::{Metric, exact};
use oboro_vectors::Matrix;
use serde::Serialize;

use super::connection::Connection;
use super::doctor::cores;
use super::recalls::{self, Distances, Lists, Recalls};
use crate::failure::{Failure, Outcome};
use crate::figures::round;
use crate::global::Global;
use crate::input::{GivenIds, Input};
use crate::keys::Folder;
use crate::or_failure::OrFailure;
use crate::output::{self, Report};
use crate::progress::Progress;

/// Options of `oboro eval`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Query vectors: .fvecs, .bvecs, .npy, .fbin, .u8bin, .parquet, .arrow or .feather; `-` for
    /// standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) queries: PathBuf,
    /// Format of the queries where the name does not say it
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// True neighbours, nearest first: .ivecs. Ids are counted, so that of several neighbours
    /// at one distance only those are right that the file names, unless --base is given, too
    #[arg(long, value_name = "FILE", required_unless_present = "base")]
    pub(crate) groundtruth: Option<PathBuf>,
    /// The indexed vectors, to search them exactly, or to count by distances what --groundtruth
    /// names
    #[arg(long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
    /// Ids that the index was built with, one a line, or .npy or .ivecs; row numbers when not
    /// given
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: Option<PathBuf>,
    /// Take these ids as text even where some of them are numbers
    #[arg(long, requires = "ids")]
    pub(crate) text_ids: bool,
    /// Take only the first N queries
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// Recall that was measured.
#[derive(Serialize)]
struct Evaluated {
    platform: String,
    queries: usize,
    rerank: String,
    /// What tells a right neighbour: `distances`, or `ids` where the vectors are not at hand.
    counted_by: &'static str,
    recall_10_at_10: Option<f64>,
    recall_1_at_1: Option<f64>,
    recall_1_at_10: Option<f64>,
    recall_1_at_100: Option<f64>,
    seconds: f64,
    queries_per_second: f64,
    query_bytes_up: u64,
    reply_bytes_down: u64,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let progress = Progress::new(global);
    let mut queries = Input::open(&options.queries, options.format.as_deref())?.read()?;
    if let Some(limit) = options.limit {
        queries = first_rows(queries, limit)?;
    }
    let truth = match (&options.groundtruth, &options.base) {
        (Some(path), None) => Truth::Ids(known(path, queries.rows())?),
        (Some(path), Some(base)) => {
            Truth::IdsIn(known(path, queries.rows())?, Input::open(base, None)?)
        }
        (None, Some(path)) => Truth::Base(Input::open(path, None)?.read()?),
        (None, None) => {
            return Err(Failure::usage(
                "give the true neighbours with --groundtruth, or the indexed vectors with --base",
            ));
        }
    };
    let given = match &options.ids {
        Some(path) => Some(GivenIds::read(path, options.text_ids)?),
        None => None,
    };
    let connected = options.connection.connect()?;
    let index = &connected.index;
    let candidates = match options.connection.rerank()? {
        Rerank::Candidates(candidates) => candidates as usize,
        Rerank::Off => index.candidates_max as usize,
    };
    let depth = candidates
        .min(100)
        .min(usize::try_from(index.vectors).unwrap_or(usize::MAX));
    let settings = options.connection.search_options(depth)?;
    let run = connected.search(
        &queries,
        &settings,
        options.connection.concurrency,
        &progress,
    )?;
    let metric = Metric::from_name(index.metric)
        .ok_or_else(|| Failure::input("the index has a metric that is unknown here"))?;
    let mut found = run.ids();
    if let Some(given) = given {
        let key = Folder::of(&options.connection.keys, Role::Client)?.client_key()?;
        found = rows_of(&found, &given.numbers(key.record_key()))?;
    }
    let refuse = |truth: &[Vec<u64>]| refuse_other_ids(&found, truth, index.vectors);
    let (counted_by, recalls) = match truth {
        Truth::Ids(truth) => {
            refuse(&truth)?;
            (IDS, Recalls::by_ids(&found, &truth, depth))
        }
        Truth::IdsIn(truth, base) => {
            refuse(&truth)?;
            let ([found], truth) = recalls::distances([&found], &truth, &base, &queries, metric)?;
            let recalls = Recalls::by_distances(&found, &truth, metric, depth);
            (DISTANCES, recalls)
        }
        Truth::Base(base) => {
            let (distances, truth) = exact_neighbours(&base, &queries, metric, &progress)?;
            refuse(&truth)?;
            let mut of_found = Distances::new(&found, &queries, metric);
            of_found.rows(0, base.data());
            let recalls = Recalls::by_distances(&of_found.finish(), &distances, metric, depth);
            (DISTANCES, recalls)
        }
    };
    let (up, down) = run.bytes();
    let digits = |value: Option<f64>| value.map(|value| round(value, 5));
    let evaluated = Evaluated {
        platform: index.platform.to_owned(),
        queries: queries.rows(),
        rerank: options.connection.rerank.clone(),
        counted_by,
        recall_10_at_10: digits(recalls.ten_at_ten),
        recall_1_at_1: digits(recalls.one_at_1),
        recall_1_at_10: digits(recalls.one_at_10),
        recall_1_at_100: digits(recalls.one_at_100),
        seconds: round(run.seconds, 4),
        queries_per_second: round(run.per_second(), 4),
        query_bytes_up: up,
        reply_bytes_down: down,
    };
    output::print(&evaluated, global.json)
}

/// True neighbours are named by their rows: ids that are all beyond them and the number of
/// vectors are no rows, and no recall follows from them.
fn refuse_other_ids(found: &[Vec<u64>], truth: &[Vec<u64>], vectors: u64) -> Outcome<()> {
    let last = truth.iter().flatten().max();
    let rows = |id: &u64| *id < vectors || last.is_some_and(|last| id <= last);
    if found.iter().flatten().next().is_none() || found.iter().flatten().any(rows) {
        return Ok(());
    }
    Err(Failure::input(
        "the index has ids of its own, and the true neighbours are row numbers, so nothing can be compared; name its ids with --ids, as in its build",
    ))
}

/// No row has this number.
const NO_ROW: u64 = u64::MAX;

/// The rows of found ids, of which `ids` has one for each row.
fn rows_of(found: &[Vec<u64>], ids: &[u64]) -> Outcome<Vec<Vec<u64>>> {
    let rows: HashMap<u64, u64> = ids.iter().copied().zip(0..).collect();
    let row = |id: &u64| rows.get(id).copied().unwrap_or(NO_ROW);
    let found: Vec<Vec<u64>> = found
        .iter()
        .map(|ids| ids.iter().map(row).collect())
        .collect();
    let mut all = found.iter().flatten().peekable();
    if all.peek().is_some() && all.all(|&row| row == NO_ROW) {
        return Err(Failure::input(
            "not one of the ids that were found is among those of --ids; give the ids that the index was built with",
        ));
    }
    Ok(found)
}

/// What tells which neighbours are right.
enum Truth {
    /// Their ids.
    Ids(Vec<Vec<u64>>),
    /// Their ids, and the file in which they are rows.
    IdsIn(Vec<Vec<u64>>, Input),
    /// All vectors.
    Base(Matrix<f32>),
}

/// How neighbours are counted.
const IDS: &str = "ids";
const DISTANCES: &str = "distances";

/// The first rows of a matrix.
pub(crate) fn first_rows(rows: Matrix<f32>, most: usize) -> Outcome<Matrix<f32>> {
    let dimension = rows.dimension();
    let mut data = rows.into_data();
    data.truncate(most.max(1) * dimension);
    Matrix::new(dimension, data).or_failure()
}

/// The true neighbours of the first `queries` queries, from a file.
pub(crate) fn known(path: &Path, queries: usize) -> Outcome<Vec<Vec<u64>>> {
    let rows = oboro_vectors::read_ids(path).or_failure()?;
    if rows.rows() < queries {
        return Err(Failure::input(format_args!(
            "{} holds the neighbours of {} queries but there are {queries}; give the ground truth of these queries or use --limit {}",
            path.display(),
            rows.rows(),
            rows.rows()
        )));
    }
    rows.iter()
        .take(queries)
        .enumerate()
        .map(|(number, row)| {
            let ids = row.iter().map(|&id| u64::try_from(id));
            ids.collect::<Result<Vec<_>, _>>().map_err(|_| {
                Failure::input(format_args!(
                    "{}: row {number} holds a negative id; ids are whole numbers from 0",
                    path.display()
                ))
            })
        })
        .collect()
}

/// Distances and ids of the 100 true neighbours by exact search; ids are row numbers.
pub(crate) fn exact_neighbours(
    base: &Matrix<f32>,
    queries: &Matrix<f32>,
    metric: Metric,
    progress: &Progress,
) -> Outcome<(Lists<f32>, Lists<u64>)> {
    recalls::same_dimension(base.dimension(), queries)?;
    let bar = progress.bar("exact search", None);
    let each = 100.min(base.rows());
    let (distances, ids) = exact::search(
        base.data(),
        base.dimension(),
        queries.data(),
        each,
        metric,
        cores(),
    )
    .or_failure()?;
    bar.finish_and_clear();
    Ok((
        distances.chunks(each).map(<[f32]>::to_vec).collect(),
        ids.chunks(each).map(<[u64]>::to_vec).collect(),
    ))
}

impl Report for Evaluated {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} queries, re-ranking {}",
            output::count(self.queries as u64),
            self.rerank
        )?;
        if self.counted_by == IDS {
            writeln!(
                out,
                "counted by ids; with --base, too, all neighbours at the same distance count"
            )?;
        }
        for (name, value) in [
            ("10-recall@10", self.recall_10_at_10),
            ("1-recall@1", self.recall_1_at_1),
            ("1-recall@10", self.recall_1_at_10),
            ("1-recall@100", self.recall_1_at_100),
        ] {
            match value {
                Some(value) => writeln!(out, "  {name:14} {value:.4}")?,
                None => writeln!(out, "  {name:14} needs more neighbours than were searched")?,
            }
        }
        writeln!(
            out,
            "{:.0} queries a second; {} up and {} down for each",
            self.queries_per_second,
            output::bytes(self.query_bytes_up),
            output::bytes(self.reply_bytes_down)
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_stand_for_rows() {
        let found = [vec![30, 10], vec![7]];
        let rows = rows_of(&found, &[10, 20, 30]).unwrap();
        assert_eq!(rows, [vec![2, 0], vec![NO_ROW]]);
        assert!(rows_of(&found, &[1, 2, 3]).is_err());
        assert!(rows_of(&[Vec::new()], &[1]).is_ok());
    }

    #[test]
    fn fail_ids_that_are_no_rows() {
        let truth = vec![vec![5, 900], vec![7]];
        assert!(refuse_other_ids(&[vec![901, u64::MAX]], &truth, 901).is_err());
        // Found wrongly is a recall of 0, and no other ids.
        assert!(refuse_other_ids(&[vec![901, 6]], &truth, 901).is_ok());
        assert!(refuse_other_ids(&[vec![901]], &truth, 2_000).is_ok());
        assert!(refuse_other_ids(&[Vec::new()], &truth, 901).is_ok());
    }
}
