//! Judging an attestation document.

use super::document::{Document, PCR_BYTES};
use super::{AWS_ROOT, NitroRules};
use crate::{AttestError, Identity, Platform, PlatformVerifier, Rules, Verified, hex};

/// How far the module's clock may be ahead.
const SKEW_SECONDS: u64 = 60;

/// Registers of an enclave image; zero in debug mode.
const IMAGE: [u8; 3] = [0, 1, 2];

const NAMES: [&str; 16] = [
    "pcr0", "pcr1", "pcr2", "pcr3", "pcr4", "pcr5", "pcr6", "pcr7", "pcr8", "pcr9", "pcr10",
    "pcr11", "pcr12", "pcr13", "pcr14", "pcr15",
];

/// Verifies evidence of AWS Nitro Enclaves.
#[derive(Clone, Debug)]
pub struct NitroVerifier {
    root: Vec<u8>,
}

impl Default for NitroVerifier {
    /// Under AWS's root.
    fn default() -> Self {
        Self::with_root(AWS_ROOT)
    }
}

impl NitroVerifier {
    /// A verifier under another root certificate (DER), for tests.
    ///
    /// # Security
    /// Whoever has the root's key can make any evidence.
    #[must_use]
    pub fn with_root(root: &[u8]) -> Self {
        Self {
            root: root.to_vec(),
        }
    }
}

impl PlatformVerifier for NitroVerifier {
    fn platform(&self) -> Platform {
        Platform::Nitro
    }

    fn verify(
        &self,
        statement: &[u8],
        endorsements: &[u8],
        rules: &Rules,
        now: u64,
    ) -> Result<Verified, AttestError> {
        let Rules::Nitro(rules) = rules else {
            return Err(AttestError::PlatformNotAccepted(Platform::Nitro));
        };
        rules.check()?;
        if !endorsements.is_empty() {
            return Err(AttestError::Malformed(
                "evidence of Nitro has no endorsements beside the document",
            ));
        }
        let document = Document::verify(statement, &self.root, now)?;
        check_time(document.timestamp / 1000, rules.max_age(), now)?;
        check_registers(&document, rules)?;
        Ok(Verified {
            binding: binding(&document)?,
            identity: identity(&document),
            remarks: vec![
                "revocation was not checked: AWS documents none for Nitro, its certificates live for weeks at most"
                    .to_owned(),
            ],
        })
    }
}

fn check_time(signed: u64, limit: u64, now: u64) -> Result<(), AttestError> {
    let ahead = signed.saturating_sub(now);
    if ahead > SKEW_SECONDS {
        return Err(AttestError::FromTheFuture { ahead });
    }
    let age = now.saturating_sub(signed);
    if age > limit {
        return Err(AttestError::Expired { age, limit });
    }
    Ok(())
}

fn check_registers(document: &Document, rules: &NitroRules) -> Result<(), AttestError> {
    for number in IMAGE {
        match document.pcr(number) {
            None => {
                return Err(AttestError::Malformed(
                    "the document lacks a PCR of the image",
                ));
            }
            Some(value) if *value == [0; PCR_BYTES] => {
                return Err(AttestError::State(format!(
                    "PCR {number} is zero, so the enclave runs in debug mode"
                )));
            }
            Some(_) => {}
        }
    }
    let pcr0 = document
        .pcr(0)
        .is_some_and(|value| rules.measurements.iter().any(|accepted| accepted == value));
    if !pcr0 {
        return Err(AttestError::Measurement);
    }
    for (number, accepted, required) in [
        (1, &rules.pcr1, true),
        (2, &rules.pcr2, true),
        (3, &rules.pcr3, false),
        (4, &rules.pcr4, false),
        (8, &rules.pcr8, false),
    ] {
        if accepted.is_empty() && !required {
            continue;
        }
        if !document
            .pcr(number)
            .is_some_and(|value| accepted.contains(value))
        {
            return Err(AttestError::Measurement);
        }
    }
    Ok(())
}

fn binding(document: &Document) -> Result<[u8; 64], AttestError> {
    if document.public_key.is_some() || document.nonce.is_some() {
        return Err(AttestError::Malformed(
            "the document has a public key or a nonce, which Oboro never sets",
        ));
    }
    let binding: [u8; 64] = document
        .user_data
        .as_deref()
        .and_then(|data| data.try_into().ok())
        .ok_or(AttestError::Malformed(
            "the document's user data are not 64 bytes",
        ))?;
    if binding == [0; 64] {
        return Err(AttestError::Binding);
    }
    Ok(binding)
}

fn identity(document: &Document) -> Identity {
    let mut facts = vec![
        ("debug", "off".to_owned()),
        ("module", document.module_id.clone()),
        ("signed-at", (document.timestamp / 1000).to_string()),
    ];
    facts.extend(
        NAMES
            .iter()
            .zip(0u8..)
            .filter_map(|(&name, number)| Some((name, document.pcr(number)?)))
            .filter(|(_, value)| **value != [0; PCR_BYTES])
            .map(|(name, value)| (name, hex::encode(value))),
    );
    Identity {
        measurement: document
            .pcr(0)
            .map(|value| value.to_vec())
            .unwrap_or_default(),
        facts,
    }
}
