//! `oboro learn demo`: from images to private search, on real images that this
//! program brings along.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use clap::Args;
use oboro_learn::backend::{Place, cpu};
use oboro_learn::data::Augmentation;
use oboro_learn::embed::{self, Format};
use oboro_learn::evaluation;
use oboro_learn::losses::Settings as Loss;
use oboro_learn::model::Network;
use oboro_learn::train::Config;
use serde::Serialize;

use super::bridge::{self, Agreement, compare};
use super::embedded::{About, Embeddings};
use super::eval::Figures;
use super::named::{self, Shape};
use super::pages::{Training, page};
use super::recipe::{Recipe, Which, open};
use super::sets::{Images, Part};
use super::train::{Run, Trained, train};
use crate::durable;
use crate::failure::{Failure, Outcome};
use crate::figures::round;
use crate::global::Global;
use crate::or_failure::OrFailure;
use crate::output::{self, Report};
use crate::progress::Progress;
use crate::shutdown;

/// Classes that training never sees.
const HELD_OUT: [&str; 5] = ["dress", "coat", "shirt", "sneaker", "ankle boot"];

/// Options of `oboro learn demo`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// New folder for the run, the embeddings and the report
    #[arg(long, default_value = "garments", value_name = "DIR")]
    out: PathBuf,
    /// Loss, as for `oboro learn train`
    #[arg(long, default_value = "chest", value_name = "NAME")]
    loss: String,
    /// Passes over the 1,500 training images
    #[arg(long, default_value_t = 12, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: u64,
    /// Private searches for each index
    #[arg(long, default_value_t = 300, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    queries: u16,
    /// Seed of the training
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    seed: u64,
}

/// What the demo showed.
#[derive(Serialize)]
struct Shown {
    training: Trained,
    held_out: [&'static str; 5],
    report: String,
    tables: Vec<oboro_learn::report::Table>,
    private: Vec<Agreement>,
    seconds: f64,
    #[serde(skip)]
    text: String,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let begin = Instant::now();
    let progress = Progress::new(global);
    if options.out.exists() {
        return Err(Failure::refused(format_args!(
            "{} exists; name another folder with --out",
            options.out.display()
        )));
    }
    let work = tempfile::tempdir().map_err(Failure::failed)?;
    let left = work.path().to_owned();
    shutdown::on_interrupt(move || {
        let _ = std::fs::remove_dir_all(&left);
        std::process::exit(shutdown::INTERRUPTED);
    })?;
    let cancel = AtomicBool::new(false);

    progress.remark(format_args!(
        "train: 1,500 images of five kinds of garments; {} are held out",
        HELD_OUT.join(", ")
    ));
    let data = Images {
        set: "garments".to_owned(),
        hold_out: HELD_OUT.map(str::to_owned).to_vec(),
        validate: Vec::new(),
        strict: true,
    };
    let parts = data.load(&progress)?;
    let recipe = recipe(options, data.clone(), &parts.train)?;
    let run_folder = options.out.join("run");
    let trained = train(
        &recipe,
        &parts,
        &Run {
            folder: &run_folder,
            device: cpu(),
            resume: false,
            threads: None,
        },
        &cancel,
        &progress,
    )?;

    progress.remark("embed: 1,500 images of the kinds that it never saw");
    let (checkpoint, _) = open(&run_folder, Which::Last)?;
    let network = Network::from_bytes(checkpoint.network(), &cpu()).or_failure()?;
    let test = parts.part(Part::Test)?;
    let settings = embed::Options::default();
    let embedded = super::embed::embed(&network, &test, &settings, &cancel, &progress)?;
    let folder = options.out.join("embeddings");
    let about = About::of(
        &embedded,
        &test,
        &data,
        Part::Test,
        (checkpoint.step(), Which::Last),
    )
    .write(&embedded, &test, &folder, Format::Vecs)?;
    let embeddings = Embeddings::fresh(about, embedded);

    let keys = work.path().join("keys");
    bridge::keys(&keys)?;
    let metrics: &[&'static str] = if embeddings.hyperbolic.is_some() {
        &["cosine", "lorentz"]
    } else {
        &["cosine"]
    };
    let private = metrics
        .iter()
        .map(|&metric| {
            compare(
                &embeddings,
                &folder,
                metric,
                work.path(),
                &keys,
                usize::from(options.queries),
                &progress,
            )
        })
        .collect::<Outcome<Vec<_>>>()?;

    progress.remark("report: everything on one page\n");
    let scores = embeddings.scores();
    let figures = Figures::of(
        embeddings,
        None,
        &scores,
        &evaluation::Options::default(),
        &progress,
    )?;
    let training = Training::read(&run_folder, checkpoint.step(), &progress)?;
    let page = page(
        "Garments of kinds that were never trained on".to_owned(),
        &figures,
        &test,
        None,
        Some(&training),
        vec![bridge::table(&private)],
    )?;
    let report = options.out.join("report.html");
    durable::replace(&report, page.html().as_bytes())?;
    let shown = Shown {
        training: trained,
        held_out: HELD_OUT,
        report: report.display().to_string(),
        text: page.to_string(),
        tables: page.tables,
        private,
        seconds: round(begin.elapsed().as_secs_f64(), 4),
    };
    output::print(&shown, global.json)
}

/// A small network and short batches: minutes on two cores.
fn recipe(options: &Options, data: Images, train: &oboro_learn::data::Dataset) -> Outcome<Recipe> {
    let mut loss = named::loss(&options.loss)?;
    // Ten proxies a class are for classes with more sides than 300 images show.
    match &mut loss {
        Loss::Chest(of) => of.per_class = 2,
        Loss::Proxies(of) => of.per_class = of.per_class.min(2),
        _ => {}
    }
    let shape = Shape {
        network: Some("tiny".to_owned()),
        dims: Some(64),
        hyperbolic_dims: None,
        ..Shape::default()
    };
    Ok(Recipe {
        device: Place::Cpu,
        no_validation: false,
        network: named::network(&shape, train, &loss)?,
        data,
        weights: None,
        loss,
        training: Config {
            seed: options.seed,
            epochs: options.epochs,
            classes: 5,
            items: 12,
            rate: 2e-3,
            augmentation: Augmentation::things(),
            ..Config::default()
        },
    })
}

impl Report for Shown {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.text)?;
        if let Some(agreement) = self.private.first() {
            writeln!(
                out,
                "A query is {} up and {} down, and no server reads it. {}",
                output::bytes(agreement.query_bytes_up),
                output::bytes(agreement.reply_bytes_down),
                output::SIMULATED
            )?;
        }
        writeln!(
            out,
            "Trained in {:.0} s, everything in {:.0} s.\n{}: open it in a browser",
            self.training.seconds, self.seconds, self.report
        )
    }
}
