//! Evidence about the program at the other end, and the policy that judges it.
//!
//! The words are those of RFC 9334: an [`Attester`] produces evidence about its own
//! state and keys; a [`Verifier`] appraises it under an appraisal [`Policy`]; the outcome
//! is an [`Appraisal`]. Evidence binds a role, the key of the TLS channel on which it
//! arrives, the CKKS public key, a fresh nonce and the time to a measurement of the
//! program. Time and nonce are arguments throughout: nothing here reads a clock.
//!
//! # Security
//! [`Platform::Simulated`] proves nothing. Its signing key is public, part of this source
//! code, and only lets the whole machinery run on ordinary machines. Every policy refuses
//! it unless `allow_simulated` is set. Evidence of the hardware platforms is recognised
//! and refused as not supported by this version.

mod error;
mod evidence;
mod platform;
mod policy;
mod simulated;

pub use error::AttestError;
pub use evidence::{Evidence, MAX_PROOF_BYTES};
pub use platform::{AttestedRole, Platform};
pub use policy::{Appraisal, Expected, Policy, PolicyVerifier, Verifier};
pub use simulated::{SIMULATED_DEVELOPMENT_KEY, SimulatedAttester, measure};

/// SHA-384-sized measurement of a program.
pub type Measurement = [u8; 48];

/// The value of `ckks_key` for a role that holds no CKKS key.
pub const NO_CKKS_KEY: [u8; 32] = [0; 32];

/// What a party says about itself; the attester adds the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The role it plays.
    pub role: AttestedRole,
    /// SHA-256 of its TLS public key.
    pub channel_key: [u8; 32],
    /// Fingerprint of its CKKS public key, or [`NO_CKKS_KEY`].
    pub ckks_key: [u8; 32],
    /// The verifier's fresh nonce.
    pub nonce: [u8; 32],
    /// Seconds since 1970.
    pub issued_at: u64,
}

/// Produces evidence about the program it runs in.
pub trait Attester: Send + Sync {
    /// The platform whose evidence this attester produces.
    fn platform(&self) -> Platform;

    /// Encoded evidence that binds `claims` to this program.
    ///
    /// # Errors
    /// [`AttestError::Platform`] where the platform gives no evidence.
    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, AttestError>;
}

/// Seconds since 1970 of a point in time; 0 before.
#[must_use]
pub fn unix_seconds(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
