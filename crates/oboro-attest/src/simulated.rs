//! The simulated platform: evidence for trials.

use crate::{AttestError, Attester, Claims, Evidence, Measurement, Platform};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// The seed of the simulated platform's signing key. It is public on purpose: whoever
/// reads this can sign such evidence, so it proves nothing and needs no protection.
pub const SIMULATED_DEVELOPMENT_KEY: [u8; 32] = *b"OBORO-SIMULATED-NOT-A-SECRET-KEY";

/// Signs evidence under [`SIMULATED_DEVELOPMENT_KEY`].
pub struct SimulatedAttester {
    measurement: Measurement,
}

impl SimulatedAttester {
    /// An attester that claims `measurement`, for which [`measure`] of the program's own
    /// file is the natural choice.
    #[must_use]
    pub fn new(measurement: Measurement) -> Self {
        Self { measurement }
    }
}

impl Attester for SimulatedAttester {
    fn platform(&self) -> Platform {
        Platform::Simulated
    }

    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, AttestError> {
        let mut evidence = Evidence {
            platform: Platform::Simulated,
            claims: *claims,
            measurement: self.measurement,
            proof: Vec::new(),
        };
        let signature = development_key().sign(&evidence.signed_bytes());
        evidence.proof = signature.to_bytes().to_vec();
        evidence.encode()
    }
}

fn development_key() -> SigningKey {
    SigningKey::from_bytes(&SIMULATED_DEVELOPMENT_KEY)
}

pub(crate) fn verify_signature(evidence: &Evidence) -> Result<(), AttestError> {
    let key: VerifyingKey = development_key().verifying_key();
    let signature = Signature::from_slice(&evidence.proof).map_err(|_| AttestError::Signature)?;
    key.verify_strict(&evidence.signed_bytes(), &signature)
        .map_err(|_| AttestError::Signature)
}

/// The simulated platform's measurement of a program: 48 bytes of BLAKE3.
#[must_use]
pub fn measure(program: &[u8]) -> Measurement {
    let mut measurement = [0; 48];
    let mut hasher = blake3::Hasher::new_derive_key("oboro simulated measurement v1");
    hasher.update(program);
    hasher.finalize_xof().fill(&mut measurement);
    measurement
}
