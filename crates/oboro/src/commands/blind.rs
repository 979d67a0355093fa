//! `oboro build --mode blind`: an index of vectors that neither searcher nor keeper sees.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use oboro_channel::Role;
use oboro_client::ClientError;
use oboro_client::generation::GenerationConfig;
use oboro_client::writer::WriterConfig;
use oboro_index::BuildState;
use oboro_owner::{BlindReport, BlindStart, Owner, OwnerError};
use oboro_protocol::Reason;
use oboro_session::{BlindSession, ServedIndex, SessionError};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::build::{self, Options};
use super::lorentz::Watched;
use crate::durable;
use crate::failure::{Failure, Outcome};
use crate::figures::round;
use crate::global::Global;
use crate::input::Input;
use crate::keys::{self, Folder};
use crate::or_failure::{IntoFailure, OrFailure};
use crate::output::{self, Report};
use crate::progress::Progress;
use crate::roles::{self, KEEPER_ADDRESS, SEARCHER_ADDRESS};
use crate::with_simulated::WithSimulated;

/// Runs the build.
pub(super) fn run(options: &Options, global: &Global, cancel: &Arc<AtomicBool>) -> Outcome<()> {
    let made = build(options, &Progress::new(global), cancel)?;
    output::print(&made, global.json)
}

/// Builds, or goes on with a build.
pub(super) fn build(
    options: &Options,
    progress: &Progress,
    cancel: &Arc<AtomicBool>,
) -> Outcome<Made> {
    let input = Input::open(&options.vectors, options.records.format.as_deref())?;
    let mut source = input.records(&options.records, None)?;
    let folder = Folder::of(&options.keys, Role::Owner)?;
    let platforms = WithSimulated::new(options.allow_simulated);
    let address = |given: &Option<String>, usual: &str| given.clone().unwrap_or(usual.to_owned());
    let config = GenerationConfig {
        searcher: address(&options.searcher, SEARCHER_ADDRESS),
        keeper: address(&options.keeper, KEEPER_ADDRESS),
        identity: folder.identity()?,
        trust: folder.trust()?,
        verifier: options.policy.verifier(&platforms)?,
        connect_timeout: Duration::from_secs(10),
    };
    let (owner, mut settings) = build::prepared(options, &source, progress, cancel)?;
    let file = StateFile::of(options, &folder);
    let begun = file.read(&owner, options.resume)?;
    let runtime = roles::runtime(2)?;
    let mut roles = BlindSession::connect(&config, runtime.handle().clone()).or_failure()?;
    let simulated = roles.session().is_simulated();
    if simulated {
        progress.remark(output::SIMULATED);
    }
    for remark in roles.session().remarks() {
        progress.remark(format_args!("note: {remark}"));
    }
    let searcher = config.searcher.clone();
    let mut rng = keys::os_rng()?;
    let mut sealing = keys::os_rng()?;
    let mut unwritten = None;
    let mut keep = |state: &BuildState| {
        let written = durable::replace(&file.0, &owner.seal_state(state, &mut sealing));
        written.map_err(|failure| {
            unwritten = Some(failure);
            OwnerError::Cancelled
        })
    };
    let mut start = BlindStart::new(&mut rng, &mut keep);
    start.resume = begun.is_some();
    if let Some(vectors) = options.segment_vectors {
        start.segment_vectors = vectors;
    }
    if let Some(state) = begun {
        start.state = state;
    }
    if options.seed.is_none() {
        settings.seed = start.state.sampling_seed();
    }
    let index_id = start.state.index_id;
    let source = &mut Watched::new(&mut source, options, progress);
    let result = owner.build_blind(source, &mut roles, &settings, start);
    let begun_anew = result.as_ref().is_ok_and(|report| report.begun_anew);
    if begun_anew {
        progress.remark(
            "the keeper's key was rotated since the build began, so it began anew under the new one",
        );
    } else if options.resume
        && let Some(segments) = roles.segments()
    {
        progress.remark(format_args!(
            "went on with a build of which {segments} segments were complete"
        ));
    }
    if let Some(failure) = unwritten {
        return Err(failure);
    }
    // Its owner was interrupted before it heard so.
    let whole = options.resume
        && roles.segments().is_none()
        && match &result {
            Err(SessionError::Client(ClientError::NotOffered)) => {
                is_served(config, &owner, &runtime, &index_id)
            }
            Err(error) => error.reason() == Some(Reason::Conflict),
            Ok(_) => false,
        };
    match result {
        Ok(report) => {
            file.remove()?;
            let built = BuiltBlind::new(&searcher, simulated, &report);
            Ok(Made::Built(Box::new(built)))
        }
        Err(_) if whole => {
            file.remove()?;
            Ok(Made::Whole(Whole {
                index_id: output::hex(&index_id),
                complete: true,
            }))
        }
        // Of a build that nobody began there is nothing to go on with.
        Err(SessionError::Client(error @ ClientError::NotOffered))
            if !options.resume && roles.segments().is_none() =>
        {
            roles.abort();
            file.remove()?;
            Err(error.into_failure())
        }
        Err(error) if roles.is_passing(&error) => {
            let failure = failure(error, &input);
            Err(Failure::new(
                failure.kind,
                format_args!(
                    "{}; nothing is lost: go on with --resume, within a day",
                    failure.message
                ),
            ))
        }
        Err(error) => {
            roles.abort();
            // One that is to go on with other vectors may still go on with the right ones.
            if !matches!(error, SessionError::Owner(OwnerError::OtherInput)) {
                file.remove()?;
            }
            Err(failure(error, &input))
        }
    }
}

/// Whether a searcher that makes no index serves the one that it was to make.
fn is_served(
    config: GenerationConfig,
    owner: &Owner,
    runtime: &Runtime,
    index_id: &[u8; 16],
) -> bool {
    let config = WriterConfig {
        address: config.searcher,
        identity: config.identity,
        trust: config.trust,
        descriptor_key: owner.descriptor_key(),
        verifier: config.verifier,
        connect_timeout: config.connect_timeout,
    };
    ServedIndex::connect(config, runtime.handle().clone())
        .is_ok_and(|served| served.writer().descriptor().index_id == *index_id)
}

/// The file that holds the state of a build that goes on.
struct StateFile(PathBuf);

impl StateFile {
    fn of(options: &Options, folder: &Folder) -> Self {
        let usual = || folder.path().join("blind.build");
        Self(options.state.clone().unwrap_or_else(usual))
    }

    /// The state of an interrupted build, if one is to go on.
    fn read(&self, owner: &Owner, resume: bool) -> Outcome<Option<BuildState>> {
        let path = self.0.display();
        match (fs::read(&self.0), resume) {
            (Ok(bytes), true) => Ok(Some(owner.open_state(&bytes).or_failure()?)),
            (Ok(_), false) => Err(Failure::usage(format_args!(
                "{path} holds the state of a blind build that was interrupted; go on with --resume, or remove the file to begin anew"
            ))),
            (Err(error), false) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            (Err(error), true) if error.kind() == io::ErrorKind::NotFound => {
                Err(Failure::input(format_args!(
                    "no interrupted build is recorded in {path}; leave --resume away, or name the file with --state"
                )))
            }
            (Err(error), _) => Err(Failure::input(format_args!("{path}: {error}"))),
        }
    }

    fn remove(&self) -> Outcome<()> {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::input(
                format_args!("{}: {error}; remove it by hand", self.0.display()),
            )),
            _ => Ok(()),
        }
    }
}

/// An index, made now or before.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Made {
    Built(Box<BuiltBlind>),
    Whole(Whole),
}

impl Made {
    /// Seconds of the build; none of one that was whole before.
    pub(super) fn seconds(&self) -> f64 {
        match self {
            Self::Built(built) => built.seconds,
            Self::Whole(_) => 0.0,
        }
    }
}

impl Report for Made {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Built(built) => built.text(out),
            Self::Whole(whole) => whole.text(out),
        }
    }
}

/// An index that was whole already.
#[derive(Serialize)]
pub(super) struct Whole {
    index_id: String,
    complete: bool,
}

impl Report for Whole {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "index {} was complete before the interruption; its searcher serves it or is about to",
            self.index_id
        )
    }
}

/// With the words for vectors that cannot be read.
fn failure(error: SessionError, input: &Input) -> Failure {
    match error {
        SessionError::Owner(error) => build::named_failure(error, |error| input.failure(error)),
        SessionError::Client(error) => error.into_failure(),
    }
}

/// What was built.
#[derive(Serialize)]
pub(super) struct BuiltBlind {
    searcher: String,
    simulated: bool,
    index_id: String,
    epoch: u64,
    generation: u64,
    manifest_digest: String,
    registered: bool,
    vectors: usize,
    dimension: usize,
    metric: &'static str,
    subquantizers: usize,
    centroids: usize,
    split: usize,
    rotation: &'static str,
    originals: &'static str,
    extra_bytes: u32,
    tags: usize,
    sample: usize,
    rounds: usize,
    distortions: Vec<f64>,
    parameter_set: &'static str,
    security_bits: u32,
    seconds: f64,
    stages: Stages,
    uploaded_bytes: u64,
    total_bytes: u64,
    files: Vec<(String, u64)>,
    record_bytes: usize,
    flooding_bits: f64,
    batch_flooding_bits: f64,
    query_norm_bound: f64,
    candidates_max: usize,
    displacement_probability_100: f64,
    displacement_probability_most: f64,
}

#[derive(Serialize)]
struct Stages {
    read: f64,
    train: f64,
    encode: f64,
    write: f64,
}

impl BuiltBlind {
    fn new(searcher: &str, simulated: bool, report: &BlindReport) -> Self {
        let (encryption, seconds) = (&report.encryption, &report.seconds);
        Self {
            searcher: searcher.to_owned(),
            simulated,
            index_id: output::hex(&report.state.index_id),
            epoch: report.state.epoch,
            generation: report.state.generation,
            manifest_digest: output::hex(&report.state.manifest_digest),
            registered: !report.unrecorded,
            vectors: report.vectors,
            dimension: report.dimension,
            metric: report.metric,
            subquantizers: report.subquantizers,
            centroids: report.centroids,
            split: report.split,
            rotation: report.rotation,
            originals: report.originals,
            extra_bytes: report.extra_bytes,
            tags: report.tags,
            sample: report.sample,
            rounds: report.rounds,
            distortions: report
                .distortions
                .iter()
                .map(|&distortion| round(distortion, 6))
                .collect(),
            parameter_set: encryption.parameter_set,
            security_bits: encryption.security_bits,
            seconds: round(seconds.total, 4),
            stages: Stages {
                read: round(seconds.read, 3),
                train: round(seconds.train, 3),
                encode: round(seconds.encode, 3),
                write: round(seconds.write, 3),
            },
            uploaded_bytes: report.uploaded_bytes,
            total_bytes: report.files.iter().map(|(_, bytes)| bytes).sum(),
            files: report.files.clone(),
            record_bytes: report.record_bytes,
            flooding_bits: round(encryption.flooding_bits, 3),
            batch_flooding_bits: round(report.batch_flooding_bits, 3),
            query_norm_bound: round(encryption.query_norm_bound, 5),
            candidates_max: report.candidates_max,
            displacement_probability_100: round(report.displacement_probability.0, 2),
            displacement_probability_most: round(report.displacement_probability.1, 2),
        }
    }
}

impl Report for BuiltBlind {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "made by the searcher at {} and its keeper, neither of which saw a vector or a centroid",
            self.searcher
        )?;
        writeln!(
            out,
            "{} vectors x {}, {}, {} sub-quantizers of {} centroids, rotation {}, originals {}",
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
            "built in {:.1} s: reading {:.1}, training {:.1}, encoding and sealing {:.1}, writing {:.1}",
            self.seconds,
            self.stages.read,
            self.stages.train,
            self.stages.encode,
            self.stages.write
        )?;
        writeln!(
            out,
            "trained on {} vectors in {} rounds; quantization error {:.5} after the last",
            output::count(self.sample as u64),
            self.rounds,
            self.distortions.last().copied().unwrap_or_default()
        )?;
        writeln!(
            out,
            "{} of encrypted vectors were sent; the index has {}",
            output::bytes(self.uploaded_bytes),
            output::bytes(self.total_bytes)
        )?;
        writeln!(
            out,
            "\nstate {} of index {}, epoch {}, generation {}",
            self.manifest_digest, self.index_id, self.epoch, self.generation
        )?;
        writeln!(
            out,
            "  {}",
            if self.registered {
                "the keeper has recorded it: no older copy of the index is served from now on"
            } else {
                "the keeper could not record it; it does when the searcher serves it"
            }
        )?;
        writeln!(
            out,
            "  {}: {} bits of security; noise drowned by {:.1} bits in searches, {:.1} while vectors were encoded",
            self.parameter_set, self.security_bits, self.flooding_bits, self.batch_flooding_bits
        )?;
        writeln!(
            out,
            "  nobody has the codebook in the clear; `oboro insert --connect` has searcher and keeper encode new vectors, and `oboro eval` says what recall the codes give"
        )
    }
}
