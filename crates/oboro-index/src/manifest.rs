//! The list of an index's files: what makes them one index.
//!
//! The manifest is written last, and renamed into place in one step. It ends
//! in a MAC under a key that derives from the storage key, so that a file
//! replaced by the host (records included, which the searcher cannot open) is
//! noticed, and in a checksum that tells damage from a foreign key.

use crate::cursor::Cursor;
use crate::keys::StorageKey;
use crate::layout::{FileKind, MANIFEST};
use crate::{IndexError, derive, trailer};
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"OBOROMAN";
pub(crate) const VERSION: u16 = 1;
/// No index has more segments.
const MAX_SEGMENTS: usize = 65_536;

/// One file, as it must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) id: [u8; 16],
    pub(crate) bytes: u64,
    pub(crate) hash: [u8; 32],
}

impl FileEntry {
    const LEN: usize = 16 + 8 + 32;

    fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.hash);
    }

    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, IndexError> {
        Ok(Self {
            id: cursor.array()?,
            bytes: cursor.u64()?,
            hash: cursor.array()?,
        })
    }
}

/// One segment: its three files share the segment's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub(crate) vectors: u32,
    pub(crate) subquantizers: u32,
    pub(crate) bits: u8,
    pub(crate) codes: FileEntry,
    pub(crate) ids: FileEntry,
    pub(crate) records: FileEntry,
}

impl SegmentEntry {
    const LEN: usize = 4 + 4 + 1 + 3 * FileEntry::LEN;
}

/// All files of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) index_id: [u8; 16],
    pub(crate) epoch: u64,
    /// Counts commits, from 1.
    pub(crate) generation: u64,
    pub(crate) descriptor: FileEntry,
    pub(crate) codebook: FileEntry,
    pub(crate) segments: Vec<SegmentEntry>,
}

fn mac_key(key: &StorageKey) -> Zeroizing<[u8; 32]> {
    derive::key(key.secret(), "manifest-mac", b"")
}

impl Manifest {
    pub(crate) fn to_bytes(&self, key: &StorageKey) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.index_id);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        self.descriptor.append(&mut out);
        self.codebook.append(&mut out);
        out.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        for segment in &self.segments {
            out.extend_from_slice(&segment.vectors.to_le_bytes());
            out.extend_from_slice(&segment.subquantizers.to_le_bytes());
            out.push(segment.bits);
            segment.codes.append(&mut out);
            segment.ids.append(&mut out);
            segment.records.append(&mut out);
        }
        trailer::append(&mut out, &mac_key(key));
        out
    }

    /// Reads a manifest; with `None` for the key only its checksum is tested.
    pub(crate) fn from_bytes(key: Option<&StorageKey>, bytes: &[u8]) -> Result<Self, IndexError> {
        Cursor::new(MANIFEST, bytes).magic(MAGIC, VERSION)?;
        let body = match key {
            Some(key) => trailer::authenticated(MANIFEST, bytes, &mac_key(key), "storage key")?,
            None => trailer::checked(MANIFEST, bytes)?,
        };
        let mut cursor = Cursor::new(MANIFEST, body);
        cursor.magic(MAGIC, VERSION)?;
        let index_id = cursor.array()?;
        let epoch = cursor.u64()?;
        let generation = cursor.u64()?;
        let descriptor = FileEntry::parse(&mut cursor)?;
        let codebook = FileEntry::parse(&mut cursor)?;
        let count = cursor.u32()? as usize;
        if count > MAX_SEGMENTS || cursor.remaining() != count * SegmentEntry::LEN {
            return Err(IndexError::damaged(MANIFEST, "its length is wrong"));
        }
        let mut segments = Vec::with_capacity(count);
        for _ in 0..count {
            let segment = SegmentEntry {
                vectors: cursor.u32()?,
                subquantizers: cursor.u32()?,
                bits: cursor.u8()?,
                codes: FileEntry::parse(&mut cursor)?,
                ids: FileEntry::parse(&mut cursor)?,
                records: FileEntry::parse(&mut cursor)?,
            };
            if segment.ids.id != segment.codes.id || segment.records.id != segment.codes.id {
                return Err(IndexError::damaged(MANIFEST, "a segment's files disagree"));
            }
            segments.push(segment);
        }
        cursor.end()?;
        Ok(Self {
            index_id,
            epoch,
            generation,
            descriptor,
            codebook,
            segments,
        })
    }

    /// Every file but the manifest itself.
    pub(crate) fn files(&self) -> impl Iterator<Item = (FileKind, FileEntry)> + '_ {
        [
            (FileKind::Descriptor, self.descriptor),
            (FileKind::Codebook, self.codebook),
        ]
        .into_iter()
        .chain(self.segments.iter().flat_map(|segment| {
            [
                (FileKind::Codes, segment.codes),
                (FileKind::Ids, segment.ids),
                (FileKind::Records, segment.records),
            ]
        }))
    }

    pub(crate) fn file_name(&self, kind: FileKind, entry: &FileEntry) -> String {
        kind.file_name(self.epoch, &entry.id)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keys::OwnerKey;
    use chacha20::ChaCha20Rng;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    fn key(seed: u8) -> StorageKey {
        OwnerKey::generate(&mut ChaCha20Rng::from_seed([seed; 32])).storage_key()
    }

    fn sample() -> Manifest {
        let entry = |byte: u8| FileEntry {
            id: [byte; 16],
            bytes: u64::from(byte) << 40,
            hash: [byte; 32],
        };
        Manifest {
            index_id: [1; 16],
            epoch: 3,
            generation: 9,
            descriptor: entry(2),
            codebook: entry(3),
            segments: (4..6)
                .map(|byte| SegmentEntry {
                    vectors: 77,
                    subquantizers: 16,
                    bits: 8,
                    codes: entry(byte),
                    ids: entry(byte),
                    records: entry(byte),
                })
                .collect(),
        }
    }

    #[test]
    fn fail_every_flip_cut_and_foreign_key() {
        let bytes = sample().to_bytes(&key(1));
        assert_eq!(
            Manifest::from_bytes(Some(&key(1)), &bytes).unwrap(),
            sample()
        );
        assert_eq!(Manifest::from_bytes(None, &bytes).unwrap(), sample());
        assert!(matches!(
            Manifest::from_bytes(Some(&key(2)), &bytes),
            Err(IndexError::ForeignKey { .. })
        ));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Manifest::from_bytes(None, &bad).is_err());
            assert!(Manifest::from_bytes(Some(&key(1)), &bytes[..at]).is_err());
        }
        let mut newer = bytes.clone();
        newer[8] = 2;
        assert!(matches!(
            Manifest::from_bytes(None, &newer),
            Err(IndexError::Version { found: 2, .. })
        ));
        // Well-formed trailers around bodies that are wrong.
        let body = &bytes[..bytes.len() - trailer::LEN];
        for bad in [&body[..body.len() - 1], &[body, &[0]].concat(), &body[..10]] {
            let mut bad = bad.to_vec();
            trailer::append(&mut bad, &mac_key(&key(1)));
            assert!(Manifest::from_bytes(Some(&key(1)), &bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn fail_random_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &body].concat();
            trailer::append(&mut bytes, &mac_key(&key(1)));
            let _ = Manifest::from_bytes(Some(&key(1)), &bytes);
        }
    }
}
