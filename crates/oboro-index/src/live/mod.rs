//! Changing an index while it is searched.
//!
//! [`LiveIndex`] is the one writer of a folder and holds its lock. New vectors
//! come in two steps: [`stage`](LiveIndex::stage) writes a segment that nobody
//! sees yet, [`commit`](LiveIndex::commit) makes it visible, together with
//! deletes, by replacing the manifest. A [`Compaction`] merges segments in the
//! background. Whoever is killed at any moment leaves the last commit, whole,
//! and files that nobody lists; the next [`open`](LiveIndex::open) removes
//! those, but for a compaction that can be gone on with.
//!
//! The order of writes of one commit:
//!
//! 1. segment files, each made durable, then their names (the folder)
//! 2. lists of deleted vectors, likewise
//! 3. `MANIFEST.next`, made durable, renamed to `MANIFEST`, the folder made
//!    durable
//! 4. files that are no longer listed are removed
//!
//! A compaction writes its originals first, much the most of it, and every 64 MiB
//! a sealed journal of how far it is. One that was stopped or killed is gone on
//! with by the next: it draws the same order again, and its result has the same
//! bytes as if it had not been stopped.
//!
//! Readers hold an [`Index`], a snapshot, as long as they like.

mod checkpoint;
mod commit;
mod compaction;
mod journal;
mod locate;
mod lock;
mod merge;
mod originals;
mod plan;
mod policy;
mod stage;
mod throttle;
mod writing;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub(crate) use checkpoint::Checkpoint;
pub use commit::{Change, OnExisting, Outcome};
pub use compaction::{Compacted, Compaction};
pub(crate) use journal::parse as parse_journal;
pub use locate::Place;
pub(crate) use lock::FolderLock;
pub use policy::CompactionPolicy;
pub use stage::{NewSegment, Staged, Stager};
pub use throttle::Throttle;

use crate::draft::Draft;
use crate::keys::EpochKey;
use crate::layout::FileKind;
use crate::manifest::{FileEntry, Manifest};
use crate::{EpochWriter, Index, IndexError};
use oboro_ckks::EncryptedCodebook;
use rand_core::CryptoRng;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The one writer of an index.
pub struct LiveIndex {
    workplace: Arc<Workplace>,
    index: Index,
}

/// What whoever writes needs, on whatever thread.
struct Workplace {
    folder: PathBuf,
    lock: Arc<FolderLock>,
    key: EpochKey,
    /// A compaction that was stopped. Whoever goes on with it takes it.
    stopped: Mutex<Option<Checkpoint>>,
}

impl Workplace {
    fn new(
        folder: &Path,
        lock: Arc<FolderLock>,
        key: EpochKey,
        stopped: Option<Checkpoint>,
    ) -> Arc<Self> {
        Arc::new(Self {
            folder: folder.to_owned(),
            lock,
            key,
            stopped: Mutex::new(stopped),
        })
    }

    fn stopped(&self) -> MutexGuard<'_, Option<Checkpoint>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draft(&self) -> Draft {
        Draft::new(&self.folder, &self.lock)
    }

    /// Refuses what was made under the key of an earlier epoch, or for another
    /// index.
    fn check(&self, draft: &Draft, epoch: u64) -> Result<(), IndexError> {
        if !draft.is_under(&self.lock) {
            return Err(IndexError::Invalid(
                "what is to be committed was made for another index or before this one was opened; make it again"
                    .into(),
            ));
        }
        if epoch != self.key.epoch() {
            return Err(IndexError::Outdated {
                made: epoch,
                now: self.key.epoch(),
            });
        }
        Ok(())
    }
}

impl Index {
    /// Where the vector with this id is; `None` if there is none or it is
    /// deleted. The first look-up in a segment orders its ids.
    #[must_use]
    pub fn locate(&self, id: u64) -> Option<Place> {
        locate::find(self.segments(), id)
    }
}

impl LiveIndex {
    /// Locks the index in `folder`, opens it, and removes files that an
    /// interrupted change left behind, but for a compaction that the next
    /// [`compaction`](Self::compaction) can go on with.
    ///
    /// # Errors
    /// [`IndexError::Locked`] if somebody else writes to it, an error that names
    /// the lock's file if the folder cannot be written to, and as
    /// [`Index::open`].
    pub fn open(folder: impl AsRef<Path>, key: EpochKey) -> Result<Self, IndexError> {
        let folder = folder.as_ref();
        // Otherwise a lock would be made wherever one looks for an index.
        Index::peek(folder)?;
        let lock = FolderLock::acquire(folder)?;
        let index = Index::open(folder, &key)?;
        let stopped = Checkpoint::find(folder, &key, &index);
        let keep = |name: &str| stopped.as_ref().is_some_and(|stopped| stopped.owns(name));
        index.remove_unlisted(folder, keep)?;
        Ok(Self {
            workplace: Workplace::new(folder, lock, key, stopped),
            index,
        })
    }

    /// Whether the index in `folder` could be locked now.
    ///
    /// # Errors
    /// As [`open`](Self::open) for its lock.
    pub fn can_lock(folder: impl AsRef<Path>) -> Result<(), IndexError> {
        let folder = folder.as_ref();
        Index::peek(folder)?;
        FolderLock::acquire(folder).map(drop)
    }

    /// The present state, a snapshot.
    #[must_use]
    pub const fn index(&self) -> &Index {
        &self.index
    }

    /// The folder it lies in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.workplace.folder
    }

    /// Where the vector with this id is; `None` if there is none or it is
    /// deleted.
    #[must_use]
    pub fn locate(&self, id: u64) -> Option<Place> {
        self.index.locate(id)
    }

    /// Stages segments without a borrow of this, so that it can be done on
    /// other threads while a commit is at work. Its segments must be committed
    /// in the same epoch.
    #[must_use]
    pub fn stager(&self) -> Stager {
        Stager::new(
            Arc::clone(&self.workplace),
            Arc::clone(self.index.of_epoch()),
        )
    }

    /// Writes a new segment beside the index: durable, and visible to nobody
    /// before it is [committed](Self::commit). Dropped, its files are removed.
    ///
    /// # Errors
    /// If the parts do not fit each other or the index, or a file cannot be
    /// written.
    pub fn stage(&self, segment: &NewSegment<'_>) -> Result<Staged, IndexError> {
        self.stager().stage(segment)
    }

    /// Writes the next epoch, as [`Index::begin_epoch`] does, under the lock
    /// that is held. No commit may come between this and
    /// [`commit_epoch`](Self::commit_epoch), which would refuse it.
    ///
    /// # Errors
    /// As [`Index::begin_epoch`].
    ///
    /// # Security
    /// As [`Index::begin_epoch`].
    pub fn begin_epoch(
        &self,
        key: &EpochKey,
        descriptor: &[u8],
        codebook: &EncryptedCodebook,
        rng: &mut impl CryptoRng,
    ) -> Result<EpochWriter, IndexError> {
        self.index
            .write_epoch(self.workplace.draft(), key, descriptor, codebook, rng)
    }

    /// Puts the next epoch in force; `key` is the one that it was begun with.
    /// What was staged and not committed, and compactions under way, have to be
    /// done again.
    ///
    /// # Errors
    /// As [`EpochWriter::commit`], or if it is not the next epoch of this.
    pub fn commit_epoch(&mut self, next: EpochWriter, key: EpochKey) -> Result<Index, IndexError> {
        let head = next.head();
        if *key.index_id() != head.index_id
            || key.epoch() != head.epoch
            || key.released() != head.released
        {
            return Err(IndexError::OtherEpoch {
                found: head.epoch,
                key: key.epoch(),
            });
        }
        self.index = next.commit()?;
        let before = Arc::clone(&self.workplace);
        // Nobody has the key to its journal any more.
        if let Some(stopped) = before.stopped().take() {
            stopped.remove(&before.folder);
        }
        self.workplace = Workplace::new(&before.folder, Arc::clone(&before.lock), key, None);
        Ok(self.index.clone())
    }

    /// Removes files that are no longer listed. What cannot be removed stays
    /// for the next opening to remove.
    fn remove(&self, manifest: &Manifest, files: &[(FileKind, FileEntry)]) {
        for (kind, entry) in files {
            let path = self.workplace.folder.join(manifest.file_name(*kind, entry));
            let _ = fs::remove_file(path);
        }
    }
}
