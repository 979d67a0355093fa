//! Changes to a folder that are undone unless they come into force.

use crate::keys::EpochKey;
use crate::layout::{self, FileKind, MANIFEST, NEXT};
use crate::live::FolderLock;
use crate::manifest::{FileEntry, IndexHead};
use crate::{IndexError, index, sealed};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that no manifest lists yet. They are removed when this is dropped,
/// unless they came into force.
pub(crate) struct Draft {
    folder: PathBuf,
    /// Held so that nobody takes the files for leftovers.
    lock: Arc<FolderLock>,
    written: Vec<PathBuf>,
    in_force: bool,
}

impl Draft {
    pub(crate) fn new(folder: &Path, lock: &Arc<FolderLock>) -> Self {
        Self {
            folder: folder.to_owned(),
            lock: Arc::clone(lock),
            written: Vec::new(),
            in_force: false,
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it was written under `lock`.
    pub(crate) fn is_under(&self, lock: &Arc<FolderLock>) -> bool {
        Arc::ptr_eq(&self.lock, lock)
    }

    /// Notes a file that is about to be made.
    pub(crate) fn will_write(&mut self, path: PathBuf) {
        self.written.push(path);
    }

    /// Writes a file sealed, durable when this returns.
    pub(crate) fn seal(
        &mut self,
        key: &EpochKey,
        kind: FileKind,
        file_id: [u8; 16],
        payload: &[u8],
    ) -> Result<FileEntry, IndexError> {
        let path = self.folder.join(kind.file_name(key.epoch(), &file_id));
        // Not noted if it is somebody else's.
        if !path.exists() {
            self.written.push(path);
        }
        sealed::write_file(&self.folder, key, kind, file_id, payload)
    }

    /// Leaves a file where it is, whatever becomes of the others.
    pub(crate) fn release(&mut self, path: &Path) {
        self.written.retain(|written| written != path);
    }

    /// Whether the files stay.
    pub(crate) const fn is_in_force(&self) -> bool {
        self.in_force
    }

    /// The files stay.
    pub(crate) fn keep(&mut self) {
        self.in_force = true;
    }

    /// Puts a manifest in force that lists these files, which must be durable,
    /// in place of the state `before`.
    ///
    /// An error leaves the old state in force, unless it is
    /// [`IndexError::Unsure`]: then the files of both stay, and either may be
    /// found when the index is opened next.
    pub(crate) fn put_in_force(
        &mut self,
        before: &IndexHead,
        manifest: &[u8],
    ) -> Result<(), IndexError> {
        refuse_other_state(&self.folder, before)?;
        let (next, path) = (self.folder.join(NEXT), self.folder.join(MANIFEST));
        // What an attempt left that could not clean up after itself.
        let _ = fs::remove_file(&next);
        self.written.push(next.clone());
        layout::write_new(&next, manifest)?;
        fs::rename(&next, &path).map_err(IndexError::io(&path))?;
        self.in_force = true;
        layout::sync_change(&self.folder)
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

/// The folder must hold the state that is open.
pub(crate) fn refuse_other_state(folder: &Path, state: &IndexHead) -> Result<(), IndexError> {
    let found = index::read_manifest(folder)?;
    if *blake3::hash(&found).as_bytes() == state.manifest_digest {
        Ok(())
    } else {
        Err(IndexError::Invalid(format!(
            "{} holds another state of the index than the one that is open; open it again",
            folder.display()
        )))
    }
}
