//! Appraisal: from bytes that anyone can send to facts that a policy accepts.

use crate::{AttestError, AttestedRole, Claims, Evidence, Platform, Policy, Rules};
use std::sync::Arc;

/// What the relying party knows and the evidence must repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The role it means to talk to.
    pub role: AttestedRole,
    /// The exporter value of this session.
    pub session: [u8; 32],
    /// The nonce it sent.
    pub nonce: [u8; 32],
    /// SHA-256 of the peer's TLS public key on this session.
    pub channel_key: [u8; 32],
}

/// The outcome of an appraisal (RFC 9334: attestation result).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appraisal {
    /// Where the evidence comes from.
    pub platform: Platform,
    /// The claims, each checked or signed.
    pub claims: Claims,
    /// What the platform measured.
    pub identity: Identity,
    /// What an operator should know although it was accepted, one sentence each; for
    /// example that revocation was not checked.
    pub remarks: Vec<String>,
}

impl Appraisal {
    /// The platform protects nothing.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.platform == Platform::Simulated
    }
}

/// What a platform measured: parsed values, never raw signed bytes.
///
/// Two signatures over one statement, such as (r, s) and (r, n-s), give equal identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The measurement of the program, in the platform's own length: SNP launch
    /// measurement, MRTD, MRENCLAVE, PCR0, digest of the TPM's PCR selection.
    pub measurement: Vec<u8>,
    /// Further facts in a fixed order, as name and value for people and `--json`:
    /// product, TCB version, chip, debug flag.
    pub facts: Vec<(&'static str, String)>,
}

/// Facts that a platform's verifier has established from signed bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The 64 bytes of the caller's data that the platform signed.
    pub binding: [u8; 64],
    /// What it measured.
    pub identity: Identity,
    /// Remarks for the appraisal.
    pub remarks: Vec<String>,
}

/// Verifies the evidence of one platform: signatures, certificates, the platform's own
/// flags, and the `rules` of one acceptance.
pub trait PlatformVerifier: Send + Sync {
    /// The platform.
    fn platform(&self) -> Platform;

    /// Verifies `statement` and `endorsements` at the time `now` (seconds since 1970).
    ///
    /// # Errors
    /// Whatever is wrong with it.
    fn verify(
        &self,
        statement: &[u8],
        endorsements: &[u8],
        rules: &Rules,
        now: u64,
    ) -> Result<Verified, AttestError>;
}

/// Appraises evidence.
pub trait Verifier: Send + Sync {
    /// Appraises encoded `evidence` at the time `now` (seconds since 1970).
    ///
    /// # Errors
    /// The first thing found wrong.
    fn appraise(
        &self,
        evidence: &[u8],
        expected: &Expected,
        now: u64,
    ) -> Result<Appraisal, AttestError>;
}

/// Appraises evidence under a [`Policy`].
#[derive(Clone)]
pub struct PolicyVerifier {
    policy: Policy,
    platforms: Vec<Arc<dyn PlatformVerifier>>,
}

impl PolicyVerifier {
    /// A verifier of the given platforms. A platform that is not listed is refused even
    /// where the policy accepts it.
    #[must_use]
    pub fn new(policy: Policy, platforms: Vec<Arc<dyn PlatformVerifier>>) -> Self {
        Self { policy, platforms }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Appraises everything but the session: for evidence that was stored.
    ///
    /// # Errors
    /// As [`Verifier::appraise`].
    pub fn appraise_stored(&self, evidence: &[u8], now: u64) -> Result<Appraisal, AttestError> {
        self.appraise_decoded(Evidence::decode(evidence)?, now)
    }

    fn appraise_decoded(&self, evidence: Evidence, now: u64) -> Result<Appraisal, AttestError> {
        let claims = evidence.claims;
        self.policy.check_time(claims.issued_at, now)?;
        let platform = evidence.platform;
        let mut accepted = self.policy.accepted(platform).peekable();
        if accepted.peek().is_none() {
            return Err(match platform {
                Platform::Simulated => AttestError::SimulatedRefused,
                other => AttestError::PlatformNotAccepted(other),
            });
        }
        let verifier = self
            .platforms
            .iter()
            .find(|verifier| verifier.platform() == platform)
            .ok_or(AttestError::Unsupported(platform))?;
        let mut refused = AttestError::PlatformNotAccepted(platform);
        for acceptance in accepted {
            let attempt = acceptance.check_claims(&claims).and_then(|()| {
                verifier.verify(
                    &evidence.statement,
                    &evidence.endorsements,
                    &acceptance.rules,
                    now,
                )
            });
            match attempt {
                Ok(verified) if verified.binding == claims.binding() => {
                    return Ok(Appraisal {
                        platform,
                        claims,
                        identity: verified.identity,
                        remarks: verified.remarks,
                    });
                }
                Ok(_) => return Err(AttestError::Binding),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

impl Verifier for PolicyVerifier {
    fn appraise(
        &self,
        evidence: &[u8],
        expected: &Expected,
        now: u64,
    ) -> Result<Appraisal, AttestError> {
        let evidence = Evidence::decode(evidence)?;
        let claims = &evidence.claims;
        if claims.role != expected.role {
            return Err(AttestError::Role);
        }
        if claims.session != expected.session {
            return Err(AttestError::Session);
        }
        if claims.channel_key != expected.channel_key {
            return Err(AttestError::ChannelKey);
        }
        if claims.nonce != expected.nonce {
            return Err(AttestError::Nonce);
        }
        self.appraise_decoded(evidence, now)
    }
}
