//! The folder of the index, and who may change it.
//!
//! One process writes to a folder and holds its lock; this is that process
//! unless another one is, or the folder cannot be written to. Then the index is
//! served as it lies there and changes are refused, until
//! [`takeover`](crate::takeover) gets the lock.

use std::{
    io,
    path::Path,
    sync::{PoisonError, RwLock, TryLockError},
};

use oboro_index::{EpochKey, Index, IndexError, LiveIndex};
use oboro_protocol::{Failure, Reason};

use crate::SearcherError;

#[derive(Default)]
enum State {
    /// Not yet, or not any more.
    #[default]
    Closed,
    Writing(Box<LiveIndex>),
    /// Why it is not changed here.
    Reading(String),
}

/// The folder that the index lies in.
#[derive(Default)]
pub(crate) struct Folder(RwLock<State>);

impl Folder {
    /// Opens the index at `path` under the key that `key` makes.
    pub(crate) fn open(
        &self,
        path: &Path,
        key: impl Fn() -> EpochKey,
    ) -> Result<Index, IndexError> {
        let (index, state) = match LiveIndex::open(path, key()) {
            Ok(live) => (live.index().clone(), State::Writing(Box::new(live))),
            Err(error) if leaves_reading(&error) => {
                let why = error.to_string();
                tracing::warn!(why, "the index is served, and cannot be changed");
                (Index::open(path, &key())?, State::Reading(why))
            }
            Err(error) => return Err(error),
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(index)
    }

    /// Whether the index is served without the folder's lock. Does not wait, either.
    pub(crate) fn is_read_only(&self) -> bool {
        match self.0.try_read() {
            Ok(state) => matches!(*state, State::Reading(_)),
            Err(TryLockError::Poisoned(state)) => {
                matches!(*state.into_inner(), State::Reading(_))
            }
            // Only who writes to it changes it.
            Err(TryLockError::WouldBlock) => false,
        }
    }

    /// Becomes the writer, of whatever state lies at `path` now.
    pub(crate) fn take(&self, path: &Path, key: EpochKey) -> Result<Index, IndexError> {
        let live = LiveIndex::open(path, key)?;
        let index = live.index().clone();
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        // Not where the searcher ended meanwhile.
        if matches!(*state, State::Reading(_)) {
            *state = State::Writing(Box::new(live));
        }
        Ok(index)
    }

    /// Looks at the index as its writer.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&LiveIndex) -> T) -> Result<T, SearcherError> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            State::Writing(live) => Ok(look(live)),
            state => Err(refusal(state)),
        }
    }

    /// Refuses what this process cannot change. Unlike a [look](Self::look) it
    /// never waits for a change at work, and so may be asked on threads that
    /// serve the network.
    pub(crate) fn refuse_unless_writing(&self) -> Result<(), SearcherError> {
        let state = match self.0.try_read() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            // Only who writes to it changes it.
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        match &*state {
            State::Writing(_) => Ok(()),
            state => Err(refusal(state)),
        }
    }

    /// Changes the index.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut LiveIndex) -> Result<T, IndexError>,
    ) -> Result<T, SearcherError> {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let result = match &mut *state {
            State::Writing(live) => change(live),
            state => return Err(refusal(state)),
        };
        if let Err(error @ IndexError::Unsure { .. }) = &result {
            // What lies there is known only once it is opened again.
            tracing::error!(%error, "the folder of the index is let go of");
            *state = State::Reading(error.to_string());
        }
        result.map_err(refused)
    }

    /// Lets go of the folder, once a change at work is done.
    pub(crate) fn close(&self) {
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *state = State::Closed;
    }
}

/// The index can be read all the same.
fn leaves_reading(error: &IndexError) -> bool {
    match error {
        IndexError::Locked { .. } => true,
        IndexError::Io { source, .. } => matches!(
            source.kind(),
            io::ErrorKind::ReadOnlyFilesystem
                | io::ErrorKind::PermissionDenied
                | io::ErrorKind::StorageFull
        ),
        _ => false,
    }
}

fn refusal(state: &State) -> SearcherError {
    match state {
        State::Reading(why) => Failure::new(
            Reason::ReadOnly,
            format!("the index cannot be changed here: {why}"),
        )
        .into(),
        State::Closed | State::Writing(_) => SearcherError::Stopping,
    }
}

/// What a change met, as whoever asked for it is told.
pub(crate) fn refused(error: IndexError) -> SearcherError {
    let reason = match &error {
        IndexError::Refused { .. } => Reason::Conflict,
        IndexError::Invalid(_) | IndexError::Mismatch { .. } => Reason::BadRequest,
        // Staged while the key was rotated.
        IndexError::Outdated { .. } => Reason::UnknownSession,
        IndexError::Cancelled { .. } => return SearcherError::Stopping,
        IndexError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
            return Failure::new(
                Reason::Conflict,
                "a segment with the id of the new one is there already; stage it again under a new random id",
            )
            .into();
        }
        _ => return error.into(),
    };
    Failure::new(reason, error.to_string()).into()
}
