//! What a TPM signs, and its signatures: decoders of bytes that anyone can send.

use crate::public::padded;
use crate::{PcrSelection, TpmError};
use tpm2_protocol::TpmUnmarshal;
use tpm2_protocol::data::{TpmAlgId, TpmsAttest, TpmtSignature, TpmuAttest, TpmuSignature};

/// Most bytes of a statement.
pub const MAX_STATEMENT_BYTES: usize = 1024;

/// Most bytes of a signature.
pub const MAX_SIGNATURE_BYTES: usize = 1024;

/// What a quote says (`TPMS_ATTEST`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuoteStatement {
    /// The caller's data.
    pub extra_data: Vec<u8>,
    /// Milliseconds that the TPM has been running, over all its starts.
    pub clock: u64,
    /// How often it was reset.
    pub resets: u32,
    /// How often it was restarted or resumed since the last reset.
    pub restarts: u32,
    /// No value of the clock as high as this was given out before.
    pub clock_is_safe: bool,
    /// Its firmware's version, in its vendor's numbering.
    pub firmware: u64,
    /// The PCRs quoted.
    pub selection: PcrSelection,
    /// Digest of their values, see [`PcrValues::digest`](crate::PcrValues::digest).
    pub digest: [u8; 32],
}

impl QuoteStatement {
    /// Reads the TPM's encoding. It begins with the value that a TPM puts before its own
    /// statements and nothing else.
    ///
    /// # Errors
    /// [`TpmError::Malformed`] for anything else than a quote of the SHA-256 bank, and for
    /// bytes after it.
    pub fn decode(bytes: &[u8]) -> Result<Self, TpmError> {
        const MALFORMED: TpmError = TpmError::Malformed("it is no statement of a TPM");
        if bytes.len() > MAX_STATEMENT_BYTES {
            return Err(MALFORMED);
        }
        let (attest, rest) = TpmsAttest::unmarshal(bytes).map_err(|_| MALFORMED)?;
        if !rest.is_empty() {
            return Err(MALFORMED);
        }
        let TpmuAttest::Quote(quote) = &attest.attested else {
            return Err(TpmError::Malformed(
                "it is a TPM's statement about something else than its PCRs",
            ));
        };
        Ok(Self {
            extra_data: attest.extra_data.to_vec(),
            clock: attest.clock_info.clock.value(),
            resets: attest.clock_info.reset_count.value(),
            restarts: attest.clock_info.restart_count.value(),
            clock_is_safe: attest.clock_info.safe.into(),
            firmware: attest.firmware_version.value(),
            selection: PcrSelection::from_list(&quote.pcr_select)?,
            digest: quote
                .pcr_digest
                .as_ref()
                .try_into()
                .map_err(|_| TpmError::Malformed("its digest is not of SHA-256"))?,
        })
    }
}

/// A TPM's signature with SHA-256 (`TPMT_SIGNATURE`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuoteSignature {
    /// ECDSA on P-256: r, then s.
    EcdsaP256([u8; 64]),
    /// RSA PKCS #1 v1.5.
    RsaSsa(Vec<u8>),
    /// RSA-PSS.
    RsaPss(Vec<u8>),
}

impl QuoteSignature {
    /// Reads the TPM's encoding.
    ///
    /// # Errors
    /// [`TpmError::Malformed`] for other schemes and hashes, and for bytes after it.
    pub fn decode(bytes: &[u8]) -> Result<Self, TpmError> {
        const MALFORMED: TpmError = TpmError::Malformed("it is no signature of a TPM");
        if bytes.len() > MAX_SIGNATURE_BYTES {
            return Err(MALFORMED);
        }
        let (signature, rest) = TpmtSignature::unmarshal(bytes).map_err(|_| MALFORMED)?;
        if !rest.is_empty() {
            return Err(MALFORMED);
        }
        match signature.signature {
            TpmuSignature::Ecdsa(value) if value.hash == TpmAlgId::Sha256 => {
                let mut both = [0; 64];
                both[..32].copy_from_slice(&padded(&value.signature_r)?);
                both[32..].copy_from_slice(&padded(&value.signature_s)?);
                Ok(Self::EcdsaP256(both))
            }
            TpmuSignature::Rsassa(value) if value.hash == TpmAlgId::Sha256 => {
                Ok(Self::RsaSsa(value.sig.to_vec()))
            }
            TpmuSignature::Rsapss(value) if value.hash == TpmAlgId::Sha256 => {
                Ok(Self::RsaPss(value.sig.to_vec()))
            }
            _ => Err(TpmError::Malformed(
                "its signature is of another scheme than ECDSA, RSASSA or RSAPSS with SHA-256",
            )),
        }
    }
}
