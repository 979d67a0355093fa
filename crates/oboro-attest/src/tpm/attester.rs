//! Producing quotes, and keys sealed to a start.

use super::endorsements;
use super::statement::{Statement, extra_data};
use crate::{AttestError, Attester, Claims, Evidence, Platform, Sealer};
use oboro_tpm::{Address, AttestationKey, KeyChoice, PcrSelection, SealingRoot, Tpm, TpmError};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The PCRs that are quoted unless others are named: firmware (0 to 3), boot loader (4,
/// 5), events of the maker (6), Secure Boot (7), what GRUB measures (8, 9), what systemd
/// measures (11 to 13) and the owner's keys (14). Not 10, which changes with every file
/// that is opened where the kernel measures files.
pub const DEFAULT_PCRS: [u32; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14];

fn absent(error: TpmError) -> AttestError {
    AttestError::Platform {
        platform: Platform::Tpm,
        reason: error.to_string(),
    }
}

/// Sees whether a TPM answers at `address`.
///
/// # Errors
/// [`AttestError::Platform`] with the reason where none does.
pub fn detect(address: &Address) -> Result<(), AttestError> {
    Tpm::open(address.clone()).map(drop).map_err(absent)
}

/// Produces quotes of a TPM.
pub struct TpmAttester {
    key: AttestationKey,
    selection: PcrSelection,
    endorsements: Vec<u8>,
}

impl TpmAttester {
    /// Quotes of the PCRs `selection`, signed by the key of `choice`.
    ///
    /// # Errors
    /// [`AttestError::Platform`] with what the TPM answers.
    pub fn new(
        tpm: Arc<Tpm>,
        choice: KeyChoice,
        selection: PcrSelection,
    ) -> Result<Self, AttestError> {
        Ok(Self {
            key: AttestationKey::new(tpm, choice).map_err(absent)?,
            selection,
            endorsements: Vec::new(),
        })
    }

    /// Quotes of [`DEFAULT_PCRS`] of the TPM at `address`, signed by the key that it
    /// makes from its seed.
    ///
    /// # Errors
    /// [`AttestError::Platform`] where there is no TPM, or with what it answers.
    pub fn open(address: Address) -> Result<Self, AttestError> {
        let tpm = Tpm::open(address).map_err(absent)?;
        let selection = PcrSelection::new(DEFAULT_PCRS).map_err(absent)?;
        Self::new(Arc::new(tpm), KeyChoice::EcdsaP256, selection)
    }

    /// Sends certificates in DER with the evidence: the attestation key's, then those of
    /// the authorities between it and the root.
    ///
    /// # Errors
    /// [`AttestError::Endorsement`] for more than
    /// [`MAX_CERTIFICATES`](super::MAX_CERTIFICATES) or too long ones.
    pub fn with_certificates(mut self, certificates: &[Vec<u8>]) -> Result<Self, AttestError> {
        self.endorsements = endorsements::encode(certificates)?;
        Ok(self)
    }
}

impl Attester for TpmAttester {
    fn platform(&self) -> Platform {
        Platform::Tpm
    }

    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, AttestError> {
        let binding = claims.binding();
        let quote = self
            .key
            .quote(self.selection, &extra_data(&binding))
            .map_err(absent)?;
        Evidence {
            platform: Platform::Tpm,
            claims: *claims,
            statement: Statement { binding, quote }.encode()?,
            endorsements: self.endorsements.clone(),
        }
        .encode()
    }
}

/// Derives keys that a TPM gives after one start of its machine only, as far as the PCRs
/// tell starts apart; see [`SealingRoot`] for what that protects.
pub struct TpmSealer {
    root: SealingRoot,
}

impl TpmSealer {
    /// Keys bound to the present values of the PCRs `selection`.
    ///
    /// # Errors
    /// [`AttestError::Platform`] with what the TPM answers.
    pub fn new(tpm: Arc<Tpm>, selection: PcrSelection) -> Result<Self, AttestError> {
        Ok(Self {
            root: SealingRoot::new(tpm, selection).map_err(absent)?,
        })
    }

    /// Keys bound to [`DEFAULT_PCRS`] of the TPM at `address`.
    ///
    /// # Errors
    /// [`AttestError::Platform`] where there is no TPM, or with what it answers.
    pub fn open(address: Address) -> Result<Self, AttestError> {
        let tpm = Tpm::open(address).map_err(absent)?;
        let selection = PcrSelection::new(DEFAULT_PCRS).map_err(absent)?;
        Self::new(Arc::new(tpm), selection)
    }
}

impl Sealer for TpmSealer {
    fn platform(&self) -> Platform {
        Platform::Tpm
    }

    fn sealing_key(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, AttestError> {
        self.root.key(purpose).map_err(absent)
    }
}
