//! Notes that lie beside an index: secrets of its owner that the searcher keeps and cannot
//! open.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic |
//! | 2 | format version |
//! | 16 | index id |
//! | 12 | nonce |
//! | then | sealed content |
//! | 16 | tag |

use crate::cursor::Cursor;
use crate::layout::FileKind;
use crate::manifest::FileEntry;
use crate::{IndexError, derive, note};
use rand_core::CryptoRng;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use zeroize::Zeroizing;

const HEADER: usize = 8 + 2 + 16;

/// One kind of note.
pub(crate) struct IndexNote {
    /// The files that it lies in.
    pub(crate) kind: FileKind,
    pub(crate) magic: &'static [u8; 8],
    /// The version that is written.
    pub(crate) version: u16,
    /// The oldest that is read.
    pub(crate) oldest: u16,
    /// What it is called in errors.
    pub(crate) name: &'static str,
    /// The file with the key that opens it, for errors.
    pub(crate) opener: &'static str,
    /// What its key is derived for.
    pub(crate) purpose: &'static str,
    /// Most bytes of it, sealed.
    pub(crate) most: usize,
}

impl IndexNote {
    /// Bytes that sealing adds.
    pub(crate) const OVERHEAD: usize = HEADER + note::NONCE + note::TAG;

    /// Seals `content` for the index `index_id` under a key derived from `parent`.
    pub(crate) fn seal(
        &self,
        parent: &[u8; 32],
        index_id: &[u8; 16],
        content: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Vec<u8> {
        let mut nonce = [0; note::NONCE];
        rng.fill_bytes(&mut nonce);
        let mut out = Vec::with_capacity(Self::OVERHEAD + content.len());
        out.extend_from_slice(self.magic);
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(index_id);
        let key = derive::key(parent, self.purpose, index_id);
        let sealed = note::seal(&key, nonce, &out, content);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        out
    }

    /// Whether bytes could be such a note of the index `index_id`; their version. Nothing is
    /// authenticated.
    pub(crate) fn check(&self, index_id: &[u8; 16], bytes: &[u8]) -> Result<u16, IndexError> {
        if bytes.len() > self.most {
            return Err(IndexError::Mismatch {
                what: "the largest number of bytes of a note beside the index",
                found: bytes.len() as u64,
                expected: self.most as u64,
            });
        }
        let mut cursor = Cursor::new(self.name, bytes);
        let version = match cursor.magic(self.magic, self.version) {
            Ok(()) => self.version,
            Err(IndexError::Version { found, .. })
                if (self.oldest..self.version).contains(&found) =>
            {
                found
            }
            Err(error) => return Err(error),
        };
        if cursor.array::<16>()? != *index_id {
            return Err(IndexError::damaged(
                self.name,
                "it belongs to another index",
            ));
        }
        if cursor.remaining() < note::NONCE + note::TAG {
            return Err(IndexError::damaged(self.name, "it ends early"));
        }
        Ok(version)
    }

    /// Version and content of what [`seal`](Self::seal) made for the index `index_id`.
    pub(crate) fn open(
        &self,
        parent: &[u8; 32],
        index_id: &[u8; 16],
        bytes: &[u8],
    ) -> Result<(u16, Zeroizing<Vec<u8>>), IndexError> {
        let version = self.check(index_id, bytes)?;
        let (header, rest) = bytes.split_at(HEADER);
        let mut cursor = Cursor::new(self.name, rest);
        let nonce = cursor.array()?;
        let sealed = cursor.take(cursor.remaining())?;
        let key = derive::key(parent, self.purpose, index_id);
        let content = note::open(&key, nonce, header, sealed, self.name, self.opener)?;
        Ok((version, content))
    }

    /// Reads the file of the note and compares it with what the manifest lists.
    pub(crate) fn read_file(
        &self,
        folder: &Path,
        entry: &FileEntry,
    ) -> Result<Vec<u8>, IndexError> {
        let name = self.kind.file_name(0, &entry.id);
        let path = folder.join(&name);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(self.most as u64 + 1).read_to_end(&mut bytes))
            .map_err(IndexError::io(&path))?;
        if bytes.len() as u64 != entry.bytes {
            return Err(IndexError::damaged(name, "its length is wrong"));
        }
        if *blake3::hash(&bytes).as_bytes() != entry.hash {
            return Err(IndexError::damaged(name, "its checksum is wrong"));
        }
        Ok(bytes)
    }
}

/// Whether `opens` refuses everything that is not `sealed`, a note of one kind: each flip of
/// a bit, each cut, and more bytes.
#[cfg(test)]
pub(crate) fn assert_only_whole(sealed: &[u8], opens: impl Fn(&[u8]) -> bool) {
    assert!(opens(sealed));
    for bit in 0..sealed.len() * 8 {
        let mut bad = sealed.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!opens(&bad), "bit {bit}");
    }
    for cut in 0..sealed.len() {
        assert!(!opens(&sealed[..cut]), "cut to {cut}");
    }
    assert!(!opens(&[sealed, &[0]].concat()));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    const NOTE: IndexNote = IndexNote {
        kind: FileKind::Model,
        magic: b"OBOROXYZ",
        version: 3,
        oldest: 2,
        name: "the note",
        opener: "other key",
        purpose: "test",
        most: 100,
    };

    fn rng() -> chacha20::ChaCha20Rng {
        chacha20::ChaCha20Rng::from_seed([9; 32])
    }

    #[test]
    fn fail_every_flip_cut_and_foreign_key() {
        let (mut rng, key, id) = (rng(), [1; 32], [4; 16]);
        let sealed = NOTE.seal(&key, &id, b"a secret", &mut rng);
        assert_eq!(sealed.len(), 8 + IndexNote::OVERHEAD);
        let (version, content) = NOTE.open(&key, &id, &sealed).unwrap();
        assert_eq!((version, content.as_slice()), (3, &b"a secret"[..]));
        assert!(!sealed.windows(8).any(|bytes| bytes == b"a secret"));
        assert_ne!(sealed, NOTE.seal(&key, &id, b"a secret", &mut rng));
        assert_only_whole(&sealed, |bytes| NOTE.open(&key, &id, bytes).is_ok());
        let other = IndexNote {
            purpose: "another",
            ..NOTE
        };
        assert!(other.open(&key, &id, &sealed).is_err());
        assert!(NOTE.open(&key, &[5; 16], &sealed).is_err());
        let error = NOTE.open(&[2; 32], &id, &sealed).unwrap_err().to_string();
        assert!(error.contains("other key"), "{error}");
    }

    #[test]
    fn versions_between_the_oldest_and_the_newest_are_read() {
        let (key, id) = ([1; 32], [4; 16]);
        for (version, read) in [(1, false), (2, true), (3, true), (4, false)] {
            let written = IndexNote { version, ..NOTE };
            let sealed = written.seal(&key, &id, b"", &mut rng());
            let found = NOTE.open(&key, &id, &sealed).map(|(version, _)| version);
            assert_eq!(found.ok(), read.then_some(version));
        }
    }

    #[test]
    fn fail_notes_longer_than_their_kind_may_be() {
        let (key, id) = ([1; 32], [4; 16]);
        let room = NOTE.most - IndexNote::OVERHEAD;
        let sealed = NOTE.seal(&key, &id, &vec![0; room], &mut rng());
        assert!(NOTE.open(&key, &id, &sealed).is_ok());
        let sealed = NOTE.seal(&key, &id, &vec![0; room + 1], &mut rng());
        let error = NOTE.open(&key, &id, &sealed).unwrap_err().to_string();
        assert!(error.contains("101"), "{error}");
    }
}
