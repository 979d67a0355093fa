//! `oboro learn eval`.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use oboro_learn::evaluation::{self, Score, evaluate};
use oboro_learn::report::{Table, metrics};
use serde::Serialize;

use super::embedded::Embeddings;
use super::recipe::Which;
use super::sets::Part;
use crate::failure::Outcome;
use crate::global::Global;
use crate::or_failure::OrFailure;
use crate::output::{self, Report};
use crate::progress::Progress;

/// Options of `oboro learn eval`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(super) compared: Compared,
}

/// What is compared, and how.
#[derive(Args, Clone, Debug)]
pub(super) struct Compared {
    /// Folder of `oboro learn embed`
    #[arg(value_name = "EMBEDDINGS")]
    pub(super) embeddings: PathBuf,
    /// Embeddings to search in, where the queries are apart from them
    #[arg(long, value_name = "EMBEDDINGS")]
    pub(super) gallery: Option<PathBuf>,
    /// Scores: cosine, euclidean, hyperbolic, fused; all that fit when not given
    #[arg(long, value_name = "SCORE,...", value_delimiter = ',')]
    pub(super) score: Option<Vec<String>>,
    /// Cut-offs of R@k
    #[arg(
        long,
        value_name = "K,...",
        value_delimiter = ',',
        default_value = "1,2,4,8"
    )]
    pub(super) recall_at: Vec<usize>,
    /// Cut-offs of nDCG@k
    #[arg(
        long,
        value_name = "K,...",
        value_delimiter = ',',
        default_value = "1,10"
    )]
    pub(super) ndcg_at: Vec<usize>,
    /// Also NMI of k-means clusters with the classes, with this seed
    #[arg(long, value_name = "SEED")]
    pub(super) nmi: Option<u64>,
}

/// Exact figures of embeddings.
pub(super) struct Figures {
    pub(super) queries: Embeddings,
    pub(super) gallery: Option<Embeddings>,
    pub(super) reports: Vec<evaluation::Report>,
}

/// What `eval` prints.
#[derive(Serialize)]
struct Shown {
    set: String,
    part: &'static str,
    step: u64,
    checkpoint: Which,
    scores: Vec<Named>,
}

#[derive(Serialize)]
struct Named {
    #[serde(flatten)]
    score: Score,
    queries: usize,
    skipped: usize,
    gallery: usize,
    classes: usize,
    metrics: serde_json::Map<String, serde_json::Value>,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let progress = Progress::new(global);
    let figures = options.compared.figures(&progress)?;
    let about = &figures.queries.about;
    let shown = Printed {
        shown: Shown {
            set: about.data.name().to_owned(),
            part: about.part.name(),
            step: about.step,
            checkpoint: about.checkpoint,
            scores: figures.reports.iter().map(Named::of).collect(),
        },
        table: figures.table(),
    };
    output::print(&shown, global.json)
}

impl Compared {
    pub(super) fn figures(&self, progress: &Progress) -> Outcome<Figures> {
        let queries = Embeddings::read(&self.embeddings)?;
        let gallery = self.gallery.as_deref().map(Embeddings::read).transpose()?;
        if let Some(gallery) = &gallery
            && gallery.about.classes != queries.about.classes
        {
            return Err(crate::failure::Failure::input(format_args!(
                "queries have {} classes and the gallery {}, not the same ones; embed both from one set",
                queries.about.classes.len(),
                gallery.about.classes.len()
            )));
        }
        let scores = match &self.score {
            Some(names) => names
                .iter()
                .map(|name| queries.score(name))
                .collect::<Outcome<Vec<_>>>()?,
            None => queries.scores(),
        };
        let nmi_seed = self.nmi.map(|number| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&number.to_le_bytes());
            seed
        });
        let options = evaluation::Options {
            recall_at: self.recall_at.clone(),
            ndcg_at: self.ndcg_at.clone(),
            nmi_seed,
        };
        Figures::of(queries, gallery, &scores, &options, progress)
    }
}

impl Figures {
    pub(super) fn of(
        queries: Embeddings,
        gallery: Option<Embeddings>,
        scores: &[Score],
        options: &evaluation::Options,
        progress: &Progress,
    ) -> Outcome<Self> {
        let bar = progress.bar("comparing", Some(scores.len() as u64));
        let mut reports = Vec::new();
        {
            let items = queries.items()?;
            let others = gallery.as_ref().map(Embeddings::items).transpose()?;
            for score in scores {
                reports.push(evaluate(&items, others.as_ref(), score, options).or_failure()?);
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(Self {
            queries,
            gallery,
            reports,
        })
    }

    /// Which images they are of, and how the checkpoint was chosen.
    fn what(&self) -> &'static str {
        let about = &self.queries.about;
        match (about.part, about.checkpoint) {
            (Part::Train, _) => "training part",
            (Part::Validation, _) => "validation part",
            (_, Which::Last) => "test part, last checkpoint",
            (_, Which::Best) => "test part, checkpoint chosen on the validation part",
        }
    }

    /// All figures, scores beside each other.
    pub(super) fn table(&self) -> Table {
        let caption = match self.reports.first() {
            Some(report) => format!(
                "Exact retrieval, {}: {} queries among {} items of {} classes{}",
                self.what(),
                output::count(report.queries as u64),
                output::count(report.gallery as u64),
                output::count(report.classes as u64),
                if report.skipped > 0 {
                    format!(
                        "; {} queries have nothing to find and do not count",
                        output::count(report.skipped as u64)
                    )
                } else {
                    String::new()
                }
            ),
            None => String::new(),
        };
        Table::of_evaluations(&caption, &self.reports)
    }
}

impl Named {
    fn of(report: &evaluation::Report) -> Self {
        Self {
            score: report.score,
            queries: report.queries,
            skipped: report.skipped,
            gallery: report.gallery,
            classes: report.classes,
            metrics: metrics(report)
                .into_iter()
                .map(|(name, value)| (name, value.into()))
                .collect(),
        }
    }
}

/// The figures as an object, and as a table for people.
#[derive(Serialize)]
struct Printed {
    #[serde(flatten)]
    shown: Shown,
    #[serde(skip)]
    table: Table,
}

impl Report for Printed {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}", self.table)
    }
}
