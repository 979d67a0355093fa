//! The appraisal policy (RFC 9334): which evidence a relying party accepts.

use crate::dcap::DcapRules;
use crate::nitro::NitroRules;
use crate::snp::SnpRules;
use crate::tpm::TpmRules;
use crate::{AttestError, AttestedRole, Claims, Platform};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// Which evidence is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Oldest accepted evidence.
    pub max_age: Duration,
    /// How far the attester's clock may be ahead.
    pub clock_skew: Duration,
    /// Evidence is accepted that satisfies one of these.
    pub accept: Vec<Acceptance>,
}

impl Default for Policy {
    /// Five minutes, one minute, nothing accepted.
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(300),
            clock_skew: Duration::from_secs(60),
            accept: Vec::new(),
        }
    }
}

impl Policy {
    /// This policy, and the simulated platform accepted whatever its measurement.
    #[must_use]
    pub fn allowing_simulated(mut self) -> Self {
        self.accept.push(Acceptance {
            role: None,
            configurations: Vec::new(),
            rules: Rules::Simulated(SimulatedRules::default()),
        });
        self
    }

    pub(crate) fn accepted(&self, platform: Platform) -> impl Iterator<Item = &Acceptance> {
        self.accept
            .iter()
            .filter(move |acceptance| acceptance.rules.platform() == platform)
    }

    pub(crate) fn check_time(&self, issued_at: u64, now: u64) -> Result<(), AttestError> {
        let ahead = issued_at.saturating_sub(now);
        if ahead > self.clock_skew.as_secs() {
            return Err(AttestError::FromTheFuture { ahead });
        }
        let age = now.saturating_sub(issued_at);
        let limit = self.max_age.as_secs();
        if age > limit {
            return Err(AttestError::Expired { age, limit });
        }
        Ok(())
    }
}

/// One way to be accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acceptance {
    /// Only for this role; `None` for any.
    pub role: Option<AttestedRole>,
    /// Only these configuration digests; empty for any.
    pub configurations: Vec<[u8; 32]>,
    /// What the platform's evidence must satisfy.
    pub rules: Rules,
}

impl Acceptance {
    pub(crate) fn check_claims(&self, claims: &Claims) -> Result<(), AttestError> {
        if self.role.is_some_and(|role| role != claims.role) {
            return Err(AttestError::Role);
        }
        if !self.configurations.is_empty()
            && !self.configurations.contains(&claims.subject.configuration)
        {
            return Err(AttestError::Configuration);
        }
        Ok(())
    }
}

/// Rules of one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rules {
    /// AMD SEV-SNP.
    SevSnp(SnpRules),
    /// Intel TDX.
    Tdx(DcapRules),
    /// Intel SGX.
    Sgx(DcapRules),
    /// AWS Nitro Enclaves.
    Nitro(NitroRules),
    /// A TPM 2.0.
    Tpm(TpmRules),
    /// The simulated platform.
    Simulated(SimulatedRules),
}

impl Rules {
    /// The platform they are for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        match self {
            Self::SevSnp(_) => Platform::SevSnp,
            Self::Tdx(_) => Platform::Tdx,
            Self::Sgx(_) => Platform::Sgx,
            Self::Nitro(_) => Platform::Nitro,
            Self::Tpm(_) => Platform::Tpm,
            Self::Simulated(_) => Platform::Simulated,
        }
    }

    /// Checks that the rules accept something in particular.
    pub(crate) fn check(&self) -> Result<(), AttestError> {
        match self {
            Self::SevSnp(rules) => rules.check(),
            Self::Tdx(rules) | Self::Sgx(rules) => rules.check(self.platform()),
            Self::Nitro(rules) => rules.check(),
            Self::Tpm(rules) => rules.check(),
            Self::Simulated(_) => Ok(()),
        }
    }

    /// Reads the files that the rules name.
    pub(crate) fn load_files(&mut self, folder: &Path) -> Result<(), AttestError> {
        match self {
            Self::SevSnp(rules) => rules.load_files(folder),
            Self::Tdx(rules) | Self::Sgx(rules) => rules.load_files(folder),
            Self::Tpm(rules) => rules.load_files(folder),
            Self::Nitro(_) | Self::Simulated(_) => Ok(()),
        }
    }
}

/// Rules of the simulated platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SimulatedRules {
    /// Accepted measurements, 48 bytes each; empty for any.
    #[serde(
        default,
        with = "crate::hex::list",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub measurements: Vec<Vec<u8>>,
}
