//! The statement in evidence of a TPM: a quote and what it takes to check it.
//!
//! | bytes | content |
//! |---|---|
//! | 4 | magic `OBTQ` |
//! | 1 | format version, 1 |
//! | 3 | zero |
//! | 64 | binding of the claims |
//! | 4 | one bit for each quoted PCR of the SHA-256 bank, PCR 0 the lowest |
//! | 2 | bytes of the quote's statement |
//! | 2 | bytes of its signature |
//! | 2 | bytes of the attestation key's public part |
//! | rest | statement, signature and public part as the TPM encodes them; 32 bytes of each quoted PCR, ascending |

use crate::AttestError;
use oboro_tpm::{
    MAX_PUBLIC_BYTES, MAX_SIGNATURE_BYTES, MAX_STATEMENT_BYTES, PcrSelection, PcrValues, Quote,
    TpmError,
};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 4] = b"OBTQ";
const VERSION: u8 = 1;

const SHORT: AttestError = AttestError::Malformed("its TPM statement is cut short");

/// A quote over claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub(super) binding: [u8; 64],
    pub(super) quote: Quote,
}

/// The caller's data in a quote over claims with this binding.
pub(super) fn extra_data(binding: &[u8; 64]) -> [u8; 32] {
    Sha256::new_with_prefix(b"oboro tpm quote v1\0")
        .chain_update(binding)
        .finalize()
        .into()
}

impl Statement {
    pub(super) fn encode(&self) -> Result<Vec<u8>, AttestError> {
        let Quote {
            statement,
            signature,
            public,
            pcrs,
        } = &self.quote;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[VERSION, 0, 0, 0]);
        bytes.extend_from_slice(&self.binding);
        bytes.extend_from_slice(&pcrs.selection().bits().to_le_bytes());
        for part in [statement, signature, public] {
            let length = u16::try_from(part.len())
                .map_err(|_| AttestError::Malformed("a part of it is too long"))?;
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        for part in [statement, signature, public] {
            bytes.extend_from_slice(part);
        }
        for (_, value) in pcrs.iter() {
            bytes.extend_from_slice(value);
        }
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, AttestError> {
        let mut rest = bytes;
        if take(&mut rest)? != *MAGIC {
            return Err(AttestError::Malformed("it holds no TPM statement"));
        }
        if take(&mut rest)? != [VERSION, 0, 0, 0] {
            return Err(AttestError::Malformed(
                "its TPM statement has another format version than 1",
            ));
        }
        let binding = take(&mut rest)?;
        let selection =
            PcrSelection::from_bits(u32::from_le_bytes(take(&mut rest)?)).map_err(malformed)?;
        let mut length = || Ok::<_, AttestError>(usize::from(u16::from_le_bytes(take(&mut rest)?)));
        let (statement, signature, public) = (length()?, length()?, length()?);
        if statement > MAX_STATEMENT_BYTES
            || signature > MAX_SIGNATURE_BYTES
            || public > MAX_PUBLIC_BYTES
        {
            return Err(AttestError::Malformed("a part of it is too long"));
        }
        let mut part = |length: usize| {
            let (part, others) = rest.split_at_checked(length).ok_or(SHORT)?;
            rest = others;
            Ok::<_, AttestError>(part.to_vec())
        };
        let (statement, signature, public) = (part(statement)?, part(signature)?, part(public)?);
        let (values, after) = rest.as_chunks();
        if !after.is_empty() {
            return Err(AttestError::Malformed("bytes follow its TPM statement"));
        }
        let pcrs = PcrValues::new(selection, values.to_vec()).map_err(malformed)?;
        Ok(Self {
            binding,
            quote: Quote {
                statement,
                signature,
                public,
                pcrs,
            },
        })
    }
}

/// Errors of reading what a TPM wrote; nothing else can go wrong there.
pub(super) fn malformed(error: TpmError) -> AttestError {
    match error {
        TpmError::Malformed(what) => AttestError::Malformed(what),
        TpmError::Key(what) => AttestError::Endorsement(format!(
            "the key that signed the quote is not usable as an attestation key: {what}"
        )),
        _ => AttestError::Malformed("it selects no PCRs that there are"),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], AttestError> {
    let (first, others) = rest.split_first_chunk::<N>().ok_or(SHORT)?;
    *rest = others;
    Ok(*first)
}
