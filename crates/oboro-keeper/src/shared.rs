//! What all requests to one keeper share.

use crate::config::KeeperConfig;
use crate::generation::Generations;
use crate::metrics::Metrics;
use crate::prepared::PreparedCodebooks;
use crate::state::KeeperState;
use crate::view::ByteCounts;
use oboro_attest::{AttestedRole, Subject, key_set_digest};
use oboro_channel::{Offer, PeerInfo, RateLimiter, Role};
use oboro_ckks::{CkksError, Packing, ParameterSet, Randomness};
use oboro_protocol::{Failure, Reason, v1, validate};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) struct Shared {
    pub(crate) state: KeeperState,
    pub(crate) offer: Offer,
    pub(crate) randomness: Randomness,
    pub(crate) prepared: PreparedCodebooks,
    pub(crate) generations: Generations,
    pub(crate) rate: RateLimiter,
    pub(crate) minimum_flooding_bits: f64,
    workers: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue_limit: usize,
    /// The state's file is written by one at a time; only that one holds a thread.
    writing: Arc<Semaphore>,
    started: Instant,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) byte_counts: Option<ByteCounts>,
}

impl Shared {
    pub(crate) fn new(state: KeeperState, config: &KeeperConfig) -> Self {
        let offer = Offer::new(
            config.attester.clone(),
            AttestedRole::Keeper,
            Subject::new(config.configuration),
        );
        let shared = Self {
            state,
            offer,
            randomness: Randomness::new(config.seed.clone()),
            prepared: PreparedCodebooks::new(config.prepared_codebooks),
            generations: Generations::default(),
            rate: RateLimiter::new(config.rate),
            minimum_flooding_bits: config.minimum_flooding_bits,
            workers: Arc::new(Semaphore::new(config.workers.max(1))),
            waiting: AtomicUsize::new(0),
            queue_limit: config.queue_limit,
            writing: Arc::new(Semaphore::new(1)),
            started: Instant::now(),
            metrics: Arc::new(Metrics::default()),
            byte_counts: config.record_view.then(ByteCounts::new),
        };
        shared.attest_keys();
        shared
    }

    /// Connections made from now on attest the keys that are held now.
    pub(crate) fn attest_keys(&self) {
        self.offer.set_subject(Subject {
            ckks_keys: key_set_digest(&self.state.fingerprints()),
            ..self.offer.subject()
        });
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// A worker's turn, or BUSY when too many wait already.
    pub(crate) async fn turn(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let waiting = Waiting::enter(&self.waiting);
        if waiting.before >= self.queue_limit {
            return Err(Failure::new(
                Reason::Busy,
                format!(
                    "{} requests wait for the keeper; try again shortly",
                    self.queue_limit
                ),
            ));
        }
        permit(&self.workers).await
    }

    /// Runs work on the state, which may wait for disk and counter, on a thread for it.
    pub(crate) async fn with_state<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let permit = permit(&self.writing).await?;
        let shared = self.clone();
        blocking(move || {
            let _permit = permit;
            work(&shared)
        })
        .await
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Failure> {
    semaphore
        .clone()
        .acquire_owned()
        .await
        .map_err(|_| Failure::new(Reason::Internal, "the keeper is stopping"))
}

/// Runs work that takes long on a thread for such.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Failure::new(Reason::Internal, "the keeper failed; see its log"))?
}

/// A searcher that attests one index asks for nothing of another.
pub(crate) fn check_subject(peer: &PeerInfo, index_id: &[u8; 16]) -> Result<(), Failure> {
    let Some(appraisal) = peer
        .appraisal
        .as_ref()
        .filter(|_| peer.role == Role::Searcher)
    else {
        return Ok(());
    };
    let attested = &appraisal.claims.subject.index_id;
    if attested == &[0; 16] || attested == index_id {
        return Ok(());
    }
    Err(Failure::new(
        Reason::Forbidden,
        "the searcher's evidence is for another index than it asks about; connect again",
    ))
}

/// The packing that a request names, of the keeper's parameter set.
pub(crate) fn packing_of(
    named: Option<&v1::PackingParameters>,
    held: ParameterSet,
) -> Result<Packing, Failure> {
    let named = validate::packing(named)?;
    if ParameterSet::from_name(&named.parameter_set) != Some(held) {
        return Err(Failure::new(
            Reason::BadRequest,
            format!(
                "the codebook is for another parameter set than the key's {}",
                held.name()
            ),
        ));
    }
    Packing::new(
        held,
        named.subquantizers as usize,
        named.width as usize,
        named.centroids as usize,
        named.split as usize,
    )
    .map_err(malformed)
}

pub(crate) fn malformed(error: CkksError) -> Failure {
    Failure::new(Reason::BadRequest, error.to_string())
}

/// Counts a waiting request, also when its task is dropped while it waits.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    before: usize,
}

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        let before = count.fetch_add(1, Relaxed);
        Self { count, before }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Relaxed);
    }
}
