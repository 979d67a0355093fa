//! Appraisal: is this evidence about the peer at hand, fresh, and of an allowed program?

use crate::simulated::verify_signature;
use crate::{AttestError, AttestedRole, Evidence, Measurement, Platform};
use std::time::Duration;

/// What the verifier knows from elsewhere and the evidence must repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The role the peer must play.
    pub role: AttestedRole,
    /// SHA-256 of the public key the TLS channel has really used.
    pub channel_key: [u8; 32],
    /// Fingerprint of the CKKS public key, or [`NO_CKKS_KEY`](crate::NO_CKKS_KEY).
    pub ckks_key: [u8; 32],
    /// The nonce sent for this evidence.
    pub nonce: [u8; 32],
}

/// Which platforms and programs are acceptable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Accept the simulated platform, which protects nothing.
    pub allow_simulated: bool,
    /// The acceptable programs. An empty list accepts none on a real platform, and any on
    /// the simulated one, where a measurement means nothing.
    pub measurements: Vec<Measurement>,
    /// How old evidence may be.
    pub max_age: Duration,
    /// How far ahead the peer's clock may be.
    pub clock_skew: Duration,
}

impl Default for Policy {
    /// No simulated platform, no program, evidence of at most five minutes.
    fn default() -> Self {
        Self {
            allow_simulated: false,
            measurements: Vec::new(),
            max_age: Duration::from_secs(300),
            clock_skew: Duration::from_secs(60),
        }
    }
}

impl Policy {
    /// The default policy, but with the simulated platform accepted: for trials.
    #[must_use]
    pub fn allowing_simulated() -> Self {
        Self {
            allow_simulated: true,
            ..Self::default()
        }
    }
}

/// The outcome of a successful appraisal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appraisal {
    /// The platform that vouched.
    pub platform: Platform,
    /// The peer's role.
    pub role: AttestedRole,
    /// Its program.
    pub measurement: Measurement,
    /// When the evidence was made, seconds since 1970.
    pub issued_at: u64,
}

impl Appraisal {
    /// The platform protects nothing; every output must say so.
    #[must_use]
    pub fn is_simulated(&self) -> bool {
        self.platform == Platform::Simulated
    }
}

/// Judges evidence.
pub trait Verifier: Send + Sync {
    /// Appraises encoded evidence about the peer at `now`, seconds since 1970.
    ///
    /// # Errors
    /// The first rule that the evidence breaks.
    fn verify(
        &self,
        evidence: &[u8],
        expected: &Expected,
        now: u64,
    ) -> Result<Appraisal, AttestError>;
}

/// The verifier of all platforms this version supports.
#[derive(Clone, Debug)]
pub struct PolicyVerifier {
    policy: Policy,
}

impl PolicyVerifier {
    /// A verifier under `policy`.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }
}

impl Verifier for PolicyVerifier {
    fn verify(
        &self,
        evidence: &[u8],
        expected: &Expected,
        now: u64,
    ) -> Result<Appraisal, AttestError> {
        let evidence = Evidence::decode(evidence)?;
        match evidence.platform {
            Platform::Simulated if self.policy.allow_simulated => verify_signature(&evidence)?,
            Platform::Simulated => return Err(AttestError::SimulatedRefused),
            platform @ (Platform::SevSnp | Platform::Tdx | Platform::Nitro) => {
                return Err(AttestError::Unsupported(platform));
            }
        }
        let claims = &evidence.claims;
        if claims.role != expected.role {
            return Err(AttestError::Role);
        }
        if claims.channel_key != expected.channel_key {
            return Err(AttestError::ChannelKey);
        }
        if claims.ckks_key != expected.ckks_key {
            return Err(AttestError::CkksKey);
        }
        if claims.nonce != expected.nonce {
            return Err(AttestError::Nonce);
        }
        self.check_time(claims.issued_at, now)?;
        let any = self.policy.measurements.is_empty() && evidence.platform == Platform::Simulated;
        if !any && !self.policy.measurements.contains(&evidence.measurement) {
            return Err(AttestError::Measurement);
        }
        Ok(Appraisal {
            platform: evidence.platform,
            role: claims.role,
            measurement: evidence.measurement,
            issued_at: claims.issued_at,
        })
    }
}

impl PolicyVerifier {
    fn check_time(&self, issued_at: u64, now: u64) -> Result<(), AttestError> {
        let ahead = issued_at.saturating_sub(now);
        if ahead > self.policy.clock_skew.as_secs() {
            return Err(AttestError::FromTheFuture { ahead });
        }
        let age = now.saturating_sub(issued_at);
        let limit = self.policy.max_age.as_secs();
        if age > limit {
            return Err(AttestError::Expired { age, limit });
        }
        Ok(())
    }
}
