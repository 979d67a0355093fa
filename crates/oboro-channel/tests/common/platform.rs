//! The simulated platform, and verifiers that overlook something.

use oboro_attest::{
    Appraisal, AttestError, AttestedRole, Evidence, Expected, Policy, PolicyVerifier, Subject,
    Verifier,
};
use oboro_channel::{Demand, Offer};
use oboro_simulated::{SimulatedAttester, SimulatedVerifier, measure};
use std::sync::{Arc, Mutex};

pub fn subject() -> Subject {
    Subject {
        index_id: *b"the index id 16b",
        epoch: 3,
        ..Subject::new([0xc0; 32])
    }
}

pub fn attester() -> Arc<SimulatedAttester> {
    Arc::new(SimulatedAttester::new(measure(b"the program")))
}

pub fn offer(role: AttestedRole) -> Offer {
    Offer::new(attester(), role, subject())
}

pub fn verifier(policy: Policy) -> Arc<PolicyVerifier> {
    Arc::new(PolicyVerifier::new(
        policy,
        vec![Arc::new(SimulatedVerifier)],
    ))
}

pub fn allowing() -> Arc<PolicyVerifier> {
    verifier(Policy::default().allowing_simulated())
}

pub fn demand(role: AttestedRole) -> Demand {
    Demand::new(allowing(), role)
}

/// A verifier that believes some of what the evidence says about where it belongs, as
/// verifiers without binding do.
#[derive(Default)]
pub struct Gullible {
    pub session: bool,
    pub channel_key: bool,
    pub nonce: bool,
    pub role: bool,
    /// What it found.
    pub found: Mutex<Vec<Result<(), AttestError>>>,
}

impl Gullible {
    pub fn found(&self) -> Vec<Result<(), AttestError>> {
        self.found.lock().unwrap().clone()
    }
}

impl Verifier for Gullible {
    fn appraise(
        &self,
        evidence: &[u8],
        expected: &Expected,
        now: u64,
    ) -> Result<Appraisal, AttestError> {
        let mut expected = *expected;
        if let Ok(evidence) = Evidence::decode(evidence) {
            let claims = evidence.claims;
            if self.session {
                expected.session = claims.session;
            }
            if self.channel_key {
                expected.channel_key = claims.channel_key;
            }
            if self.nonce {
                expected.nonce = claims.nonce;
            }
            if self.role {
                expected.role = claims.role;
            }
        }
        let outcome = allowing().appraise(evidence, &expected, now);
        let found = outcome.as_ref().map(|_| ()).map_err(Clone::clone);
        self.found.lock().unwrap().push(found);
        outcome
    }
}
