//! The simulated platform, and verifiers that overlook something.

use super::{World, accepting, demands, issue, offering};
use oboro_attest::{
    Appraisal, AttestError, AttestedRole, Evidence, Expected, Policy, PolicyVerifier, Subject,
    Verifier,
};
use oboro_channel::{
    AcceptLimits, AcceptOptions, ChannelError, ConnectOptions, Connection, Demand, Identity, Offer,
    Role, connect,
};
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

/// A keeper that attests itself and demands evidence of searchers.
pub fn attesting(searchers: Demand) -> AcceptOptions {
    AcceptOptions {
        offer: Some(offer(AttestedRole::Keeper)),
        demands: demands(Role::Searcher, searchers),
        ..accepting(AcceptLimits::default())
    }
}

/// A keeper that attests itself and demands nothing.
pub fn giving() -> AcceptOptions {
    AcceptOptions {
        offer: Some(offer(AttestedRole::Keeper)),
        ..accepting(AcceptLimits::default())
    }
}

/// A searcher that attests itself and demands evidence of the keeper.
pub fn both(keeper: Demand) -> ConnectOptions {
    ConnectOptions {
        demand: Some(keeper),
        ..offering(&offer(AttestedRole::Searcher))
    }
}

pub async fn connecting(
    world: &World,
    address: &str,
    identity: &Identity,
    options: ConnectOptions,
) -> Result<Connection, ChannelError> {
    connect(address, identity, &world.trust, Role::Keeper, options).await
}

pub async fn refused(world: &World, address: &str, options: ConnectOptions) -> ChannelError {
    let searcher = issue(&world.authority, Role::Searcher);
    let outcome = connecting(world, address, &searcher, options).await;
    outcome.err().unwrap()
}
