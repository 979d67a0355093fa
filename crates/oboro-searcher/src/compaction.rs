//! Merging segments in the background.
//!
//! One task plans, one thread of low priority and bounded speed does the work
//! without holding anything that a search or a commit waits for, and the
//! result becomes visible like a commit. What was deleted meanwhile stays
//! deleted. A compaction that a rotation of the key overtakes is begun anew.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
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
    /// Merge everything, and say what came of it.
    Full(oneshot::Sender<Result<v1::CompactReply, SearcherError>>),
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
        while let Some(order) = waiting.recv().await {
            match order {
                Order::Look => {
                    let policy = CompactionPolicy::default();
                    while let Ok(true) = self.merge(&policy).await {}
                }
                Order::Full(reply) => {
                    let _ = reply.send(self.merge_all().await);
                }
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
                Ok(done) => return Ok(done),
                Err(SearcherError::Stopping) => return Err(SearcherError::Stopping),
                Err(error) => {
                    tracing::warn!(%error, "a compaction was not completed");
                    if attempts == 0 {
                        return Err(error);
                    }
                }
            }
        }
    }

    async fn attempt(self: &Arc<Self>, policy: &CompactionPolicy) -> Result<bool, SearcherError> {
        self.refuse_if_stale()?;
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
        let _one = self.changes.one.lock().await;
        self.refuse_if_stale()?;
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
