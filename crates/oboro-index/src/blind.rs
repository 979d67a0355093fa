//! What a searcher keeps of a blind generation, sealed, beside the index.
//!
//! A searcher encodes vectors against a codebook that it has as ciphertext only. What
//! makes that ciphertext anew is one share at each role; the searcher keeps both, its own
//! and the keeper's, which only the keeper can open. The file `blind.oboro`:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic `OBOROBLD` |
//! | 2 | format version |
//! | 16 | index id |
//! | 32 | SHA-256 of the TLS key of the owner who began the generation |
//! | 32 | digest of what it began with |
//! | 4 | bytes of the keeper's share |
//! | n | the keeper's share, sealed by the keeper |
//! | then | the searcher's part, sealed |
//! | 16 | tag |
//!
//! It belongs to the index, not to an epoch: no manifest lists it, rotations leave it, and
//! it never changes once it is there, so that there is no older copy to put back.
//!
//! # Security
//! The searcher's part opens with its storage key *and* a part that the keeper gives to
//! an attested searcher that shows the keeper's share. The keeper's share alone is
//! independent of the codebook.

use crate::cursor::Cursor;
use crate::keys::{ReleaseKey, StorageKey};
use crate::{IndexError, derive, layout, note};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use zeroize::Zeroizing;

/// The name of the file in the folder of a blindly made index.
pub const BLIND_FILE: &str = "blind.oboro";

const MAGIC: &[u8; 8] = b"OBOROBLD";
const VERSION: u16 = 1;
const NAME: &str = BLIND_FILE;
const HEADER: usize = 8 + 2 + 16 + 32 + 32 + 4;
/// Both shares of the largest codebook (K 256, D 4,096: 14 bytes a value) and some.
const MAX_BYTES: u64 = 64 << 20;

/// What is known of a generation without a key. Nothing of it is secret, and nobody has
/// authenticated it before [`SealedBlind::open`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlindHead {
    /// The index.
    pub index_id: [u8; 16],
    /// SHA-256 of the TLS key of the owner who began it.
    pub owner: [u8; 32],
    /// Digest of what it began with.
    pub plan: [u8; 32],
}

/// What a searcher keeps of a blind generation.
pub struct SealedBlind {
    head: BlindHead,
    keeper_share: Vec<u8>,
    bytes: Vec<u8>,
}

impl SealedBlind {
    /// Seals `content` with what the keeper gave: its share, sealed by itself, and its
    /// part of the key.
    #[must_use]
    pub fn seal(
        key: &StorageKey,
        part: &[u8; 32],
        head: BlindHead,
        keeper_share: &[u8],
        content: &[u8],
    ) -> Self {
        let mut bytes = Vec::with_capacity(HEADER + keeper_share.len() + content.len() + note::TAG);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&head.index_id);
        bytes.extend_from_slice(&head.owner);
        bytes.extend_from_slice(&head.plan);
        bytes.extend_from_slice(&(keeper_share.len() as u32).to_le_bytes());
        bytes.extend_from_slice(keeper_share);
        let sealed = note::seal(&file_key(key, part, &head), nonce(&head), &bytes, content);
        bytes.extend_from_slice(&sealed);
        Self {
            head,
            keeper_share: keeper_share.to_vec(),
            bytes,
        }
    }

    /// Reads what [`to_bytes`](Self::to_bytes) gave, without a key.
    ///
    /// # Errors
    /// If the bytes are cut off or of another version.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, IndexError> {
        let mut cursor = Cursor::new(NAME, &bytes);
        cursor.magic(MAGIC, VERSION)?;
        let head = BlindHead {
            index_id: cursor.array()?,
            owner: cursor.array()?,
            plan: cursor.array()?,
        };
        let length = cursor.u32()? as usize;
        let keeper_share = cursor.take(length)?.to_vec();
        if cursor.remaining() < note::TAG {
            return Err(IndexError::damaged(NAME, "it ends early"));
        }
        Ok(Self {
            head,
            keeper_share,
            bytes,
        })
    }

    /// What is known without a key.
    #[must_use]
    pub const fn head(&self) -> &BlindHead {
        &self.head
    }

    /// The keeper's share, which the keeper opens.
    #[must_use]
    pub fn keeper_share(&self) -> &[u8] {
        &self.keeper_share
    }

    /// The bytes as they rest.
    #[must_use]
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Opens the searcher's part.
    ///
    /// # Errors
    /// If the bytes were altered, or key or part are others.
    pub fn open(
        &self,
        key: &StorageKey,
        part: &[u8; 32],
    ) -> Result<Zeroizing<Vec<u8>>, IndexError> {
        let (clear, sealed) = self.bytes.split_at(HEADER + self.keeper_share.len());
        note::open(
            &file_key(key, part, &self.head),
            nonce(&self.head),
            clear,
            sealed,
            NAME,
            "storage key",
        )
    }

    /// Writes the file into `folder`; it is there whole and durable, or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), IndexError> {
        let next = folder.join(format!("{BLIND_FILE}.next"));
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(IndexError::io(&next)(error));
            }
            _ => {}
        }
        layout::write_new(&next, &self.bytes)?;
        let path = folder.join(BLIND_FILE);
        fs::rename(&next, &path).map_err(IndexError::io(&path))?;
        layout::sync_folder(folder)
    }

    /// Reads the file of `folder`; `None` where there is none: the index was not made
    /// blindly.
    ///
    /// # Errors
    /// If it cannot be read, is too large, or as [`from_bytes`](Self::from_bytes).
    pub fn read(folder: &Path) -> Result<Option<Self>, IndexError> {
        let path = folder.join(BLIND_FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(IndexError::io(&path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(IndexError::io(&path))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(IndexError::damaged(NAME, "it is larger than any codebook"));
        }
        Self::from_bytes(bytes).map(Some)
    }
}

fn file_key(key: &StorageKey, part: &[u8; 32], head: &BlindHead) -> Zeroizing<[u8; 32]> {
    let mut parts = Zeroizing::new([0; 64]);
    parts[..32].copy_from_slice(key.secret());
    parts[32..].copy_from_slice(part);
    derive::key(&parts[..], "blind-sealing", &head.index_id)
}

/// One for every generation; and the cipher bears one that comes twice.
fn nonce(head: &BlindHead) -> [u8; note::NONCE] {
    let mut nonce = [0; note::NONCE];
    nonce.copy_from_slice(&head.plan[..note::NONCE]);
    nonce
}

impl StorageKey {
    /// What the searcher's randomness in a generation of `index_id` follows from.
    #[must_use]
    pub fn generation_seed(&self, index_id: &[u8; 16]) -> Zeroizing<[u8; 32]> {
        derive::key(self.secret(), "generation", index_id)
    }
}

impl ReleaseKey {
    /// What the keeper's randomness in a generation of `index_id` follows from.
    #[must_use]
    pub fn generation_seed(&self, index_id: &[u8; 16]) -> Zeroizing<[u8; 32]> {
        derive::key(&self.bytes()[..], "generation", index_id)
    }

    /// The keeper's part in the key of the file `blind.oboro`.
    #[must_use]
    pub fn blind_part(&self, index_id: &[u8; 16]) -> Zeroizing<[u8; 32]> {
        derive::key(&self.bytes()[..], "blind-part", index_id)
    }

    /// Seals the keeper's share of a codebook, for the searcher to keep: the same bytes
    /// for the same share.
    #[must_use]
    pub fn seal_share(&self, index_id: &[u8; 16], share: &[u8]) -> Vec<u8> {
        let key = derive::key(&self.bytes()[..], "blind-share", index_id);
        let digest = blake3::keyed_hash(&key, share);
        let mut nonce = [0; note::NONCE];
        nonce.copy_from_slice(&digest.as_bytes()[..note::NONCE]);
        let mut out = nonce.to_vec();
        out.extend(note::seal(&key, nonce, index_id, share));
        out
    }

    /// Opens what [`seal_share`](Self::seal_share) made for the same index.
    ///
    /// # Errors
    /// If it was altered, or is of another keeper or index.
    pub fn open_share(
        &self,
        index_id: &[u8; 16],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, IndexError> {
        let name = "the keeper's share of a codebook";
        let mut cursor = Cursor::new(name, sealed);
        let nonce = cursor.array()?;
        let key = derive::key(&self.bytes()[..], "blind-share", index_id);
        let rest = cursor.take(cursor.remaining())?;
        note::open(&key, nonce, index_id, rest, name, "release key")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keys::OwnerKey;
    use rand_core::SeedableRng;

    fn owner(seed: u8) -> OwnerKey {
        OwnerKey::generate(&mut chacha20::ChaCha20Rng::from_seed([seed; 32]))
    }

    fn sealed() -> SealedBlind {
        let (storage, release) = (owner(1).storage_key(), owner(1).release_key());
        let head = BlindHead {
            index_id: [3; 16],
            owner: [4; 32],
            plan: [5; 32],
        };
        let share = release.seal_share(&[3; 16], b"the keeper's share");
        let part = release.blind_part(&[3; 16]);
        SealedBlind::seal(&storage, &part, head, &share, b"the searcher's part")
    }

    #[test]
    fn opens_with_both_parts_and_gives_back_what_was_sealed() {
        let (storage, release) = (owner(1).storage_key(), owner(1).release_key());
        let folder = tempfile::tempdir().unwrap();
        assert!(SealedBlind::read(folder.path()).unwrap().is_none());
        sealed().write(folder.path()).unwrap();
        sealed().write(folder.path()).unwrap();
        let read = SealedBlind::read(folder.path()).unwrap().unwrap();
        assert_eq!(read.head(), sealed().head());
        let part = release.blind_part(&[3; 16]);
        assert_eq!(*read.open(&storage, &part).unwrap(), b"the searcher's part");
        let share = release.open_share(&[3; 16], read.keeper_share()).unwrap();
        assert_eq!(*share, b"the keeper's share");
        // Neither part lies in the clear.
        let text = String::from_utf8_lossy(read.to_bytes()).into_owned();
        assert!(!text.contains("share") && !text.contains("part"));
    }

    #[test]
    fn fail_one_part_of_the_key_opens_nothing() {
        let read = sealed();
        let (storage, part) = (
            owner(1).storage_key(),
            owner(1).release_key().blind_part(&[3; 16]),
        );
        assert!(read.open(&owner(2).storage_key(), &part).is_err());
        assert!(read.open(&storage, &[0; 32]).is_err());
        let other = owner(1).release_key().blind_part(&[4; 16]);
        assert!(read.open(&storage, &other).is_err());
        for (index, keeper) in [([4; 16], 1), ([3; 16], 2)] {
            let release = owner(keeper).release_key();
            assert!(release.open_share(&index, read.keeper_share()).is_err());
        }
    }

    #[test]
    fn fail_every_flip_and_cut() {
        let (storage, release) = (owner(1).storage_key(), owner(1).release_key());
        let part = release.blind_part(&[3; 16]);
        let bytes = sealed().to_bytes().to_vec();
        let opens = |bytes: &[u8]| {
            SealedBlind::from_bytes(bytes.to_vec())
                .and_then(|file| file.open(&storage, &part))
                .is_ok()
        };
        assert!(opens(&bytes));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x20;
            assert!(!opens(&bad), "byte {at}");
            assert!(!opens(&bytes[..at]), "cut at {at}");
        }
        let mut long = bytes.clone();
        long.push(0);
        assert!(!opens(&long));
        // A length that no file has.
        let mut bad = bytes;
        bad[HEADER - 4..HEADER].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(!opens(&bad));
        let share = release.seal_share(&[3; 16], b"share");
        for at in 0..share.len() {
            assert!(release.open_share(&[3; 16], &share[..at]).is_err());
            let mut bad = share.clone();
            bad[at] ^= 1;
            assert!(release.open_share(&[3; 16], &bad).is_err());
        }
    }
}
