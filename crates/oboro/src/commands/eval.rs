//! `oboro eval`: recall against a ground truth or exact search.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use oboro_client::Rerank;
use oboro_quant::{Metric, exact, recall};
use oboro_vectors::Matrix;
use serde::Serialize;

use super::connection::Connection;
use super::doctor::cores;
use crate::failure::{Failure, Outcome};
use crate::figures::round;
use crate::global::Global;
use crate::input::Input;
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
    /// True neighbours, nearest first: .ivecs
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "base",
        conflicts_with = "base"
    )]
    pub(crate) groundtruth: Option<PathBuf>,
    /// The indexed vectors, to search them exactly; ids are row numbers
    #[arg(long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
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
    recall_10_at_10: Option<f64>,
    recall_1_at_1: Option<f64>,
    recall_1_at_10: Option<f64>,
    recall_1_at_100: Option<f64>,
    seconds: f64,
    queries_per_second: f64,
    query_bytes_up: u64,
    reply_bytes_down: u64,
}

/// Recalls of found neighbours; what too few neighbours or candidates leave
/// undefined is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recalls {
    pub(crate) ten_at_ten: Option<f64>,
    pub(crate) one_at_1: Option<f64>,
    pub(crate) one_at_10: Option<f64>,
    pub(crate) one_at_100: Option<f64>,
}

impl Recalls {
    /// `depth` neighbours were asked for of every query.
    pub(crate) fn of(found: &[Vec<u64>], truth: &[Vec<u64>], depth: usize) -> Self {
        let known = truth.iter().map(Vec::len).min().unwrap_or(0);
        let one =
            |r: usize| (depth >= r && known >= 1).then(|| recall::recall_1_at(found, truth, r));
        Self {
            ten_at_ten: (depth >= 10 && known >= 10)
                .then(|| recall::recall_k_at_k(found, truth, 10)),
            one_at_1: one(1),
            one_at_10: one(10),
            one_at_100: one(100),
        }
    }
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let progress = Progress::new(global);
    let mut queries = Input::open(&options.queries, options.format.as_deref())?.read()?;
    if let Some(limit) = options.limit {
        queries = first_rows(queries, limit)?;
    }
    let truth = match (&options.groundtruth, &options.base) {
        (Some(path), _) => Truth::Known(known(path, queries.rows())?),
        (None, Some(path)) => Truth::Base(Input::open(path, None)?.read()?),
        (None, None) => {
            return Err(Failure::usage(
                "give the true neighbours with --groundtruth, or the indexed vectors with --base",
            ));
        }
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
    let truth = match truth {
        Truth::Known(rows) => rows,
        Truth::Base(base) => {
            let metric = Metric::from_name(index.metric)
                .ok_or_else(|| Failure::input("the index has a metric that is unknown here"))?;
            exact_neighbours(&base, &queries, metric, &progress)?
        }
    };
    let found = run.ids();
    refuse_other_ids(&found, &truth, index.vectors)?;
    let recalls = Recalls::of(&found, &truth, depth);
    let (up, down) = run.bytes();
    let digits = |value: Option<f64>| value.map(|value| round(value, 5));
    let evaluated = Evaluated {
        platform: index.platform.to_owned(),
        queries: queries.rows(),
        rerank: options.connection.rerank.clone(),
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
        "the index has ids of its own, and the true neighbours are row numbers, so nothing can be compared; build it without ids to evaluate it",
    ))
}

/// Where the true neighbours come from.
enum Truth {
    Known(Vec<Vec<u64>>),
    Base(Matrix<f32>),
}

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

/// The 100 true neighbours by exact search; ids are row numbers.
pub(crate) fn exact_neighbours(
    base: &Matrix<f32>,
    queries: &Matrix<f32>,
    metric: Metric,
    progress: &Progress,
) -> Outcome<Vec<Vec<u64>>> {
    if base.dimension() != queries.dimension() {
        return Err(Failure::input(format_args!(
            "the base has dimension {} and the queries have {}; give the vectors that the index was built from",
            base.dimension(),
            queries.dimension()
        )));
    }
    let bar = progress.bar("exact search", None);
    let (_, ids) = exact::search(
        base.data(),
        base.dimension(),
        queries.data(),
        100.min(base.rows()),
        metric,
        cores(),
    )
    .or_failure()?;
    bar.finish_and_clear();
    Ok(ids
        .chunks(100.min(base.rows()))
        .map(<[u64]>::to_vec)
        .collect())
}

impl Report for Evaluated {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} queries, re-ranking {}",
            output::count(self.queries as u64),
            self.rerank
        )?;
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
mod tests {
    use super::*;

    #[test]
    fn fail_ids_that_are_no_rows() {
        let truth = vec![vec![5, 900], vec![7]];
        assert!(refuse_other_ids(&[vec![901, u64::MAX]], &truth, 901).is_err());
        // Found wrongly is a recall of 0, and no other ids.
        assert!(refuse_other_ids(&[vec![901, 6]], &truth, 901).is_ok());
        assert!(refuse_other_ids(&[vec![901]], &truth, 2_000).is_ok());
        assert!(refuse_other_ids(&[Vec::new()], &truth, 901).is_ok());
    }

    #[test]
    fn recalls_need_enough_neighbours() {
        let truth = vec![(0..20).collect::<Vec<u64>>()];
        let found = vec![(0..10).rev().collect::<Vec<u64>>()];
        let recalls = Recalls::of(&found, &truth, 10);
        assert_eq!(recalls.ten_at_ten, Some(1.0));
        assert_eq!(recalls.one_at_1, Some(0.0));
        assert_eq!(recalls.one_at_10, Some(1.0));
        assert_eq!(recalls.one_at_100, None);
    }
}
