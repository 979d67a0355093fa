use super::clusters::Clusters;
use super::ranking::rank;
use super::relevance::{average_precision_at_r, hit_at, ndcg_at, precision_at};
use super::score::Prepared;
use super::{Items, Score};
use crate::LearnError;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// The cut-offs of R@k.
    pub recall_at: Vec<usize>,
    /// The cut-offs of nDCG@k.
    pub ndcg_at: Vec<usize>,
    /// The seed of the clustering for NMI; `None` leaves NMI out. Only with
    /// the Euclidean embeddings: k-means is of their space.
    pub nmi_seed: Option<[u8; 32]>,
}

impl Default for Options {
    /// R@1, 2, 4, 8, nDCG@1, 10 and no NMI.
    fn default() -> Self {
        Self {
            recall_at: vec![1, 2, 4, 8],
            ndcg_at: vec![1, 10],
            nmi_seed: None,
        }
    }
}

/// A metric at a cut-off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct AtK {
    /// The cut-off.
    pub k: usize,
    /// The mean over the queries.
    pub value: f64,
}

/// The figures of one evaluation; means over the queries that have something
/// to find.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How items were compared.
    pub score: Score,
    /// Queries that count.
    pub queries: usize,
    /// Queries left out: no other item of their class is in the gallery.
    pub skipped: usize,
    /// Items of the gallery.
    pub gallery: usize,
    /// Classes of the gallery.
    pub classes: usize,
    /// R@k: the share of queries with a hit in the first k.
    pub recall: Vec<AtK>,
    /// nDCG@k.
    pub ndcg: Vec<AtK>,
    /// R-precision.
    pub r_precision: f64,
    /// MAP@R.
    pub map_at_r: f64,
    /// NMI of k-means clusters with the classes, if asked for.
    pub nmi: Option<f64>,
    /// MAP@R of each query, `None` for those left out; the worst ones are
    /// worth a look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per_query: Vec<Option<f64>>,
}

/// Evaluates `queries` against `gallery`, or among themselves, each left out
/// of its own list.
///
/// # Errors
/// When the score does not fit the items (see [`super::nearest`]), a cut-off
/// is zero, or no query has anything to find.
pub fn evaluate(
    queries: &Items<'_>,
    gallery: Option<&Items<'_>>,
    score: &Score,
    options: &Options,
) -> Result<Report, LearnError> {
    let cutoffs = options.recall_at.iter().chain(&options.ndcg_at);
    if cutoffs.clone().any(|&k| k == 0) {
        return Err(LearnError::Setting {
            what: "a cut-off",
            actual: "0".to_owned(),
            wanted: "give cut-offs of 1 or more",
        });
    }
    let deepest = cutoffs.copied().max().unwrap_or(0);
    let items = gallery.unwrap_or(queries);
    let sizes = items.class_sizes();
    let own = usize::from(gallery.is_none());
    let totals: Vec<usize> = queries
        .labels()
        .iter()
        .map(|label| sizes.get(label).map_or(0, |size| size - own))
        .collect();
    let counted = totals.iter().filter(|&&total| total > 0).count();
    if counted == 0 {
        return Err(LearnError::NothingToFind {
            queries: queries.len(),
        });
    }
    let depths: Vec<usize> = totals
        .iter()
        .map(|&total| if total > 0 { total.max(deepest) } else { 0 })
        .collect();
    let prepared = Prepared::new(score, queries, items)?;
    let outcomes = rank(&prepared, gallery.is_none(), &depths, |query, list| {
        let total = totals[query];
        (total > 0).then(|| {
            let label = queries.labels()[query];
            let relevant: Vec<bool> = list
                .iter()
                .map(|n| items.labels()[n.item as usize] == label)
                .collect();
            Outcome::of(&relevant, total, options)
        })
    });
    drop(prepared);
    let nmi = match (options.nmi_seed, items.euclidean) {
        (Some(seed), Some(rows)) => {
            Some(Clusters::learn(rows, sizes.len(), seed)?.nmi(items.labels())?)
        }
        _ => None,
    };
    Ok(summarize(
        outcomes,
        *score,
        options,
        items,
        sizes.len(),
        nmi,
    ))
}

struct Outcome {
    recall: Vec<bool>,
    ndcg: Vec<f64>,
    r_precision: f64,
    average_precision: f64,
}

impl Outcome {
    fn of(relevant: &[bool], total: usize, options: &Options) -> Self {
        let recall = options.recall_at.iter();
        let ndcg = options.ndcg_at.iter();
        Self {
            recall: recall.map(|&k| hit_at(relevant, k)).collect(),
            ndcg: ndcg.map(|&k| ndcg_at(relevant, total, k)).collect(),
            r_precision: precision_at(relevant, total),
            average_precision: average_precision_at_r(relevant, total),
        }
    }
}

/// Means, summed in the order of the queries.
fn summarize(
    outcomes: Vec<Option<Outcome>>,
    score: Score,
    options: &Options,
    items: &Items<'_>,
    classes: usize,
    nmi: Option<f64>,
) -> Report {
    let counted: Vec<&Outcome> = outcomes.iter().flatten().collect();
    let mean = |value: &dyn Fn(&Outcome) -> f64| {
        counted.iter().map(|o| value(o)).sum::<f64>() / counted.len() as f64
    };
    let at = |ks: &[usize], value: &dyn Fn(&Outcome, usize) -> f64| -> Vec<AtK> {
        ks.iter()
            .enumerate()
            .map(|(i, &k)| AtK {
                k,
                value: mean(&|o| value(o, i)),
            })
            .collect()
    };
    Report {
        score,
        queries: counted.len(),
        skipped: outcomes.len() - counted.len(),
        gallery: items.len(),
        classes,
        recall: at(&options.recall_at, &|o, i| f64::from(u8::from(o.recall[i]))),
        ndcg: at(&options.ndcg_at, &|o, i| o.ndcg[i]),
        r_precision: mean(&|o| o.r_precision),
        map_at_r: mean(&|o| o.average_precision),
        nmi,
        per_query: outcomes
            .iter()
            .map(|o| o.as_ref().map(|o| o.average_precision))
            .collect(),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} queries ({} skipped, nothing to find), {} items, {} classes",
            self.score.name(),
            self.queries,
            self.skipped,
            self.gallery,
            self.classes
        )?;
        let mut rows: Vec<(String, f64)> = Vec::new();
        rows.extend(self.recall.iter().map(|m| (format!("R@{}", m.k), m.value)));
        rows.push(("R-precision".to_owned(), self.r_precision));
        rows.push(("MAP@R".to_owned(), self.map_at_r));
        rows.extend(self.ndcg.iter().map(|m| (format!("nDCG@{}", m.k), m.value)));
        rows.extend(self.nmi.map(|nmi| ("NMI".to_owned(), nmi)));
        for (name, value) in rows {
            writeln!(f, "  {name:<12} {value:.4}")?;
        }
        Ok(())
    }
}
