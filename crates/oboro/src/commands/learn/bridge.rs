//! From embeddings to private search, and how the two agree.

use std::path::Path;
use std::sync::Arc;

use oboro_ckks::ParameterSet;
use oboro_client::blocking;
use oboro_learn::evaluation::{Score, nearest};
use oboro_learn::report::Table;
use serde::Serialize;

use super::embed::vectors;
use super::embedded::Embeddings;
use crate::commands::connection::Connection;
use crate::commands::serve::{Pair, PairOptions};
use crate::commands::{build, keygen};
use crate::failure::Outcome;
use crate::figures::{median, round};
use crate::or_failure::OrFailure;
use crate::progress::Progress;

/// Candidates that the client re-ranks.
const CANDIDATES: usize = 100;
/// Seed of the codebook.
const SEED: u64 = 1;

/// What a private index gives beside exact search over the same embeddings.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Agreement {
    pub(super) metric: &'static str,
    pub(super) vectors: usize,
    pub(super) queries: usize,
    /// R@1 of exact search.
    pub(super) exact_recall_at_1: f64,
    /// R@1 of private search.
    pub(super) private_recall_at_1: f64,
    /// The share of queries whose nearest neighbour is the same.
    pub(super) same_nearest: f64,
    pub(super) latency_p50_ms: f64,
    pub(super) query_bytes_up: u64,
    pub(super) reply_bytes_down: u64,
    pub(super) build_seconds: f64,
}

/// Keys for the indexes of a demonstration.
pub(super) fn keys(folder: &Path) -> Outcome<()> {
    keygen::make(folder, ParameterSet::N2048Q50, 1, None).map(drop)
}

/// Builds a private index of embeddings, serves it, searches some of them in
/// it, each left out of its own result, and compares with exact search.
pub(super) fn compare(
    embeddings: &Embeddings,
    folder: &Path,
    metric: &'static str,
    work: &Path,
    keys: &Path,
    queries: usize,
    progress: &Progress,
) -> Outcome<Agreement> {
    let file = vectors(folder, metric, &embeddings.about.files)?;
    let index = work.join(format!("{metric}.oboro"));
    let mut settings = build::Options::new(&file, keys, &index);
    settings.metric = metric.to_owned();
    settings.seed = Some(SEED);
    // Neighbours on the hyperboloid differ in digits that half precision lacks.
    settings.originals = "f32".to_owned();
    progress.remark(format_args!("build --metric {metric}: an encrypted index"));
    let built = build::build(&settings, progress, &Arc::default())?;

    progress.remark("serve and search: two processes, encrypted queries");
    let pair = Pair::start(&PairOptions::local(&index, keys, None))?;
    let connection = Connection::local(pair.address(), keys, CANDIDATES);
    let client = blocking::Client::connect(connection.config()?).or_failure()?;
    let options = connection.search_options(2)?;
    let rows = oboro_vectors::read_f32(&file).or_failure()?;
    let count = queries.clamp(1, rows.rows());
    let asked: Vec<usize> = (0..count).map(|at| at * rows.rows() / count).collect();
    let bar = progress.bar("private searches", Some(asked.len() as u64));
    let mut found = Vec::with_capacity(asked.len());
    let (mut latencies, mut up, mut down) = (Vec::new(), Vec::new(), Vec::new());
    for &row in &asked {
        let begin = std::time::Instant::now();
        let result = client.search(rows.row(row), &options).or_failure()?;
        latencies.push(begin.elapsed().as_secs_f64() * 1e3);
        up.push(result.bytes_up as f64);
        down.push(result.bytes_down as f64);
        let ids = result.neighbours.iter().map(|neighbour| neighbour.id);
        found.push(ids.into_iter().find(|&id| id != row as u64));
        bar.inc(1);
    }
    bar.finish_and_clear();
    drop(client);
    pair.stop()?;

    let score = match embeddings.about.ball {
        Some(ball) if metric == "lorentz" => Score::Hyperbolic {
            curvature: ball.curvature,
        },
        _ => Score::Cosine,
    };
    let items = embeddings.items()?;
    let lists = nearest(&items, None, &score, 1).or_failure()?;
    let labels = &embeddings.labels;
    let right = |row: usize, id: Option<u64>| {
        id.is_some_and(|id| labels.get(id as usize) == Some(&labels[row]))
    };
    let (mut exact, mut private, mut same) = (0, 0, 0);
    for (&row, &id) in asked.iter().zip(&found) {
        let nearest = lists[row].first().map(|n| u64::from(n.item));
        exact += usize::from(right(row, nearest));
        private += usize::from(right(row, id));
        same += usize::from(nearest == id);
    }
    let share = |hits: usize| round(hits as f64 / asked.len() as f64, 4);
    Ok(Agreement {
        metric,
        vectors: rows.rows(),
        queries: asked.len(),
        exact_recall_at_1: share(exact),
        private_recall_at_1: share(private),
        same_nearest: share(same),
        latency_p50_ms: round(median(latencies), 3),
        query_bytes_up: median(up) as u64,
        reply_bytes_down: median(down) as u64,
        build_seconds: built.seconds,
    })
}

/// Agreements as a table.
pub(super) fn table(agreements: &[Agreement]) -> Table {
    Table {
        caption: "Private search beside exact search over the same embeddings".to_owned(),
        columns: [
            "index",
            "queries",
            "R@1 exact",
            "R@1 private",
            "same nearest",
            "median ms",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: agreements
            .iter()
            .map(|a| {
                vec![
                    a.metric.to_owned(),
                    a.queries.to_string(),
                    format!("{:.4}", a.exact_recall_at_1),
                    format!("{:.4}", a.private_recall_at_1),
                    format!("{:.4}", a.same_nearest),
                    format!("{:.1}", a.latency_p50_ms),
                ]
            })
            .collect(),
    }
}
