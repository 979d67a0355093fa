//! `oboro build`: an encrypted index from a file of vectors.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use clap::Args;
use indicatif::ProgressBar;
use oboro_channel::Role;
use oboro_ckks::PublicKey;
use oboro_index::{EncodingChoice, Rotation};
use oboro_owner::{BuildOptions, Owner, OwnerError, ProgressFn, Stage, VectorSource};
use oboro_quant::{MAX_CANDIDATES, Metric};
use oboro_server::policy::PolicyOptions;
use oboro_vectors::VectorsError;

use super::blind;
use super::built::Built;
use super::enclave;
use super::estimate;
use super::lorentz::Watched;
use super::registry::Registry;
use crate::failure::{Failure, Outcome};
use crate::global::Global;
use crate::input::{Input, RecordArgs, at_least_one, comes_once};
use crate::keys::{self, Folder, KEEPER_PUBLIC};
use crate::or_failure::IntoFailure;
use crate::output;
use crate::passphrase::KeyPassphrase;
use crate::progress::Progress;
use crate::shutdown;
use crate::usage;

/// Who decrypts tables unless something else is said.
const KEEPER: &str = "keeper";
/// Who decrypts them where no keeper takes part.
const CLIENT: &str = "client";

/// Rounds of k-means where nothing else is said, which most data needs no more of.
const ROUNDS: usize = 25;
/// The same in a blind build, where a round costs as much as encoding the sample.
const BLIND_ROUNDS: usize = 10;

/// Centroids, where there are vectors enough.
const CENTROIDS: usize = 256;

/// Turns of `--opq` without a number, as text for the command line.
const OPQ_TURNS: &str = "20";

/// Where codebook and codes are made.
pub(super) const LOCAL: &str = "local";
/// At a searcher and a keeper, blindly.
pub(super) const BLIND: &str = "blind";
/// By a generator in an enclave, which forgets them.
pub(super) const ENCLAVE: &str = "enclave";

/// Who makes codebook and codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Local,
    Blind,
    Enclave,
}

/// Options of `oboro build`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Vectors: .fvecs, .bvecs, .npy, .fbin, .u8bin, .parquet (not compressed, or with Snappy,
    /// GZIP or LZ4), .arrow or .feather (not compressed, or with LZ4); `-` for standard input
    #[arg(value_name = "VECTORS")]
    pub(crate) vectors: PathBuf,
    /// Folder of the new index; in a blind build the searcher has one
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Who makes codebook and codes: `local`, this process; `enclave`, an attested generator
    /// that forgets them; or `blind`, a searcher and a keeper that see no vector
    #[arg(long, default_value = LOCAL, value_name = "MODE")]
    pub(crate) mode: String,
    /// In a blind build, address of the searcher, which was started with --generate
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) searcher: Option<String>,
    /// With --mode enclave, address of the generator
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) generator: Option<String>,
    /// Go on with a blind build that was interrupted
    #[arg(long)]
    pub(crate) resume: bool,
    /// In a blind build, file that its state is kept in until it is done; blind.build beside
    /// the owner's key when not given
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,
    /// In a blind build, most vectors of a segment: as many are encoded again at most after
    /// an interruption; 65536 when not given
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) segment_vectors: Option<usize>,
    /// Keys of the owner: the folder of `oboro keygen` or its owner/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    #[command(flatten)]
    pub(crate) passphrase: KeyPassphrase,
    /// Replace an existing index, once the new one is complete
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) records: RecordArgs,
    /// Tags that vectors may have, at most 64; those that the file names when not given
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) tags: Option<Vec<String>>,
    /// Bytes of each record for text id and payload; as many as the longest need when not given
    #[arg(long, value_name = "N")]
    pub(crate) extra_bytes: Option<u32>,
    /// Say what the build will take, in time, memory and bytes, and build nothing
    #[arg(long, conflicts_with_all = ["estimate", "keeper"])]
    pub(crate) dry_run: bool,
    /// Say so first, and in the report beside what it took
    #[arg(long)]
    pub(crate) estimate: bool,
    /// How vectors are compared: l2, ip, cosine, or lorentz for points of one hyperboloid,
    /// whose first value is the time coordinate
    #[arg(long, default_value = "l2", value_name = "METRIC")]
    pub(crate) metric: String,
    /// Sub-quantizers, bytes a vector in the searcher; dimension / 8 when not given
    #[arg(long, short = 'M', value_name = "M")]
    pub(crate) subquantizers: Option<usize>,
    /// Centroids of each sub-quantizer: up to 256, one byte a code, or up to 16, half a byte;
    /// 256 when not given, in a blind build of fewer vectors as many as there are
    #[arg(long, short = 'K', value_name = "K")]
    pub(crate) centroids: Option<usize>,
    /// Ciphertexts a query: 1 sends least up, more make the keeper's answer smaller and a
    /// query of many dimensions faster; chosen when not given
    #[arg(long, value_name = "N")]
    pub(crate) split: Option<usize>,
    /// Secret rotation: none, subspace or full
    #[arg(long, default_value = "subspace", value_name = "KIND")]
    pub(crate) rotation: String,
    /// Learn a matrix after which codes are better, in so many turns (20 when no number is
    /// given); the report says what it gains
    #[arg(
        long,
        value_name = "TURNS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = OPQ_TURNS
    )]
    pub(crate) opq: Option<usize>,
    /// Put vectors into so many lists, of which a search looks at a few only: faster for
    /// large sets, but servers learn which lists a query looks at
    #[arg(long, value_name = "LISTS")]
    pub(crate) lists: Option<usize>,
    /// Most lists that a search looks at; one of 16 when not given
    #[arg(long, value_name = "N", requires = "lists")]
    pub(crate) probes_max: Option<usize>,
    /// How originals are stored: auto, u8, f16 or f32
    #[arg(long, default_value = "auto", value_name = "ENCODING")]
    pub(crate) originals: String,
    /// Most candidates that a search may ask for
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = candidates)]
    pub(crate) candidates_max: usize,
    /// Who decrypts tables: keeper, or client for an index that no keeper takes part in
    #[arg(long, default_value = "keeper", value_name = "WHO")]
    pub(crate) keyholder: String,
    /// Register the new index with the keeper at this address, so that no older copy is served;
    /// in a blind build, the keeper that takes part
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) keeper: Option<String>,
    #[command(flatten)]
    pub(crate) policy: PolicyOptions,
    /// Register with a keeper that no hardware protects
    #[arg(long)]
    pub(crate) allow_simulated: bool,
    /// Vectors to train on; 256 a centroid when not given, 128 in a blind build
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) sample: Option<usize>,
    /// Rounds of k-means; 25 when not given, 10 in a blind build
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) iterations: Option<usize>,
    /// Seed of the training, for the same codebook again; random when not given
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Threads; all cores when not given
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) threads: Option<usize>,
}

impl Options {
    /// The defaults of the command line.
    pub(crate) fn new(vectors: &Path, keys: &Path, out: &Path) -> Self {
        Self {
            vectors: vectors.to_owned(),
            out: Some(out.to_owned()),
            mode: LOCAL.to_owned(),
            searcher: None,
            generator: None,
            resume: false,
            state: None,
            segment_vectors: None,
            keys: keys.to_owned(),
            passphrase: KeyPassphrase::default(),
            force: false,
            records: RecordArgs::default(),
            tags: None,
            extra_bytes: None,
            dry_run: false,
            estimate: false,
            metric: "l2".to_owned(),
            subquantizers: None,
            centroids: None,
            split: None,
            rotation: "subspace".to_owned(),
            opq: None,
            lists: None,
            probes_max: None,
            originals: "auto".to_owned(),
            candidates_max: 256,
            keyholder: KEEPER.to_owned(),
            keeper: None,
            policy: PolicyOptions::default(),
            allow_simulated: false,
            sample: None,
            iterations: None,
            seed: None,
            threads: None,
        }
    }

    /// The folder of the new index.
    pub(super) fn folder(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new("."))
    }

    /// Who makes the index.
    pub(super) fn mode(&self) -> Outcome<Mode> {
        let mode = named(
            "mode",
            &self.mode,
            |name| match name {
                LOCAL => Some(Mode::Local),
                BLIND => Some(Mode::Blind),
                ENCLAVE => Some(Mode::Enclave),
                _ => None,
            },
            &[LOCAL, ENCLAVE, BLIND],
        )?;
        if mode != Mode::Blind && self.searcher.is_some() {
            return Err(Failure::usage(
                "--searcher is for a blind build; add --mode blind, or name a folder with --out",
            ));
        }
        if mode != Mode::Enclave && self.generator.is_some() {
            return Err(Failure::usage(
                "--generator is for a build in an enclave; add --mode enclave",
            ));
        }
        match mode {
            Mode::Blind if self.out.is_some() => Err(Failure::usage(
                "in a blind build the index lies at the searcher; name that with --searcher and leave --out away",
            )),
            Mode::Local | Mode::Enclave if self.out.is_none() => Err(Failure::usage(
                "name the folder of the new index with --out DIR",
            )),
            Mode::Local | Mode::Enclave
                if self.resume || self.state.is_some() || self.segment_vectors.is_some() =>
            {
                Err(Failure::usage(
                    "--resume, --state and --segment-vectors are for a blind build; one of another mode that was stopped is begun again",
                ))
            }
            Mode::Blind if self.searcher.is_none() => Err(Failure::usage(
                "a blind build is made by a searcher that was started with --generate; name it with --searcher ADDRESS",
            )),
            Mode::Blind if self.keyholder != KEEPER => Err(Failure::usage(
                "a blind build needs a keeper; leave --keyholder away",
            )),
            Mode::Blind if self.opq.is_some() || self.lists.is_some() => Err(Failure::usage(
                "a matrix and lists are learned from vectors that nobody sees in a blind build; leave --opq and --lists away",
            )),
            Mode::Blind if self.dry_run || self.estimate || self.force => Err(Failure::usage(
                "--dry-run, --estimate and --force are for local builds; leave them away",
            )),
            Mode::Enclave if self.dry_run || self.estimate || self.threads.is_some() => {
                Err(Failure::usage(
                    "--dry-run, --estimate and --threads are about this machine, and the generator builds on another; leave them away",
                ))
            }
            mode => Ok(mode),
        }
    }
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let cancel = Arc::new(AtomicBool::new(false));
    stop_on_signal(&cancel)?;
    let mode = options.mode()?;
    if mode == Mode::Blind {
        return blind::run(options, global, &cancel);
    }
    let once =
        comes_once(&options.vectors) || options.records.ids.as_deref().is_some_and(comes_once);
    if options.estimate && once {
        return Err(Failure::usage(
            "--estimate reads the vectors before the build does, and standard input or a pipe comes once; write them to a file",
        ));
    }
    check_parent(options.folder())?;
    let progress = Progress::new(global);
    if options.dry_run {
        return output::print(&estimate::of(options, &progress, &cancel)?, global.json);
    }
    let registry = Registry::of(options)?;
    let estimated = options
        .estimate
        .then(|| estimate::of(options, &progress, &cancel))
        .transpose()?;
    let mut built = match mode {
        Mode::Enclave => enclave::build(options, &progress, &cancel)?,
        _ => build(options, &progress, &cancel)?,
    };
    built.peak_bytes = usage::peak_bytes(usage::OWN);
    built.estimate = estimated;
    if let Some(registry) = registry {
        registry.register(&built.state)?;
        built.registered = true;
    }
    output::print(&built, global.json)
}

/// The folder in which an index will lie, before vectors are read for it.
fn check_parent(out: &Path) -> Outcome<()> {
    match out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) if !parent.is_dir() => Err(Failure::input(format_args!(
            "there is no folder {}; make it first, and the index becomes a folder in it",
            parent.display()
        ))),
        _ => Ok(()),
    }
}

/// Builds; for `bench` and `demo`, too.
pub(crate) fn build(
    options: &Options,
    progress: &Progress,
    cancel: &Arc<AtomicBool>,
) -> Outcome<Built> {
    let input = Input::open(&options.vectors, options.records.format.as_deref())?;
    let mut source = input.records(&options.records, None)?;
    build_from(&mut source, options, progress, cancel, |error| {
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
    let (owner, settings) = prepared(options, source, progress, cancel)?;
    let source = &mut Watched::new(source, options, progress);
    let report = owner
        .build(source, options.folder(), &settings, &mut keys::os_rng()?)
        .map_err(|error| named_failure(error, failure))?;
    Ok(Built::new(options, &report))
}

/// Who builds, and how.
pub(super) fn prepared(
    options: &Options,
    source: &dyn VectorSource,
    progress: &Progress,
    cancel: &Arc<AtomicBool>,
) -> Outcome<(Owner, BuildOptions)> {
    let folder = Folder::of(&options.keys, Role::Owner)?;
    let owner = Owner::new(
        options.passphrase.owner_key(&folder)?,
        public_key(options, &folder)?,
    );
    let mut settings = settings(options, source.rows(), progress)?;
    settings.cancel = Arc::clone(cancel);
    Ok((owner, settings))
}

/// What a file of vectors is called in a failure, its reader knows.
pub(super) fn named_failure(
    error: OwnerError,
    failure: impl Fn(VectorsError) -> Failure,
) -> Failure {
    match error {
        OwnerError::Vectors(error) => failure(error),
        error => error.into_failure(),
    }
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

fn settings(options: &Options, rows: usize, progress: &Progress) -> Outcome<BuildOptions> {
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
        centroids: centroids(options, rows, progress)?,
        split: options.split,
        sample: options.sample,
        iterations: options.iterations.unwrap_or(match options.mode.as_str() {
            BLIND => BLIND_ROUNDS,
            _ => ROUNDS,
        }),
        seed,
        threads: options.threads,
        rotation: named(
            "rotation",
            &options.rotation,
            Rotation::from_name,
            &Rotation::ALL.map(Rotation::name),
        )?,
        opq: options.opq,
        lists: options.lists.unwrap_or(0),
        probes_max: options.probes_max,
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
        tags: options.tags.clone(),
        extra_bytes: options.extra_bytes,
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

/// Candidates that a search may ask for.
fn candidates(text: &str) -> Result<usize, String> {
    match at_least_one(text)? {
        candidates if candidates <= MAX_CANDIDATES => Ok(candidates),
        candidates => Err(format!(
            "{candidates} candidates are more than the {MAX_CANDIDATES} of a search"
        )),
    }
}

/// As many as asked for; else the usual number, in a blind build no more than vectors can
/// train.
fn centroids(options: &Options, rows: usize, progress: &Progress) -> Outcome<usize> {
    let usual = match options.mode.as_str() {
        BLIND => rows.clamp(1, CENTROIDS),
        _ => CENTROIDS,
    };
    let centroids = options.centroids.unwrap_or(usual);
    if let Some(sample) = options.sample.filter(|&sample| sample < centroids) {
        return Err(Failure::usage(format_args!(
            "a sample of {sample} cannot train {centroids} centroids; raise --sample or lower --centroids"
        )));
    }
    if centroids < CENTROIDS && options.centroids.is_none() {
        progress.remark(format_args!(
            "{rows} vectors can train {centroids} centroids and no more; once there are thousands, an index built anew finds better candidates"
        ));
    }
    Ok(centroids)
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
pub(super) fn bars(progress: &Progress) -> ProgressFn {
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
            if done == total && matches!(stage, Stage::Write | Stage::Insert) {
                bar.finish_and_clear();
            }
        }
    })
}

/// The first Ctrl-C stops a build or an insert cleanly, the second one at once.
pub(super) fn stop_on_signal(cancel: &Arc<AtomicBool>) -> Outcome<()> {
    let cancel = Arc::clone(cancel);
    shutdown::on_interrupt(move || {
        if cancel.swap(true, Ordering::Relaxed) {
            std::process::exit(shutdown::INTERRUPTED);
        }
    })
}
