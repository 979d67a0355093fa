//! What a policy demands of AMD SEV-SNP.

use super::certificate::{Certificate, RevocationList};
use super::{Product, Tcb};
use crate::{AttestError, PolicyFile};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Rules for evidence of AMD SEV-SNP, as the keys of an `[[accept]]` entry with
/// `platform = "sev-snp"`. A guest in debug mode is refused whatever the rules say, and so
/// is a report from a privilege level other than 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SnpRules {
    /// Accepted launch measurements, 48 bytes each; none accepts nothing.
    #[serde(with = "crate::hex::list")]
    pub measurements: Vec<Vec<u8>>,
    /// Lowest accepted firmware, component by component: at launch, now, as reported, and
    /// of what the platform can go back to.
    pub minimum_tcb: Tcb,
    /// Accepted product lines, `milan`, `genoa` or `turin`; empty for any. Each line counts
    /// its firmware by itself, so `minimum-tcb` means something for one line only: list it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub products: Vec<Product>,
    /// Whether revocation lists must be there and current.
    #[serde(default, skip_serializing_if = "is_default")]
    pub revocation: Revocation,
    /// Whether a migration agent may be associated with the guest.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_migration: bool,
    /// Cloud providers whose VLEK is accepted, by the id in its certificate; with none,
    /// only chips' own keys (VCEK) are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub vlek_providers: Vec<String>,
    /// Lowest accepted version number of the guest.
    #[serde(default, skip_serializing_if = "is_default")]
    pub minimum_guest_svn: u32,
    /// Accepted families of images, 16 bytes each; empty for any.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub family_ids: Vec<[u8; 16]>,
    /// Accepted images, 16 bytes each; empty for any.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub image_ids: Vec<[u8; 16]>,
    /// Accepted SHA-384 digests of the key that signed the identity block; empty for any.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub id_key_digests: Vec<[u8; 48]>,
    /// Accepted chips, 64 bytes each; empty for any. A VLEK's report names none unless
    /// the platform shows it.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub chip_ids: Vec<[u8; 64]>,
    /// Certificates in DER beside those that the evidence brings: VCEK or VLEK, ASK or
    /// ASVK. The roots are part of the program, and so are the ASKs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<PolicyFile>,
    /// Revocation lists in DER, signed by AMD, beside those that the evidence brings: the
    /// one of the product line for VCEK, or for VLEK. A host can bring an older list that
    /// has not expired; a newer one here counts as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocation_lists: Vec<PolicyFile>,
}

/// Whether revocation is checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revocation {
    /// A current list of the root's authority is required.
    #[default]
    Required,
    /// Nothing is required. Lists that are there are applied all the same, and without
    /// one the appraisal carries a remark.
    Unchecked,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl SnpRules {
    /// Checks that the rules accept something in particular.
    ///
    /// # Errors
    /// [`AttestError::Policy`] that names the key.
    pub fn check(&self) -> Result<(), AttestError> {
        let wrong = |what: String| Err(AttestError::Policy(format!("sev-snp: {what}")));
        if self.measurements.is_empty() {
            return wrong(
                "'measurements' lists no launch measurement; list those to accept".to_owned(),
            );
        }
        if let Some(other) = self.measurements.iter().find(|value| value.len() != 48) {
            return wrong(format!(
                "a value of 'measurements' has {} bytes; a launch measurement has 48",
                other.len()
            ));
        }
        Ok(())
    }

    /// Reads the files that the rules name, from the policy's `folder`.
    ///
    /// # Errors
    /// [`AttestError::Policy`] for a file that cannot be read or is not what it must be.
    pub fn load_files(&mut self, folder: &Path) -> Result<(), AttestError> {
        let wrong = |file: &PolicyFile, error: AttestError| {
            AttestError::Policy(format!("the file '{}': {error}", file.path))
        };
        for file in &mut self.certificates {
            file.load(folder)?;
            Certificate::parse(&file.content).map_err(|error| wrong(file, error))?;
        }
        for file in &mut self.revocation_lists {
            file.load(folder)?;
            RevocationList::parse(&file.content).map_err(|error| wrong(file, error))?;
        }
        Ok(())
    }
}
