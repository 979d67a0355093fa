//! `oboro build --mode blind`: an index of vectors that neither searcher nor keeper sees.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use oboro_channel::Role;
use oboro_client::ClientError;
use oboro_client::generation::{Generation, GenerationConfig, GenerationSession, SegmentParts};
use oboro_owner::{
    BlindBegin, BlindCommitted, BlindReport, BlindRoles, BlindSegment, BlindTrained, OwnerError,
};
use serde::Serialize;
use tokio::runtime::Runtime;

use super::build::{self, Options};
use crate::failure::Outcome;
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
    let progress = Progress::new(global);
    let (owner, settings) = build::prepared(options, &progress, cancel)?;
    let runtime = roles::runtime(2)?;
    let session = runtime
        .block_on(GenerationSession::connect(&config))
        .or_failure()?;
    let simulated = session.is_simulated();
    if simulated {
        progress.remark(output::SIMULATED);
    }
    for remark in session.remarks() {
        progress.remark(format_args!("note: {remark}"));
    }
    let mut roles = Roles { session, runtime };
    let report = owner
        .build_blind(&mut source, &mut roles, &settings, &mut keys::os_rng()?)
        .map_err(|error| match error {
            BlindError::Owner(error) => build::named_failure(error, |error| input.failure(error)),
            BlindError::Client(error) => error.into_failure(),
        })?;
    output::print(
        &BuiltBlind::new(&config.searcher, simulated, &report),
        global.json,
    )
}

/// Carries a blind build's messages.
struct Roles {
    session: GenerationSession,
    runtime: Runtime,
}

/// What stops a blind build.
enum BlindError {
    Owner(OwnerError),
    Client(ClientError),
}

impl From<OwnerError> for BlindError {
    fn from(error: OwnerError) -> Self {
        Self::Owner(error)
    }
}

impl From<ClientError> for BlindError {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl BlindRoles for Roles {
    type Error = BlindError;

    fn begin(&mut self, begin: &BlindBegin) -> Result<(), BlindError> {
        let generation = Generation {
            index_id: begin.index_id,
            batch_packing: begin.batch_packing.clone(),
            split: begin.split,
            bounds: begin.bounds.clone(),
            rounds: begin.rounds,
            vectors: begin.vectors,
            segments: begin.segments,
            public_key: begin.public_key.clone(),
            mask_seed: begin.mask_seed.clone(),
            training_seed: begin.training_seed.clone(),
            vector_norm: begin.vector_norm,
            query_norm: begin.query_norm,
            offsets: begin.offsets,
        };
        Ok(self.runtime.block_on(self.session.begin(&generation))?)
    }

    fn shares(&mut self, shares: &[u8]) -> Result<(), BlindError> {
        Ok(self.runtime.block_on(self.session.shares(shares))?)
    }

    fn sample(&mut self, first: usize, batches: Vec<Vec<u8>>) -> Result<(), BlindError> {
        Ok(self.runtime.block_on(self.session.sample(first, batches))?)
    }

    fn train(
        &mut self,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), OwnerError>,
    ) -> Result<BlindTrained, BlindError> {
        loop {
            let state = self.runtime.block_on(self.session.train())?;
            progress(state.done.into(), state.steps.into())?;
            if let Some(trained) = state.trained {
                return Ok(BlindTrained {
                    batch_scale: trained.batch_scale,
                    table_scale: trained.table_scale,
                    codebook_digest: trained.codebook_digest,
                    gains: trained.gains,
                });
            }
        }
    }

    fn describe(&mut self, descriptor: &[u8]) -> Result<(), BlindError> {
        Ok(self.runtime.block_on(self.session.describe(descriptor))?)
    }

    fn encode(
        &mut self,
        segment: u32,
        first: usize,
        batches: Vec<Vec<u8>>,
    ) -> Result<(), BlindError> {
        let encode = self.session.encode(segment, first, batches);
        Ok(self.runtime.block_on(encode)?)
    }

    fn segment(&mut self, number: u32, segment: BlindSegment) -> Result<(), BlindError> {
        let parts = SegmentParts {
            segment_id: segment.segment_id,
            ids: segment.ids,
            tags: segment.tags,
            records: segment.records,
        };
        Ok(self.runtime.block_on(self.session.segment(number, parts))?)
    }

    fn commit(&mut self) -> Result<BlindCommitted, BlindError> {
        let report = self.runtime.block_on(self.session.commit())?;
        Ok(BlindCommitted {
            generation: report.generation,
            manifest_digest: report.manifest_digest,
            vectors: report.vectors,
            files: report.files,
            unrecorded: report.unrecorded,
        })
    }

    fn abort(&mut self) {
        self.runtime.block_on(self.session.abort());
    }
}

/// What was built.
#[derive(Serialize)]
struct BuiltBlind {
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
            "  nobody has the codebook in the clear, so vectors cannot be inserted afterwards; build again for others"
        )
    }
}
