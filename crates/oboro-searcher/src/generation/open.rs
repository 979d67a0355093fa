//! What one generation holds at the searcher.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use oboro_ckks::{DerivedRandomness, EncryptedBatch};
use oboro_protocol::Reason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    draft::Draft,
    encoding::SegmentCodes,
    keeper::GenerationKeeper,
    malformed, refused,
    shape::{Plan, Shape},
    training::Trained,
};
use crate::SearcherError;

/// How far a generation is.
pub(super) enum Phase {
    /// The sample comes.
    Sampling,
    /// The keeper and this searcher train.
    Training,
    /// The codebook is there.
    Trained(Arc<Trained>),
    /// The training failed; it may be started again.
    Failed(String),
}

/// One generation.
///
/// # Security
/// Holds the seed of the sample's masks, its encrypted batches and the codes so far; all
/// in memory, and gone with it.
pub(super) struct Generation {
    pub(super) token: [u8; 16],
    /// The TLS key of the owner.
    pub(super) owner: [u8; 32],
    pub(super) shape: Shape,
    pub(super) plan: Plan,
    pub(super) keeper: GenerationKeeper,
    pub(super) randomness: DerivedRandomness,
    /// When the owner last asked for something.
    used: Mutex<Instant>,
    slots: Arc<Semaphore>,
    cancelled: AtomicBool,
    sample: Mutex<Vec<Option<Arc<EncryptedBatch>>>>,
    pub(super) done: AtomicU32,
    pub(super) steps: AtomicU32,
    phase: Mutex<Phase>,
    draft: Mutex<Option<Arc<Draft>>>,
    segments: Mutex<BTreeMap<u32, SegmentCodes>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_described() -> SearcherError {
    refused(
        Reason::BadRequest,
        "the index is not described yet; send its descriptor first",
    )
}

impl Generation {
    pub(super) fn new(
        token: [u8; 16],
        owner: [u8; 32],
        shape: Shape,
        plan: Plan,
        keeper: GenerationKeeper,
        randomness: DerivedRandomness,
        threads: usize,
    ) -> Self {
        let batches = shape.batches.batches(shape.bounds.samples());
        Self {
            token,
            owner,
            shape,
            plan,
            keeper,
            randomness,
            used: Mutex::new(Instant::now()),
            // One more than there are threads, so that none waits for the keeper.
            slots: Arc::new(Semaphore::new(threads.max(1) + 1)),
            cancelled: AtomicBool::new(false),
            sample: Mutex::new(vec![None; batches]),
            done: AtomicU32::new(0),
            steps: AtomicU32::new(0),
            phase: Mutex::new(Phase::Sampling),
            draft: Mutex::new(None),
            segments: Mutex::default(),
        }
    }

    /// The owner asks for something.
    pub(super) fn touch(&self, now: Instant) {
        *lock(&self.used) = now;
    }

    /// The owner has not asked for anything for so long.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*lock(&self.used))
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    pub(super) fn check_cancelled(&self) -> Result<(), SearcherError> {
        if self.cancelled.load(Relaxed) {
            return Err(refused(
                Reason::UnknownSession,
                "the generation was given up",
            ));
        }
        Ok(())
    }

    /// A turn in the pipeline.
    pub(super) async fn slot(&self) -> Result<OwnedSemaphorePermit, SearcherError> {
        self.check_cancelled()?;
        let slots = Arc::clone(&self.slots);
        slots
            .acquire_owned()
            .await
            .map_err(|_| SearcherError::Stopping)
    }

    /// Takes batches of the sample; returns how many are there.
    pub(super) fn add_sample(
        &self,
        first: usize,
        batches: &[bytes::Bytes],
    ) -> Result<usize, SearcherError> {
        if !matches!(*self.phase(), Phase::Sampling | Phase::Failed(_)) {
            return Err(refused(
                Reason::BadRequest,
                "the training has begun; its sample can no longer change",
            ));
        }
        let read = batches
            .iter()
            .map(|bytes| EncryptedBatch::from_bytes(&self.shape.batches, bytes).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()
            .map_err(malformed)?;
        let mut sample = lock(&self.sample);
        let all = sample.len();
        let places = first
            .checked_add(read.len())
            .and_then(|end| sample.get_mut(first..end))
            .ok_or_else(|| {
                refused(
                    Reason::BadRequest,
                    format!("the sample has {all} batches, and these lie beyond"),
                )
            })?;
        for (place, batch) in places.iter_mut().zip(read) {
            *place = Some(batch);
        }
        Ok(sample.iter().flatten().count())
    }

    /// The whole sample.
    pub(super) fn sample(&self) -> Result<Vec<Arc<EncryptedBatch>>, SearcherError> {
        let sample = lock(&self.sample);
        let whole: Option<Vec<_>> = sample.iter().cloned().collect();
        whole.ok_or_else(|| {
            let (there, all) = (sample.iter().flatten().count(), sample.len());
            refused(
                Reason::BadRequest,
                format!("{there} of the sample's {all} batches are here; bring the others first"),
            )
        })
    }

    /// The sample is no longer needed.
    pub(super) fn drop_sample(&self) {
        lock(&self.sample).fill(None);
    }

    pub(super) fn phase(&self) -> MutexGuard<'_, Phase> {
        lock(&self.phase)
    }

    /// What the training gave.
    pub(super) fn trained(&self) -> Result<Arc<Trained>, SearcherError> {
        match &*self.phase() {
            Phase::Trained(trained) => Ok(Arc::clone(trained)),
            _ => Err(refused(
                Reason::BadRequest,
                "the training is not over; ask how far it is first",
            )),
        }
    }

    pub(super) fn set_draft(&self, draft: Draft) {
        *lock(&self.draft) = Some(Arc::new(draft));
    }

    pub(super) fn has_draft(&self) -> bool {
        lock(&self.draft).is_some()
    }

    /// The index as far as it is.
    pub(super) fn draft(&self) -> Result<Arc<Draft>, SearcherError> {
        lock(&self.draft).clone().ok_or_else(not_described)
    }

    /// Takes the index out, to make it visible.
    pub(super) fn take_draft(&self) -> Result<Draft, SearcherError> {
        let mut place = lock(&self.draft);
        let draft = place.take().ok_or_else(not_described)?;
        Arc::try_unwrap(draft).map_err(|shared| {
            *place = Some(shared);
            refused(
                Reason::Busy,
                "a segment is being written; commit when it is done",
            )
        })
    }

    pub(super) fn segments(&self) -> MutexGuard<'_, BTreeMap<u32, SegmentCodes>> {
        lock(&self.segments)
    }
}
