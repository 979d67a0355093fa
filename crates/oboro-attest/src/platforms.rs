//! The hardware platforms together: which are here, and verifiers of all.

use crate::dcap::{SgxVerifier, TdxAttester, TdxVerifier};
use crate::nitro::{NitroAttester, NitroVerifier};
use crate::snp::{SnpAttester, SnpSealer, SnpVerifier};
use crate::tpm::{self, TpmAttester, TpmSealer, TpmVerifier};
use crate::tsm::{REPORT_FOLDER, Tsm};
use crate::{AttestError, Attester, Platform, PlatformVerifier, Sealer};
use oboro_tpm::Address;
use std::sync::Arc;

/// Whether a platform is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detection {
    /// Which.
    pub platform: Platform,
    /// Whether this machine can give its evidence.
    pub available: bool,
    /// What was found or is missing, a sentence.
    pub detail: String,
}

/// Verifiers of every hardware platform, under the vendors' roots.
#[must_use]
pub fn hardware_verifiers() -> Vec<Arc<dyn PlatformVerifier>> {
    vec![
        Arc::new(SnpVerifier::new()),
        Arc::new(TdxVerifier::default()),
        Arc::new(SgxVerifier::default()),
        Arc::new(NitroVerifier::default()),
        Arc::new(TpmVerifier),
    ]
}

/// Looks at this machine.
#[must_use]
pub fn detect() -> Vec<Detection> {
    let answer = |platform, found: Result<(), AttestError>, detail: &str| match found {
        Ok(()) => Detection {
            platform,
            available: true,
            detail: detail.to_owned(),
        },
        Err(AttestError::Platform { reason, .. }) => Detection {
            platform,
            available: false,
            detail: reason,
        },
        Err(other) => Detection {
            platform,
            available: false,
            detail: other.to_string(),
        },
    };
    vec![
        answer(
            Platform::SevSnp,
            Tsm::snp(REPORT_FOLDER).check(),
            "reports come from the kernel",
        ),
        answer(
            Platform::Tdx,
            Tsm::tdx(REPORT_FOLDER).check(),
            "quotes come from the kernel",
        ),
        answer(
            Platform::Nitro,
            NitroAttester::new().map(drop),
            "documents come from the Nitro Secure Module",
        ),
        answer(
            Platform::Tpm,
            tpm::detect(&Address::default()),
            "a TPM 2.0 answers at /dev/tpmrm0; it keeps no memory from the host",
        ),
        Detection {
            platform: Platform::Sgx,
            available: false,
            detail: "no program of Oboro runs as an SGX enclave; its evidence can be verified"
                .to_owned(),
        },
    ]
}

/// The attester of this machine: the first of SEV-SNP, TDX, Nitro and TPM that is here.
///
/// # Errors
/// [`AttestError::NoPlatform`] with the reasons where there is none.
pub fn hardware_attester() -> Result<Arc<dyn Attester>, AttestError> {
    first(&[
        || Ok(Arc::new(SnpAttester::new()?) as Arc<dyn Attester>),
        || Ok(Arc::new(TdxAttester::new()?)),
        || Ok(Arc::new(NitroAttester::new()?)),
        || Ok(Arc::new(TpmAttester::open(Address::default())?)),
    ])
}

/// The sealer of this machine: that of SEV-SNP, or of a TPM where nothing else is here.
/// Other platforms derive no keys.
///
/// # Security
/// Beside a trusted execution environment no TPM is used: the TPM of a virtual machine is
/// as a rule its host's, who would have the keys.
///
/// # Errors
/// [`AttestError::NoPlatform`] with the reasons where there is none.
pub fn hardware_sealer() -> Result<Arc<dyn Sealer>, AttestError> {
    first(&[
        || Ok(Arc::new(SnpSealer::new()?) as Arc<dyn Sealer>),
        || {
            tpm_may_seal(&[
                SnpAttester::new().map(drop),
                TdxAttester::new().map(drop),
                NitroAttester::new().map(drop),
            ])?;
            Ok(Arc::new(TpmSealer::open(Address::default())?))
        },
    ])
}

/// Refuses a TPM where any of the `environments` is here.
fn tpm_may_seal(environments: &[Result<(), AttestError>]) -> Result<(), AttestError> {
    if environments.iter().any(Result::is_ok) {
        return Err(AttestError::Platform {
            platform: Platform::Tpm,
            reason: "beside a trusted execution environment it may be the host's".to_owned(),
        });
    }
    Ok(())
}

fn first<T>(makers: &[fn() -> Result<T, AttestError>]) -> Result<T, AttestError> {
    let mut reasons = Vec::new();
    for make in makers {
        match make() {
            Ok(made) => return Ok(made),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(AttestError::NoPlatform(reasons.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fail_a_hosts_tpm_beside_an_environment() {
        let absent = || Err(AttestError::NoPlatform(String::new()));
        assert!(tpm_may_seal(&[absent(), absent(), absent()]).is_ok());
        for present in 0..3 {
            let mut found = [absent(), absent(), absent()];
            found[present] = Ok(());
            assert!(tpm_may_seal(&found).is_err());
        }
    }
}
