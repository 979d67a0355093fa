//! `oboro build`: an encrypted index from a file of vectors.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use clap::Args;
use indicatif::ProgressBar;
use oboro_channel::Role;
use oboro_ckks::PublicKey;
use oboro_index::{EncodingChoice, IndexHead, Rotation};
use oboro_owner::{BuildOptions, BuildReport, Owner, OwnerError, ProgressFn, Stage, VectorSource};
use oboro_quant::Metric;
use oboro_server::policy::PolicyOptions;
use oboro_vectors::VectorsError;
use serde::Serialize;

use super::registry::Registry;
use crate::failure::{Failure, Outcome};
use crate::figures::round;
use crate::global::Global;
use crate::input::{self, Input};
use crate::keys::{self, Folder, KEEPER_PUBLIC};
use crate::or_failure::IntoFailure;
use crate::output::{self, Report};
use crate::passphrase::KeyPassphrase;
use crate::progress::Progress;
use crate::shutdown;

/// Who decrypts tables unless something else is said.
const KEEPER: &str = "keeper";
/// Who decrypts them where no keeper takes part.
const CLIENT: &str = "client";

/// Options of `oboro build`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Vectors: .fvecs, .bvecs, .npy, .fbin or .u8bin; `-` for standard input
    #[arg(value_name = "VECTORS")]
    pub(crate) vectors: PathBuf,
    /// Folder of the new index
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Keys of the owner: the folder of `oboro keygen` or its owner/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    #[command(flatten)]
    pub(crate) passphrase: KeyPassphrase,
    /// Replace an existing index, once the new one is complete
    #[arg(long)]
    pub(crate) force: bool,
    /// Format of the vectors where the name does not say it
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Ids of the vectors, one whole number a line; row numbers when not given
    #[arg(long, value_name = "FILE")]
    pub(crate) ids: Option<PathBuf>,
    /// How vectors are compared: l2, ip, cosine or lorentz
    #[arg(long, default_value = "l2", value_name = "METRIC")]
    pub(crate) metric: String,
    /// Sub-quantizers, bytes a vector in the searcher; dimension / 8 when not given
    #[arg(long, short = 'M', value_name = "M")]
    pub(crate) subquantizers: Option<usize>,
    /// Centroids of each sub-quantizer: 256 or 16
    #[arg(long, short = 'K', default_value_t = 256, value_name = "K")]
    pub(crate) centroids: usize,
    /// Ciphertexts a query: 1 sends least up, more make the keeper's answer smaller
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) split: usize,
    /// Secret rotation: none, subspace or full
    #[arg(long, default_value = "subspace", value_name = "KIND")]
    pub(crate) rotation: String,
    /// How originals are stored: auto, u8, f16 or f32
    #[arg(long, default_value = "auto", value_name = "ENCODING")]
    pub(crate) originals: String,
    /// Most candidates that a search may ask for
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) candidates_max: usize,
    /// Who decrypts tables: keeper, or client for an index that no keeper takes part in
    #[arg(long, default_value = "keeper", value_name = "WHO")]
    pub(crate) keyholder: String,
    /// Register the new index with the keeper at this address, so that no older copy is served
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) keeper: Option<String>,
    #[command(flatten)]
    pub(crate) policy: PolicyOptions,
    /// Register with a keeper that no hardware protects
    #[arg(long)]
    pub(crate) allow_simulated: bool,
    /// Vectors to train on; 256 a centroid when not given
    #[arg(long, value_name = "N")]
    pub(crate) sample: Option<usize>,
    /// Rounds of k-means
    #[arg(long, default_value_t = 25, value_name = "N")]
    pub(crate) iterations: usize,
    /// Seed of the training, for the same codebook again; random when not given
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Threads; all cores when not given
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<usize>,
}

impl Options {
    /// The defaults of the command line.
    pub(crate) fn new(vectors: &Path, keys: &Path, out: &Path) -> Self {
        Self {
            vectors: vectors.to_owned(),
            out: out.to_owned(),
            keys: keys.to_owned(),
            passphrase: KeyPassphrase::default(),
            force: false,
            format: None,
            ids: None,
            metric: "l2".to_owned(),
            subquantizers: None,
            centroids: 256,
            split: 1,
            rotation: "subspace".to_owned(),
            originals: "auto".to_owned(),
            candidates_max: 256,
            keyholder: KEEPER.to_owned(),
            keeper: None,
            policy: PolicyOptions::default(),
            allow_simulated: false,
            sample: None,
            iterations: 25,
            seed: None,
            threads: None,
        }
    }
}

/// What was built.
#[derive(Serialize)]
pub(crate) struct Built {
    index: String,
    index_id: String,
    epoch: u64,
    generation: u64,
    manifest_digest: String,
    /// Whether a keeper's part is needed to open it.
    released: bool,
    /// Whether a keeper has recorded this state as the newest.
    registered: bool,
    pub(crate) vectors: usize,
    pub(crate) dimension: usize,
    metric: &'static str,
    pub(crate) subquantizers: usize,
    pub(crate) centroids: usize,
    split: usize,
    rotation: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_cost: Option<f64>,
    originals: &'static str,
    parameter_set: &'static str,
    security_bits: u32,
    #[serde(skip)]
    state: IndexHead,
    pub(crate) seconds: f64,
    stages: Stages,
    files: Vec<File>,
    total_bytes: u64,
    public_key_bytes: usize,
    query_bytes: usize,
    products_bytes: usize,
    share_bytes: usize,
    record_bytes: usize,
    margin_bits: f64,
    noise_bits: f64,
    dropped_bits: u32,
    flooding_bits: f64,
    table_error: f64,
    query_norm_bound: f64,
    displacement_probability_100: f64,
    displacement_probability_most: f64,
    candidates_max: usize,
    trial: Trial,
}

#[derive(Serialize)]
struct Stages {
    read: f64,
    train: f64,
    encode: f64,
    trial: f64,
    write: f64,
}

#[derive(Serialize)]
struct File {
    name: String,
    bytes: u64,
}

#[derive(Serialize)]
struct Trial {
    queries: usize,
    candidates: usize,
    table_error: f64,
    table_error_bound: f64,
    recall_10_at_10: f64,
    recall_10_at_10_unranked: f64,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let cancel = Arc::new(AtomicBool::new(false));
    stop_on_signal(&cancel)?;
    let registry = Registry::of(options)?;
    let mut built = build(options, &Progress::new(global), &cancel)?;
    if let Some(registry) = registry {
        registry.register(&built.state)?;
        built.registered = true;
    }
    output::print(&built, global.json)
}

/// Builds; for `bench` and `demo`, too.
pub(crate) fn build(
    options: &Options,
    progress: &Progress,
    cancel: &Arc<AtomicBool>,
) -> Outcome<Built> {
    let input = Input::open(&options.vectors, options.format.as_deref())?;
    build_from(&mut input.reader()?, options, progress, cancel, |error| {
        input.failure(error)
    })
}

/// Builds from vectors that are no file.
pub(crate) fn build_from(
    source: &mut dyn VectorSource,
    options: &Options,
    progress: &Progress,
    cancel: &Arc<AtomicBool>,
    failure: impl Fn(VectorsError) -> Failure,
) -> Outcome<Built> {
    let folder = Folder::of(&options.keys, Role::Owner)?;
    let owner = Owner::new(
        options.passphrase.owner_key(&folder)?,
        public_key(options, &folder)?,
    );
    let mut settings = settings(options, progress)?;
    settings.cancel = Arc::clone(cancel);
    let ids = options.ids.as_deref().map(input::ids).transpose()?;
    let report = owner
        .build(
            source,
            ids.as_deref(),
            &options.out,
            &settings,
            &mut keys::os_rng()?,
        )
        .map_err(|error| match error {
            OwnerError::Vectors(error) => failure(error),
            error => error.into_failure(),
        })?;
    Ok(Built::new(options, &report))
}

/// The key that tables will be encrypted under.
fn public_key(options: &Options, folder: &Folder) -> Outcome<PublicKey> {
    let keeper = options.keys.join(Role::Keeper.name());
    // Whoever decrypts without a keeper has the keeper's first key, which stays in a file;
    // the owner's public key becomes another with every rotation.
    if options.keyholder == CLIENT && keeper.join(KEEPER_PUBLIC).is_file() {
        return Folder::of(&keeper, Role::Keeper)?.keeper_public();
    }
    folder.keeper_public()
}

fn settings(options: &Options, progress: &Progress) -> Outcome<BuildOptions> {
    let mut seed = [0; 32];
    match options.seed {
        Some(number) => seed[..8].copy_from_slice(&number.to_le_bytes()),
        None => seed = keys::os_seed()?,
    }
    Ok(BuildOptions {
        metric: named(
            "metric",
            &options.metric,
            Metric::from_name,
            &Metric::ALL.map(Metric::name),
        )?,
        subquantizers: options.subquantizers,
        centroids: options.centroids,
        split: options.split,
        sample: options.sample,
        iterations: options.iterations,
        seed,
        threads: options.threads,
        rotation: named(
            "rotation",
            &options.rotation,
            Rotation::from_name,
            &Rotation::ALL.map(Rotation::name),
        )?,
        originals: named(
            "encoding of originals",
            &options.originals,
            |name| match name {
                "auto" => Some(EncodingChoice::Auto),
                "u8" => Some(EncodingChoice::U8),
                "f16" => Some(EncodingChoice::F16),
                "f32" => Some(EncodingChoice::F32),
                _ => None,
            },
            &["auto", "u8", "f16", "f32"],
        )?,
        candidates_max: options.candidates_max,
        released: named(
            "keyholder",
            &options.keyholder,
            |name| match name {
                KEEPER => Some(true),
                CLIENT => Some(false),
                _ => None,
            },
            &[KEEPER, CLIENT],
        )?,
        force: options.force,
        progress: Some(bars(progress)),
        ..BuildOptions::default()
    })
}

fn named<T>(what: &str, name: &str, find: impl Fn(&str) -> Option<T>, all: &[&str]) -> Outcome<T> {
    find(name).ok_or_else(|| {
        Failure::usage(format_args!(
            "there is no {what} \"{name}\"; choose one of {}",
            all.join(", ")
        ))
    })
}

/// One bar a stage.
fn bars(progress: &Progress) -> ProgressFn {
    let progress = progress.clone();
    let current: Mutex<Option<(Stage, ProgressBar)>> = Mutex::new(None);
    Arc::new(move |stage, done, total| {
        let Ok(mut current) = current.lock() else {
            return;
        };
        if current.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            if let Some((_, bar)) = current.take() {
                bar.finish_and_clear();
            }
            let bar = progress.bar(stage.name(), (total > 0).then_some(total));
            *current = Some((stage, bar));
        }
        if let Some((_, bar)) = current.as_ref() {
            bar.set_position(done);
            if done == total && stage == Stage::Write {
                bar.finish_and_clear();
            }
        }
    })
}

/// The first Ctrl-C stops the build cleanly, the second one at once.
fn stop_on_signal(cancel: &Arc<AtomicBool>) -> Outcome<()> {
    let cancel = Arc::clone(cancel);
    shutdown::on_interrupt(move || {
        if cancel.swap(true, Ordering::Relaxed) {
            std::process::exit(shutdown::INTERRUPTED);
        }
    })
}

impl Built {
    /// Bytes between searcher and keeper for a query.
    pub(crate) fn keeper_bytes(&self) -> usize {
        self.products_bytes + self.share_bytes
    }

    fn new(options: &Options, report: &BuildReport) -> Self {
        let encryption = &report.encryption;
        let seconds = &report.seconds;
        let files: Vec<File> = report
            .files
            .iter()
            .map(|(name, bytes)| File {
                name: name.clone(),
                bytes: *bytes,
            })
            .collect();
        Self {
            index: options.out.display().to_string(),
            index_id: output::hex(&report.state.index_id),
            epoch: report.state.epoch,
            generation: report.state.generation,
            manifest_digest: output::hex(&report.state.manifest_digest),
            released: report.state.released,
            registered: false,
            state: report.state,
            vectors: report.vectors,
            dimension: report.dimension,
            metric: report.metric,
            subquantizers: report.subquantizers,
            centroids: report.centroids,
            split: report.split,
            rotation: report.rotation,
            rotation_cost: report.rotation_cost.map(|cost| round(cost, 4)),
            originals: report.originals,
            parameter_set: encryption.parameter_set,
            security_bits: encryption.security_bits,
            seconds: round(seconds.total, 4),
            stages: Stages {
                read: round(seconds.read, 3),
                train: round(seconds.train, 3),
                encode: round(seconds.encode, 3),
                trial: round(seconds.trial, 3),
                write: round(seconds.write, 3),
            },
            total_bytes: files.iter().map(|file| file.bytes).sum(),
            files,
            public_key_bytes: encryption.public_key_bytes,
            query_bytes: encryption.query_bytes,
            products_bytes: encryption.products_bytes,
            share_bytes: encryption.share_bytes,
            record_bytes: report.record_bytes,
            margin_bits: round(encryption.margin_bits, 3),
            noise_bits: round(encryption.noise_bits, 3),
            dropped_bits: encryption.dropped_bits,
            flooding_bits: round(encryption.flooding_bits, 3),
            table_error: round(encryption.table_error, 3),
            query_norm_bound: round(encryption.query_norm_bound, 5),
            displacement_probability_100: round(report.displacement_probability.0, 2),
            displacement_probability_most: round(report.displacement_probability.1, 2),
            candidates_max: report.candidates_max,
            trial: Trial {
                queries: report.trial.queries,
                candidates: report.trial.candidates,
                table_error: round(report.trial.table_error, 3),
                table_error_bound: round(report.trial.table_error_bound, 3),
                recall_10_at_10: round(report.trial.recall_10_at_10, 4),
                recall_10_at_10_unranked: round(report.trial.recall_10_at_10_unranked, 4),
            },
        }
    }
}

impl Report for Built {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        let bytes = |value: usize| output::bytes(value as u64);
        writeln!(
            out,
            "{}: {} vectors x {}, {}, {} sub-quantizers of {} centroids, rotation {}, originals {}",
            self.index,
            output::count(self.vectors as u64),
            self.dimension,
            self.metric,
            self.subquantizers,
            self.centroids,
            self.rotation,
            self.originals
        )?;
        writeln!(
            out,
            "built in {:.1} s: reading {:.1}, training {:.1}, encoding and sealing {:.1}, trial {:.1}, writing {:.1}",
            self.seconds,
            self.stages.read,
            self.stages.train,
            self.stages.encode,
            self.stages.trial,
            self.stages.write
        )?;
        if let Some(cost) = self.rotation_cost {
            writeln!(
                out,
                "the full rotation multiplies the quantization error by {cost:.2}; --rotation subspace costs nothing"
            )?;
        }
        writeln!(out, "\nfiles")?;
        for file in &self.files {
            writeln!(out, "  {:12} {}", output::bytes(file.bytes), file.name)?;
        }
        writeln!(out, "  {:12} in all", output::bytes(self.total_bytes))?;
        writeln!(
            out,
            "\nstate {} of index {}, epoch {}, generation {}",
            self.manifest_digest, self.index_id, self.epoch, self.generation
        )?;
        writeln!(
            out,
            "  {}",
            match (self.released, self.registered) {
                (false, _) => "opens with the searcher's key alone; no keeper takes part",
                (true, true) =>
                    "the keeper has recorded it: no older copy of the index is served from now on",
                (true, false) =>
                    "the keeper records it when a searcher first serves it; --keeper does so now",
            }
        )?;
        writeln!(out, "\nmessages of one query")?;
        writeln!(
            out,
            "  {:12} encrypted query, client to searcher",
            bytes(self.query_bytes)
        )?;
        writeln!(
            out,
            "  {:12} masked products, searcher to keeper",
            bytes(self.products_bytes)
        )?;
        writeln!(
            out,
            "  {:12} table share, keeper to searcher",
            bytes(self.share_bytes)
        )?;
        writeln!(
            out,
            "  {:12} 100 sealed originals, searcher to client",
            bytes(100 * self.record_bytes)
        )?;
        writeln!(out, "\nencryption")?;
        writeln!(
            out,
            "  {}: {} bits of security; public key {}, no evaluation keys",
            self.parameter_set,
            self.security_bits,
            bytes(self.public_key_bytes)
        )?;
        writeln!(
            out,
            "  noise margin {:.1} bits; error of a table entry {:.1e}; noise drowned by {:.1} bits ({} low bits dropped)",
            self.margin_bits, self.table_error, self.flooding_bits, self.dropped_bits
        )?;
        writeln!(
            out,
            "  queries up to norm {:.4} are searched as they are; longer ones are shortened to it",
            self.query_norm_bound
        )?;
        writeln!(
            out,
            "  a best code is displaced with probability below {:.0e} (100 candidates), {:.0e} ({} candidates)",
            self.displacement_probability_100,
            self.displacement_probability_most,
            self.candidates_max
        )?;
        writeln!(
            out,
            "\n{} trial queries through the encrypted path",
            self.trial.queries
        )?;
        writeln!(
            out,
            "  largest table error {:.1e} (bound {:.1e})",
            self.trial.table_error, self.trial.table_error_bound
        )?;
        writeln!(
            out,
            "  10-recall@10 {:.3} after re-ranking {} candidates, {:.3} without",
            self.trial.recall_10_at_10, self.trial.candidates, self.trial.recall_10_at_10_unranked
        )
    }
}
