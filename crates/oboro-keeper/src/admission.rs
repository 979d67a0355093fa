//! Which searchers have shown acceptable evidence.

use oboro_attest::{AttestedRole, Expected, NO_CKKS_KEY, Verifier};
use oboro_protocol::{Failure, Reason};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Keys remembered at most; beyond it all are forgotten and must show evidence again.
const MAX_KEYS: usize = 1_024;

/// Appraises searchers by challenge and evidence; a searcher's key stays admitted until
/// the keeper restarts.
pub(crate) struct Admission {
    verifier: Option<Arc<dyn Verifier>>,
    peers: Mutex<HashMap<[u8; 32], Peer>>,
}

#[derive(Default)]
struct Peer {
    challenge: Option<[u8; 32]>,
    admitted: bool,
}

impl Admission {
    pub(crate) fn new(verifier: Option<Arc<dyn Verifier>>) -> Self {
        Self {
            verifier,
            peers: Mutex::new(HashMap::new()),
        }
    }

    /// Registers `fresh` as the peer's challenge; `None` where no evidence is asked for.
    pub(crate) fn challenge(&self, peer: &[u8; 32], fresh: [u8; 32]) -> Option<[u8; 32]> {
        self.verifier.as_ref()?;
        let mut peers = self.lock();
        if peers.len() >= MAX_KEYS && !peers.contains_key(peer) {
            peers.clear();
        }
        peers.entry(*peer).or_default().challenge = Some(fresh);
        Some(fresh)
    }

    /// Appraises evidence that answers the peer's last challenge, which is used up.
    pub(crate) fn present(
        &self,
        peer: &[u8; 32],
        evidence: &[u8],
        now: u64,
    ) -> Result<(), Failure> {
        let Some(verifier) = &self.verifier else {
            return Ok(());
        };
        let mut peers = self.lock();
        let challenged = peers.get_mut(peer).and_then(|state| {
            state.admitted = false;
            state.challenge.take().map(|nonce| (nonce, state))
        });
        let Some((nonce, state)) = challenged else {
            return Err(Failure::new(
                Reason::Forbidden,
                "this keeper asks searchers for evidence; describe first, then prepare with evidence over the challenge",
            ));
        };
        let expected = Expected {
            role: AttestedRole::Searcher,
            channel_key: *peer,
            ckks_key: NO_CKKS_KEY,
            nonce,
        };
        verifier
            .verify(evidence, &expected, now)
            .map_err(|error| Failure::new(Reason::Forbidden, error.to_string()))?;
        state.admitted = true;
        Ok(())
    }

    /// The peer may have tables decrypted. Another answer than yes reads like a keeper
    /// that has restarted, so that the searcher registers, with evidence, again.
    pub(crate) fn check(&self, peer: &[u8; 32]) -> Result<(), Failure> {
        if self.verifier.is_none() || self.lock().get(peer).is_some_and(|state| state.admitted) {
            return Ok(());
        }
        Err(Failure::new(
            Reason::UnknownHandle,
            "this searcher has not shown its evidence to this keeper; prepare again",
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
