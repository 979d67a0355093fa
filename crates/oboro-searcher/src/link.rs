//! The link to the keeper: registration and recovery.
//!
//! A link is either up (a channel whose other end has proved what it is, and
//! the epochs served registered and prepared) or down. The first request after
//! a failure tries to bring it up again, within bounded time and not more often
//! than every [`KeeperConfig::retry_pause`](crate::KeeperConfig); everyone else
//! is told at once that the keeper cannot be reached. Nothing else is needed
//! for it to recover by itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use bytes::Bytes;
use oboro_channel::explain;
use oboro_index::{Index, MAX_ANCESTORS};
use oboro_protocol::{Failure, Reason, reason_of};
use tonic::Code;

use crate::{
    SearcherError,
    epoch::Epoch,
    keeper::{Keeper, KeeperAccess, refused},
    metrics::Metrics,
};

/// A link that is up.
struct Up {
    keeper: Arc<Keeper>,
    /// Handles of prepared codebooks by epoch.
    handles: Mutex<HashMap<u64, Bytes>>,
}

impl Up {
    fn handle(&self, epoch: u64) -> Option<Bytes> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.get(&epoch).cloned()
    }
}

#[derive(Default)]
struct State {
    up: Option<Arc<Up>>,
    /// The last failed attempt and what it met.
    failed: Option<(Instant, Failed)>,
}

/// An error as it is told to everyone who meets it again.
#[derive(Clone)]
enum Failed {
    Unreachable(Arc<str>),
    Untrusted(Arc<str>),
    Stale(Arc<str>),
    Refused(Arc<str>),
}

impl From<&SearcherError> for Failed {
    fn from(error: &SearcherError) -> Self {
        match error {
            SearcherError::KeeperUnreachable(why) => Self::Unreachable(why.as_str().into()),
            SearcherError::KeeperUntrusted(why) => Self::Untrusted(why.as_str().into()),
            SearcherError::Stale(why) => Self::Stale(why.as_str().into()),
            SearcherError::KeeperRefused(why) => Self::Refused(why.as_str().into()),
            other => Self::Unreachable(other.to_string().into()),
        }
    }
}

impl From<Failed> for SearcherError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Unreachable(why) => Self::KeeperUnreachable(why.to_string()),
            Failed::Untrusted(why) => Self::KeeperUntrusted(why.to_string()),
            Failed::Stale(why) => Self::Stale(why.to_string()),
            Failed::Refused(why) => Self::KeeperRefused(why.to_string()),
        }
    }
}

pub(crate) struct KeeperLink {
    access: KeeperAccess,
    metrics: Arc<Metrics>,
    /// What is served, the newest last; none before the index is open.
    epochs: Mutex<Vec<Arc<Epoch>>>,
    state: Mutex<State>,
    /// What the keeper said when it first called what is served old.
    stale: OnceLock<String>,
    /// The generation that the keeper was told of last; 0 before the first.
    recorded: AtomicU64,
    /// Held by the one task that connects.
    connecting: tokio::sync::Mutex<()>,
}

impl KeeperLink {
    pub(crate) fn new(access: KeeperAccess, metrics: Arc<Metrics>) -> Self {
        Self {
            access,
            metrics,
            epochs: Mutex::default(),
            state: Mutex::default(),
            stale: OnceLock::new(),
            recorded: AtomicU64::new(0),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    fn with_state<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_epochs<R>(&self, work: impl FnOnce(&mut Vec<Arc<Epoch>>) -> R) -> R {
        work(&mut self.epochs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The link was up when last used.
    pub(crate) fn is_up(&self) -> bool {
        self.with_state(|state| state.up.is_some())
    }

    /// Why the last attempt failed, while nothing has worked since.
    pub(crate) fn last_failure(&self) -> Option<SearcherError> {
        self.with_state(|state| state.failed.as_ref().map(|(_, why)| why.clone().into()))
    }

    /// Refuses once the keeper has called what is served old, also when it is
    /// away afterwards.
    pub(crate) fn refuse_if_stale(&self) -> Result<(), SearcherError> {
        match self.stale.get() {
            Some(why) => Err(SearcherError::Stale(why.clone())),
            None => Ok(()),
        }
    }

    /// Shortest time between two attempts.
    pub(crate) fn retry_pause(&self) -> std::time::Duration {
        self.access.config.retry_pause
    }

    /// A connection, made anew if there is none.
    pub(crate) async fn keeper(&self) -> Result<Arc<Keeper>, SearcherError> {
        Ok(Arc::clone(&self.up().await?.keeper))
    }

    /// From now on `epoch` is the newest: it is registered and prepared on a
    /// connection of its own, since the keeper's keys may have changed. What
    /// was up before serves until then.
    pub(crate) async fn serve(&self, epoch: Arc<Epoch>) -> Result<(), SearcherError> {
        let _one = self.connecting.lock().await;
        self.with_epochs(|epochs| epochs.push(epoch));
        let result = self.connect().await;
        self.settle(&result);
        result.map(drop)
    }

    /// Has the newest state recorded, which is that of `index`.
    pub(crate) async fn record(&self, index: &Index) -> Result<(), SearcherError> {
        let up = self.up().await?;
        match self.register(&up.keeper, index).await {
            Ok(()) => Ok(()),
            Err(error @ SearcherError::Stale(_)) => {
                // Somebody else serves a newer or another state: nothing is answered from
                // this one any more.
                let result = Err(error);
                self.settle(&result);
                result.map(drop)
            }
            Err(SearcherError::KeeperUnreachable(_)) => {
                self.lost(&up);
                // Whoever connects registers the newest state.
                self.reconnect().await.map(drop)
            }
            Err(error) => Err(error),
        }
    }

    async fn register(&self, keeper: &Keeper, index: &Index) -> Result<(), SearcherError> {
        keeper.register(&index.head(), index.ancestors()).await?;
        self.recorded.fetch_max(index.generation(), Relaxed);
        Ok(())
    }

    /// Refuses one more change of `index` where the keeper has not heard of so many that
    /// the next one would not name the newest state it knows, and pass for a newer one by
    /// its number alone.
    pub(crate) fn refuse_if_far_ahead(&self, index: &Index) -> Result<(), SearcherError> {
        let recorded = self.recorded.load(Relaxed);
        let ahead = index.generation().saturating_sub(recorded);
        // Before the first it is not known how far ahead this is.
        if recorded == 0 || ahead < MAX_ANCESTORS as u64 {
            return Ok(());
        }
        Err(SearcherError::KeeperUnreachable(format!(
            "it has not heard of the last {ahead} changes, and no more are made without it"
        )))
    }

    /// No longer registers and prepares `epoch`.
    pub(crate) fn forget(&self, epoch: &Arc<Epoch>) {
        self.with_epochs(|epochs| epochs.retain(|known| !Arc::ptr_eq(known, epoch)));
        if let Some(up) = self.with_state(|state| state.up.clone()) {
            let mut handles = up.handles.lock().unwrap_or_else(PoisonError::into_inner);
            handles.remove(&epoch.number());
        }
    }

    /// Sends masked products, returns the keeper's share of the table.
    pub(crate) async fn decrypt(
        &self,
        epoch: &Epoch,
        products: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, SearcherError> {
        // A second attempt repairs a keeper that restarted or evicted the
        // codebook, or a connection that was lost while idle. The products may
        // be sent again: the same bytes tell no more the second time.
        let mut up = self.up().await?;
        for last in [false, true] {
            let handle = match up.handle(epoch.number()) {
                Some(handle) => handle,
                None => match self.prepare(&up, epoch).await {
                    // The keeper may give an earlier epoch up before its time is over: a
                    // key was retired, or a second rotation followed. Its clients then
                    // move over as they do at the end.
                    Err(error) => return Err(self.or_over(epoch, error)),
                    Ok(handle) => handle,
                },
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = left.min(self.access.config.decrypt_timeout);
            let status = match up.keeper.decrypt(handle, products.clone(), timeout).await {
                Ok(share) => return Ok(share),
                Err(status) => status,
            };
            let broken = reason_of(&status).is_none();
            let forgotten = reason_of(&status) == Some(Reason::UnknownHandle);
            if Instant::now() >= deadline {
                return Err(SearcherError::Deadline);
            }
            if !broken && !forgotten {
                return Err(refused(status));
            }
            if broken {
                tracing::warn!(code = ?status.code(), "connection to the keeper lost");
            }
            self.lost(&up);
            if last || status.code() == Code::DeadlineExceeded {
                return Err(SearcherError::KeeperUnreachable(explain(&status)));
            }
            up = self.reconnect().await?;
        }
        Err(SearcherError::KeeperUnreachable(
            "it does not keep the codebook".to_owned(),
        ))
    }

    /// What the keeper refused for `epoch`: of an earlier one, that it is over.
    pub(crate) fn or_over(&self, epoch: &Epoch, error: SearcherError) -> SearcherError {
        if !is_refusal(&error) || !self.is_earlier(epoch) {
            return error;
        }
        tracing::info!(%error, epoch = epoch.number(), "an earlier epoch is over");
        over(epoch)
    }

    /// A newer epoch than this one is served.
    fn is_earlier(&self, epoch: &Epoch) -> bool {
        self.with_epochs(|epochs| {
            let newest = epochs.iter().map(|known| known.number()).max();
            newest.is_some_and(|newest| epoch.number() < newest)
        })
    }

    /// Marks the link down, unless another task has replaced it already.
    fn lost(&self, up: &Arc<Up>) {
        self.with_state(|state| {
            if state
                .up
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, up))
            {
                state.up = None;
            }
        });
    }

    /// The link, brought up first if it is down and the last failure is not
    /// too recent.
    async fn up(&self) -> Result<Arc<Up>, SearcherError> {
        let pause = self.retry_pause();
        let now = self.with_state(|state| {
            let recent = state
                .failed
                .as_ref()
                .filter(|(when, _)| when.elapsed() < pause)
                .map(|(_, why)| why.clone().into());
            state.up.clone().map(Ok).or_else(|| recent.map(Err))
        });
        match now {
            Some(known) => known,
            None => self.reconnect().await,
        }
    }

    async fn reconnect(&self) -> Result<Arc<Up>, SearcherError> {
        let asked = Instant::now();
        let _one = self.connecting.lock().await;
        // Another task may have connected, or failed to, while this one waited.
        let now = self.with_state(|state| {
            let failed = state.failed.as_ref().filter(|(when, _)| *when >= asked);
            let failed = failed.map(|(_, why)| why.clone().into());
            state.up.clone().map(Ok).or_else(|| failed.map(Err))
        });
        if let Some(known) = now {
            return known;
        }
        let result = self.connect().await;
        self.settle(&result);
        result
    }

    /// Remembers how an attempt to connect ended.
    fn settle(&self, result: &Result<Arc<Up>, SearcherError>) {
        self.with_state(|state| {
            *state = match result {
                Ok(up) => State {
                    up: Some(Arc::clone(up)),
                    failed: None,
                },
                Err(error) => State {
                    up: None,
                    failed: Some((Instant::now(), error.into())),
                },
            };
        });
        match result {
            Err(error @ SearcherError::Stale(why)) => {
                let _ = self.stale.set(why.clone());
                tracing::error!(%error, "index refused");
            }
            Err(error) => tracing::warn!(%error, "keeper not usable"),
            Ok(_) => {}
        }
    }

    async fn connect(&self) -> Result<Arc<Up>, SearcherError> {
        let up = Up {
            keeper: Arc::new(Keeper::connect(&self.access).await?),
            handles: Mutex::default(),
        };
        let epochs = self.with_epochs(|epochs| epochs.clone());
        let Some((newest, earlier)) = epochs.split_last() else {
            return Ok(Arc::new(up));
        };
        self.register(&up.keeper, newest.snapshot().index()).await?;
        self.prepare(&up, newest).await?;
        for epoch in earlier {
            // Its key may be retired already; then only its clients are refused.
            if let Err(error) = self.prepare(&up, epoch).await {
                tracing::info!(%error, epoch = epoch.number(), "an earlier epoch is not prepared");
            }
        }
        Ok(Arc::new(up))
    }

    async fn prepare(&self, up: &Up, epoch: &Epoch) -> Result<Bytes, SearcherError> {
        if !up.keeper.holds(&epoch.shape().public_key.fingerprint()) {
            return Err(SearcherError::KeeperUntrusted(
                "it does not hold the key that the index is encrypted for".to_owned(),
            ));
        }
        let handle = up.keeper.prepare(epoch.preparation()).await?;
        let mut handles = up.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.insert(epoch.number(), handle.clone());
        Metrics::add(&self.metrics.registrations, 1);
        tracing::info!(
            epoch = epoch.number(),
            "codebook registered with the keeper"
        );
        Ok(handle)
    }
}

/// The keeper was reached and will say the same again.
fn is_refusal(error: &SearcherError) -> bool {
    matches!(
        error,
        SearcherError::Stale(_)
            | SearcherError::KeeperRefused(_)
            | SearcherError::KeeperUntrusted(_)
    )
}

fn over(epoch: &Epoch) -> SearcherError {
    let number = epoch.number();
    Failure::new(
        Reason::WrongEpoch,
        format!("epoch {number} of the index is over before its time; connect again"),
    )
    .into()
}
