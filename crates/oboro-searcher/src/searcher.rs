//! What all requests share: the epochs served, the keeper, the counts.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use oboro_attest::{NO_CKKS_KEYS, Subject};
use oboro_channel::{Offer, RateLimiter};
use oboro_index::{IndexHead, StorageKey};

use crate::{
    SearcherError,
    changes::Changes,
    compaction::Compactor,
    epoch::{Epoch, Workshop},
    link::KeeperLink,
    metrics::Metrics,
    open_files::OpenFiles,
    rotation::Rotations,
    search::Begun,
    sessions::Sessions,
    shelf::Shelf,
};

/// A searcher of one index.
pub(crate) struct Searcher {
    /// The folder of the index.
    pub(crate) folder: PathBuf,
    /// This searcher's part in the keys of the index.
    pub(crate) key: StorageKey,
    /// The state that lay in the folder at the start, as it says itself.
    pub(crate) found: IndexHead,
    pub(crate) shelf: Shelf,
    pub(crate) link: Option<KeeperLink>,
    /// This searcher's evidence.
    pub(crate) offer: Offer,
    pub(crate) workshop: Workshop,
    pub(crate) sessions: Sessions<Begun>,
    pub(crate) rotations: Rotations,
    pub(crate) changes: Changes,
    pub(crate) compactor: Compactor,
    pub(crate) open_files: OpenFiles,
    pub(crate) rates: RateLimiter,
    pub(crate) started: Instant,
    /// Records come from disk, not from the cache.
    pub(crate) cold: AtomicBool,
}

impl Searcher {
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.workshop.metrics
    }

    /// The index that is served, or will be once it is open.
    pub(crate) fn index_id(&self) -> [u8; 16] {
        self.shelf
            .newest()
            .map_or(self.found.index_id, |epoch| *epoch.id())
    }

    /// The newest epoch.
    pub(crate) fn newest(&self) -> Result<Arc<Epoch>, SearcherError> {
        self.shelf.newest().ok_or_else(|| self.not_open())
    }

    /// The epoch that a request names.
    pub(crate) fn epoch(&self, index_id: &[u8], number: u64) -> Result<Arc<Epoch>, SearcherError> {
        self.shelf
            .find(index_id, number, Instant::now())
            .unwrap_or_else(|| Err(self.not_open()))
    }

    /// Why the index is not open yet.
    fn not_open(&self) -> SearcherError {
        self.link
            .as_ref()
            .and_then(KeeperLink::last_failure)
            .unwrap_or(SearcherError::Opening)
    }

    /// From now on the evidence names this epoch. Connections that exist keep
    /// the evidence they have shown.
    pub(crate) fn attest(&self, epoch: &Epoch) {
        self.offer.set_subject(Subject {
            ckks_keys: NO_CKKS_KEYS,
            configuration: self.offer.subject().configuration,
            index_id: *epoch.id(),
            epoch: epoch.number(),
        });
    }
}
