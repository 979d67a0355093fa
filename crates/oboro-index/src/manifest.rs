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
//! | 1, 56 | whether there is a model; the model as above or zeros |
//! | 1, 56 | whether there is a query model; it as above or zeros |
//! | 4 | number of segments |
//! | 350 each | vectors, sub-quantizers, bits, flags, deleted vectors; codes, ids, records, tags, deleted, lists as above or zeros |
//! | 2 | number of states before this one that are named, at most 256 |
//! | 32 each | digests of their manifests, the newest first |
//! | 64 | MAC, checksum |
//!
//! Version 3 has neither the states that came before, nor a query model, nor lists (294
//! bytes a segment), and is read all the same.
//!
//! Flags of a segment: 1, its records keep their origin; 2, it has tags; 4,
//! vectors of it are deleted; 8, its vectors are in lists.

mod entry;

pub(crate) use entry::{FileEntry, SegmentEntry};

use crate::cursor::Cursor;
use crate::keys::EpochKey;
use crate::layout::{FileKind, MANIFEST};
use crate::{FORMAT_VERSION, IndexError, derive, trailer};
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"OBOROMAN";
/// No index has more segments.
pub(crate) const MAX_SEGMENTS: usize = 65_536;

/// States before this one that a manifest names: a keeper that heard of one of them
/// sees that this one came of it.
pub const MAX_ANCESTORS: usize = 256;

/// The oldest version that is read: without states that came before, query model, lists.
const OLD: u16 = 3;

/// Nothing honest is larger: some 300 bytes before and after the segments.
pub(crate) const MAX_BYTES: u64 =
    512 + SegmentEntry::LEN as u64 * MAX_SEGMENTS as u64 + 32 * MAX_ANCESTORS as u64;

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
    pub(crate) model: Option<FileEntry>,
    pub(crate) query_model: Option<FileEntry>,
    pub(crate) segments: Vec<SegmentEntry>,
    /// Digests of the manifests of the states before this one, the newest first.
    pub(crate) ancestors: Vec<[u8; 32]>,
}

fn mac_key(key: &EpochKey) -> Zeroizing<[u8; 32]> {
    derive::key(key.secret(), "manifest-mac", b"")
}

/// The version of a manifest that can be read.
fn version(cursor: &mut Cursor<'_>) -> Result<u16, IndexError> {
    match cursor.magic(MAGIC, FORMAT_VERSION) {
        Ok(()) => Ok(FORMAT_VERSION),
        Err(IndexError::Version { found, .. }) if found == OLD => Ok(found),
        Err(error) => Err(error),
    }
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
        for model in [self.model, self.query_model] {
            out.push(u8::from(model.is_some()));
            model.unwrap_or(FileEntry::NONE).append(&mut out);
        }
        out.extend_from_slice(&(self.segments.len() as u32).to_le_bytes());
        for segment in &self.segments {
            segment.append(&mut out);
        }
        out.extend_from_slice(&(self.ancestors.len() as u16).to_le_bytes());
        for digest in &self.ancestors {
            out.extend_from_slice(digest);
        }
        trailer::append(&mut out, &mac_key(key));
        out
    }

    /// Reads a manifest; with `None` for the key only its checksum is tested.
    pub(crate) fn from_bytes(key: Option<&EpochKey>, bytes: &[u8]) -> Result<Self, IndexError> {
        match version(&mut Cursor::new(MANIFEST, bytes)) {
            Err(IndexError::Version {
                found, supported, ..
            }) if found < supported => return Err(IndexError::OldFormat { found, supported }),
            other => other?,
        };
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
        let version = version(&mut cursor)?;
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
        let mut optional = || match cursor.u8()? {
            flag @ (0 | 1) => FileEntry::parse_optional(&mut cursor, flag == 1),
            _ => Err(IndexError::damaged(MANIFEST, "its head is wrong")),
        };
        let model = optional()?;
        let query_model = match version {
            OLD => None,
            _ => optional()?,
        };
        let each = match version {
            OLD => SegmentEntry::OLD_LEN,
            _ => SegmentEntry::LEN,
        };
        let count = cursor.u32()? as usize;
        if count > MAX_SEGMENTS || cursor.remaining() < count * each {
            return Err(IndexError::damaged(MANIFEST, "its length is wrong"));
        }
        let segments = (0..count)
            .map(|_| SegmentEntry::parse(&mut cursor, version))
            .collect::<Result<_, _>>()?;
        let ancestors = match version {
            OLD => 0,
            _ => usize::from(cursor.u16()?),
        };
        if ancestors > MAX_ANCESTORS || cursor.remaining() != ancestors * 32 {
            return Err(IndexError::damaged(MANIFEST, "its length is wrong"));
        }
        let ancestors = (0..ancestors)
            .map(|_| cursor.array())
            .collect::<Result<_, _>>()?;
        cursor.end()?;
        Ok(Self {
            index_id,
            epoch,
            generation,
            released,
            descriptor,
            codebook,
            model,
            query_model,
            segments,
            ancestors,
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

    /// What the state that follows the one with this manifest and head names as
    /// those before it.
    pub(crate) fn ancestors_of_next(&self, head: &IndexHead) -> Vec<[u8; 32]> {
        std::iter::once(head.manifest_digest)
            .chain(self.ancestors.iter().copied())
            .take(MAX_ANCESTORS)
            .collect()
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

    /// Vectors that are not deleted.
    pub(crate) fn alive(&self) -> u64 {
        self.segments.iter().map(SegmentEntry::alive).sum()
    }

    /// Vectors that are deleted and still in files.
    pub(crate) fn deleted(&self) -> u64 {
        let deleted = |segment: &SegmentEntry| segment.deleted.map_or(0, |(count, _)| count);
        self.segments.iter().map(deleted).map(u64::from).sum()
    }

    /// Every file but the manifest itself.
    pub(crate) fn files(&self) -> impl Iterator<Item = (FileKind, FileEntry)> + '_ {
        [
            (FileKind::Descriptor, self.descriptor),
            (FileKind::Codebook, self.codebook),
        ]
        .into_iter()
        .chain(self.model.map(|file| (FileKind::Model, file)))
        .chain(self.query_model.map(|file| (FileKind::QueryModel, file)))
        .chain(self.segments.iter().flat_map(SegmentEntry::files))
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
            model: Some(entry(4)),
            query_model: Some(entry(9)),
            segments: (5..8)
                .map(|byte| SegmentEntry {
                    vectors: 77,
                    subquantizers: 16,
                    bits: 8,
                    codes: entry(byte),
                    ids: entry(byte),
                    records: entry(byte),
                    origins: byte == 7,
                    tags: (byte != 5).then(|| entry(byte)),
                    deleted: (byte != 6).then(|| (77, entry(byte + 100))),
                    lists: (byte != 7).then(|| entry(byte)),
                })
                .collect(),
            ancestors: vec![[7; 32], [8; 32]],
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
        newer[8] = 5;
        assert!(matches!(
            Manifest::from_bytes(None, &newer),
            Err(IndexError::Version { found: 5, .. })
        ));
        newer[8] = 2;
        let error = Manifest::from_bytes(None, &newer).unwrap_err();
        assert!(error.to_string().contains("build it again"), "{error}");
        // Well-formed trailers around bodies that are wrong.
        let body = &bytes[..bytes.len() - trailer::LEN];
        for bad in [&body[..body.len() - 1], &[body, &[0]].concat(), &body[..10]] {
            let mut bad = bad.to_vec();
            trailer::append(&mut bad, &mac_key(&key(1)));
            assert!(Manifest::from_bytes(Some(&key(1)), &bad).is_err());
        }
    }

    #[test]
    fn fail_entries_that_contradict_themselves() {
        let refused = |change: fn(&mut Manifest)| {
            let mut manifest = sample();
            change(&mut manifest);
            let bytes = manifest.to_bytes(&key(1));
            assert!(Manifest::from_bytes(Some(&key(1)), &bytes).is_err());
        };
        refused(|m| m.segments[0].deleted = m.segments[0].deleted.map(|(_, file)| (78, file)));
        refused(|m| m.segments[0].deleted = m.segments[0].deleted.map(|(_, file)| (0, file)));
        refused(|m| m.segments[0].ids.id = [0; 16]);
        refused(|m| m.segments[0].records.id = [0; 16]);
        refused(|m| m.segments[1].tags = Some(m.codebook));
        refused(|m| m.segments[0].lists = Some(m.codebook));
        // Flags that say otherwise than what follows, and unknown ones.
        let bytes = sample().to_bytes(&key(1));
        let body = &bytes[..bytes.len() - trailer::LEN];
        let first = 8 + 2 + 16 + 8 + 8 + 1 + 2 * 56;
        for (at, to) in [
            (first, 0),
            (first, 2),
            (first + 57, 0),
            (first + 57, 2),
            (first + 2 * 57 + 4 + 9, 0),
            (first + 2 * 57 + 4 + 9, 6),
            (first + 2 * 57 + 4 + 9, 28),
        ] {
            let mut bad = body.to_vec();
            bad[at] = to;
            trailer::append(&mut bad, &mac_key(&key(1)));
            assert!(Manifest::from_bytes(Some(&key(1)), &bad).is_err(), "{at}");
        }
        assert_eq!(sample().segments[1].files().count(), 5);
        assert_eq!((sample().alive(), sample().deleted()), (77, 154));
    }

    #[test]
    fn version_3_names_no_states_before_it() {
        let mut want = sample();
        want.ancestors.clear();
        want.query_model = None;
        want.segments.iter_mut().for_each(|s| s.lists = None);
        let bytes = want.to_bytes(&key(1));
        let body = &bytes[..bytes.len() - trailer::LEN];
        // Without the parts that it lacks, which are zeros here.
        let segments = 8 + 2 + 16 + 8 + 8 + 1 + 2 * 56 + 2 * 57 + 4;
        let mut old = [&body[..segments - 57 - 4], &body[segments - 4..segments]].concat();
        for entry in body[segments..body.len() - 2].chunks(SegmentEntry::LEN) {
            old.extend_from_slice(&entry[..SegmentEntry::OLD_LEN]);
        }
        old[8] = 3;
        trailer::append(&mut old, &mac_key(&key(1)));
        assert_eq!(Manifest::from_bytes(Some(&key(1)), &old).unwrap(), want);
        // With what only version 4 has it is neither.
        let mut both = body.to_vec();
        both[8] = 3;
        trailer::append(&mut both, &mac_key(&key(1)));
        assert!(Manifest::from_bytes(Some(&key(1)), &both).is_err());
    }

    #[test]
    fn the_newest_ancestors_are_kept() {
        let mut manifest = sample();
        for step in 0..400_u32 {
            let bytes = manifest.to_bytes(&key(1));
            let head = manifest.head(&bytes);
            manifest.ancestors = manifest.ancestors_of_next(&head);
            assert_eq!(manifest.ancestors[0], head.manifest_digest);
            assert_eq!(
                manifest.ancestors.len(),
                (step as usize + 3).min(MAX_ANCESTORS)
            );
        }
        let bytes = manifest.to_bytes(&key(1));
        assert_eq!(
            Manifest::from_bytes(Some(&key(1)), &bytes).unwrap(),
            manifest
        );
        manifest.ancestors.push([0; 32]);
        let bytes = manifest.to_bytes(&key(1));
        assert!(Manifest::from_bytes(Some(&key(1)), &bytes).is_err());
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
