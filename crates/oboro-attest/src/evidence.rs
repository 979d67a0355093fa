//! The encoding of evidence.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `OBEV` |
//! | 1 | format version, 1 |
//! | 1 | platform |
//! | 1 | role |
//! | 1 | zero |
//! | 32 | channel key |
//! | 32 | CKKS key |
//! | 32 | nonce |
//! | 8 | issued at, seconds since 1970, little-endian |
//! | 48 | measurement |
//! | 4 | length of the proof, little-endian |
//! | | proof: what the platform signs over all that precedes its length |

use crate::{AttestError, AttestedRole, Claims, Measurement, Platform};

const MAGIC: &[u8; 4] = b"OBEV";
const VERSION: u8 = 1;
const SIGNED_BYTES: usize = 4 + 4 + 3 * 32 + 8 + 48;

/// Most bytes of a platform's proof: a report with its certificate chain is below 16 KiB.
pub const MAX_PROOF_BYTES: usize = 32 << 10;

/// Decoded evidence, not yet appraised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// The platform it claims to come from.
    pub platform: Platform,
    /// What the party says about itself.
    pub claims: Claims,
    /// The program's measurement.
    pub measurement: Measurement,
    /// The platform's proof: a signature, or a report with certificates.
    pub proof: Vec<u8>,
}

impl Evidence {
    /// The bytes the platform vouches for.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let claims = &self.claims;
        let mut bytes = Vec::with_capacity(SIGNED_BYTES + 4 + self.proof.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, self.platform.number(), claims.role.number(), 0]);
        bytes.extend_from_slice(&claims.channel_key);
        bytes.extend_from_slice(&claims.ckks_key);
        bytes.extend_from_slice(&claims.nonce);
        bytes.extend_from_slice(&claims.issued_at.to_le_bytes());
        bytes.extend_from_slice(&self.measurement);
        bytes
    }

    /// The encoding.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for a proof longer than [`MAX_PROOF_BYTES`].
    pub fn encode(&self) -> Result<Vec<u8>, AttestError> {
        let length = u32::try_from(self.proof.len())
            .ok()
            .filter(|_| self.proof.len() <= MAX_PROOF_BYTES)
            .ok_or(AttestError::Malformed("its proof is too long"))?;
        let mut bytes = self.signed_bytes();
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&self.proof);
        Ok(bytes)
    }

    /// Decodes evidence. This checks the form only; [`Verifier`](crate::Verifier) judges.
    ///
    /// # Errors
    /// [`AttestError::Malformed`], [`AttestError::Version`],
    /// [`AttestError::UnknownPlatform`].
    pub fn decode(bytes: &[u8]) -> Result<Self, AttestError> {
        let mut rest = bytes;
        if take(&mut rest)? != *MAGIC {
            return Err(AttestError::Malformed("it does not begin as evidence does"));
        }
        let [version, platform, role, zero] = take(&mut rest)?;
        if version != VERSION {
            return Err(AttestError::Version(version));
        }
        let platform =
            Platform::from_number(platform).ok_or(AttestError::UnknownPlatform(platform))?;
        let role = AttestedRole::from_number(role)
            .filter(|_| zero == 0)
            .ok_or(AttestError::Malformed("it names no role"))?;
        let claims = Claims {
            role,
            channel_key: take(&mut rest)?,
            ckks_key: take(&mut rest)?,
            nonce: take(&mut rest)?,
            issued_at: u64::from_le_bytes(take(&mut rest)?),
        };
        let measurement = take(&mut rest)?;
        let length = u32::from_le_bytes(take(&mut rest)?) as usize;
        if length > MAX_PROOF_BYTES {
            return Err(AttestError::Malformed("its proof is too long"));
        }
        match rest.len() {
            found if found < length => Err(AttestError::Malformed("it is cut short")),
            found if found > length => Err(AttestError::Malformed("bytes follow its end")),
            _ => Ok(Self {
                platform,
                claims,
                measurement,
                proof: rest.to_vec(),
            }),
        }
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], AttestError> {
    let (first, others) = rest
        .split_first_chunk::<N>()
        .ok_or(AttestError::Malformed("it is cut short"))?;
    *rest = others;
    Ok(*first)
}
