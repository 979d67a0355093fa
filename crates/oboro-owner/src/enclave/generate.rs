//! The generator's part.

use std::path::Path;

use oboro_index::{EncodingSurvey, IndexWriter};
use oboro_vectors::{Records, Refusal, VectorsError};
use rand_core::SeedableRng;

use super::Job;
use crate::build::{Clock, Looked, Rest};
use crate::survey::Survey;
use crate::tags::NewTags;
use crate::{BuildReport, OwnerError, VectorSource};

/// Makes the index of `job` in the folder `out`, as a local build does after its first
/// pass.
///
/// `early` are the vectors to train on and then the trial queries
/// ([`Job::early_vectors`]); `next` gives the records in order, and `None` at their end
/// or where they stop coming.
///
/// # Errors
/// As [`crate::Owner::build`]; [`OwnerError::SourceChanged`] where records are missing.
/// Nothing of a failed build is visible.
pub fn generate(
    job: &Job,
    early: Vec<f32>,
    next: &mut (dyn FnMut() -> Option<Records> + Send),
    out: &Path,
) -> Result<BuildReport, OwnerError> {
    let threads = job.options.threads.unwrap_or(0);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|_| OwnerError::Threads { threads })?;
    pool.install(|| run(job, early, next, out))
}

fn run(
    job: &Job,
    early: Vec<f32>,
    next: &mut (dyn FnMut() -> Option<Records> + Send),
    out: &Path,
) -> Result<BuildReport, OwnerError> {
    let clock = Clock::start();
    if early.len() != job.early_vectors()? * job.dimension {
        return Err(OwnerError::SourceChanged);
    }
    let shape = job.shape()?;
    let writer = IndexWriter::create_under(out, job.keys.to_epoch_key(), job.options.force)?;
    let (mut sample, mut trials) = (early, Vec::new());
    trials.extend(sample.drain(shape.sample * job.dimension..));
    let looked = Looked {
        found: Survey {
            sample,
            trials,
            trial_rows: job.trial_rows.clone(),
            largest_norm: job.largest_norm,
            // What follows from these is in the job.
            encoding: EncodingSurvey::new(),
            ids: None,
            extra_needed: 0,
        },
        layout: job.layout(),
        tags: NewTags {
            hashes: job.tags.clone(),
            bits: (0..64).map(Some).collect(),
        },
    };
    let mut source = Arriving {
        rows: job.vectors,
        dimension: job.dimension,
        next,
    };
    let rest = Rest {
        keys: &job.keys,
        keeper: &job.keeper,
        shape: &shape,
        options: &job.options,
    };
    let mut rng = chacha20::ChaCha20Rng::from_seed(*job.seed);
    rest.run(&mut source, looked, writer, clock, &mut rng)
}

/// Records that come once, from the first to the last.
struct Arriving<'a> {
    rows: usize,
    dimension: usize,
    next: &'a mut (dyn FnMut() -> Option<Records> + Send),
}

impl VectorSource for Arriving<'_> {
    fn rows(&self) -> usize {
        self.rows
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn tag_names(&self) -> &[String] {
        &[]
    }

    // As many rows as the sender put together.
    fn read(&mut self, _most: usize) -> Result<Option<Records>, VectorsError> {
        Ok((self.next)())
    }

    /// The first pass was made elsewhere, so none has come yet.
    fn rewind(&mut self) -> Result<(), VectorsError> {
        Ok(())
    }

    fn error(&self, refusal: &Refusal) -> VectorsError {
        VectorsError::Refused {
            path: "the vectors that arrive".into(),
            row: refusal.row,
            why: refusal.why.clone(),
        }
    }
}
