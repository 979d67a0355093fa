//! Segments on disk that no commit has made visible yet.
//!
//! Each belongs to the key of the peer that brought it and waits for its commit
//! while that peer goes on staging, and for
//! [`STAGE_LIFETIME`](limits::STAGE_LIFETIME) after; then it is removed from the
//! disk. They are bounded in number, in the memory that their codes, ids, tags and
//! lists take, and in what they take on disk, originals too; those that are still
//! being written count.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use oboro_protocol::{Failure, Reason, limits};

/// Names a stage; unguessable, though the peer's key is what protects it.
pub(crate) type StageId = [u8; limits::STAGE_BYTES];

/// Most stages at a time: as many as one commit takes.
const MOST: usize = limits::MAX_COMMIT_STAGES;

/// Most bytes of memory that they take: 28 million vectors of 16 codes without
/// tags.
const MOST_BYTES: usize = 1 << 30;

/// Most bytes that they take on disk: 16 million vectors of 4 KB, which no writer brings
/// by chance; one that means harm cannot fill a large disk with what it never commits.
const MOST_ON_DISK: usize = 64 << 30;

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
    on_disk: usize,
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
    on_disk: usize,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.stages -= 1;
        used.bytes -= self.bytes;
        used.on_disk -= self.on_disk;
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

    /// Takes room for a stage that takes `bytes` bytes of memory and `on_disk` on disk.
    pub(crate) fn room(&self, bytes: usize, on_disk: usize, now: Instant) -> Result<Room, Failure> {
        self.expire(now);
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if used.stages >= MOST || used.bytes + bytes > MOST_BYTES {
            return Err(Failure::new(
                Reason::Busy,
                format!(
                    "{} segments of {} bytes of codes and ids wait for their commit and at most {MOST} of {MOST_BYTES} may; commit them first, or bring less in one commit",
                    used.stages, used.bytes
                ),
            ));
        }
        if used.on_disk + on_disk > MOST_ON_DISK {
            return Err(Failure::new(
                Reason::Busy,
                format!(
                    "segments of {} bytes, originals included, wait for their commit and at most {MOST_ON_DISK} bytes may; commit them first, or bring less in one commit",
                    used.on_disk
                ),
            ));
        }
        used.stages += 1;
        used.bytes += bytes;
        used.on_disk += on_disk;
        Ok(Room {
            used: Arc::clone(&self.used),
            bytes,
            on_disk,
        })
    }

    /// Number of stages, those that are being written included.
    pub(crate) fn len(&self) -> usize {
        self.used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .stages
    }

    /// Keeps `content` for `peer` under `id`, and what this peer brought before
    /// for as long as this.
    pub(crate) fn keep(&self, id: StageId, peer: [u8; 32], room: Room, content: T, now: Instant) {
        let kept = Kept {
            peer,
            since: now,
            _room: room,
            content,
        };
        let mut all = self.lock();
        let live = |stage: &Kept<T>| now.duration_since(stage.since) < limits::STAGE_LIFETIME;
        for stage in all.values_mut() {
            if stage.peer == peer && live(stage) {
                stage.since = now;
            }
        }
        all.insert(id, kept);
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
        let room = stages.room(bytes, bytes, now).unwrap();
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
        for id in 0..MOST {
            let name = (id as u128).to_le_bytes();
            let room = stages.room(1 << 10, 1 << 12, now).unwrap();
            stages.keep(name, A, room, 0, now);
        }
        assert_eq!(stages.len(), MOST);
        let named = |id: u128| id.to_le_bytes();
        let busy = |stages: &Stages<u8>, bytes, now| {
            stages
                .room(bytes, 0, now)
                .err()
                .map(|failure| failure.reason)
        };
        assert_eq!(busy(&stages, 1, now), Some(Reason::Busy));
        stages.take(&[named(0)], &A, now).unwrap();
        assert_eq!(busy(&stages, MOST_BYTES, now), Some(Reason::Busy));
        // What is being written counts.
        let room = stages.room(1, 1, now).unwrap();
        assert_eq!(busy(&stages, 1, now), Some(Reason::Busy));
        drop(room);
        assert_eq!(busy(&stages, 1, now), None);
        let late = now + limits::STAGE_LIFETIME;
        assert!(stages.take(&[named(1)], &A, late).is_err());
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

    #[test]
    fn fail_more_on_disk_than_may_wait() {
        let stages = Stages::default();
        let now = Instant::now();
        let room = stages.room(0, MOST_ON_DISK - 10, now).unwrap();
        stages.keep([1; 16], A, room, 1, now);
        let failure = stages.room(0, 11, now).err().unwrap();
        assert_eq!(failure.reason, Reason::Busy);
        assert!(
            failure.message.contains("68719476726"),
            "{}",
            failure.message
        );
        // What is refused takes nothing, and what fits is taken.
        assert_eq!(stages.len(), 1);
        drop(stages.room(0, 10, now).unwrap());
        // A commit makes room, and so does time.
        stages.take(&[[1; 16]], &A, now).unwrap();
        let room = stages.room(0, MOST_ON_DISK, now).unwrap();
        stages.keep([2; 16], A, room, 2, now);
        assert!(stages.room(0, 1, now).is_err());
        assert!(stages.room(0, 1, now + limits::STAGE_LIFETIME).is_ok());
    }

    #[test]
    fn what_a_peer_brings_keeps_what_it_brought_before() {
        let stages = Stages::default();
        let begin = Instant::now();
        let step = limits::STAGE_LIFETIME / 2;
        stage(&stages, 1, A, 1, begin);
        stage(&stages, 2, B, 1, begin);
        for number in 1..=4 {
            stage(&stages, 2 + number as u8, A, 1, begin + step * number);
            stages.expire(begin + step * number);
        }
        let end = begin + step * 5;
        assert_eq!(
            stages.take(&[[1; 16], [3; 16], [6; 16]], &A, end).unwrap(),
            [1, 3, 6]
        );
        // The other peer has not come again.
        assert!(stages.take(&[[2; 16]], &B, end).is_err());
        // What is over does not come back.
        stage(&stages, 9, B, 1, begin);
        stage(&stages, 10, B, 1, begin + limits::STAGE_LIFETIME);
        assert!(
            stages
                .take(&[[9; 16]], &B, begin + limits::STAGE_LIFETIME)
                .is_err()
        );
    }
}
