//! Segments on disk that no commit has made visible yet.
//!
//! Each belongs to the key of the peer that brought it, waits for
//! [`STAGE_LIFETIME`](limits::STAGE_LIFETIME), and is removed from the disk when
//! nobody committed it until then. They are bounded in number and bytes, those
//! that are still being written included.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use oboro_protocol::{Failure, Reason, limits};

/// Names a stage; unguessable, though the peer's key is what protects it.
pub(crate) type StageId = [u8; limits::STAGE_BYTES];

/// Most stages at a time.
const MOST: usize = 64;

/// Most bytes that they have on disk.
const MOST_BYTES: usize = 1 << 30;

struct Kept<T> {
    peer: [u8; 32],
    since: Instant,
    /// Gives the room back when the stage is gone.
    _room: Room,
    content: T,
}

#[derive(Default)]
struct Used {
    stages: usize,
    bytes: usize,
}

/// The stages of all peers.
pub(crate) struct Stages<T> {
    used: Arc<Mutex<Used>>,
    kept: Mutex<HashMap<StageId, Kept<T>>>,
}

/// Room for one stage, taken before anything is written.
pub(crate) struct Room {
    used: Arc<Mutex<Used>>,
    bytes: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.stages -= 1;
        used.bytes -= self.bytes;
    }
}

impl<T> Default for Stages<T> {
    fn default() -> Self {
        Self {
            used: Arc::default(),
            kept: Mutex::default(),
        }
    }
}

impl<T> Stages<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<StageId, Kept<T>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for a stage of `bytes` bytes.
    pub(crate) fn room(&self, bytes: usize, now: Instant) -> Result<Room, Failure> {
        self.expire(now);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.stages >= MOST || used.bytes + bytes > MOST_BYTES {
            return Err(Failure::new(
                Reason::Busy,
                format!(
                    "{} segments of {} bytes wait for their commit and at most {MOST} of {MOST_BYTES} may; commit them first",
                    used.stages, used.bytes
                ),
            ));
        }
        used.stages += 1;
        used.bytes += bytes;
        Ok(Room {
            used: Arc::clone(&self.used),
            bytes,
        })
    }

    /// Keeps `content` for `peer` under `id`.
    pub(crate) fn keep(&self, id: StageId, peer: [u8; 32], room: Room, content: T, now: Instant) {
        let kept = Kept {
            peer,
            since: now,
            _room: room,
            content,
        };
        self.lock().insert(id, kept);
    }

    /// Takes stages of one peer, all or none; the same answer for unknown,
    /// expired, used and foreign ones, so that nobody learns which are there.
    pub(crate) fn take(
        &self,
        ids: &[StageId],
        peer: &[u8; 32],
        now: Instant,
    ) -> Result<Vec<T>, Failure> {
        let mut kept = self.lock();
        let usable = |id: &StageId| {
            kept.get(id).is_some_and(|stage| {
                stage.peer == *peer && now.duration_since(stage.since) < limits::STAGE_LIFETIME
            })
        };
        if !ids.iter().all(usable) {
            return Err(Failure::new(
                Reason::UnknownSession,
                "a staged segment is unknown, used, or expired; stage it again",
            ));
        }
        Ok(ids
            .iter()
            .filter_map(|id| kept.remove(id))
            .map(|stage| stage.content)
            .collect())
    }

    /// Drops what nobody committed in time.
    pub(crate) fn expire(&self, now: Instant) {
        let over: Vec<Kept<T>> = {
            let mut kept = self.lock();
            let over = |stage: &Kept<T>| now.duration_since(stage.since) >= limits::STAGE_LIFETIME;
            kept.extract_if(|_, stage| over(stage))
                .map(|(_, stage)| stage)
                .collect()
        };
        // Files are removed here, not under the lock.
        drop(over);
    }

    /// Drops all of them.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.lock());
        drop(all);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;

    const A: [u8; 32] = [1; 32];
    const B: [u8; 32] = [2; 32];

    fn stage(stages: &Stages<u8>, id: u8, peer: [u8; 32], bytes: usize, now: Instant) {
        let room = stages.room(bytes, now).unwrap();
        stages.keep([id; 16], peer, room, id, now);
    }

    #[test]
    fn taken_once_by_the_peer_that_staged_them_and_all_or_none() {
        let stages = Stages::default();
        let now = Instant::now();
        stage(&stages, 1, A, 10, now);
        stage(&stages, 2, A, 10, now);
        stage(&stages, 3, B, 10, now);
        for ids in [&[[1; 16], [3; 16]][..], &[[1; 16], [9; 16]], &[[3; 16]]] {
            let failure = stages.take(ids, &A, now).unwrap_err();
            assert_eq!(failure.reason, Reason::UnknownSession);
        }
        assert_eq!(stages.take(&[[2; 16], [1; 16]], &A, now).unwrap(), [2, 1]);
        assert!(stages.take(&[[1; 16]], &A, now).is_err());
        assert_eq!(stages.take(&[[3; 16]], &B, now).unwrap(), [3]);
        assert!(stages.take(&[], &A, now).unwrap().is_empty());
    }

    #[test]
    fn fail_too_many_too_large_too_late() {
        let stages = Stages::default();
        let now = Instant::now();
        for id in 0..MOST as u8 {
            stage(&stages, id, A, 1 << 10, now);
        }
        let busy = |stages: &Stages<u8>, bytes, now| {
            stages.room(bytes, now).err().map(|failure| failure.reason)
        };
        assert_eq!(busy(&stages, 1, now), Some(Reason::Busy));
        stages.take(&[[0; 16]], &A, now).unwrap();
        assert_eq!(busy(&stages, MOST_BYTES, now), Some(Reason::Busy));
        // What is being written counts.
        let room = stages.room(1, now).unwrap();
        assert_eq!(busy(&stages, 1, now), Some(Reason::Busy));
        drop(room);
        assert_eq!(busy(&stages, 1, now), None);
        let late = now + limits::STAGE_LIFETIME;
        assert!(stages.take(&[[1; 16]], &A, late).is_err());
        // Making room drops what is over.
        assert_eq!(busy(&stages, MOST_BYTES, late), None);
        stage(&stages, 1, A, 1, late);
        stages.expire(late + Duration::from_secs(1));
        assert_eq!(stages.take(&[[1; 16]], &A, late).unwrap(), [1]);
        stage(&stages, 2, A, 1, late);
        stages.clear();
        assert!(stages.take(&[[2; 16]], &A, late).is_err());
        assert_eq!(busy(&stages, MOST_BYTES, late), None);
    }
}
