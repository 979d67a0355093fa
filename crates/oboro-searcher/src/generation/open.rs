//! What one generation holds at the searcher.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU32},
    time::{Duration, Instant},
};

use oboro_ckks::EncryptedBatch;
use oboro_protocol::Reason;
use zeroize::Zeroizing;

use super::{
    draft::Draft,
    encoding::SegmentCodes,
    keeper::GenerationKeeper,
    malformed,
    pass::Workbench,
    refused,
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

/// Who asks, and where the keeper knows the generation: another one after an interruption.
pub(super) struct Session {
    pub(super) token: [u8; 16],
    /// The TLS key of the owner.
    pub(super) owner: [u8; 32],
    pub(super) keeper: GenerationKeeper,
}

/// One generation.
///
/// # Security
/// Holds the seed of the sample's masks, its encrypted batches and the codes so far; all
/// in memory, and gone with it.
pub(super) struct Generation {
    session: Mutex<Session>,
    pub(super) shape: Shape,
    pub(super) plan: Plan,
    pub(super) bench: Arc<Workbench>,
    /// When the owner last asked for something.
    used: Mutex<Instant>,
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
        session: Session,
        shape: Shape,
        plan: Plan,
        seed: Zeroizing<[u8; 32]>,
        threads: usize,
        now: Instant,
    ) -> Self {
        let batches = shape.batches.batches(shape.bounds.samples());
        Self {
            bench: Arc::new(Workbench::new(shape.batches, seed, threads)),
            session: Mutex::new(session),
            shape,
            plan,
            used: Mutex::new(now),
            sample: Mutex::new(vec![None; batches]),
            done: AtomicU32::new(0),
            steps: AtomicU32::new(0),
            phase: Mutex::new(Phase::Sampling),
            draft: Mutex::new(None),
            segments: Mutex::default(),
        }
    }

    /// One that was trained before: `draft` is what there is of it.
    pub(super) fn resume(&self, trained: Arc<Trained>, draft: Draft) {
        let staged = draft.segments().into_iter();
        *self.segments() = (0..)
            .zip(staged.map(|(segment_id, vectors)| SegmentCodes::Staged {
                segment_id,
                vectors,
            }))
            .collect();
        *self.phase() = Phase::Trained(trained);
        self.set_draft(draft);
    }

    /// Who asks, and where the keeper knows this.
    pub(super) fn session(&self) -> MutexGuard<'_, Session> {
        lock(&self.session)
    }

    /// The keeper's session of the training.
    pub(super) fn keeper(&self) -> GenerationKeeper {
        self.session().keeper.clone()
    }

    /// How many segments are on disk.
    pub(super) fn staged(&self) -> u32 {
        let segments = self.segments();
        let staged = |segment: &&SegmentCodes| matches!(segment, SegmentCodes::Staged { .. });
        segments.values().filter(staged).count() as u32
    }

    /// The owner asks for something.
    pub(super) fn touch(&self, now: Instant) {
        *lock(&self.used) = now;
    }

    /// The owner has not asked for anything for so long.
    pub(super) fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(*lock(&self.used))
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
