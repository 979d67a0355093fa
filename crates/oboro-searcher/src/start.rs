//! From a folder and half a key to an index that is served.
//!
//! 1. read the index's state, which the manifest says in clear
//! 2. connect to the keeper, evidence both ways
//! 3. have the keeper compare the state with the newest it knows, and release
//!    its share of the storage key
//! 4. open the index, which authenticates the state
//! 5. register the state, prepare the codebook
//!
//! A keeper that is away is waited for. An older state, or files that do not
//! open, end the searcher: no waiting mends them.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use oboro_index::{Index, IndexError};

use crate::{SearcherError, epoch::Epoch, link::KeeperLink, searcher::Searcher};

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Brings the searcher to where it answers. Returns once it does, or with what
/// no waiting mends.
pub(crate) async fn start(searcher: &Arc<Searcher>) -> Result<(), SearcherError> {
    let Some(link) = &searcher.link else {
        return Ok(());
    };
    if let Some(epoch) = searcher.shelf.newest() {
        return unless_stale(link.serve(epoch).await);
    }
    let mut pause = link.retry_pause();
    loop {
        match open(searcher, link).await {
            Err(error) if is_final(&error) => return Err(error),
            // The link has logged what it met.
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE.max(link.retry_pause()));
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// One attempt.
async fn open(searcher: &Arc<Searcher>, link: &KeeperLink) -> Result<(), SearcherError> {
    let keeper = link.keeper().await?;
    let head = Index::peek(&searcher.folder)?;
    let share = keeper.release(&head).await.inspect_err(|error| {
        tracing::warn!(%error, "the keeper does not release its share");
    })?;
    let opening = Arc::clone(searcher);
    let epoch = tokio::task::spawn_blocking(move || {
        let key = || {
            let key = &opening.key;
            key.for_epoch(Some(&share), &head.index_id, head.epoch)
        };
        let index = opening.changes.folder.open(&opening.folder, key)?;
        if index.head() != head {
            // Somebody put another state there meanwhile: look again.
            opening.changes.close();
            return Err(SearcherError::Opening);
        }
        Epoch::new(index, &opening.workshop)
    })
    .await
    .map_err(|_| SearcherError::Stopping)??;
    let epoch = Arc::new(epoch);
    // From here on the index is authentic and stands in the evidence.
    searcher.attest(&epoch);
    unless_stale(link.serve(Arc::clone(&epoch)).await)?;
    searcher.serve_first(epoch);
    Ok(())
}

impl Searcher {
    /// Serves the first epoch.
    pub(crate) fn serve_first(&self, epoch: Arc<Epoch>) {
        self.attest(&epoch);
        self.metrics().segments.store(
            epoch.snapshot().segments().len() as u64,
            std::sync::atomic::Ordering::Relaxed,
        );
        // What a compaction that was cut short would have merged.
        self.compactor.look();
        self.shelf
            .serve(epoch, Duration::ZERO, std::time::Instant::now());
    }
}

/// A keeper that went away is no reason to stop: the link recovers by itself.
fn unless_stale(result: Result<(), SearcherError>) -> Result<(), SearcherError> {
    match result {
        Err(error @ SearcherError::Stale(_)) => Err(error),
        _ => Ok(()),
    }
}

/// No waiting mends it.
fn is_final(error: &SearcherError) -> bool {
    matches!(
        error,
        SearcherError::Stale(_) | SearcherError::Index(_) | SearcherError::Disk(_)
    )
}

impl From<IndexError> for SearcherError {
    fn from(error: IndexError) -> Self {
        match &error {
            IndexError::Io { source, .. } if source.kind() != ErrorKind::NotFound => {
                Self::Disk(error.to_string())
            }
            IndexError::Unsure { .. } => Self::Disk(error.to_string()),
            _ => Self::Index(error.to_string()),
        }
    }
}
