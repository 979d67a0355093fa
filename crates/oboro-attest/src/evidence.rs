//! Evidence on the wire.
//!
//! | bytes | content |
//! |---|---|
//! | 4 | magic `OBEV` |
//! | 1 | format version, 2 |
//! | 1 | platform |
//! | 2 | zero |
//! | 201 | claims |
//! | 4 | bytes of the statement |
//! | 4 | bytes of the endorsements |
//! | rest | statement, endorsements |

use crate::{AttestError, AttestedRole, Claims, Platform, Subject};

const MAGIC: &[u8; 4] = b"OBEV";
const VERSION: u8 = 2;

/// Most bytes of a statement: what the platform signed.
pub const MAX_STATEMENT_BYTES: usize = 32 << 10;

/// Most bytes of endorsements: certificates and collateral that come with it.
pub const MAX_ENDORSEMENT_BYTES: usize = 96 << 10;

/// Most bytes of encoded evidence.
pub const MAX_EVIDENCE_BYTES: usize =
    8 + Claims::BYTES + 8 + MAX_STATEMENT_BYTES + MAX_ENDORSEMENT_BYTES;

/// Decoded evidence; nothing in it is to be believed before a verifier has appraised it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Where it comes from.
    pub platform: Platform,
    /// What it says.
    pub claims: Claims,
    /// What the platform signed, in the platform's own format.
    pub statement: Vec<u8>,
    /// What vouches for the signing key, in the platform's own format; may be empty
    /// where the verifier brings it.
    pub endorsements: Vec<u8>,
}

impl Evidence {
    /// The bytes on the wire.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for a statement or endorsements above their limits.
    pub fn encode(&self) -> Result<Vec<u8>, AttestError> {
        if self.statement.len() > MAX_STATEMENT_BYTES
            || self.endorsements.len() > MAX_ENDORSEMENT_BYTES
        {
            return Err(AttestError::Malformed("it is too long"));
        }
        let mut bytes =
            Vec::with_capacity(16 + Claims::BYTES + self.statement.len() + self.endorsements.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[VERSION, self.platform.number(), 0, 0]);
        bytes.extend_from_slice(&self.claims.encode());
        bytes.extend_from_slice(&(self.statement.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.endorsements.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.statement);
        bytes.extend_from_slice(&self.endorsements);
        Ok(bytes)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`AttestError::Malformed`] for anything else, and for bytes before or after it;
    /// [`AttestError::Version`] and [`AttestError::UnknownPlatform`].
    pub fn decode(bytes: &[u8]) -> Result<Self, AttestError> {
        let mut rest = bytes;
        if take(&mut rest)? != *MAGIC {
            return Err(AttestError::Malformed("it does not begin as evidence does"));
        }
        let [version, platform, zero, also_zero] = take(&mut rest)?;
        if version != VERSION {
            return Err(AttestError::Version(version));
        }
        let platform =
            Platform::from_number(platform).ok_or(AttestError::UnknownPlatform(platform))?;
        if zero != 0 || also_zero != 0 {
            return Err(AttestError::Malformed("reserved bytes are not zero"));
        }
        let [role] = take(&mut rest)?;
        let role =
            AttestedRole::from_number(role).ok_or(AttestError::Malformed("it names no role"))?;
        let claims = Claims {
            role,
            session: take(&mut rest)?,
            nonce: take(&mut rest)?,
            channel_key: take(&mut rest)?,
            subject: Subject {
                ckks_keys: take(&mut rest)?,
                configuration: take(&mut rest)?,
                index_id: take(&mut rest)?,
                epoch: u64::from_le_bytes(take(&mut rest)?),
            },
            issued_at: u64::from_le_bytes(take(&mut rest)?),
        };
        let statement = u32::from_le_bytes(take(&mut rest)?) as usize;
        let endorsements = u32::from_le_bytes(take(&mut rest)?) as usize;
        if statement > MAX_STATEMENT_BYTES || endorsements > MAX_ENDORSEMENT_BYTES {
            return Err(AttestError::Malformed("it is too long"));
        }
        match rest.len().cmp(&(statement + endorsements)) {
            std::cmp::Ordering::Less => return Err(AttestError::Malformed("it is cut short")),
            std::cmp::Ordering::Greater => {
                return Err(AttestError::Malformed("bytes follow its end"));
            }
            std::cmp::Ordering::Equal => {}
        }
        let (statement, endorsements) = rest.split_at(statement);
        Ok(Self {
            platform,
            claims,
            statement: statement.to_vec(),
            endorsements: endorsements.to_vec(),
        })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], AttestError> {
    let (first, others) = rest
        .split_first_chunk::<N>()
        .ok_or(AttestError::Malformed("it is cut short"))?;
    *rest = others;
    Ok(*first)
}
