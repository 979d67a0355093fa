//! Journals of compactions on disk: how far one came, durably.
//!
//! First the originals are made durable, then a new journal beside the old one, then
//! their names, and only then does the old journal go. So whatever a kill or a loss of
//! power leaves, a journal that opens speaks of bytes that are there, and they are compared
//! with its hash all the same.

use super::journal::Journal;
use crate::draft::Draft;
use crate::keys::EpochKey;
use crate::layout::{self, FileKind};
use crate::sealed::{Header, SealedFile};
use crate::{Index, IndexError};
use std::fs;
use std::path::{Path, PathBuf};

/// A journal on disk.
pub(crate) struct Checkpoint {
    pub(super) journal: Journal,
    /// Its file.
    path: PathBuf,
}

impl Checkpoint {
    /// Writes a journal of originals that are durable, in place of the one before; with
    /// the bytes that were written for it.
    pub(super) fn write(
        draft: &mut Draft,
        key: &EpochKey,
        journal: &Journal,
        before: Option<Self>,
    ) -> Result<(Self, u64), IndexError> {
        let payload = journal.to_bytes();
        // Another for every content: what is sealed under one key is one thing. The seed in
        // it keeps the name from telling anything of the content.
        let mut id = [0; 16];
        id.copy_from_slice(&blake3::hash(&payload).as_bytes()[..16]);
        let entry = draft.seal(key, FileKind::Merge, id, &payload)?;
        layout::sync_folder(draft.folder())?;
        if let Some(before) = before {
            let _ = fs::remove_file(&before.path);
            draft.release(&before.path);
        }
        let path = draft
            .folder()
            .join(FileKind::Merge.file_name(key.epoch(), &id));
        let journal = journal.clone();
        Ok((Self { journal, path }, entry.bytes))
    }

    /// The compaction of this index that came farthest, if one was stopped and can be
    /// gone on with. Whatever is wrong with a journal, it is as if there was none.
    pub(crate) fn find(folder: &Path, key: &EpochKey, index: &Index) -> Option<Self> {
        let entries = fs::read_dir(folder).ok()?;
        entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let name = entry.file_name();
                let id = layout::merge_id(name.to_str()?, key.epoch())?;
                Self::read(folder, key, index, id)
            })
            .max_by_key(|found| found.journal.written)
    }

    fn read(folder: &Path, key: &EpochKey, index: &Index, id: [u8; 16]) -> Option<Self> {
        let name = FileKind::Merge.file_name(key.epoch(), &id);
        let path = folder.join(&name);
        let header = Header {
            kind: FileKind::Merge,
            index_id: *key.index_id(),
            epoch: key.epoch(),
            file_id: id,
        };
        let file = SealedFile::open(&path, &name, header).ok()?;
        if file.payload_len() > Journal::max_bytes(index) {
            return None;
        }
        let journal = Journal::from_bytes(&file.read(key).ok()?).ok()?;
        journal.segments(index)?;
        let found = Self { journal, path };
        let records = fs::symlink_metadata(found.records(folder)).ok()?;
        (records.is_file() && records.len() >= found.journal.written).then_some(found)
    }

    /// The file of originals that it speaks of.
    pub(super) fn records(&self, folder: &Path) -> PathBuf {
        folder.join(FileKind::Records.file_name(0, &self.journal.segment_id))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of originals that are durable.
    pub(crate) const fn written(&self) -> u64 {
        self.journal.written
    }

    /// Whether a file of this name in its folder is its own.
    pub(crate) fn owns(&self, name: &str) -> bool {
        let records = FileKind::Records.file_name(0, &self.journal.segment_id);
        name == records || self.path.file_name().is_some_and(|own| own == name)
    }

    /// Nobody will go on with it. What cannot be removed the next opening removes.
    pub(super) fn remove(self, folder: &Path) {
        // The journal first: without it the other file is a leftover like any.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.records(folder));
    }
}
