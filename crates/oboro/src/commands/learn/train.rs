//! `oboro learn train`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::Args;
use indicatif::ProgressBar;
use oboro_learn::backend::{self, Device, Place};
use oboro_learn::data::Testing;
use oboro_learn::evaluation::Score;
use oboro_learn::train::{
    Checkpoint, Config, End, Metric, Observer, Trainer, Validated, Validation, Watched,
};
use serde::Serialize;

use super::named::{self, Shape};
use super::recipe::{Given, Partial, Recipe, Which, open};
use super::sets::{Images, Parts};
use crate::commands::build::stop_on_signal;
use crate::durable;
use crate::failure::{Failure, Outcome};
use crate::figures::round;
use crate::global::Global;
use crate::or_failure::OrFailure;
use crate::output::{self, Report};
use crate::progress::Progress;
use crate::shutdown;

/// The recipe in a run's folder.
pub(super) const RECIPE: &str = "recipe.toml";

/// Options of `oboro learn train`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Images: NAME:FOLDER with NAME one of folders, cub, cars, sop, in-shop, fashion-mnist,
    /// mnist, omniglot, cifar; or garments, which needs no folder
    #[arg(long, value_name = "SET", required_unless_present_any = ["recipe", "resume"])]
    pub(crate) data: Option<String>,
    /// Classes that are tested on and not trained on: names, or last:N; without:NAME and
    /// without:last:N are not used at all
    #[arg(long, value_name = "CLASS,...", value_delimiter = ',')]
    pub(crate) hold_out: Option<Vec<String>>,
    /// What is set aside of the training part to choose the best checkpoint on: classes by name,
    /// last:N, or images:N of every class
    #[arg(long, value_name = "CLASS,...", value_delimiter = ',')]
    pub(crate) validate: Option<Vec<String>>,
    /// Fail where an image cannot be read or is alone in its class, instead of leaving it out
    #[arg(long)]
    pub(crate) strict: bool,
    /// Loss, such as proxy-anchor, soft-triple, mpa-class-class, chest
    #[arg(long, value_name = "NAME")]
    pub(crate) loss: Option<String>,
    /// Network: tiny, small, resnet18, resnet50 or vit-s16; small when not given
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// Pretrained weights of the network: .safetensors, .pth or .onnx
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// Pixels of a side of the network's input
    #[arg(long, value_name = "N")]
    pub(crate) side: Option<usize>,
    /// Dimensions of the Euclidean embedding; 128 when not given
    #[arg(long, value_name = "N")]
    pub(crate) dims: Option<usize>,
    /// Dimensions of the hyperbolic embedding; as the Euclidean one when not given
    #[arg(long, value_name = "N")]
    pub(crate) hyperbolic_dims: Option<usize>,
    /// Passes over the images
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<u64>,
    /// Learning rate
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub(crate) rate: Option<f64>,
    /// Classes of a batch
    #[arg(long, value_name = "N")]
    pub(crate) classes: Option<usize>,
    /// Items of each class in a batch
    #[arg(long, value_name = "N")]
    pub(crate) items: Option<usize>,
    /// How images are changed: none, things, characters or photographs
    #[arg(long, value_name = "NAME")]
    pub(crate) augment: Option<String>,
    /// Stop after so many validations without a better one; needs --validate
    #[arg(long, value_name = "N")]
    pub(crate) patience: Option<u64>,
    /// Seed: the same one gives the same bytes
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Measure nothing while training, not even the test part for the curves
    #[arg(long)]
    pub(crate) no_validation: bool,
    /// Where to compute: cpu, gpu or gpu:N, counted from 0; cpu when not given
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<Place>,
    /// Threads; all cores when not given
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// File with all of this; options of the command line go before it
    #[arg(long, value_name = "FILE")]
    pub(crate) recipe: Option<PathBuf>,
    /// Folder of the run: checkpoints, metrics, the complete recipe
    #[arg(long, value_name = "DIR", required_unless_present = "resume")]
    pub(crate) out: Option<PathBuf>,
    /// Go on with the run in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["out", "recipe", "data", "hold_out", "validate", "strict", "loss", "network", "weights", "side", "dims", "hyperbolic_dims", "classes", "items", "augment", "seed"])]
    pub(crate) resume: Option<PathBuf>,
}

/// What a training came to.
#[derive(Serialize)]
pub(super) struct Trained {
    pub(super) run: String,
    /// What the device calls itself.
    pub(super) device: String,
    pub(super) end: &'static str,
    pub(super) steps: u64,
    pub(super) images: usize,
    pub(super) classes: usize,
    pub(super) parameters: u64,
    pub(super) checkpoint: Option<String>,
    pub(super) first_loss: Option<f64>,
    pub(super) last_loss: Option<f64>,
    /// Where the images of the following figures come from.
    pub(super) watched: Option<Watched>,
    /// Their number.
    pub(super) watched_images: Option<usize>,
    /// R@1 of the last measurement while training.
    pub(super) recall_at_1: Option<f64>,
    /// The step with the best R@1; on the validation part alone.
    pub(super) best_step: Option<u64>,
    pub(super) best_recall_at_1: Option<f64>,
    pub(super) seconds: f64,
    pub(super) images_per_second: f64,
    /// What the set has to test on, as `embed` takes it.
    #[serde(skip)]
    parts: &'static [&'static str],
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let cancel = Arc::new(AtomicBool::new(false));
    stop_on_signal(&cancel)?;
    let progress = Progress::new(global);
    let (recipe, parts, run) = match &options.resume {
        Some(run) => resumed(options, run, &progress)?,
        None => started(options, &progress)?,
    };
    let trained = train(
        &recipe,
        &parts,
        &Run {
            folder: &run,
            device: recipe.device.open().or_failure()?,
            resume: options.resume.is_some(),
            threads: options.threads,
        },
        &cancel,
        &progress,
    )?;
    let interrupted = trained.end == INTERRUPTED;
    output::print(&trained, global.json)?;
    if interrupted {
        std::process::exit(shutdown::INTERRUPTED);
    }
    Ok(())
}

/// How an interrupted run's end is called.
const INTERRUPTED: &str = "interrupted";

/// Where and how a training runs.
pub(super) struct Run<'a> {
    pub(super) folder: &'a Path,
    pub(super) device: Device,
    pub(super) resume: bool,
    pub(super) threads: Option<usize>,
}

/// Trains; for the demo, too.
pub(super) fn train(
    recipe: &Recipe,
    parts: &Parts,
    run: &Run<'_>,
    cancel: &AtomicBool,
    progress: &Progress,
) -> Outcome<Trained> {
    let begin = Instant::now();
    let (network, loss) = recipe.start(&parts.train, &run.device)?;
    let about = serde_json::to_value(recipe).map_err(Failure::failed)?;
    let device = run.device.clone();
    let mut trainer = Trainer::new(recipe.training.clone(), &network, &loss, device)
        .or_failure()?
        .describe(about);
    if let Some(threads) = run.threads {
        trainer = trainer.with_threads(threads.max(1)).or_failure()?;
    }
    trainer = if run.resume {
        trainer.resume(run.folder)
    } else {
        trainer.into_folder(run.folder)
    }
    .or_failure()?;
    let first_step = trainer.step();
    durable::replace(&run.folder.join(RECIPE), recipe.to_toml()?.as_bytes())?;
    let validation = watched(recipe, parts);
    let mut watcher = Watcher {
        bar: None,
        progress: progress.clone(),
        losses: None,
        recall: None,
    };
    let outcome = trainer
        .run(&parts.train, validation.as_ref(), cancel, &mut watcher)
        .or_failure()?;
    if let Some(bar) = watcher.bar.take() {
        bar.finish_and_clear();
    }
    let decides = validation.is_some_and(|of| of.watched == Watched::Validation);
    let best = outcome.best.filter(|_| decides);
    let seconds = begin.elapsed().as_secs_f64();
    let done = (outcome.step - first_step) as f64;
    Ok(Trained {
        run: run.folder.display().to_string(),
        device: backend::name(&run.device),
        end: match outcome.end {
            End::Finished => "finished",
            End::Stopped => "no longer better",
            End::Interrupted => INTERRUPTED,
        },
        steps: outcome.step,
        images: parts.train.len(),
        classes: parts.train.classes().len(),
        parameters: recipe.network.parameters(),
        checkpoint: outcome.checkpoint.map(|path| path.display().to_string()),
        first_loss: watcher.losses.map(|(first, _)| round(first, 4)),
        last_loss: watcher.losses.map(|(_, last)| round(last, 4)),
        watched: validation.map(|of| of.watched),
        watched_images: validation.map(|of| of.dataset.len()),
        recall_at_1: watcher.recall.map(|recall| round(recall, 4)),
        best_step: best.map(|best| best.step),
        best_recall_at_1: best.map(|best| round(best.figure, 4)),
        seconds: round(seconds, 3),
        images_per_second: round(done * recipe.training.batch() as f64 / seconds, 3),
        parts: match parts.testing {
            Some(Testing::Together(_)) => &[""],
            Some(Testing::Apart { .. }) => &[" --part query", " --part gallery"],
            None => &[" --part train"],
        },
    })
}

/// What is measured after each epoch: what was set aside to choose on or, where nothing was, the
/// test part, which decides nothing.
fn watched<'a>(recipe: &Recipe, parts: &'a Parts) -> Option<Validation<'a>> {
    if recipe.no_validation {
        return None;
    }
    let (dataset, watched) = match (&parts.validation, &parts.testing) {
        (Some(aside), _) => (aside, Watched::Validation),
        (None, Some(Testing::Together(test))) => (test, Watched::Test),
        // Queries among themselves say little about queries in a gallery.
        (None, Some(Testing::Apart { .. }) | None) => return None,
    };
    Some(Validation {
        dataset,
        score: score(recipe),
        metric: Metric::RecallAt1,
        watched,
    })
}

/// Options that choose by a validation need images to validate on.
fn check_choice(patience: Option<u64>, data: &Images, no_validation: bool) -> Outcome<()> {
    if no_validation && (patience.is_some() || !data.validate.is_empty()) {
        return Err(Failure::usage(
            "--no-validation measures nothing, so nothing can be chosen by it; leave it away, or leave --validate and --patience away",
        ));
    }
    if patience.is_some() && data.validate.is_empty() {
        return Err(Failure::usage(
            "patience waits for a better validation, and there is nothing to validate on; set classes of the training part aside with --validate",
        ));
    }
    Ok(())
}

/// How embeddings of this recipe are compared: as its loss does.
pub(super) fn score(recipe: &Recipe) -> Score {
    use oboro_learn::losses::Settings as Loss;
    let curvature = recipe.network.heads.hyperbolic.map(|h| h.curvature);
    match (&recipe.loss, curvature) {
        (Loss::Proxies(of), Some(curvature)) if of.distance.is_hyperbolic() => {
            Score::Hyperbolic { curvature }
        }
        _ => Score::Cosine,
    }
}

/// A new run's recipe and images.
fn started(options: &Options, progress: &Progress) -> Outcome<(Recipe, Parts, PathBuf)> {
    let path = options.recipe.clone().unwrap_or_default();
    let given = match &options.recipe {
        Some(path) => Partial::read(path)?,
        None => Partial::default(),
    };
    let device = options.device.or(given.device).unwrap_or_default();
    // Before images are read, which takes its time.
    device.open().or_failure()?;
    let mut data = match (&options.data, given.data.clone()) {
        (Some(set), given) => Images {
            set: set.clone(),
            ..given.unwrap_or_default()
        },
        (None, Some(images)) => images,
        (None, None) => {
            return Err(Failure::usage(format_args!(
                "{} has no table [data]; write one with set = \"NAME:FOLDER\", or give --data",
                path.display()
            )));
        }
    };
    if let Some(classes) = &options.hold_out {
        data.hold_out.clone_from(classes);
    }
    if let Some(aside) = &options.validate {
        data.validate.clone_from(aside);
    }
    data.strict |= options.strict;
    let loss = match (&options.loss, given.loss(&path)?) {
        (Some(name), _) => named::loss(name)?,
        (None, Some(loss)) => loss,
        (None, None) => named::loss("proxy-anchor")?,
    };
    let out = options
        .out
        .clone()
        .ok_or_else(|| Failure::usage("name the folder of the run with --out"))?;
    let mut training = given.training.clone().unwrap_or_else(|| Config {
        // A hundredth of the default is for backbones that are trained already.
        rate: 1e-3,
        ..Config::default()
    });
    change(&mut training, options)?;
    if !data.has_classes() {
        return Err(Failure::usage(
            "pictures have no classes to learn; give folders:FOLDER with one folder a class, and pictures to embed",
        ));
    }
    let no_validation = options.no_validation || given.no_validation;
    check_choice(training.patience, &data, no_validation)?;
    let parts = data.load(progress)?;
    let classes = parts.train.classes().len();
    if given.training.is_none() && options.classes.is_none() {
        training.classes = training.classes.min(classes);
    }
    // Before there is a folder of the run.
    if training.classes > classes {
        return Err(Failure::usage(format_args!(
            "a batch takes {} classes and the training part has {classes}; choose {classes} or fewer with --classes",
            training.classes
        )));
    }
    let weights = options.weights.clone().or_else(|| given.weights.clone());
    let (by_name, full) = match given.network(&path)? {
        Some(Given::Name(name)) => (Some(name), None),
        Some(Given::Full(shape)) => (None, Some(shape)),
        None => (None, None),
    };
    let asked = options.network.is_some()
        || options.side.is_some()
        || options.dims.is_some()
        || options.hyperbolic_dims.is_some();
    let network = match full {
        Some(shape) if !asked => shape,
        _ => named::network(
            &Shape {
                network: options.network.clone().or(by_name),
                side: options.side,
                dims: options.dims,
                hyperbolic_dims: options.hyperbolic_dims,
                weights: weights.clone(),
            },
            &parts.train,
            &loss,
        )?,
    };
    let recipe = Recipe {
        device,
        no_validation,
        data,
        network,
        weights,
        loss,
        training,
    };
    Ok((recipe, parts, out))
}

/// The recipe of a run that goes on; only what may change does.
fn resumed(
    options: &Options,
    run: &Path,
    progress: &Progress,
) -> Outcome<(Recipe, Parts, PathBuf)> {
    let (_, mut recipe): (Checkpoint, Recipe) = open(run, Which::Last)?;
    recipe.device = options.device.unwrap_or(recipe.device);
    recipe.device.open().or_failure()?;
    change(&mut recipe.training, options)?;
    recipe.no_validation |= options.no_validation;
    check_choice(options.patience, &recipe.data, recipe.no_validation)?;
    let parts = recipe.data.load(progress)?;
    Ok((recipe, parts, run.to_owned()))
}

/// Settings of the training that the command line gives.
fn change(training: &mut Config, options: &Options) -> Outcome<()> {
    let set = |value: &mut u64, given: Option<u64>| *value = given.unwrap_or(*value);
    set(&mut training.epochs, options.epochs);
    set(&mut training.seed, options.seed);
    training.rate = options.rate.unwrap_or(training.rate);
    training.classes = options.classes.unwrap_or(training.classes);
    training.items = options.items.unwrap_or(training.items);
    training.patience = options.patience.or(training.patience);
    if let Some(name) = &options.augment {
        training.augmentation = named::augmentation(name)?;
    }
    Ok(())
}

/// A bar with loss, rate and time left, and a line a validation.
struct Watcher {
    bar: Option<ProgressBar>,
    progress: Progress,
    /// First and last.
    losses: Option<(f64, f64)>,
    recall: Option<f64>,
}

impl Observer for Watcher {
    fn stepped(&mut self, now: &oboro_learn::train::Progress) {
        let first = self.losses.map_or(now.loss, |(first, _)| first);
        self.losses = Some((first, now.loss));
        let bar = self
            .bar
            .get_or_insert_with(|| self.progress.bar("training", Some(now.steps)));
        bar.set_position(now.step);
        bar.set_message(format!("loss {:.3} rate {:.1e}", now.loss, now.rate));
    }

    fn validated(&mut self, now: &Validated) {
        self.recall = Some(now.recall_at_1);
        let line = format!(
            "epoch {:3}  step {:6}  loss {:8.4}  {}: R@1 {:.4}  MAP@R {:.4}{}",
            now.epoch,
            now.step,
            self.losses.map_or(f64::NAN, |(_, last)| last),
            now.watched.name(),
            now.recall_at_1,
            now.map_at_r,
            if now.best { "  best" } else { "" }
        );
        match &self.bar {
            Some(bar) => bar.suspend(|| self.progress.remark(line)),
            None => self.progress.remark(line),
        }
    }
}

impl Report for Trained {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} at step {}: {} images of {} classes, {} parameters",
            self.end,
            output::count(self.steps),
            output::count(self.images as u64),
            output::count(self.classes as u64),
            output::count(self.parameters)
        )?;
        if let (Some(first), Some(last)) = (self.first_loss, self.last_loss) {
            writeln!(out, "loss {first} at first, {last} at last")?;
        }
        if let (Some(recall), Some(watched), Some(images)) =
            (self.recall_at_1, self.watched, self.watched_images)
        {
            write!(
                out,
                "R@1 {recall} on {} images of the {} part",
                output::count(images as u64),
                watched.name()
            )?;
            match (self.best_step, self.best_recall_at_1) {
                (Some(step), Some(best)) => writeln!(
                    out,
                    "; best {best} at step {}, which embed takes with --checkpoint best",
                    output::count(step)
                )?,
                _ => writeln!(out, ", which chose nothing")?,
            }
        }
        writeln!(
            out,
            "{:.1} s on {}, {:.0} images a second",
            self.seconds, self.device, self.images_per_second
        )?;
        if self.end == INTERRUPTED {
            writeln!(out, "go on with: oboro learn train --resume {}", self.run)
        } else {
            for part in self.parts {
                writeln!(
                    out,
                    "then: oboro learn embed {} --out EMBEDDINGS{part}",
                    self.run
                )?;
            }
            Ok(())
        }
    }
}
