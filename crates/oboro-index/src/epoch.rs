//! From one epoch of an index to the next.
//!
//! What changes is what lies under keys: codebook, descriptor, and the seals of
//! codes, ids, tags and lists of deleted vectors. Originals and the owner's
//! model stay as they are. The steps are:
//!
//! 1. lock the folder, remove what a killed attempt left behind
//! 2. write the new files beside the old ones, make them durable
//! 3. write `MANIFEST.next`, make it durable, rename it to `MANIFEST`
//! 4. remove the files of the old epoch
//!
//! Whoever is killed before the rename leaves the old epoch, whoever is killed
//! after it the new one, each whole, beside files that nobody reads and that
//! step 1 of the next attempt, or [`Index::remove_leftovers`], removes.

use crate::draft::{Draft, refuse_other_state};
use crate::index::{Index, OfEpoch, read_manifest};
use crate::keys::EpochKey;
use crate::layout::{self, FileKind, NEXT};
use crate::live::FolderLock;
use crate::manifest::{IndexHead, Manifest, SegmentEntry};
use crate::{Descriptor, IndexError, alive, listed};
use oboro_ckks::EncryptedCodebook;
use rand_core::CryptoRng;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The next epoch of an index, complete on disk but not yet in force.
///
/// Dropping it removes its files and leaves the index as it was.
pub struct EpochWriter {
    draft: Draft,
    before: IndexHead,
    replaced: Vec<PathBuf>,
    manifest: Vec<u8>,
    next: Index,
}

impl Index {
    /// Writes the next epoch of this index, which lies in `folder`: `codebook`
    /// is encrypted under the new key of the keeper, `descriptor` are the bytes
    /// that the owner made for it ([`Descriptor::next_epoch`]), `key` is the
    /// key of that epoch. Nothing changes for readers before
    /// [`EpochWriter::commit`].
    ///
    /// A million vectors with codes of 16 bytes take about 0.1 s.
    ///
    /// # Errors
    /// If the folder holds another state than this, somebody else writes to
    /// it, key, descriptor and codebook are not those of the next epoch of
    /// this index, or a file cannot be written.
    ///
    /// # Security
    /// The descriptor's MAC is not checked, for the searcher has no key to it:
    /// take the bytes from the owner only. Bytes of anybody else pass here if
    /// they describe the same index, and clients then refuse them.
    pub fn begin_epoch(
        &self,
        folder: impl AsRef<Path>,
        key: &EpochKey,
        descriptor: &[u8],
        codebook: &EncryptedCodebook,
        rng: &mut impl CryptoRng,
    ) -> Result<EpochWriter, IndexError> {
        let folder = folder.as_ref();
        let lock = self.lock(folder)?;
        // A compaction that was stopped is of the epoch that ends.
        self.remove_unlisted(folder, |_| false)?;
        self.write_epoch(Draft::new(folder, &lock), key, descriptor, codebook, rng)
    }

    /// As [`begin_epoch`](Self::begin_epoch), under a lock that is held.
    pub(crate) fn write_epoch(
        &self,
        mut draft: Draft,
        key: &EpochKey,
        descriptor: &[u8],
        codebook: &EncryptedCodebook,
        rng: &mut impl CryptoRng,
    ) -> Result<EpochWriter, IndexError> {
        let next = Descriptor::from_trusted_bytes(descriptor)?;
        self.descriptor().check_next(&next)?;
        if next.codebook_digest != codebook.masks().digest() {
            return Err(IndexError::Invalid(
                "the new descriptor describes another codebook; make it for the codebook of this rotation"
                    .into(),
            ));
        }
        self.check_key(key)?;
        refuse_other_state(draft.folder(), &self.head())?;
        let mut draw = || {
            let mut id = [0; 16];
            rng.fill_bytes(&mut id);
            id
        };
        let old = self.manifest();
        let codebook = codebook.to_bytes();
        let codebook_entry = draft.seal(key, FileKind::Codebook, draw(), &codebook)?;
        let descriptor_entry = draft.seal(key, FileKind::Descriptor, draw(), descriptor)?;
        let numbers =
            |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_le_bytes()).collect() };
        let segments = old
            .segments
            .iter()
            .zip(self.segments())
            .map(|(entry, segment)| {
                let id = *segment.id();
                let (codes, ids) = (segment.codes().as_bytes(), numbers(segment.ids()));
                Ok(SegmentEntry {
                    codes: draft.seal(key, FileKind::Codes, id, codes)?,
                    ids: draft.seal(key, FileKind::Ids, id, &ids)?,
                    tags: match segment.tags() {
                        Some(tags) => Some(draft.seal(key, FileKind::Tags, id, &numbers(tags))?),
                        None => None,
                    },
                    deleted: match (entry.deleted, segment.alive()) {
                        (Some((count, file)), Some(bits)) => {
                            let payload = alive::to_bytes(bits, segment.len());
                            let file = draft.seal(key, FileKind::Deleted, file.id, &payload)?;
                            Some((count, file))
                        }
                        _ => None,
                    },
                    lists: match segment.lists() {
                        Some(lists) => {
                            let payload = listed::to_bytes(lists);
                            Some(draft.seal(key, FileKind::Lists, id, &payload)?)
                        }
                        None => None,
                    },
                    ..*entry
                })
            })
            .collect::<Result<_, IndexError>>()?;
        layout::sync_folder(draft.folder())?;
        let manifest = Manifest {
            index_id: old.index_id,
            epoch: next.epoch,
            generation: old.generation + 1,
            released: old.released,
            descriptor: descriptor_entry,
            codebook: codebook_entry,
            model: old.model,
            query_model: old.query_model,
            segments,
            ancestors: old.ancestors_of_next(&self.head()),
        };
        let bytes = manifest.to_bytes(key);
        let of_epoch = OfEpoch {
            descriptor: next,
            descriptor_bytes: descriptor.to_vec(),
            codebook_bytes: codebook,
            model: self.of_epoch().model.clone(),
            query_model: self.of_epoch().query_model.clone(),
        };
        Ok(EpochWriter {
            before: self.head(),
            replaced: old
                .files()
                .filter(|(kind, _)| kind.is_of_epoch())
                .map(|(kind, entry)| draft.folder().join(old.file_name(kind, &entry)))
                .collect(),
            draft,
            next: Self::new(
                Arc::new(of_epoch),
                manifest,
                &bytes,
                self.segments().to_vec(),
            ),
            manifest: bytes,
        })
    }

    /// Removes files of an index that this state does not list, such as a
    /// killed rotation leaves behind, and says how many; also those of a
    /// compaction that was stopped, which then begins anew. Files of other names
    /// stay. [`LiveIndex::open`](crate::LiveIndex::open) does it by itself, but
    /// for a compaction that can be gone on with.
    ///
    /// # Errors
    /// If the folder holds another state than this, somebody writes to it, or
    /// a file cannot be removed.
    pub fn remove_leftovers(&self, folder: impl AsRef<Path>) -> Result<usize, IndexError> {
        let folder = folder.as_ref();
        let _lock = self.lock(folder)?;
        self.remove_unlisted(folder, |_| false)
    }

    fn check_key(&self, key: &EpochKey) -> Result<(), IndexError> {
        let old = self.manifest();
        let next = old.epoch.checked_add(1);
        if *key.index_id() != old.index_id {
            return Err(IndexError::OtherIndex);
        }
        if Some(key.epoch()) != next {
            return Err(IndexError::Mismatch {
                what: "the epoch of the new storage key",
                found: key.epoch(),
                expected: next.unwrap_or(old.epoch),
            });
        }
        match (old.released, key.released()) {
            (true, false) => Err(IndexError::ShareMissing),
            (false, true) => Err(IndexError::ShareUnused),
            _ => Ok(()),
        }
    }

    /// Locks `folder` for writing; it must hold the state that is open.
    fn lock(&self, folder: &Path) -> Result<Arc<FolderLock>, IndexError> {
        refuse_other_state(folder, &self.head())?;
        let lock = FolderLock::acquire(folder)?;
        refuse_other_state(folder, &self.head())?;
        Ok(lock)
    }

    /// The manifest of this state as it lies in `folder`.
    fn manifest_of(&self, folder: &Path) -> Result<Vec<u8>, IndexError> {
        refuse_other_state(folder, &self.head())?;
        read_manifest(folder)
    }

    /// Removes what this state does not list, but for names to `keep`.
    pub(crate) fn remove_unlisted(
        &self,
        folder: &Path,
        keep: impl Fn(&str) -> bool,
    ) -> Result<usize, IndexError> {
        let manifest = self.manifest();
        let listed: Vec<String> = manifest
            .files()
            .map(|(kind, entry)| manifest.file_name(kind, &entry))
            .collect();
        let mut unlisted = Vec::new();
        for entry in fs::read_dir(folder).map_err(IndexError::io(folder))? {
            let entry = entry.map_err(IndexError::io(folder))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let ours = name == NEXT || layout::is_own_name(name);
            let file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if ours && file && !keep(name) && listed.iter().all(|listed| listed != name) {
                unlisted.push(entry.path());
            }
        }
        if unlisted.is_empty() {
            return Ok(0);
        }
        // They may be those of the state before, which comes back after a loss of
        // power if this one came into force and was never made durable.
        layout::renew_manifest(folder, &self.manifest_of(folder)?)?;
        for path in &unlisted {
            match fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(IndexError::io(path)(error));
                }
                _ => {}
            }
        }
        Ok(unlisted.len())
    }
}

impl EpochWriter {
    /// The state that [`commit`](Self::commit) puts in force.
    #[must_use]
    pub fn head(&self) -> IndexHead {
        self.next.head()
    }

    /// Puts the new epoch in force and gives it opened. Codes and ids are those
    /// of the index it came from, in the same memory; that one can go on
    /// serving the old epoch.
    ///
    /// # Errors
    /// If the index was replaced meanwhile or the manifest cannot be written:
    /// then the old state is in force, except for [`IndexError::Unsure`].
    pub fn commit(mut self) -> Result<Index, IndexError> {
        self.draft.put_in_force(&self.before, &self.manifest)?;
        // The new epoch is in force; what cannot be removed is a leftover.
        for path in &self.replaced {
            let _ = fs::remove_file(path);
        }
        let _ = layout::sync_folder(self.draft.folder());
        Ok(self.next)
    }
}
