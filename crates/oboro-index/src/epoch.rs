//! From one epoch of an index to the next.
//!
//! What changes is what lies under keys: codebook, descriptor, and the seals of
//! codes and ids. Originals stay as they are. The steps are:
//!
//! 1. lock the folder, remove what a killed attempt left behind
//! 2. write the new files beside the old ones, make them durable
//! 3. write `MANIFEST.next`, make it durable, rename it to `MANIFEST`
//! 4. remove the files of the old epoch
//!
//! Whoever is killed before the rename leaves the old epoch, whoever is killed
//! after it the new one, each whole, beside files that nobody reads and that
//! step 1 of the next attempt, or [`Index::remove_leftovers`], removes.

use crate::index::{Index, read_manifest};
use crate::keys::EpochKey;
use crate::layout::{self, FileKind, MANIFEST};
use crate::manifest::{FileEntry, IndexHead, Manifest, SegmentEntry};
use crate::{Descriptor, IndexError, sealed};
use oboro_ckks::EncryptedCodebook;
use rand_core::CryptoRng;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The manifest of the new epoch before it is in force.
const NEXT: &str = "MANIFEST.next";

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

/// Files that are removed again unless they come into force.
struct Draft {
    folder: PathBuf,
    /// Held so that two rotations cannot mix their files.
    _lock: File,
    written: Vec<PathBuf>,
    in_force: bool,
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
    /// If the folder holds another state than this, another rotation is at
    /// work, key, descriptor and codebook are not those of the next epoch of
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
        let next = Descriptor::from_trusted_bytes(descriptor)?;
        self.descriptor().check_next(&next)?;
        if next.codebook_digest != codebook.masks().digest() {
            return Err(IndexError::Invalid(
                "the new descriptor describes another codebook; make it for the codebook of this rotation"
                    .into(),
            ));
        }
        self.check_key(key)?;
        let lock = self.lock(folder)?;
        self.remove_unlisted(folder)?;

        let mut draft = Draft {
            folder: folder.to_owned(),
            _lock: lock,
            written: Vec::new(),
            in_force: false,
        };
        let mut draw = || {
            let mut id = [0; 16];
            rng.fill_bytes(&mut id);
            id
        };
        let old = self.manifest();
        let codebook = codebook.to_bytes();
        let codebook_entry = draft.seal(key, FileKind::Codebook, draw(), &codebook)?;
        let descriptor_entry = draft.seal(key, FileKind::Descriptor, draw(), descriptor)?;
        let segments = old
            .segments
            .iter()
            .zip(self.segments())
            .map(|(entry, segment)| {
                let id = *segment.id();
                let ids: Vec<u8> = segment
                    .ids()
                    .iter()
                    .flat_map(|id| id.to_le_bytes())
                    .collect();
                Ok(SegmentEntry {
                    codes: draft.seal(key, FileKind::Codes, id, segment.codes().as_bytes())?,
                    ids: draft.seal(key, FileKind::Ids, id, &ids)?,
                    ..*entry
                })
            })
            .collect::<Result<_, IndexError>>()?;
        layout::sync_folder(folder)?;
        let manifest = Manifest {
            index_id: old.index_id,
            epoch: next.epoch,
            generation: old.generation + 1,
            released: old.released,
            descriptor: descriptor_entry,
            codebook: codebook_entry,
            segments,
        };
        let bytes = manifest.to_bytes(key);
        Ok(EpochWriter {
            draft,
            before: self.head(),
            replaced: old
                .files()
                .filter(|(kind, _)| *kind != FileKind::Records)
                .map(|(kind, entry)| folder.join(old.file_name(kind, &entry)))
                .collect(),
            next: self.succeeded_by(next, descriptor.to_vec(), codebook, manifest, &bytes),
            manifest: bytes,
        })
    }

    /// Removes files of an index that this state does not list, such as a
    /// killed rotation leaves behind, and says how many. Files of other names
    /// stay.
    ///
    /// # Errors
    /// If the folder holds another state than this, a rotation is at work, or
    /// a file cannot be removed.
    pub fn remove_leftovers(&self, folder: impl AsRef<Path>) -> Result<usize, IndexError> {
        let folder = folder.as_ref();
        let _lock = self.lock(folder)?;
        self.remove_unlisted(folder)
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
    fn lock(&self, folder: &Path) -> Result<File, IndexError> {
        let lock = File::open(folder).map_err(IndexError::io(folder))?;
        if !layout::try_lock(&lock) {
            return Err(IndexError::Invalid(format!(
                "{} is being written by somebody else; try again when that is done",
                folder.display()
            )));
        }
        refuse_other_state(folder, &self.head())?;
        Ok(lock)
    }

    fn remove_unlisted(&self, folder: &Path) -> Result<usize, IndexError> {
        let manifest = self.manifest();
        let listed: Vec<String> = manifest
            .files()
            .map(|(kind, entry)| manifest.file_name(kind, &entry))
            .collect();
        let mut removed = 0;
        for entry in fs::read_dir(folder).map_err(IndexError::io(folder))? {
            let entry = entry.map_err(IndexError::io(folder))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let ours = name == NEXT || layout::is_own_name(name);
            let file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if ours && file && listed.iter().all(|listed| listed != name) {
                let path = entry.path();
                fs::remove_file(&path).map_err(IndexError::io(&path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl EpochWriter {
    /// The state that [`commit`](Self::commit) puts in force.
    #[must_use]
    pub const fn head(&self) -> IndexHead {
        self.next.head()
    }

    /// Puts the new epoch in force and gives it opened. Codes and ids are those
    /// of the index it came from, in the same memory; that one can go on
    /// serving the old epoch.
    ///
    /// # Errors
    /// If the index was replaced meanwhile or the manifest cannot be written:
    /// then the old state is in force, unless only making the new one durable
    /// failed.
    pub fn commit(mut self) -> Result<Index, IndexError> {
        let folder = &self.draft.folder;
        refuse_other_state(folder, &self.before)?;
        let (path, manifest) = (folder.join(NEXT), folder.join(MANIFEST));
        self.draft.written.push(path.clone());
        layout::write_new(&path, &self.manifest)?;
        fs::rename(&path, &manifest).map_err(IndexError::io(&manifest))?;
        self.draft.in_force = true;
        layout::sync_folder(folder)?;
        // The new epoch is in force; what cannot be removed is a leftover.
        for path in &self.replaced {
            let _ = fs::remove_file(path);
        }
        let _ = layout::sync_folder(folder);
        Ok(self.next)
    }
}

impl Draft {
    fn seal(
        &mut self,
        key: &EpochKey,
        kind: FileKind,
        file_id: [u8; 16],
        payload: &[u8],
    ) -> Result<FileEntry, IndexError> {
        let path = self.folder.join(kind.file_name(key.epoch(), &file_id));
        self.written.push(path);
        sealed::write_file(&self.folder, key, kind, file_id, payload)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.in_force {
            for path in &self.written {
                let _ = fs::remove_file(path);
            }
        }
    }
}

fn refuse_other_state(folder: &Path, state: &IndexHead) -> Result<(), IndexError> {
    let found = read_manifest(folder)?;
    if *blake3::hash(&found).as_bytes() == state.manifest_digest {
        Ok(())
    } else {
        Err(IndexError::Invalid(format!(
            "{} holds another state of the index than the one that is open; open it again",
            folder.display()
        )))
    }
}
