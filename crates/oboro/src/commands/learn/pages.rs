//! The page of a training and its embeddings.

use std::path::Path;

use oboro_learn::backend::cpu;
use oboro_learn::data::Dataset;
use oboro_learn::evaluation::{Neighbour, Score, nearest};
use oboro_learn::report::{Curves, Disk, Map, Page, Points, Proxies, Strip, Table, worst};
use oboro_learn::train::{Checkpoint, METRICS};
use rand_core::SeedableRng;

use super::eval::Figures;
use super::recipe::{Recipe, Which, open};
use crate::failure::{Failure, Outcome};
use crate::or_failure::OrFailure;
use crate::output;
use crate::progress::Progress;

/// Neighbours beside a query.
const NEIGHBOURS: usize = 7;
/// Queries that are shown, spread over the classes.
const QUERIES: usize = 10;
/// Worst queries that are shown.
const WORST: usize = 8;

/// A training's folder as a page shows it.
pub(super) struct Training {
    pub(super) recipe: Recipe,
    pub(super) curves: Option<Curves>,
    pub(super) proxies: Option<Proxies>,
    /// The classes that the proxies stand for.
    pub(super) classes: Vec<String>,
}

impl Training {
    /// What a run's folder says of the checkpoint of a step.
    pub(super) fn read(run: &Path, step: u64, progress: &Progress) -> Outcome<Self> {
        let (mut checkpoint, mut recipe) = open(run, Which::Last)?;
        if checkpoint.step() != step && !recipe.data.validate.is_empty() {
            (checkpoint, recipe) = open(run, Which::Best)?;
        }
        if checkpoint.step() != step {
            return Err(Failure::input(format_args!(
                "the embeddings were made after step {step}, of which {} keeps no checkpoint; embed the images again",
                run.display()
            )));
        }
        let classes = recipe.data.load(progress)?.train.classes().to_vec();
        let proxies = proxies(&checkpoint, &recipe, classes.len())?;
        let metrics = run.join(METRICS);
        let curves = metrics
            .is_file()
            .then(|| Curves::read(&metrics).or_failure())
            .transpose()?;
        Ok(Self {
            recipe,
            curves,
            proxies,
            classes,
        })
    }
}

/// The hyperbolic proxies of a checkpoint.
fn proxies(checkpoint: &Checkpoint, recipe: &Recipe, classes: usize) -> Outcome<Option<Proxies>> {
    // Every value is replaced by the checkpoint's.
    let mut rng = chacha20::ChaCha20Rng::seed_from_u64(0);
    let loss = checkpoint
        .restore_loss(recipe.loss(classes, &cpu(), &mut rng)?)
        .or_failure()?;
    Proxies::of(&loss, &recipe.loss).or_failure()
}

/// The page.
pub(super) fn page(
    title: String,
    figures: &Figures,
    images: &Dataset,
    gallery: Option<&Dataset>,
    training: Option<&Training>,
    more: Vec<Table>,
) -> Outcome<Page> {
    let about = &figures.queries.about;
    let searched = figures.gallery.as_ref().unwrap_or(&figures.queries);
    let mut tables = vec![figures.table()];
    tables.extend(more);
    if let Some(training) = training {
        tables.push(settings(training));
    }
    let disk = match (
        &searched.hyperbolic,
        about.ball,
        training.and_then(|t| t.proxies.as_ref().map(|p| (t, p))),
    ) {
        (Some(points), Some(ball), Some((training, proxies))) => Some(
            Disk::of(
                Points {
                    points,
                    labels: &searched.labels,
                    classes: &searched.about.classes,
                },
                Points {
                    points: &proxies.points,
                    labels: &proxies.labels,
                    classes: &training.classes,
                },
                ball.curvature,
            )
            .or_failure()?,
        ),
        _ => None,
    };
    let items = figures.queries.items()?;
    let others = figures.gallery.as_ref().map(|of| of.items()).transpose()?;
    let report = figures.reports.first();
    let score = report.map_or(Score::Cosine, |report| report.score);
    let lists = nearest(&items, others.as_ref(), &score, NEIGHBOURS).or_failure()?;
    let shown = gallery.unwrap_or(images);
    let strip = |query: usize, note: String| -> Strip {
        let list: &[Neighbour] = &lists[query];
        Strip::of(images, query, shown, list, note)
    };
    Ok(Page {
        title,
        summary: format!(
            "{} images of {} classes, {} dimensions{}. Neighbours are the nearest by the {} score.",
            output::count(about.items as u64),
            about.classes.len(),
            about.dims,
            about.ball.map_or_else(String::new, |ball| format!(
                " on the sphere and {} in the Poincaré ball of curvature -{}",
                ball.dims, ball.curvature
            )),
            score.name()
        ),
        tables,
        curves: training.and_then(|t| t.curves.clone()),
        map: Some(
            Map::of(
                &searched.euclidean,
                &searched.labels,
                &searched.about.classes,
            )
            .or_failure()?,
        ),
        disk,
        neighbours: spread(images, QUERIES)
            .into_iter()
            .map(|query| strip(query, String::new()))
            .collect(),
        worst: report
            .map_or_else(Vec::new, |report| worst(report, WORST))
            .into_iter()
            .map(|(query, value)| strip(query, format!("MAP@R {value:.3}")))
            .collect(),
    })
}

/// Queries of as many classes as can be, evenly taken.
fn spread(images: &Dataset, count: usize) -> Vec<usize> {
    let labels = images.labels();
    let mut order: Vec<usize> = (0..labels.len()).collect();
    let mut seen = vec![0_u32; images.classes().len()];
    let mut rounds: Vec<u32> = vec![0; labels.len()];
    for (row, &label) in labels.iter().enumerate() {
        rounds[row] = seen[label as usize];
        seen[label as usize] += 1;
    }
    // One of each class first, then the second of each.
    order.sort_by_key(|&row| (rounds[row], labels[row]));
    let classes = seen.iter().filter(|&&n| n > 0).count().max(1);
    let step = (classes / count).max(1);
    order.into_iter().step_by(step).take(count).collect()
}

/// The settings that a reader asks for first.
fn settings(training: &Training) -> Table {
    let recipe = &training.recipe;
    let config = &recipe.training;
    Table::of_facts(
        "The training",
        &[
            ("data", recipe.data.name().to_owned()),
            ("classes trained on", training.classes.len().to_string()),
            (
                "checkpoint chosen on",
                match &recipe.data.validate[..] {
                    [] => "nothing, the last one is used".to_owned(),
                    aside => format!("{} of the training part", aside.join(", ")),
                },
            ),
            ("loss", text(&recipe.loss)),
            ("network", text(&recipe.network.backbone)),
            ("parameters", output::count(recipe.network.parameters())),
            ("epochs", config.epochs.to_string()),
            (
                "batch",
                format!("{} classes x {} items", config.classes, config.items),
            ),
            ("learning rate", config.rate.to_string()),
            ("seed", config.seed.to_string()),
        ],
    )
}

/// Settings as they stand in a recipe, in one line.
fn text(settings: &impl serde::Serialize) -> String {
    serde_json::to_string(settings)
        .unwrap_or_default()
        .replace('"', "")
        .replace(',', ", ")
        .replace(':', ": ")
}
