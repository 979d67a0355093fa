//! `oboro learn embed`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::{Args, ValueEnum};
use oboro_learn::backend::Place;
use oboro_learn::data::Dataset;
use oboro_learn::embed::{self, Embedded, Format};
use oboro_learn::model::Network;
use serde::Serialize;

use super::embedded::About;
use super::recipe::{Which, open};
use super::sets::Part;
use crate::commands::build::stop_on_signal;
use crate::failure::{Failure, Outcome};
use crate::figures::round;
use crate::global::Global;
use crate::or_failure::OrFailure;
use crate::output::{self, Report};
use crate::progress::Progress;

/// Options of `oboro learn embed`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Folder of a run of `oboro learn train`
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Folder of the embeddings, which is made
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Part of the images
    #[arg(long, value_enum, default_value_t = Part::Test)]
    part: Part,
    /// Other images than those of the run: NAME:FOLDER, or pictures:FILE and pictures:FOLDER
    /// for images without classes
    #[arg(long, value_name = "SET")]
    data: Option<String>,
    /// Classes of the test part, for other images
    #[arg(
        long,
        value_name = "CLASS,...",
        value_delimiter = ',',
        requires = "data"
    )]
    hold_out: Option<Vec<String>>,
    /// Checkpoint: the last, or the best one on what --validate set aside
    #[arg(long, value_enum, default_value_t = Which::Last)]
    checkpoint: Which,
    /// Format of the files: vecs (.fvecs, .ivecs) or npy
    #[arg(long, value_enum, default_value_t = FileFormat::Vecs)]
    format: FileFormat,
    /// Images that go through the network at once
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Where to compute: cpu, gpu or gpu:N, counted from 0
    #[arg(long, value_name = "DEVICE", default_value_t = Place::Cpu)]
    device: Place,
    /// Threads; all cores when not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FileFormat {
    Vecs,
    Npy,
}

/// What was embedded.
#[derive(Serialize)]
struct Made {
    folder: String,
    part: Part,
    items: usize,
    classes: usize,
    euclidean_dims: usize,
    hyperbolic_dims: Option<usize>,
    step: u64,
    checkpoint: Which,
    files: Vec<String>,
    seconds: f64,
    images_per_second: f64,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let cancel = Arc::new(AtomicBool::new(false));
    stop_on_signal(&cancel)?;
    let progress = Progress::new(global);
    if options.out.exists() {
        return Err(Failure::refused(format_args!(
            "{} exists; name another folder with --out",
            options.out.display()
        )));
    }
    let device = options.device.open().or_failure()?;
    let (checkpoint, recipe) = open(&options.run, options.checkpoint)?;
    let mut data = recipe.data;
    if let Some(set) = &options.data {
        data.set.clone_from(set);
        data.hold_out = options.hold_out.clone().unwrap_or_default();
        data.validate.clear();
    }
    let set = data.load(&progress)?.part(options.part)?;
    let network = Network::from_bytes(checkpoint.network(), &device).or_failure()?;
    let begin = Instant::now();
    let mut settings = embed::Options {
        batch: usize::from(options.batch),
        ..embed::Options::default()
    };
    if let Some(threads) = options.threads {
        settings.threads = usize::from(threads);
    }
    let embedded = embed(&network, &set, &settings, &cancel, &progress)?;
    let seconds = begin.elapsed().as_secs_f64();
    let format = match options.format {
        FileFormat::Vecs => Format::Vecs,
        FileFormat::Npy => Format::Npy,
    };
    let about = About::of(
        &embedded,
        &set,
        &data,
        options.part,
        (checkpoint.step(), options.checkpoint),
    )
    .write(&embedded, &set, &options.out, format)?;
    let made = Made {
        folder: options.out.display().to_string(),
        part: options.part,
        items: about.items,
        classes: about.classes.len(),
        euclidean_dims: about.dims,
        hyperbolic_dims: about.ball.map(|ball| ball.dims),
        step: about.step,
        checkpoint: about.checkpoint,
        files: about.files,
        seconds: round(seconds, 3),
        images_per_second: round(about.items as f64 / seconds, 3),
    };
    output::print(&made, global.json)
}

/// Embeds a set, with a bar.
pub(super) fn embed(
    network: &Network,
    set: &Dataset,
    settings: &embed::Options,
    cancel: &AtomicBool,
    progress: &Progress,
) -> Outcome<Embedded> {
    let bar = progress.bar("embedding", Some(set.len() as u64));
    let embedded = oboro_learn::embed::embed(network, set, settings, cancel, |done| {
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    embedded.or_failure()
}

/// The file of vectors that `oboro build` takes for a metric.
pub(super) fn vectors(folder: &Path, metric: &str, files: &[String]) -> Outcome<PathBuf> {
    let stem = if metric == "lorentz" {
        "lorentz."
    } else {
        "euclidean."
    };
    let found = files.iter().find(|name| name.starts_with(stem));
    found.map(|name| folder.join(name)).ok_or_else(|| {
        Failure::input(format_args!(
            "{} holds no vectors for the metric {metric}; train with a hyperbolic loss",
            folder.display()
        ))
    })
}

impl Report for Made {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{} images of {} classes ({}), {} checkpoint, {:.1} s, {:.0} a second",
            output::count(self.items as u64),
            output::count(self.classes as u64),
            self.part.name(),
            self.checkpoint.name(),
            self.seconds,
            self.images_per_second
        )?;
        for file in &self.files {
            writeln!(out, "  {}/{file}", self.folder)?;
        }
        let folder = Path::new(&self.folder);
        let metrics: &[&str] = if self.hyperbolic_dims.is_some() {
            &["cosine", "lorentz"]
        } else {
            &["cosine"]
        };
        for metric in metrics {
            if let Ok(path) = vectors(folder, metric, &self.files) {
                writeln!(
                    out,
                    "then: oboro build {} --metric {metric} --originals f32 --out INDEX",
                    path.display()
                )?;
            }
        }
        Ok(())
    }
}
