//! Which epochs of the index are served.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use oboro_protocol::validate;
use tokio::sync::watch;

use crate::{SearcherError, epoch::Epoch};

/// Most epochs served beside the newest one; the oldest ends first.
const MOST_OVERLAPPING: usize = 4;

/// The newest epoch, and those before it whose time is not over.
#[derive(Default)]
pub(crate) struct Shelf {
    epochs: RwLock<Epochs>,
    open: watch::Sender<bool>,
}

#[derive(Default)]
struct Epochs {
    newest: Option<Arc<Epoch>>,
    /// With the time when each ends, oldest first.
    earlier: Vec<(Arc<Epoch>, Instant)>,
}

impl Shelf {
    /// The newest epoch, once the index is open.
    pub(crate) fn newest(&self) -> Option<Arc<Epoch>> {
        self.read().newest.clone()
    }

    /// Serves `epoch` from now on, and what was served before for `overlap`.
    pub(crate) fn serve(&self, epoch: Arc<Epoch>, overlap: Duration, now: Instant) {
        let mut epochs = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = epochs.newest.replace(epoch) {
            epochs.earlier.push((before, now + overlap));
            let surplus = epochs.earlier.len().saturating_sub(MOST_OVERLAPPING);
            for (_, until) in &mut epochs.earlier[..surplus] {
                *until = now;
            }
        }
        drop(epochs);
        self.open.send_replace(true);
    }

    /// Completes once an epoch is served; never if this is dropped before.
    pub(crate) fn opened(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut open = self.open.subscribe();
        async move {
            if open.wait_for(|open| *open).await.is_err() {
                std::future::pending().await
            }
        }
    }

    /// The epoch a request names; `None` while the index is not open.
    pub(crate) fn find(
        &self,
        index_id: &[u8],
        number: u64,
        now: Instant,
    ) -> Option<Result<Arc<Epoch>, SearcherError>> {
        let epochs = self.read();
        let newest = epochs.newest.as_ref()?;
        let earlier = epochs
            .earlier
            .iter()
            .find(|(epoch, until)| epoch.number() == number && now < *until);
        let epoch = earlier.map_or(newest, |(epoch, _)| epoch);
        Some(
            match validate::served_index(index_id, number, epoch.id(), epoch.number()) {
                Ok(()) => Ok(Arc::clone(epoch)),
                Err(failure) => Err(failure.into()),
            },
        )
    }

    /// Takes away the epochs whose time is over and returns them.
    pub(crate) fn expire(&self, now: Instant) -> Vec<Arc<Epoch>> {
        if self.read().earlier.iter().all(|(_, until)| now < *until) {
            return Vec::new();
        }
        let mut epochs = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        let over = epochs.earlier.extract_if(.., |(_, until)| *until <= now);
        over.map(|(epoch, _)| epoch).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Epochs> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner)
    }
}
