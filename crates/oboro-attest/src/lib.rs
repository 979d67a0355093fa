//! Evidence about the program at the other end, and the policy that judges it.
//!
//! The words are those of RFC 9334: an [`Attester`] produces evidence about its own
//! state and keys; endorsements vouch for the key that signed it; a [`Verifier`]
//! appraises it under an appraisal [`Policy`] that holds the reference values; the
//! outcome is an [`Appraisal`]. Evidence binds a role, the TLS session and key on which
//! it arrives, the CKKS keys, the configuration, the index, a fresh nonce and the time
//! ([`Claims`]) to the platform's measurement of the program. Time and nonce are
//! arguments throughout: nothing here reads a clock.
//!
//! # Security
//! [`Platform::Simulated`] proves nothing; its verifier and attester are in a crate of
//! their own, which a release build of the servers does not contain.

mod attester;
mod claims;
pub mod dcap;
mod error;
mod evidence;
mod files;
mod hex;
pub mod nitro;
mod platform;
pub mod platforms;
mod policy;
mod policy_file;
pub mod snp;
pub mod tpm;
pub mod tsm;
mod verifier;

pub use attester::{Attester, Sealer, unix_seconds};
pub use claims::{Claims, NO_CKKS_KEYS, Subject, key_set_digest};
pub use error::AttestError;
pub use evidence::{Evidence, MAX_ENDORSEMENT_BYTES, MAX_EVIDENCE_BYTES, MAX_STATEMENT_BYTES};
pub use files::{MAX_POLICY_FILE_BYTES, PolicyFile};
pub use platform::{AttestedRole, Platform};
pub use policy::{Acceptance, Policy, Rules, SimulatedRules};
pub use policy_file::MAX_POLICY_BYTES;
pub use verifier::{
    Appraisal, Expected, Identity, PlatformVerifier, PolicyVerifier, Verified, Verifier,
};
