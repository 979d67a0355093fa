//! Searches begun by clients that decrypt their tables themselves.
//!
//! Between the two halves the searcher keeps its share of the table. Sessions
//! are bounded in number (in all and per peer) and in time, belong to the key
//! of the peer that began them, and end with their first use.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::SearcherError;

/// Names a session; unguessable, though the peer's key is what protects it.
pub(crate) type SessionId = [u8; 16];

/// Bounds on unfinished searches.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// In all.
    pub total: usize,
    /// Of one peer key.
    pub per_peer: usize,
    /// How long one may stay unfinished.
    pub lifetime: Duration,
}

impl Default for SessionLimits {
    /// 1,024 in all, 64 a peer, 10 seconds.
    fn default() -> Self {
        Self {
            total: 1_024,
            per_peer: 64,
            lifetime: Duration::from_secs(10),
        }
    }
}

struct Session<T> {
    peer: [u8; 32],
    begun: Instant,
    content: T,
}

/// The unfinished searches.
pub(crate) struct Sessions<T> {
    limits: SessionLimits,
    open: Mutex<HashMap<SessionId, Session<T>>>,
}

impl<T> Sessions<T> {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self {
            limits,
            open: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Session<T>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `content` for `peer` under `id`.
    pub(crate) fn begin(
        &self,
        id: SessionId,
        peer: [u8; 32],
        content: T,
        now: Instant,
    ) -> Result<(), SearcherError> {
        let mut open = self.lock();
        let of_peer = open.values().filter(|s| s.peer == peer).count();
        if open.len() >= self.limits.total || of_peer >= self.limits.per_peer {
            let lifetime = self.limits.lifetime;
            open.retain(|_, s| now.duration_since(s.begun) < lifetime);
            let of_peer = open.values().filter(|s| s.peer == peer).count();
            if open.len() >= self.limits.total || of_peer >= self.limits.per_peer {
                return Err(SearcherError::SessionsFull { open: open.len() });
            }
        }
        open.insert(
            id,
            Session {
                peer,
                begun: now,
                content,
            },
        );
        Ok(())
    }

    /// Takes the content back; the same answer for unknown, expired, used and
    /// foreign sessions, so that nobody learns which ids are in use.
    pub(crate) fn finish(
        &self,
        id: &SessionId,
        peer: &[u8; 32],
        now: Instant,
    ) -> Result<T, SearcherError> {
        let mut open = self.lock();
        if open.get(id).is_none_or(|s| s.peer != *peer) {
            return Err(SearcherError::UnknownSession);
        }
        let session = open.remove(id).ok_or(SearcherError::UnknownSession)?;
        if now.duration_since(session.begun) >= self.limits.lifetime {
            return Err(SearcherError::UnknownSession);
        }
        Ok(session.content)
    }

    /// Drops what nobody finished in time.
    pub(crate) fn expire(&self, now: Instant) {
        let lifetime = self.limits.lifetime;
        self.lock()
            .retain(|_, s| now.duration_since(s.begun) < lifetime);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn limits() -> SessionLimits {
        SessionLimits {
            total: 3,
            per_peer: 2,
            lifetime: Duration::from_secs(10),
        }
    }

    #[test]
    fn used_once_by_the_peer_that_began_it() {
        let sessions = Sessions::new(limits());
        let now = Instant::now();
        sessions.begin([1; 16], [7; 32], "share", now).unwrap();
        assert!(sessions.finish(&[1; 16], &[8; 32], now).is_err());
        assert_eq!(sessions.finish(&[1; 16], &[7; 32], now).unwrap(), "share");
        assert!(sessions.finish(&[1; 16], &[7; 32], now).is_err());
    }

    #[test]
    fn bounded_in_number_and_time() {
        let sessions = Sessions::new(limits());
        let now = Instant::now();
        sessions.begin([1; 16], [7; 32], (), now).unwrap();
        sessions.begin([2; 16], [7; 32], (), now).unwrap();
        assert!(
            sessions.begin([3; 16], [7; 32], (), now).is_err(),
            "two a peer"
        );
        sessions.begin([3; 16], [8; 32], (), now).unwrap();
        assert!(
            sessions.begin([4; 16], [9; 32], (), now).is_err(),
            "three in all"
        );
        let later = now + Duration::from_secs(10);
        sessions.begin([4; 16], [9; 32], (), later).unwrap();
        assert_eq!(sessions.lock().len(), 1, "the expired ones made room");
        let last = later + Duration::from_secs(10);
        assert!(
            sessions.finish(&[4; 16], &[9; 32], last).is_err(),
            "too late"
        );
        sessions.begin([5; 16], [9; 32], (), later).unwrap();
        sessions.expire(later + Duration::from_secs(10));
        assert!(sessions.lock().is_empty());
    }
}
