//! The generations that are open at the keeper.

use super::session::Session;
use oboro_protocol::generation::{IDLE_LIFETIME, SESSION_LIFETIME};
use oboro_protocol::{Failure, Reason};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Generations open at the same time.
const MAX_SESSIONS: usize = 4;

/// Codebooks of earlier trainings in use at the same time; each holds some 20 MB.
pub(super) const MAX_INSTALLED: usize = 8;

pub(super) type Token = [u8; 16];

/// The generations that are open, and the codebooks of earlier ones that are in use.
#[derive(Default)]
pub(crate) struct Generations(Mutex<HashMap<Token, Open>>);

struct Open {
    session: Arc<Session>,
    began: Instant,
    used: Instant,
}

impl Generations {
    fn table(&self) -> MutexGuard<'_, HashMap<Token, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets generations whose time is over.
    pub(crate) fn expire(&self, now: Instant) {
        self.table().retain(|_, open| {
            let age = now.saturating_duration_since(open.began);
            let idle = now.saturating_duration_since(open.used);
            age < SESSION_LIFETIME && idle < IDLE_LIFETIME
        });
    }

    /// Forgets all that go on under a key which is retired, and the key with them once
    /// the last request lets go of it.
    pub(crate) fn forget(&self, fingerprint: &[u8; 32]) {
        self.table()
            .retain(|_, open| &open.session.pair.fingerprint != fingerprint);
    }

    /// Opens a generation, or finds the one that this owner opened for the same index
    /// and shape: what it has brought is still there, and may be asked for anew.
    pub(super) fn begin(
        &self,
        token: Token,
        session: Session,
        now: Instant,
    ) -> Result<Token, Failure> {
        self.expire(now);
        let mut table = self.table();
        let of_owner =
            |open: &Open| open.session.trains() && open.session.owner() == session.owner();
        let again = |open: &Open| of_owner(open) && open.session.index_id == session.index_id;
        let known = table.iter_mut().find(|(_, open)| again(open));
        if let Some((token, open)) = known {
            if open.session.is_alike(&session) {
                open.session.renew();
                open.used = now;
                return Ok(*token);
            }
            let token = *token;
            table.remove(&token);
        }
        let trainings = |table: &HashMap<Token, Open>| {
            let trains = |open: &&Open| open.session.trains();
            table.values().filter(trains).count()
        };
        if trainings(&table) >= MAX_SESSIONS {
            // An owner that begins yet another one has most likely lost the oldest.
            let oldest = table
                .iter()
                .filter(|(_, open)| of_owner(open))
                .min_by_key(|(_, open)| open.used)
                .map(|(token, _)| *token);
            if let Some(oldest) = oldest {
                table.remove(&oldest);
            }
        }
        if trainings(&table) >= MAX_SESSIONS {
            return Err(Failure::new(
                Reason::Busy,
                format!(
                    "{MAX_SESSIONS} generations of other owners are open at this keeper; try again later"
                ),
            ));
        }
        table.insert(token, Open::new(session, now));
        Ok(token)
    }

    /// Keeps a codebook of an earlier training for the searcher that showed it. The one
    /// that was not used for longest goes where there are too many: its searcher shows
    /// it again.
    pub(super) fn install(&self, token: Token, session: Session, now: Instant) {
        self.expire(now);
        let mut table = self.table();
        let searcher = session.searcher();
        // One of the same index, epoch and searcher is what it goes on from.
        table.retain(|_, open| {
            open.session.trains()
                || open.session.index_id != session.index_id
                || open.session.pair.fingerprint != session.pair.fingerprint
                || open.session.searcher() != searcher
        });
        let installed = |open: &Open| !open.session.trains();
        if table.values().filter(|open| installed(open)).count() >= MAX_INSTALLED {
            let oldest = table
                .iter()
                .filter(|(_, open)| installed(open))
                .min_by_key(|(_, open)| open.used)
                .map(|(token, _)| *token);
            if let Some(oldest) = oldest {
                table.remove(&oldest);
            }
        }
        table.insert(token, Open::new(session, now));
    }

    fn find(&self, token: &Token, now: Instant) -> Result<Arc<Session>, Failure> {
        self.expire(now);
        let mut table = self.table();
        let open = table.get_mut(token).ok_or_else(unknown)?;
        open.used = now;
        Ok(Arc::clone(&open.session))
    }

    /// How many are open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table().len()
    }

    /// The generation of this owner.
    pub(super) fn of_owner(
        &self,
        token: &Token,
        owner: &[u8; 32],
        now: Instant,
    ) -> Result<Arc<Session>, Failure> {
        let session = self.find(token, now)?;
        if session.owner() == Some(owner) {
            Ok(session)
        } else {
            Err(unknown())
        }
    }

    /// The generation, for a searcher that shows it: the first, and from then on that
    /// one only.
    pub(super) fn of_searcher(
        &self,
        token: &Token,
        searcher: &[u8; 32],
        now: Instant,
    ) -> Result<Arc<Session>, Failure> {
        let session = self.find(token, now)?;
        if session.is_shown_by(searcher) {
            Ok(session)
        } else {
            Err(unknown())
        }
    }

    /// Forgets a generation of this owner.
    pub(super) fn end(&self, token: &Token, owner: &[u8; 32], now: Instant) -> Result<(), Failure> {
        self.of_owner(token, owner, now)?;
        self.table().remove(token);
        Ok(())
    }
}

/// It is not told which of the reasons holds.
fn unknown() -> Failure {
    Failure::new(
        Reason::UnknownSession,
        "the generation is unknown, over, or another party's; begin it again",
    )
}

impl Open {
    fn new(session: Session, now: Instant) -> Self {
        Self {
            session: Arc::new(session),
            began: now,
            used: now,
        }
    }
}
