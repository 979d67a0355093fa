//! What a policy demands of AWS Nitro Enclaves.

use crate::AttestError;
use serde::{Deserialize, Serialize};

/// The age of a document that is accepted where the rules give none.
const DEFAULT_AGE: u32 = 300;

/// Rules for evidence of AWS Nitro Enclaves, as the keys of an `[[accept]]` entry with
/// `platform = "nitro"`. An enclave in debug mode is refused whatever the rules say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NitroRules {
    /// Accepted values of PCR 0, the measurement of the enclave image, 48 bytes each.
    #[serde(with = "crate::hex::list")]
    pub measurements: Vec<Vec<u8>>,
    /// Accepted values of PCR 1: kernel and boot file system.
    #[serde(with = "crate::hex::arrays")]
    pub pcr1: Vec<[u8; 48]>,
    /// Accepted values of PCR 2: the program.
    #[serde(with = "crate::hex::arrays")]
    pub pcr2: Vec<[u8; 48]>,
    /// Accepted values of PCR 3, the digest of the parent instance's IAM role; empty for
    /// any.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub pcr3: Vec<[u8; 48]>,
    /// Accepted values of PCR 4, the digest of the parent instance's id; empty for any.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub pcr4: Vec<[u8; 48]>,
    /// Accepted values of PCR 8, the digest of the certificate that signed the image;
    /// empty for any, and for images that are not signed.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub pcr8: Vec<[u8; 48]>,
    /// Oldest accepted document, in seconds; 300 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_document_age: Option<u32>,
}

impl NitroRules {
    /// Checks that the rules accept something in particular.
    ///
    /// # Errors
    /// [`AttestError::Policy`] that names the key.
    pub fn check(&self) -> Result<(), AttestError> {
        let wrong = |what: String| Err(AttestError::Policy(format!("nitro: {what}")));
        if let Some(other) = self.measurements.iter().find(|value| value.len() != 48) {
            return wrong(format!(
                "a value of 'measurements' has {} bytes; PCR 0 has 48",
                other.len()
            ));
        }
        for (key, empty) in [
            ("measurements", self.measurements.is_empty()),
            ("pcr1", self.pcr1.is_empty()),
            ("pcr2", self.pcr2.is_empty()),
        ] {
            if empty {
                return wrong(format!("'{key}' is empty; list the values to accept"));
            }
        }
        let zero = [&self.pcr1, &self.pcr2, &self.pcr3, &self.pcr4, &self.pcr8]
            .iter()
            .any(|list| list.contains(&[0; 48]))
            || self.measurements.iter().any(|value| *value == [0; 48]);
        if zero {
            return wrong("a value of zero is that of debug mode and says nothing".to_owned());
        }
        Ok(())
    }

    pub(super) fn max_age(&self) -> u64 {
        u64::from(self.max_document_age.unwrap_or(DEFAULT_AGE))
    }
}
