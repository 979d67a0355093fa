//! Builds in an enclave.

use crate::build::{
    KEYS_BYTES, MAX_DIMENSION, MAX_ITERATIONS, MAX_LISTS, MAX_SAMPLE_PER_CENTROID, MAX_TAGS,
    MAX_TRIALS, SEED_BYTES, v1,
};
use crate::{Failure, PROTOCOL_VERSION, Reason};

/// Bytes of an encoding of originals.
const ORIGINALS_BYTES: usize = 9;

/// Bytes that stand for a tag.
const TAG_BYTES: usize = 8;

/// Most bytes of a name of metric or rotation.
const NAME_BYTES: usize = 32;

/// Most bytes for text id and payload together.
const MAX_EXTRA_BYTES: u32 = 1 << 18;

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(Reason::BadRequest, message)
}

/// Checks the lengths and bounds of what opens a build, before anything is made of it.
///
/// # Errors
/// `BAD_REQUEST` for another version, a wrong length or an absurd number, `LIMIT` for
/// more than is served.
pub fn begin(begin: &v1::Begin) -> Result<&v1::Options, Failure> {
    if begin.protocol_version != PROTOCOL_VERSION {
        return Err(bad(format!(
            "the owner speaks version {} of the protocol and the generator version {PROTOCOL_VERSION}; use the same release",
            begin.protocol_version
        )));
    }
    let Some(options) = &begin.options else {
        return Err(bad("the build has no options"));
    };
    for (what, found, due) in [
        ("keys", begin.keys.len(), KEYS_BYTES),
        ("seed", begin.seed.len(), SEED_BYTES),
        ("training seed", options.training_seed.len(), SEED_BYTES),
        (
            "encoding of originals",
            begin.originals.len(),
            ORIGINALS_BYTES,
        ),
    ] {
        if found != due {
            return Err(bad(format!(
                "the {what} has {found} bytes; it must have {due}"
            )));
        }
    }
    let limit = |what: &str, found: u64, most: u64| match found > most {
        false => Ok(()),
        true => Err(Failure::new(
            Reason::Limit,
            format!("the build has {found} {what}; at most {most} are served"),
        )),
    };
    limit("vectors", begin.vectors, u64::from(u32::MAX))?;
    limit("dimensions", begin.dimension.into(), MAX_DIMENSION.into())?;
    limit("tags", begin.tags.len() as u64, MAX_TAGS as u64)?;
    limit(
        "trial queries",
        begin.trial_rows.len() as u64,
        MAX_TRIALS as u64,
    )?;
    limit("rounds", options.iterations.into(), MAX_ITERATIONS.into())?;
    limit(
        "turns",
        options.opq_turns.unwrap_or(0).into(),
        MAX_ITERATIONS.into(),
    )?;
    limit("lists", options.lists.into(), MAX_LISTS.into())?;
    limit(
        "extra bytes",
        begin.extra_bytes.into(),
        MAX_EXTRA_BYTES.into(),
    )?;
    let centroids = options.centroids;
    if begin.vectors == 0
        || begin.dimension == 0
        || !matches!(centroids, 1..=256)
        || options.split > MAX_DIMENSION
        || options
            .subquantizers
            .is_some_and(|m| !(1..=begin.dimension).contains(&m))
        || options.metric.len() > NAME_BYTES
        || options.rotation.len() > NAME_BYTES
        || begin.tags.iter().any(|tag| tag.len() != TAG_BYTES)
        || !begin.largest_norm.is_finite()
    {
        return Err(bad(
            "the numbers of the build are outside what this version knows",
        ));
    }
    let most = u64::from(centroids) * MAX_SAMPLE_PER_CENTROID;
    limit("vectors to train on", options.sample.unwrap_or(0), most)?;
    Ok(options)
}

/// Checks that the lists of some records have the length that their vectors say, where a
/// vector has `vector_bytes` bytes; how many there are.
///
/// # Errors
/// `BAD_REQUEST` for none, parts of a vector, or lists of other lengths.
pub fn records(records: &v1::Records, vector_bytes: usize) -> Result<usize, Failure> {
    let bytes = records.vectors.len();
    let count = bytes.checked_div(vector_bytes).unwrap_or(0);
    let lists = [
        records.ids.len(),
        records.text_ids.len(),
        records.tags.len(),
        records.payloads.len(),
    ];
    if count == 0
        || bytes != count * vector_bytes
        || lists.iter().any(|&length| length != 0 && length != count)
        || (!records.ids.is_empty() && !records.text_ids.is_empty())
    {
        return Err(bad(format!(
            "records come as {bytes} bytes of vectors of {vector_bytes} bytes with lists of other lengths"
        )));
    }
    Ok(count)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn good() -> v1::Begin {
        v1::Begin {
            protocol_version: PROTOCOL_VERSION,
            keys: vec![0; KEYS_BYTES].into(),
            seed: vec![0; 32].into(),
            public_key: vec![1].into(),
            options: Some(v1::Options {
                metric: "l2".into(),
                rotation: "none".into(),
                subquantizers: Some(4),
                centroids: 16,
                split: 1,
                sample: None,
                iterations: 25,
                training_seed: vec![0; 32].into(),
                candidates_max: 100,
                opq_turns: Some(3),
                lists: 4,
                probes_max: None,
            }),
            vectors: 1_000,
            dimension: 8,
            originals: vec![0; 9].into(),
            extra_bytes: 0,
            tags: vec![vec![0; 8].into()],
            largest_norm: 1.0,
            trial_rows: vec![1, 2],
            bytes_form: false,
        }
    }

    #[test]
    fn fail_builds_that_cannot_be() {
        assert!(begin(&good()).is_ok());
        let refuses = |reason: Reason, change: &dyn Fn(&mut v1::Begin)| {
            let mut message = good();
            change(&mut message);
            assert_eq!(begin(&message).unwrap_err().reason, reason);
        };
        let options = |change: fn(&mut v1::Options)| {
            move |message: &mut v1::Begin| change(message.options.as_mut().unwrap())
        };
        let bad = Reason::BadRequest;
        refuses(bad, &|m| m.protocol_version += 1);
        refuses(bad, &|m| m.options = None);
        refuses(bad, &|m| m.keys = vec![0; KEYS_BYTES - 1].into());
        refuses(bad, &|m| m.seed = vec![0; 33].into());
        refuses(bad, &|m| m.originals = vec![].into());
        refuses(bad, &|m| m.vectors = 0);
        refuses(bad, &|m| m.dimension = 0);
        refuses(bad, &|m| m.tags.push(vec![0; 7].into()));
        refuses(bad, &|m| m.largest_norm = f32::NAN);
        refuses(bad, &options(|o| o.centroids = 0));
        refuses(bad, &options(|o| o.centroids = 257));
        refuses(bad, &options(|o| o.split = MAX_DIMENSION + 1));
        refuses(bad, &options(|o| o.subquantizers = Some(0)));
        refuses(bad, &options(|o| o.subquantizers = Some(9)));
        refuses(bad, &options(|o| o.metric = "l".repeat(33)));
        refuses(bad, &options(|o| o.training_seed = vec![].into()));
        let limit = Reason::Limit;
        refuses(limit, &|m| m.vectors = 1 << 32);
        refuses(limit, &|m| m.dimension = MAX_DIMENSION + 1);
        refuses(limit, &|m| m.tags = vec![vec![0; 8].into(); 65]);
        refuses(limit, &|m| m.trial_rows = vec![0; MAX_TRIALS + 1]);
        refuses(limit, &|m| m.extra_bytes = u32::MAX);
        refuses(limit, &options(|o| o.iterations = u32::MAX));
        refuses(limit, &options(|o| o.sample = Some(u64::MAX)));
        refuses(limit, &options(|o| o.opq_turns = Some(u32::MAX)));
        refuses(limit, &options(|o| o.lists = u32::MAX));
    }

    #[test]
    fn fail_records_whose_lists_disagree() {
        let good = v1::Records {
            vectors: vec![0; 24].into(),
            ids: vec![1, 2, 3],
            text_ids: Vec::new(),
            tags: vec![0; 3],
            payloads: vec![vec![].into(); 3],
        };
        assert_eq!(records(&good, 8).unwrap(), 3);
        assert!(records(&good, 0).is_err());
        assert!(records(&good, 7).is_err());
        assert!(records(&good, 12).is_err());
        assert!(records(&v1::Records::default(), 8).is_err());
        let refuses = |change: &dyn Fn(&mut v1::Records)| {
            let mut message = good.clone();
            change(&mut message);
            assert!(records(&message, 8).is_err());
        };
        refuses(&|m| m.ids.truncate(2));
        refuses(&|m| m.tags.push(1));
        refuses(&|m| drop(m.payloads.pop()));
        refuses(&|m| m.text_ids = vec![String::new(); 3]);
        refuses(&|m| m.vectors = Default::default());
    }
}
