//! Merging segments in the background.
//!
//! One task plans, one thread of low priority and bounded speed does the work
//! without holding anything that a search or a commit waits for, and the
//! result becomes visible like a commit. What was deleted meanwhile stays
//! deleted. A compaction that a rotation of the key overtakes is begun anew; one
//! that the end of the searcher stops, a kill too, is gone on with at the next start.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use oboro_index::{Compacted, Compaction, CompactionPolicy, Throttle};
use oboro_protocol::{Failure, Reason, v1, validate};
use tokio::sync::{mpsc, oneshot};

use crate::{
    CompactionConfig, SearcherError, folder::refused, metrics::Metrics, pool::lower_priority,
    rotation::blocking, searcher::Searcher,
};

/// Compactions that may wait, beside the one at work.
const WAITING: usize = 16;

/// How often a compaction is begun anew after something overtook it.
const ATTEMPTS: usize = 3;

enum Order {
    /// Merge what the policy says.
    Look,
    /// The time is over that was waited for after a failure.
    Retry,
    /// Merge everything, and say what came of it.
    Full(oneshot::Sender<Result<v1::CompactReply, SearcherError>>),
}

/// Longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// When compactions that failed are begun anew: not at once, for a disk that is
/// full stays so for a while, and what was written was written in vain.
struct Retry {
    first: Duration,
    pause: Duration,
    at: Option<Instant>,
}

impl Retry {
    const fn new(first: Duration) -> Self {
        Self {
            first,
            pause: first,
            at: None,
        }
    }

    /// Takes note of how an attempt ended; only the first failure of a row is told.
    fn settle(&mut self, result: &Result<(), SearcherError>) {
        match result {
            Err(SearcherError::Stopping) => {}
            Ok(()) => {
                if self.at.take().is_some() {
                    tracing::info!("segments are merged again");
                }
                self.pause = self.first;
            }
            Err(error) => {
                if self.at.is_none() {
                    tracing::warn!(%error, "segments cannot be merged; it is tried again by itself");
                }
                self.at = Some(Instant::now() + self.pause);
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Where compactions are ordered.
pub(crate) struct Compactor {
    config: CompactionConfig,
    orders: mpsc::Sender<Order>,
    /// Taken by the one task that works.
    waiting: std::sync::Mutex<Option<mpsc::Receiver<Order>>>,
    /// The searcher ends.
    cancel: Arc<AtomicBool>,
}

impl Compactor {
    pub(crate) fn new(config: CompactionConfig) -> Self {
        let (orders, waiting) = mpsc::channel(WAITING);
        Self {
            config,
            orders,
            waiting: std::sync::Mutex::new(Some(waiting)),
            cancel: Arc::default(),
        }
    }

    /// The index changed: there may be something to merge.
    pub(crate) fn look(&self) {
        if self.config.automatic {
            // A full queue will look at the index later all the same.
            let _ = self.orders.try_send(Order::Look);
        }
    }

    /// Ends the compaction at work.
    pub(crate) fn cancel(&self) {
        self.cancel.store(true, Relaxed);
    }
}

impl Searcher {
    /// Merges everything and waits for it.
    pub(crate) async fn compact(
        &self,
        request: &v1::CompactRequest,
    ) -> Result<v1::CompactReply, SearcherError> {
        let epoch = self.newest()?;
        validate::changed_index(&request.index_id, epoch.id())?;
        self.changes.folder.refuse_unless_writing()?;
        let (reply, done) = oneshot::channel();
        self.compactor
            .orders
            .try_send(Order::Full(reply))
            .map_err(|_| {
                Failure::new(
                    Reason::Busy,
                    format!("{WAITING} compactions wait already; try again later"),
                )
            })?;
        done.await.unwrap_or(Err(SearcherError::Stopping))
    }

    /// Works through the orders, until the searcher ends.
    pub(crate) async fn compactions(self: Arc<Self>) {
        let waiting = {
            let mut waiting = self
                .compactor
                .waiting
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            waiting.take()
        };
        let Some(mut waiting) = waiting else {
            return;
        };
        let mut retry = Retry::new(self.compactor.config.retry_pause);
        loop {
            let order = match retry.at {
                None => waiting.recv().await,
                Some(at) => tokio::time::timeout_at(at.into(), waiting.recv())
                    .await
                    .unwrap_or(Some(Order::Retry)),
            };
            match order {
                // The next attempt comes by itself.
                Some(Order::Look) if retry.at.is_some() => {}
                Some(Order::Look | Order::Retry) => retry.settle(&self.merge_what_should().await),
                Some(Order::Full(reply)) => {
                    let _ = reply.send(self.merge_all().await);
                }
                None => return,
            }
        }
    }

    /// Merges until all is well.
    async fn merge_what_should(self: &Arc<Self>) -> Result<(), SearcherError> {
        loop {
            if self.changes.folder.is_read_only() {
                return Ok(());
            }
            let mut policy = CompactionPolicy::default();
            if self
                .open_files
                .is_tight(self.newest()?.snapshot().segments().len())
            {
                policy.similar = 1;
            }
            if !self.merge(&policy).await? {
                return Ok(());
            }
        }
    }

    async fn merge_all(self: &Arc<Self>) -> Result<v1::CompactReply, SearcherError> {
        let before = self.newest()?.snapshot();
        self.merge(&CompactionPolicy::FULL).await?;
        let after = self.newest()?.snapshot();
        Ok(v1::CompactReply {
            segments_before: before.segments().len() as u32,
            segments_after: after.segments().len() as u32,
            dropped: before.deleted().saturating_sub(after.deleted()),
            generation: after.head().generation,
        })
    }

    /// Makes one compaction; whether there was something to merge.
    async fn merge(self: &Arc<Self>, policy: &CompactionPolicy) -> Result<bool, SearcherError> {
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            match self.attempt(policy).await {
                // A rotation or another compaction came first.
                Err(SearcherError::Request(failure))
                    if failure.reason == Reason::BadRequest && attempts > 0 =>
                {
                    tracing::info!(error = %failure, "a compaction is begun anew");
                }
                result => {
                    if result.is_err() {
                        Metrics::add(&self.metrics().failed_compactions, 1);
                    }
                    return result;
                }
            }
        }
    }

    async fn attempt(self: &Arc<Self>, policy: &CompactionPolicy) -> Result<bool, SearcherError> {
        self.refuse_unless_followed()?;
        let (planning, policy) = (Arc::clone(self), *policy);
        let planned = blocking(move || {
            planning
                .changes
                .folder
                .look(|live| live.compaction(&policy))
        })
        .await?;
        let Some(compaction) = planned else {
            return Ok(false);
        };
        let before = self.newest()?.snapshot();
        let done = self.work(compaction).await?;
        if done.resumed_bytes() > 0 {
            tracing::info!(
                bytes = done.resumed_bytes(),
                "went on with a compaction that was stopped"
            );
        }
        let _one = self.changes.one.lock().await;
        self.refuse_unless_followed()?;
        let changing = Arc::clone(self);
        blocking(move || {
            let mut rng = changing.workshop.randomness.generator();
            let index = changing
                .changes
                .folder
                .change(|live| live.commit_compaction(done, &mut rng))?;
            changing.show(&index)
        })
        .await?;
        Metrics::add(&self.metrics().compactions, 1);
        let after = self.newest()?.snapshot();
        tracing::info!(
            before = before.segments().len(),
            after = after.segments().len(),
            "segments merged"
        );
        // Where the keeper is away it is told later.
        let _ = self.record().await;
        Ok(true)
    }

    /// Runs the long part on a thread that gives way to searches.
    async fn work(&self, compaction: Compaction) -> Result<Compacted, SearcherError> {
        let (reply, done) = oneshot::channel();
        let throttle = match self.compactor.config.bytes_per_second {
            0 => Throttle::NONE,
            rate => Throttle::bytes_per_second(rate),
        };
        let cancel = Arc::clone(&self.compactor.cancel);
        let mut rng = self.workshop.randomness.generator();
        thread::Builder::new()
            .name("oboro-compaction".to_owned())
            .spawn(move || {
                lower_priority();
                let _ = reply.send(compaction.run(&throttle, &cancel, &mut rng));
            })
            .map_err(SearcherError::Thread)?;
        done.await
            .map_err(|_| SearcherError::Stopping)?
            .map_err(refused)
    }
}
