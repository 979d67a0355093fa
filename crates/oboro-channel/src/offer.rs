//! What a side offers as evidence, and what it demands.

use crate::{ChannelError, Clock, Role};
use oboro_attest::{
    Appraisal, AttestError, AttestedRole, Attester, Claims, Expected, Subject, Verifier,
    unix_seconds,
};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Semaphore;

/// Evidence produced or appraised at the same time. Platforms do one after the other
/// anyway; and whoever connects in masses must not take all threads.
const AT_ONCE: usize = 4;

/// How this side attests itself. Clones share the subject.
#[derive(Clone)]
pub struct Offer(Arc<Attesting>);

struct Attesting {
    attester: Arc<dyn Attester>,
    role: AttestedRole,
    subject: RwLock<Subject>,
    slots: Arc<Semaphore>,
}

impl Offer {
    /// Evidence of `attester` for `role` about `subject`.
    #[must_use]
    pub fn new(attester: Arc<dyn Attester>, role: AttestedRole, subject: Subject) -> Self {
        Self(Arc::new(Attesting {
            attester,
            role,
            subject: RwLock::new(subject),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
        }))
    }

    /// What connections made from now on attest; those that exist keep what they have.
    pub fn set_subject(&self, subject: Subject) {
        *self
            .0
            .subject
            .write()
            .unwrap_or_else(PoisonError::into_inner) = subject;
    }

    /// What is attested.
    #[must_use]
    pub fn subject(&self) -> Subject {
        *self
            .0
            .subject
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Encoded evidence for one session.
    pub(crate) async fn evidence(
        &self,
        session: [u8; 32],
        nonce: [u8; 32],
        channel_key: [u8; 32],
        clock: &Clock,
    ) -> Result<Vec<u8>, ChannelError> {
        let permit = self.0.slots.clone().acquire_owned().await;
        let claims = Claims {
            role: self.0.role,
            session,
            nonce,
            channel_key,
            subject: self.subject(),
            issued_at: unix_seconds(clock.now()),
        };
        let attester = self.0.attester.clone();
        let evidence = tokio::task::spawn_blocking(move || {
            // Held by the thread, not by the task: a handshake that times out leaves the
            // thread behind, and that one still counts.
            let _permit = permit;
            attester.attest(&claims)
        });
        evidence
            .await
            .map_err(|_| ChannelError::Exchange("the attester panicked"))?
            .map_err(ChannelError::Attester)
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Offer({}, {})",
            self.0.attester.platform(),
            self.0.role
        )
    }
}

/// What evidence this side demands of a peer.
#[derive(Clone)]
pub struct Demand {
    verifier: Arc<dyn Verifier>,
    role: AttestedRole,
    index: Option<[u8; 16]>,
    slots: Arc<Semaphore>,
}

impl Demand {
    /// Evidence of `role` that `verifier` accepts.
    #[must_use]
    pub fn new(verifier: Arc<dyn Verifier>, role: AttestedRole) -> Self {
        Self {
            verifier,
            role,
            index: None,
            slots: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The same, and only of a peer that serves this index.
    #[must_use]
    pub fn of_index(mut self, index_id: [u8; 16]) -> Self {
        self.index = Some(index_id);
        self
    }

    /// Refuses a demand that no peer of `role` could ever satisfy.
    pub(crate) fn check_role(&self, peer: Role) -> Result<(), ChannelError> {
        match (self.role, peer) {
            (AttestedRole::Searcher, Role::Searcher)
            | (AttestedRole::Keeper, Role::Keeper)
            | (AttestedRole::Generator, Role::Generator) => Ok(()),
            (demanded, peer) => Err(ChannelError::DemandRole { demanded, peer }),
        }
    }

    pub(crate) async fn appraise(
        &self,
        evidence: Vec<u8>,
        session: [u8; 32],
        nonce: [u8; 32],
        channel_key: [u8; 32],
        peer: Role,
        clock: &Clock,
    ) -> Result<Appraisal, ChannelError> {
        let expected = Expected {
            role: self.role,
            session,
            nonce,
            channel_key,
        };
        let permit = self.slots.clone().acquire_owned().await;
        let now = unix_seconds(clock.now());
        let verifier = self.verifier.clone();
        let appraising = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            verifier.appraise(&evidence, &expected, now)
        });
        let appraisal = appraising
            .await
            .map_err(|_| ChannelError::Untrusted(AttestError::Malformed("it breaks the verifier")))?
            .map_err(ChannelError::Untrusted)?;
        match self.index {
            Some(index) if index != appraisal.claims.subject.index_id => {
                Err(ChannelError::AnotherIndex(peer))
            }
            _ => Ok(appraisal),
        }
    }
}

impl fmt::Debug for Demand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Demand({})", self.role)
    }
}
