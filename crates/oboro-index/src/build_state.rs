//! What an owner keeps, sealed, while searcher and keeper make an index for it blindly.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic `OBOROBST` |
//! | 2 | format version |
//! | 12 | nonce |
//! | 16 | index id |
//! | 32 | seed |
//! | 32 | digest of the input |
//! | 32 | digest of the input without the keeper's key; not in version 1 |
//! | 16 | tag |
//!
//! All after the nonce is sealed.

use crate::cursor::Cursor;
use crate::keys::OwnerKey;
use crate::{IndexError, derive, note};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"OBOROBST";
const VERSION: u16 = 2;
/// The oldest version that is read.
const OLD: u16 = 1;
const NAME: &str = "the state of a blind build";
const OLD_BYTES: usize = 8 + 2 + note::NONCE + 16 + 32 + 32 + note::TAG;
/// Bytes of [`BuildState::to_bytes`].
const BYTES: usize = OLD_BYTES + 32;

/// What an owner keeps while searcher and keeper make an index for it: enough to go on
/// after whoever was killed.
///
/// # Security
/// The seed decides everything that is random in the build, the masks that hide the
/// sample from the keeper among it. Sealed under a key derived from the owner's.
pub struct BuildState {
    /// The index that is made.
    pub index_id: [u8; 16],
    /// What all randomness of the build follows from.
    pub seed: Zeroizing<[u8; 32]>,
    /// Digest of the input, of what was asked for, and of the keeper's key.
    pub input: [u8; 32],
    /// The same without the keeper's key, which may be rotated before the build goes on;
    /// a state of version 1 does not say it.
    pub apart_from_key: Option<[u8; 32]>,
}

impl BuildState {
    /// What chooses the sample, where nothing else was asked for.
    #[must_use]
    pub fn sampling_seed(&self) -> [u8; 32] {
        *derive::key(&*self.seed, "sampling", &self.index_id)
    }

    /// Seals the state.
    #[must_use]
    pub fn to_bytes(&self, key: &OwnerKey, rng: &mut impl CryptoRng) -> Vec<u8> {
        let mut content = Zeroizing::new(Vec::with_capacity(BYTES));
        content.extend_from_slice(&self.index_id);
        content.extend_from_slice(&*self.seed);
        content.extend_from_slice(&self.input);
        let version = match &self.apart_from_key {
            Some(digest) => {
                content.extend_from_slice(digest);
                VERSION
            }
            None => OLD,
        };
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&version.to_le_bytes());
        let mut nonce = [0; note::NONCE];
        rng.fill_bytes(&mut nonce);
        out.extend_from_slice(&nonce);
        let key = derive::key(key.secret(), "blind-build", b"");
        let sealed = note::seal(&key, nonce, &out, &content);
        out.extend_from_slice(&sealed);
        out
    }

    /// Opens what [`to_bytes`](Self::to_bytes) sealed.
    ///
    /// # Errors
    /// If it was altered or is another owner's.
    pub fn from_bytes(key: &OwnerKey, bytes: &[u8]) -> Result<Self, IndexError> {
        let mut cursor = Cursor::new(NAME, bytes);
        let (version, expected) = match cursor.magic(MAGIC, VERSION) {
            Ok(()) => (VERSION, BYTES),
            Err(IndexError::Version { found, .. }) if found == OLD => (OLD, OLD_BYTES),
            Err(error) => return Err(error),
        };
        if bytes.len() != expected {
            return Err(IndexError::Mismatch {
                what: "the length of the state of a blind build",
                found: bytes.len() as u64,
                expected: expected as u64,
            });
        }
        let nonce = cursor.array()?;
        let (clear, sealed) = bytes.split_at(bytes.len() - cursor.remaining());
        let key = derive::key(key.secret(), "blind-build", b"");
        let content = note::open(&key, nonce, clear, sealed, NAME, "owner key")?;
        let mut cursor = Cursor::new(NAME, &content);
        let state = Self {
            index_id: cursor.array()?,
            seed: Zeroizing::new(cursor.array()?),
            input: cursor.array()?,
            apart_from_key: match version {
                OLD => None,
                _ => Some(cursor.array()?),
            },
        };
        cursor.end()?;
        Ok(state)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    fn rng(seed: u8) -> chacha20::ChaCha20Rng {
        chacha20::ChaCha20Rng::from_seed([seed; 32])
    }

    fn owner(seed: u8) -> OwnerKey {
        OwnerKey::generate(&mut rng(seed))
    }

    #[test]
    fn fail_states_of_builds_that_were_altered_or_are_of_others() {
        for apart_from_key in [None, Some([4; 32])] {
            let state = BuildState {
                index_id: [1; 16],
                seed: Zeroizing::new([2; 32]),
                input: [3; 32],
                apart_from_key,
            };
            let bytes = state.to_bytes(&owner(1), &mut rng(9));
            let read = BuildState::from_bytes(&owner(1), &bytes).unwrap();
            assert_eq!(
                (read.index_id, *read.seed, read.input, read.apart_from_key),
                ([1; 16], [2; 32], [3; 32], apart_from_key)
            );
            assert!(BuildState::from_bytes(&owner(2), &bytes).is_err());
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                assert!(
                    BuildState::from_bytes(&owner(1), &bad).is_err(),
                    "byte {at}"
                );
                assert!(BuildState::from_bytes(&owner(1), &bytes[..at]).is_err());
            }
            let mut long = bytes;
            long.push(0);
            assert!(BuildState::from_bytes(&owner(1), &long).is_err());
        }
    }

    /// One that a program before this one wrote.
    const OLD_STATE: &[u8] = include_bytes!("../tests/stored/blind-build-v1/state");

    fn its_owner() -> OwnerKey {
        OwnerKey::from_text(include_str!("../tests/stored/blind-build-v1/owner.key")).unwrap()
    }

    #[test]
    fn version_1_opens_and_says_nothing_of_another_key() {
        let read = BuildState::from_bytes(&its_owner(), OLD_STATE).unwrap();
        assert!(read.apart_from_key.is_none());
        assert_eq!(
            read.index_id,
            [
                106, 145, 165, 139, 133, 186, 230, 128, 182, 94, 135, 46, 124, 213, 166, 33
            ]
        );
        let again = read.to_bytes(&its_owner(), &mut rng(9));
        assert_eq!(again.len(), OLD_STATE.len());
        let again = BuildState::from_bytes(&its_owner(), &again).unwrap();
        assert_eq!(
            (again.index_id, again.seed, again.input),
            (read.index_id, read.seed, read.input)
        );
    }

    #[test]
    fn fail_versions_that_take_each_others_place() {
        let mut bytes = OLD_STATE.to_vec();
        bytes[8] = 2;
        assert!(BuildState::from_bytes(&its_owner(), &bytes).is_err());
        let end = bytes.len() - note::TAG;
        bytes.splice(end..end, [4; 32]);
        assert!(BuildState::from_bytes(&its_owner(), &bytes).is_err());
        bytes[8] = 3;
        assert!(matches!(
            BuildState::from_bytes(&its_owner(), &bytes),
            Err(IndexError::Version { found: 3, .. })
        ));
    }
}
