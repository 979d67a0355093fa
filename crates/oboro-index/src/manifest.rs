//! The list of an index's files: what makes them one index.
//!
//! The manifest is written last, and renamed into place in one step. It begins
//! with what anybody may know of this state ([`IndexHead`]), ends in a MAC under
//! a key that derives from the epoch's, so that a file replaced by the host
//! (records included, which the searcher cannot open) is noticed, and in a
//! checksum that tells damage from a foreign key.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic `OBOROMAN` |
//! | 2 | format version |
//! | 16 | index id |
//! | 8 | epoch |
//! | 8 | generation |
//! | 1 | whether a keeper's share is in the epoch's key |
//! | 56 each | descriptor, codebook: id, size, hash |
//! | 4 | number of segments |
//! | 177 each | vectors, sub-quantizers, bits; codes, ids, records as above |
//! | 64 | MAC, checksum |

use crate::cursor::Cursor;
use crate::keys::EpochKey;
use crate::layout::{FileKind, MANIFEST};
use crate::{FORMAT_VERSION, IndexError, derive, trailer};
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"OBOROMAN";
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

/// One state of an index, as the beginning of its manifest tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexHead {
    /// Names the index.
    pub index_id: [u8; 16],
    /// Counts the owner's rotations of the CKKS key, from 1.
    pub epoch: u64,
    /// Counts the commits of the index, from 1, through all epochs.
    pub generation: u64,
    /// BLAKE3 of all bytes of the manifest: names this state.
    pub manifest_digest: [u8; 32],
    /// Whether the keeper's share is needed to open it.
    pub released: bool,
}

/// All files of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) index_id: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) generation: u64,
    pub(crate) released: bool,
    pub(crate) descriptor: FileEntry,
    pub(crate) codebook: FileEntry,
    pub(crate) segments: Vec<SegmentEntry>,
}

fn mac_key(key: &EpochKey) -> Zeroizing<[u8; 32]> {
    derive::key(key.secret(), "manifest-mac", b"")
}

impl Manifest {
    pub(crate) fn to_bytes(&self, key: &EpochKey) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.index_id);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.push(u8::from(self.released));
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
    pub(crate) fn from_bytes(key: Option<&EpochKey>, bytes: &[u8]) -> Result<Self, IndexError> {
        Cursor::new(MANIFEST, bytes).magic(MAGIC, FORMAT_VERSION)?;
        let body = trailer::checked(MANIFEST, bytes)?;
        let manifest = Self::parse(body)?;
        if let Some(key) = key {
            // Before the MAC, which would say no more than that it is wrong.
            manifest.refuse_other_state(key)?;
            let name = if key.released() {
                "storage key or release key"
            } else {
                "storage key"
            };
            trailer::authenticated(MANIFEST, bytes, &mac_key(key), name)?;
        }
        Ok(manifest)
    }

    fn refuse_other_state(&self, key: &EpochKey) -> Result<(), IndexError> {
        if *key.index_id() != self.index_id {
            return Err(IndexError::OtherIndex);
        }
        if key.epoch() != self.epoch {
            return Err(IndexError::OtherEpoch {
                found: self.epoch,
                key: key.epoch(),
            });
        }
        match (self.released, key.released()) {
            (true, false) => Err(IndexError::ShareMissing),
            (false, true) => Err(IndexError::ShareUnused),
            _ => Ok(()),
        }
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, IndexError> {
        let mut cursor = Cursor::new(MANIFEST, body);
        cursor.magic(MAGIC, FORMAT_VERSION)?;
        let index_id = cursor.array()?;
        let epoch = cursor.u64()?;
        let generation = cursor.u64()?;
        let released = match cursor.u8()? {
            0 => false,
            1 => true,
            _ => return Err(IndexError::damaged(MANIFEST, "its head is wrong")),
        };
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
            released,
            descriptor,
            codebook,
            segments,
        })
    }

    /// What [`Self::to_bytes`] made, in short.
    pub(crate) fn head(&self, bytes: &[u8]) -> IndexHead {
        IndexHead {
            index_id: self.index_id,
            epoch: self.epoch,
            generation: self.generation,
            manifest_digest: *blake3::hash(bytes).as_bytes(),
            released: self.released,
        }
    }

    /// Every file with its size, the manifest first.
    pub(crate) fn list(&self, manifest_bytes: u64) -> Vec<(String, u64)> {
        std::iter::once((MANIFEST.to_owned(), manifest_bytes))
            .chain(
                self.files()
                    .map(|(kind, entry)| (self.file_name(kind, &entry), entry.bytes)),
            )
            .collect()
    }

    pub(crate) fn vectors(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| u64::from(segment.vectors))
            .sum()
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

    fn key(seed: u8) -> EpochKey {
        owner(seed).epoch_key(&[1; 16], 3, true)
    }

    fn owner(seed: u8) -> OwnerKey {
        OwnerKey::generate(&mut ChaCha20Rng::from_seed([seed; 32]))
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
            released: true,
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
        newer[8] = 3;
        assert!(matches!(
            Manifest::from_bytes(None, &newer),
            Err(IndexError::Version { found: 3, .. })
        ));
        // Well-formed trailers around bodies that are wrong.
        let body = &bytes[..bytes.len() - trailer::LEN];
        for bad in [&body[..body.len() - 1], &[body, &[0]].concat(), &body[..10]] {
            let mut bad = bad.to_vec();
            trailer::append(&mut bad, &mac_key(&key(1)));
            assert!(Manifest::from_bytes(Some(&key(1)), &bad).is_err());
        }
    }

    #[test]
    fn fail_keys_of_another_state_say_which() {
        let bytes = sample().to_bytes(&key(1));
        let open = |key: EpochKey| Manifest::from_bytes(Some(&key), &bytes).unwrap_err();
        assert!(matches!(
            open(owner(1).epoch_key(&[2; 16], 3, true)),
            IndexError::OtherIndex
        ));
        assert!(matches!(
            open(owner(1).epoch_key(&[1; 16], 2, true)),
            IndexError::OtherEpoch { found: 3, key: 2 }
        ));
        assert!(matches!(
            open(owner(1).epoch_key(&[1; 16], 3, false)),
            IndexError::ShareMissing
        ));
        // The head says it needs no share: the key is then another, too.
        let mut open = sample();
        open.released = false;
        let bytes = open.to_bytes(&key(1));
        assert!(matches!(
            Manifest::from_bytes(Some(&key(1)), &bytes),
            Err(IndexError::ShareUnused)
        ));
        assert!(matches!(
            Manifest::from_bytes(Some(&owner(1).epoch_key(&[1; 16], 3, false)), &bytes),
            Err(IndexError::ForeignKey { .. })
        ));
    }

    proptest! {
        #[test]
        fn fail_random_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = [&MAGIC[..], &FORMAT_VERSION.to_le_bytes(), &body].concat();
            trailer::append(&mut bytes, &mac_key(&key(1)));
            let _ = Manifest::from_bytes(Some(&key(1)), &bytes);
        }
    }
}
