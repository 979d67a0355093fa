//! What a policy demands of TPM 2.0 quotes.

use crate::snp::Revocation;
use crate::{AttestError, PolicyFile, hex};
use oboro_tpm::PcrSelection;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::collections::BTreeMap;
use std::path::Path;

/// Rules for evidence of TPM 2.0 quotes, one acceptance of a policy.
///
/// ```toml
/// platform = "tpm"
/// pcrs = { 4 = "…", 7 = "…", 11 = ["…", "…"] }
/// attestation-keys = ["…"]
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TpmRules {
    /// Accepted values of PCRs of the SHA-256 bank: for each number one value or a list of
    /// them. Required; PCRs that are not named may have any value.
    #[serde(with = "pcrs")]
    pub pcrs: BTreeMap<u32, Vec<[u8; 32]>>,
    /// Accepted attestation keys by the digest in their names: SHA-256 of the encoded
    /// public part (`TPMT_PUBLIC`). This or `roots` is required.
    #[serde(default, with = "hex::arrays", skip_serializing_if = "Vec::is_empty")]
    pub attestation_keys: Vec<[u8; 32]>,
    /// Certificates in DER of authorities whose certificates for attestation keys are
    /// accepted. The certificates themselves come with the evidence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<PolicyFile>,
    /// Whether certificates of attestation keys are checked against revocation lists.
    #[serde(default, skip_serializing_if = "is_default")]
    pub revocation: Revocation,
    /// Revocation lists in DER, one of each authority, roots included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocation_lists: Vec<PolicyFile>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// PCRs that any program may reset and extend as it likes, and with that give any value
/// that another PCR has.
const RESETTABLE: [u32; 2] = [16, 23];

impl TpmRules {
    /// Checks that the rules accept something in particular.
    ///
    /// # Errors
    /// [`AttestError::Policy`] that names the key.
    pub fn check(&self) -> Result<(), AttestError> {
        let wrong = |what: String| Err(AttestError::Policy(format!("tpm: {what}")));
        if self.pcrs.is_empty() {
            return wrong("'pcrs' names no PCR; list numbers with their values".to_owned());
        }
        for (&number, values) in &self.pcrs {
            if PcrSelection::new([number]).is_err() {
                return wrong(format!("'pcrs' names PCR {number}; they go from 0 to 23"));
            }
            if RESETTABLE.contains(&number) {
                return wrong(format!(
                    "'pcrs' names PCR {number}, which any program can reset; choose others"
                ));
            }
            if values.is_empty() {
                return wrong(format!("'pcrs' lists no value for PCR {number}"));
            }
            if values.iter().any(unmeasured) {
                return wrong(format!(
                    "'pcrs' accepts PCR {number} with nothing measured into it; leave it out"
                ));
            }
        }
        if self.attestation_keys.is_empty() && self.roots.is_empty() {
            return wrong(
                "neither 'attestation-keys' nor 'roots' says whose quotes to accept".to_owned(),
            );
        }
        if self.roots.is_empty() && !self.revocation_lists.is_empty() {
            return wrong("'revocation-lists' without 'roots' are of no use".to_owned());
        }
        if !self.roots.is_empty()
            && self.revocation_lists.is_empty()
            && self.revocation == Revocation::Required
        {
            return wrong(
                "'revocation-lists' is empty; add those of the authorities, or set revocation = \"unchecked\"".to_owned(),
            );
        }
        Ok(())
    }

    /// Reads the files that the rules name, from the policy's `folder`.
    ///
    /// # Errors
    /// [`AttestError::Policy`] for a file that cannot be read or is not what it must be.
    pub fn load_files(&mut self, folder: &Path) -> Result<(), AttestError> {
        let wrong = |file: &PolicyFile, what: &str| {
            AttestError::Policy(format!("the file '{}' is no {what} in DER", file.path))
        };
        for file in &mut self.roots {
            file.load(folder)?;
            let der = CertificateDer::from(file.content.as_slice());
            webpki::anchor_from_trusted_cert(&der).map_err(|_| wrong(file, "certificate"))?;
        }
        for file in &mut self.revocation_lists {
            file.load(folder)?;
            webpki::OwnedCertRevocationList::from_der(&file.content)
                .map_err(|_| wrong(file, "revocation list"))?;
        }
        Ok(())
    }
}

/// All zeros, as PCRs begin, or all ones, as those of a dynamic launch do that never was.
pub(super) fn unmeasured(value: &[u8; 32]) -> bool {
    *value == [0; 32] || *value == [0xff; 32]
}

/// A table from PCR numbers to one hexadecimal value or a list of them. The keys of TOML
/// tables are texts.
mod pcrs {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Values {
        One(String),
        Many(Vec<String>),
    }

    pub(super) fn serialize<S: Serializer>(
        pcrs: &BTreeMap<u32, Vec<[u8; 32]>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(pcrs.iter().map(|(number, values)| {
            let texts: Vec<String> = values.iter().map(|value| hex::encode(value)).collect();
            let values = match <[String; 1]>::try_from(texts) {
                Ok([one]) => Values::One(one),
                Err(many) => Values::Many(many),
            };
            (number.to_string(), values)
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<u32, Vec<[u8; 32]>>, D::Error> {
        let mut pcrs = BTreeMap::new();
        for (key, values) in BTreeMap::<String, Values>::deserialize(deserializer)? {
            let number: u32 = key
                .parse()
                .map_err(|_| D::Error::custom(format_args!("'{key}' is no number of a PCR")))?;
            let texts = match values {
                Values::One(text) => vec![text],
                Values::Many(texts) => texts,
            };
            let values = texts
                .iter()
                .map(|text| {
                    let bytes: Option<[u8; 32]> = ::hex::decode(text)
                        .ok()
                        .and_then(|bytes| bytes.try_into().ok());
                    bytes.ok_or_else(|| {
                        D::Error::custom(format_args!(
                            "a value of PCR {number} is not 64 hexadecimal digits"
                        ))
                    })
                })
                .collect::<Result<_, _>>()?;
            // "4" and "04" are one number.
            if pcrs.insert(number, values).is_some() {
                return Err(D::Error::custom(format_args!(
                    "PCR {number} is named twice"
                )));
            }
        }
        Ok(pcrs)
    }
}
