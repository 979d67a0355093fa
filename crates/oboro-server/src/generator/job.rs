//! A job as the message that opens a build.

use bytes::Bytes;
use oboro_ckks::PublicKey;
use oboro_index::{BuildKeys, RecordEncoding, Rotation};
use oboro_owner::BuildOptions;
use oboro_owner::enclave::{Form, Job};
use oboro_protocol::build::v1;
use oboro_protocol::{Failure, PROTOCOL_VERSION, Reason, validate};
use oboro_quant::Metric;
use zeroize::Zeroizing;

/// The message of a job.
#[must_use]
pub fn to_message(job: &Job) -> v1::Begin {
    let options = &job.options;
    v1::Begin {
        protocol_version: PROTOCOL_VERSION,
        keys: Bytes::copy_from_slice(&job.keys.to_bytes()[..]),
        seed: Bytes::copy_from_slice(&job.seed[..]),
        public_key: job.keeper.to_bytes().into(),
        options: Some(v1::Options {
            metric: options.metric.name().to_owned(),
            rotation: options.rotation.name().to_owned(),
            subquantizers: options.subquantizers.map(|m| m as u32),
            centroids: options.centroids as u32,
            split: options.split.unwrap_or(0) as u32,
            sample: options.sample.map(|sample| sample as u64),
            iterations: options.iterations as u32,
            training_seed: Bytes::copy_from_slice(&options.seed),
            candidates_max: options.candidates_max as u32,
            opq_turns: options.opq.map(|turns| turns as u32),
            lists: options.lists as u32,
            probes_max: options.probes_max.map(|probes| probes as u32),
        }),
        vectors: job.vectors as u64,
        dimension: job.dimension as u32,
        originals: Bytes::copy_from_slice(&job.originals.to_bytes()),
        extra_bytes: job.extra_bytes,
        tags: job
            .tags
            .iter()
            .map(|tag| Bytes::copy_from_slice(tag))
            .collect(),
        largest_norm: job.largest_norm,
        trial_rows: job.trial_rows.iter().map(|&row| row as u64).collect(),
        bytes_form: job.form == Form::Bytes,
    }
}

/// The job of a message, and how many vectors come before the records.
///
/// # Errors
/// `BAD_REQUEST` or `LIMIT` for what cannot be built.
pub fn from_message(begin: v1::Begin) -> Result<(Job, usize), Failure> {
    let options = validate::build::begin(&begin)?;
    let bad = |error: &dyn std::fmt::Display| Failure::new(Reason::BadRequest, error.to_string());
    let unknown = |what: &str| {
        Failure::new(
            Reason::BadRequest,
            format!("the build names a {what} that this version does not know"),
        )
    };
    let mut training_seed = [0; 32];
    training_seed.copy_from_slice(&options.training_seed);
    let mut seed = Zeroizing::new([0; 32]);
    seed.copy_from_slice(&begin.seed);
    let keys = BuildKeys::from_bytes(&begin.keys).map_err(|error| bad(&error))?;
    let options = BuildOptions {
        metric: Metric::from_name(&options.metric).ok_or_else(|| unknown("metric"))?,
        rotation: Rotation::from_name(&options.rotation).ok_or_else(|| unknown("rotation"))?,
        subquantizers: options.subquantizers.map(|m| m as usize),
        centroids: options.centroids as usize,
        split: (options.split > 0).then_some(options.split as usize),
        sample: options.sample.map(|sample| sample as usize),
        iterations: options.iterations as usize,
        seed: training_seed,
        candidates_max: options.candidates_max as usize,
        opq: options.opq_turns.map(|turns| turns as usize),
        lists: options.lists as usize,
        probes_max: options.probes_max.map(|probes| probes as usize),
        trials: begin.trial_rows.len(),
        released: keys.epoch_key().released(),
        ..BuildOptions::default()
    };
    let tags = begin.tags.iter().map(|tag| {
        let mut hash = [0; 8];
        hash.copy_from_slice(tag);
        hash
    });
    let job = Job {
        keys,
        keeper: PublicKey::from_bytes(&begin.public_key).map_err(|error| bad(&error))?,
        seed,
        options,
        vectors: begin.vectors as usize,
        dimension: begin.dimension as usize,
        originals: RecordEncoding::from_bytes(&begin.originals).map_err(|error| bad(&error))?,
        extra_bytes: begin.extra_bytes,
        tags: tags.collect(),
        largest_norm: begin.largest_norm,
        trial_rows: begin.trial_rows.iter().map(|&row| row as usize).collect(),
        form: if begin.bytes_form {
            Form::Bytes
        } else {
            Form::Single
        },
    };
    let early = job.early_vectors().map_err(|error| bad(&error))?;
    Ok((job, early))
}
