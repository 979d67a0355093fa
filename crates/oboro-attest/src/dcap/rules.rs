//! What a policy demands of Intel TDX and SGX.

use crate::{AttestError, MAX_ENDORSEMENT_BYTES, Platform, PolicyFile};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Rules for evidence of Intel TDX and SGX, one acceptance of a policy.
///
/// A list that is empty and not required accepts any value. The keys of the policy file
/// have the same names with hyphens; byte strings are hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DcapRules {
    /// Accepted measurements: MRTD (48 bytes) for TDX, MRENCLAVE (32 bytes) for SGX.
    /// Required, except for SGX where the three keys of the signer are given.
    #[serde(
        default,
        with = "crate::hex::list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub measurements: Vec<Vec<u8>>,
    /// Lowest accepted TCB evaluation data number of the collateral. Required: old
    /// collateral that has not expired may still call a broken platform up to date.
    pub minimum_tcb_evaluation: u32,
    /// Accepted TCB status, in Intel's words; where it is empty, `UpToDate` alone.
    /// `Revoked` cannot be accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tcb_status: Vec<TcbStatus>,
    /// For an accepted status that is out of date: for how many days after the date of
    /// its TCB level it is accepted; by default none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tcb_grace_days: u16,
    /// Security advisories that may apply to the platform, such as `INTEL-SA-00615`; by
    /// default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advisories_allowed: Vec<String>,
    /// Files of collateral in the policy's folder, one for each kind of platform. With
    /// them, collateral that comes with the evidence is ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collateral: Vec<PolicyFile>,
    /// Accept platforms with simultaneous multithreading, where another program can
    /// share a core; refused by default. Says nothing about platforms whose certificate
    /// does not tell.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_smt: bool,
    /// Accept platforms to which processors can be added later; refused by default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_dynamic_platform: bool,
    /// Accept platforms whose root keys Intel keeps; refused by default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub allow_cached_keys: bool,

    /// TDX: accepted values of RTMR 0 (48 bytes): firmware configuration.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub rtmr0: Vec<[u8; 48]>,
    /// TDX: accepted values of RTMR 1: boot loader, kernel.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub rtmr1: Vec<[u8; 48]>,
    /// TDX: accepted values of RTMR 2: kernel command line, initial file system.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub rtmr2: Vec<[u8; 48]>,
    /// TDX: accepted values of RTMR 3: free for programs.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub rtmr3: Vec<[u8; 48]>,
    /// TDX: accepted values of MRCONFIGID (48 bytes).
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mr_config_id: Vec<[u8; 48]>,
    /// TDX: accepted values of MROWNER (48 bytes).
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mr_owner: Vec<[u8; 48]>,
    /// TDX: accepted values of MROWNERCONFIG (48 bytes).
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mr_owner_config: Vec<[u8; 48]>,
    /// TDX: accepted measurements of the TDX module, MRSEAM (48 bytes). Its signer and
    /// version are checked against Intel's collateral in any case.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mr_seam: Vec<[u8; 48]>,
    /// TDX: accepted signers of the TDX module, MRSIGNERSEAM (48 bytes).
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mr_signer_seam: Vec<[u8; 48]>,
    /// TDX: accepted values of XFAM (8 bytes as in the report), the processor state
    /// that the domain may use.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub xfam: Vec<[u8; 8]>,
    /// TDX: accepted values of the domain's attributes (8 bytes as in the report). In
    /// any case debugging, profiling, migration, service domains and reserved bits are
    /// refused and SEPT_VE_DISABLE is demanded.
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub attributes: Vec<[u8; 8]>,

    /// SGX: accepted signers, MRSIGNER (32 bytes).
    #[serde(
        default,
        with = "crate::hex::arrays",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mr_signer: Vec<[u8; 32]>,
    /// SGX: the product number that the signer gave the enclave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<u16>,
    /// SGX: lowest accepted security version of the enclave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_svn: Option<u16>,
}

/// The status of a platform's TCB, in Intel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TcbStatus {
    /// Up to date.
    UpToDate,
    /// Up to date where the program itself works around a weakness.
    #[serde(rename = "SWHardeningNeeded")]
    SwHardeningNeeded,
    /// The platform's configuration leaves a weakness.
    ConfigurationNeeded,
    /// Both of the two above.
    #[serde(rename = "ConfigurationAndSWHardeningNeeded")]
    ConfigurationAndSwHardeningNeeded,
    /// Below the newest TCB.
    OutOfDate,
    /// Below the newest TCB, and its configuration leaves a weakness.
    OutOfDateConfigurationNeeded,
    /// Started under an older TCB than the one that runs now.
    #[serde(rename = "TDRelaunchAdvised")]
    TdRelaunchAdvised,
    /// Started under an older TCB, and its configuration leaves a weakness.
    #[serde(rename = "TDRelaunchAdvisedConfigurationNeeded")]
    TdRelaunchAdvisedConfigurationNeeded,
}

impl TcbStatus {
    pub(crate) const fn library(self) -> dcap_qvl::TcbStatus {
        use dcap_qvl::TcbStatus as Library;
        match self {
            Self::UpToDate => Library::UpToDate,
            Self::SwHardeningNeeded => Library::SWHardeningNeeded,
            Self::ConfigurationNeeded => Library::ConfigurationNeeded,
            Self::ConfigurationAndSwHardeningNeeded => Library::ConfigurationAndSWHardeningNeeded,
            Self::OutOfDate => Library::OutOfDate,
            Self::OutOfDateConfigurationNeeded => Library::OutOfDateConfigurationNeeded,
            Self::TdRelaunchAdvised => Library::TDRelaunchAdvised,
            Self::TdRelaunchAdvisedConfigurationNeeded => {
                Library::TDRelaunchAdvisedConfigurationNeeded
            }
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl DcapRules {
    /// Checks that the rules fit `platform` and accept something in particular.
    ///
    /// # Errors
    /// [`AttestError::Policy`] that names the key.
    pub fn check(&self, platform: Platform) -> Result<(), AttestError> {
        let wrong = |what: &str| Err(AttestError::Policy(format!("{platform}: {what}")));
        let (length, name) = match platform {
            Platform::Tdx => (48, "MRTD has 48"),
            Platform::Sgx => (32, "MRENCLAVE has 32"),
            _ => return wrong("these rules are for tdx and sgx"),
        };
        if self.measurements.iter().any(|value| value.len() != length) {
            return wrong(&format!(
                "a value of 'measurements' has another length; {name} bytes"
            ));
        }
        let signer = [
            !self.mr_signer.is_empty(),
            self.product_id.is_some(),
            self.minimum_svn.is_some(),
        ];
        let domain = [
            !self.xfam.is_empty() || !self.attributes.is_empty(),
            [
                &self.rtmr0,
                &self.rtmr1,
                &self.rtmr2,
                &self.rtmr3,
                &self.mr_config_id,
                &self.mr_owner,
                &self.mr_owner_config,
                &self.mr_seam,
                &self.mr_signer_seam,
            ]
            .iter()
            .any(|list| !list.is_empty()),
        ];
        match platform {
            Platform::Tdx if signer.contains(&true) => {
                return wrong("'mr-signer', 'product-id' and 'minimum-svn' are keys of sgx");
            }
            Platform::Tdx if self.measurements.is_empty() => {
                return wrong("'measurements' lists no MRTD; list those to accept");
            }
            Platform::Sgx if domain.contains(&true) => {
                return wrong("'rtmr', 'mr-…', 'xfam' and 'attributes' are keys of tdx");
            }
            Platform::Sgx if self.measurements.is_empty() && signer.contains(&false) => {
                return wrong(
                    "list MRENCLAVE values in 'measurements', or give 'mr-signer', 'product-id' and 'minimum-svn' together",
                );
            }
            _ => {}
        }
        if self.minimum_tcb_evaluation == 0 {
            return wrong(
                "'minimum-tcb-evaluation' must be at least 1; take the number of today's collateral",
            );
        }
        Ok(())
    }

    /// Reads the files that the rules name, from the policy's `folder`.
    ///
    /// # Errors
    /// [`AttestError::Policy`] for a file that cannot be read or is no collateral.
    pub fn load_files(&mut self, folder: &Path) -> Result<(), AttestError> {
        for file in &mut self.collateral {
            file.load(folder)?;
            if file.content.len() > MAX_ENDORSEMENT_BYTES {
                return Err(AttestError::Policy(format!(
                    "the file '{}' has more than the {MAX_ENDORSEMENT_BYTES} bytes that collateral may have",
                    file.path
                )));
            }
            super::collateral::parse(&file.content).map_err(|_| {
                AttestError::Policy(format!("the file '{}' is no DCAP collateral", file.path))
            })?;
        }
        Ok(())
    }
}
