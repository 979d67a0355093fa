//! The public part of a TPM's key, and what makes it an attestation key.

use crate::TpmError;
use sha2::{Digest, Sha256};
use tpm2_protocol::data::{
    TpmAlgId, TpmEccCurve, TpmaObject, TpmsSchemeHash, TpmtEccScheme, TpmtPublic, TpmtRsaScheme,
    TpmuAsymScheme, TpmuPublicId, TpmuPublicParms,
};
use tpm2_protocol::{TpmMarshal, TpmUnmarshal, TpmWriter};

/// Most bytes of an encoded public part.
pub const MAX_PUBLIC_BYTES: usize = 1024;

/// A restricted signing key that never left its TPM, as its public part states it.
///
/// Restricted means that the TPM signs with it nothing that begins as its own statements
/// do unless it made the statement itself.
///
/// # Security
/// The public part is only what somebody says about a key. Whoever relies on it must know
/// its [`name`](Self::name) or have a certificate for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestationPublic {
    key: PublicKey,
    name: [u8; 32],
}

/// A public key and the one scheme that it signs with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublicKey {
    /// ECDSA on P-256 with SHA-256: x and y.
    EcdsaP256 {
        /// The point's x.
        x: [u8; 32],
        /// The point's y.
        y: [u8; 32],
    },
    /// RSA PKCS #1 v1.5 with SHA-256.
    RsaSsa {
        /// The modulus, big-endian.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: u32,
    },
    /// RSA-PSS with SHA-256.
    RsaPss {
        /// The modulus, big-endian.
        modulus: Vec<u8>,
        /// The public exponent.
        exponent: u32,
    },
}

impl AttestationPublic {
    /// Reads the TPM's encoding (`TPMT_PUBLIC`).
    ///
    /// # Errors
    /// [`TpmError::Malformed`] for other bytes, [`TpmError::Key`] for a key that is not
    /// restricted to signing, may leave its TPM or uses other algorithms.
    pub fn decode(bytes: &[u8]) -> Result<Self, TpmError> {
        const MALFORMED: TpmError = TpmError::Malformed("it is no public part of a key");
        if bytes.len() > MAX_PUBLIC_BYTES {
            return Err(MALFORMED);
        }
        let (public, rest) = TpmtPublic::unmarshal(bytes).map_err(|_| MALFORMED)?;
        // One encoding for one key: its name is a hash of these bytes.
        if !rest.is_empty() || encode(&public)? != bytes {
            return Err(MALFORMED);
        }
        if public.name_alg != TpmAlgId::Sha256 {
            return Err(TpmError::Key("its name is not made with SHA-256"));
        }
        let attributes = public.object_attributes;
        if !attributes.contains(ATTESTING) {
            return Err(TpmError::Key(
                "it is not made by its TPM, fixed to it and restricted to signing",
            ));
        }
        if attributes.contains(TpmaObject::DECRYPT) {
            return Err(TpmError::Key("it decrypts, too"));
        }
        Ok(Self {
            key: public_key(&public)?,
            name: Sha256::digest(bytes).into(),
        })
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The digest in its name: SHA-256 of the encoded public part, which covers the key
    /// and what the TPM does with it.
    #[must_use]
    pub fn name(&self) -> &[u8; 32] {
        &self.name
    }
}

/// What an attestation key must have.
pub(crate) const ATTESTING: TpmaObject = TpmaObject::from_bits_truncate(
    TpmaObject::FIXED_TPM.bits()
        | TpmaObject::FIXED_PARENT.bits()
        | TpmaObject::SENSITIVE_DATA_ORIGIN.bits()
        | TpmaObject::RESTRICTED.bits()
        | TpmaObject::SIGN_ENCRYPT.bits(),
);

fn public_key(public: &TpmtPublic) -> Result<PublicKey, TpmError> {
    const SHA256: TpmuAsymScheme = TpmuAsymScheme::Hash(TpmsSchemeHash {
        hash_alg: TpmAlgId::Sha256,
    });
    match (&public.parameters, &public.unique) {
        (TpmuPublicParms::Ecc(parameters), TpmuPublicId::Ecc(point)) => {
            let ecdsa = TpmtEccScheme {
                scheme: TpmAlgId::Ecdsa,
                details: SHA256,
            };
            if parameters.curve_id != TpmEccCurve::NistP256 || parameters.scheme != ecdsa {
                return Err(TpmError::Key("it is not for ECDSA on P-256 with SHA-256"));
            }
            Ok(PublicKey::EcdsaP256 {
                x: padded(&point.x)?,
                y: padded(&point.y)?,
            })
        }
        (TpmuPublicParms::Rsa(parameters), TpmuPublicId::Rsa(modulus)) => {
            let modulus = modulus.to_vec();
            if modulus.len() * 8 != usize::from(parameters.key_bits.value()) || modulus.len() < 256
            {
                return Err(TpmError::Key("its modulus is shorter than 2048 bits"));
            }
            let exponent = match parameters.exponent.value() {
                0 => 65_537,
                other => other,
            };
            match parameters.scheme {
                TpmtRsaScheme {
                    scheme: TpmAlgId::Rsassa,
                    details: SHA256,
                } => Ok(PublicKey::RsaSsa { modulus, exponent }),
                TpmtRsaScheme {
                    scheme: TpmAlgId::Rsapss,
                    details: SHA256,
                } => Ok(PublicKey::RsaPss { modulus, exponent }),
                _ => Err(TpmError::Key("it is not for RSA signatures with SHA-256")),
            }
        }
        _ => Err(TpmError::Key(
            "it is neither of RSA nor of an elliptic curve",
        )),
    }
}

/// A number of at most 32 bytes, as TPMs write it with or without leading zeros.
pub(crate) fn padded(number: &[u8]) -> Result<[u8; 32], TpmError> {
    let start = 32_usize
        .checked_sub(number.len())
        .ok_or(TpmError::Malformed("a number is longer than its curve's"))?;
    let mut bytes = [0; 32];
    bytes[start..].copy_from_slice(number);
    Ok(bytes)
}

pub(crate) fn encode(value: &impl TpmMarshal) -> Result<Vec<u8>, TpmError> {
    let mut buffer = [0; MAX_PUBLIC_BYTES];
    let mut writer = TpmWriter::new(&mut buffer);
    value
        .marshal(&mut writer)
        .map_err(|_| TpmError::Malformed("a structure does not fit"))?;
    Ok(writer.as_bytes().to_vec())
}
