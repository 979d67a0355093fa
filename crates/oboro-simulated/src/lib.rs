//! The simulated platform: evidence for trials.
//!
//! # Security
//! It protects nothing and proves nothing: whoever reads this source can sign such
//! evidence. Policies refuse it unless told otherwise, and a release build of the servers
//! does not contain this crate.

use ed25519_dalek::{Signature, Signer, SigningKey};
use oboro_attest::{
    AttestError, Attester, Claims, Evidence, Identity, Platform, PlatformVerifier, Rules, Sealer,
    Verified,
};
use zeroize::Zeroizing;

/// The seed of the signing key; public on purpose.
const DEVELOPMENT_KEY: [u8; 32] = *b"OBORO-SIMULATED-NOT-A-SECRET-KEY";

/// The simulated platform's measurement of a program: 48 bytes of BLAKE3.
#[must_use]
pub fn measure(program: &[u8]) -> [u8; 48] {
    let mut measurement = [0; 48];
    let mut hasher = blake3::Hasher::new_derive_key("oboro simulated measurement v1");
    hasher.update(program);
    hasher.finalize_xof().fill(&mut measurement);
    measurement
}

/// Signs evidence with the development key.
pub struct SimulatedAttester {
    measurement: [u8; 48],
}

impl SimulatedAttester {
    /// An attester that claims `measurement`, for which [`measure`] of the program's own
    /// file is the natural choice.
    #[must_use]
    pub fn new(measurement: [u8; 48]) -> Self {
        Self { measurement }
    }
}

impl Attester for SimulatedAttester {
    fn platform(&self) -> Platform {
        Platform::Simulated
    }

    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, AttestError> {
        let mut statement = self.measurement.to_vec();
        statement.extend_from_slice(&claims.binding());
        let signature = SigningKey::from_bytes(&DEVELOPMENT_KEY).sign(&statement);
        statement.extend_from_slice(&signature.to_bytes());
        Evidence {
            platform: Platform::Simulated,
            claims: *claims,
            statement,
            endorsements: Vec::new(),
        }
        .encode()
    }
}

/// Verifies evidence of [`SimulatedAttester`].
pub struct SimulatedVerifier;

impl PlatformVerifier for SimulatedVerifier {
    fn platform(&self) -> Platform {
        Platform::Simulated
    }

    fn verify(
        &self,
        statement: &[u8],
        _endorsements: &[u8],
        rules: &Rules,
        _now: u64,
    ) -> Result<Verified, AttestError> {
        let Rules::Simulated(rules) = rules else {
            return Err(AttestError::Unsupported(Platform::Simulated));
        };
        let (signed, signature) = statement
            .split_at_checked(48 + 64)
            .ok_or(AttestError::Malformed("its statement is cut short"))?;
        let signature = Signature::from_slice(signature)
            .map_err(|_| AttestError::Signature("the development key's"))?;
        SigningKey::from_bytes(&DEVELOPMENT_KEY)
            .verifying_key()
            .verify_strict(signed, &signature)
            .map_err(|_| AttestError::Signature("the development key's"))?;
        let (measurement, binding) = signed.split_at(48);
        let measurement = measurement.to_vec();
        if !rules.measurements.is_empty() && !rules.measurements.contains(&measurement) {
            return Err(AttestError::Measurement);
        }
        Ok(Verified {
            binding: binding
                .try_into()
                .map_err(|_| AttestError::Malformed("its statement is cut short"))?,
            identity: Identity {
                measurement,
                facts: Vec::new(),
            },
            remarks: vec!["the simulated platform protects nothing".to_owned()],
        })
    }
}

/// Derives keys that anyone can derive.
pub struct SimulatedSealer {
    measurement: [u8; 48],
}

impl SimulatedSealer {
    /// A sealer of the program with `measurement`.
    #[must_use]
    pub fn new(measurement: [u8; 48]) -> Self {
        Self { measurement }
    }
}

impl Sealer for SimulatedSealer {
    fn platform(&self) -> Platform {
        Platform::Simulated
    }

    fn sealing_key(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, AttestError> {
        let mut hasher = blake3::Hasher::new_derive_key("oboro simulated sealing v1");
        hasher.update(&DEVELOPMENT_KEY);
        hasher.update(&self.measurement);
        hasher.update(purpose.as_bytes());
        Ok(Zeroizing::new(*hasher.finalize().as_bytes()))
    }
}
