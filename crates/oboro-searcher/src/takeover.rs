//! Becoming the writer of the folder, where another process was or its disk
//! could not be written to.
//!
//! A searcher that could not lock the folder serves the index as it found it.
//! Every few seconds it looks again; once the folder is free it opens the
//! state that lies there then, as at a start, searches that one, and takes
//! changes. A change of which nobody knows whether it would outlast a loss of
//! power makes a reader of the searcher, too, and so the folder is opened anew.

use std::{sync::Arc, time::Duration};

use oboro_index::{Index, LiveIndex};
use oboro_protocol::{Failure, Reason};

use crate::{SearcherError, rotation::blocking, searcher::Searcher};

/// How often it looks.
const PAUSE: Duration = Duration::from_secs(3);

/// Looks after the folder until the searcher ends.
pub(crate) async fn watch(searcher: &Arc<Searcher>) {
    let mut last = String::new();
    loop {
        tokio::time::sleep(PAUSE).await;
        if !searcher.changes.folder.is_read_only() || searcher.shelf.newest().is_none() {
            continue;
        }
        match searcher.take_folder().await {
            Ok(()) => tracing::info!("the index can be changed here now"),
            Err(error) => {
                let why = error.to_string();
                if why != last {
                    tracing::info!(why, "the index cannot be changed here yet");
                    last = why;
                }
            }
        }
    }
}

impl Searcher {
    /// One attempt to become the writer.
    async fn take_folder(self: &Arc<Self>) -> Result<(), SearcherError> {
        let _one = self.changes.one.lock().await;
        self.refuse_if_stale()?;
        let newest = self.newest()?;
        // They are of a lock that was given up, and hold it.
        self.changes.stages.clear();
        // Before the keeper is asked for anything.
        LiveIndex::can_lock(&self.folder)?;
        let head = Index::peek(&self.folder)?;
        let served = newest.snapshot().head();
        if head.index_id != served.index_id
            || head.epoch != served.epoch
            || head.generation < served.generation
        {
            return Err(Failure::new(
                Reason::ReadOnly,
                format!(
                    "generation {} of epoch {} of an index lies in the folder, and generation {} of epoch {} is served; start the searcher again",
                    head.generation, head.epoch, served.generation, served.epoch
                ),
            )
            .into());
        }
        let share = match (&self.link, head.released) {
            (Some(link), true) => Some(link.keeper().await?.release(&head).await?),
            _ => None,
        };
        let taking = Arc::clone(self);
        let index = blocking(move || {
            let key = taking
                .key
                .for_epoch(share.as_ref(), &head.index_id, head.epoch);
            let index = taking.changes.folder.take(&taking.folder, key)?;
            if index.head() != served {
                taking.show(&index)?;
            }
            Ok(index)
        })
        .await?;
        tracing::info!(generation = index.generation(), "the folder is locked");
        // What the other process did the keeper may not know yet.
        let recorded = self.record().await;
        self.compactor.look();
        match recorded {
            Err(error @ SearcherError::Stale(_)) => Err(error),
            _ => Ok(()),
        }
    }
}
