//! Platforms and attested roles, with their numbers on the wire.

use std::fmt;

/// What protects a role from the host it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Platform {
    /// AMD SEV-SNP.
    SevSnp,
    /// Intel TDX.
    Tdx,
    /// AWS Nitro Enclaves.
    Nitro,
    /// Intel SGX.
    Sgx,
    /// A TPM 2.0, usually a virtual one. It measures what was started; by itself it
    /// keeps no memory from the host.
    Tpm,
    /// A process of its own; for trials, protects nothing.
    Simulated,
}

impl Platform {
    /// All platforms.
    pub const ALL: [Self; 6] = [
        Self::SevSnp,
        Self::Tdx,
        Self::Nitro,
        Self::Sgx,
        Self::Tpm,
        Self::Simulated,
    ];

    /// The name in policies and outputs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SevSnp => "sev-snp",
            Self::Tdx => "tdx",
            Self::Nitro => "nitro",
            Self::Sgx => "sgx",
            Self::Tpm => "tpm",
            Self::Simulated => "simulated",
        }
    }

    /// The platform of a name made by [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|platform| platform.name() == name)
    }

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::SevSnp => 1,
            Self::Tdx => 2,
            Self::Nitro => 3,
            Self::Sgx => 4,
            Self::Tpm => 5,
            Self::Simulated => 0xff,
        }
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|platform| platform.number() == number)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A role whose program can be attested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttestedRole {
    /// Holds codes and the encrypted codebook.
    Searcher,
    /// Holds the decryption key.
    Keeper,
    /// Builds one index for its owner and forgets it.
    Generator,
}

impl AttestedRole {
    /// The name in policies and outputs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Searcher => "searcher",
            Self::Keeper => "keeper",
            Self::Generator => "generator",
        }
    }

    /// The role of a name made by [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Searcher, Self::Keeper, Self::Generator]
            .into_iter()
            .find(|role| role.name() == name)
    }

    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Searcher => 1,
            Self::Keeper => 2,
            Self::Generator => 3,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Searcher),
            2 => Some(Self::Keeper),
            3 => Some(Self::Generator),
            _ => None,
        }
    }
}

impl fmt::Display for AttestedRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
