//! Taking over an index that another program made, file by file.

use crate::building::Building;
use crate::keys::{BuildKeys, EpochKey};
use crate::layout::{self, MANIFEST};
use crate::manifest::{self, Manifest};
use crate::{Committed, Descriptor, Index, IndexError};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Writes the files of an index as they arrive: the manifest first, then each file that
/// it lists, in its order.
///
/// As with [`IndexWriter`](crate::IndexWriter), everything lies in a hidden folder until
/// [`commit`](Self::commit), and a killed process leaves the target as it was.
///
/// # Security
/// The manifest must be authentic under the key of the new index; names come from it and
/// not from the sender; no more bytes are taken than it says; each file is compared with
/// its hash, and the whole is opened before it becomes visible.
pub struct IndexReceiver {
    building: Building,
    key: EpochKey,
    manifest: Option<(Manifest, Vec<u8>)>,
    /// Files that are to come: name, bytes, hash.
    due: VecDeque<(String, u64, [u8; 32])>,
    open: Option<Open>,
    opened: bool,
}

/// The file that is arriving.
struct Open {
    file: File,
    name: String,
    missing: u64,
    due: [u8; 32],
    hash: blake3::Hasher,
}

impl IndexReceiver {
    /// Begins the index that `keys` are for, which will lie at `target`.
    ///
    /// # Errors
    /// If `target` exists and `force` is not given, or is something else than
    /// an index, or the folder beside it cannot be made.
    pub fn create(
        target: impl AsRef<Path>,
        keys: &BuildKeys,
        force: bool,
    ) -> Result<Self, IndexError> {
        Ok(Self {
            building: Building::create(target.as_ref(), keys.index_id(), force)?,
            key: keys.to_epoch_key(),
            manifest: None,
            due: VecDeque::new(),
            open: None,
            opened: false,
        })
    }

    /// Takes the manifest.
    ///
    /// # Errors
    /// If there is one already, or it is damaged or not authentic.
    pub fn manifest(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        if self.manifest.is_some() || bytes.len() as u64 > manifest::MAX_BYTES {
            return Err(IndexError::damaged(
                MANIFEST,
                "it came twice or is too long",
            ));
        }
        let manifest = Manifest::from_bytes(Some(&self.key), bytes)?;
        self.due = manifest
            .files()
            .map(|(kind, entry)| (manifest.file_name(kind, &entry), entry.bytes, entry.hash))
            .collect();
        self.manifest = Some((manifest, bytes.to_vec()));
        self.next()
    }

    /// Bytes that are still to come, of all files; 0 before the manifest.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let later: u64 = self.due.iter().map(|(_, bytes, _)| bytes).sum();
        self.open.as_ref().map_or(0, |open| open.missing) + later
    }

    /// Takes the next bytes, which may be of several files.
    ///
    /// # Errors
    /// If more come than are due, a file is damaged, or the disk is full.
    pub fn write(&mut self, mut piece: &[u8]) -> Result<(), IndexError> {
        while !piece.is_empty() {
            let folder = self.building.folder();
            let Some(open) = &mut self.open else {
                return Err(IndexError::damaged(MANIFEST, "more came than it lists"));
            };
            let count = piece
                .len()
                .min(usize::try_from(open.missing).unwrap_or(usize::MAX));
            let (now, later) = piece.split_at(count);
            open.file
                .write_all(now)
                .map_err(IndexError::io(&folder.join(&open.name)))?;
            open.hash.update(now);
            open.missing -= now.len() as u64;
            piece = later;
            self.next()?;
        }
        Ok(())
    }

    /// Ends the open file if it is whole, and opens the one after it, until one is
    /// missing bytes.
    fn next(&mut self) -> Result<(), IndexError> {
        loop {
            if let Some(open) = &self.open {
                if open.missing > 0 {
                    return Ok(());
                }
                let path = self.building.folder().join(&open.name);
                if *open.hash.finalize().as_bytes() != open.due {
                    return Err(IndexError::damaged(
                        open.name.clone(),
                        "its hash is not the one in the manifest",
                    ));
                }
                open.file.sync_all().map_err(IndexError::io(&path))?;
                self.open = None;
            }
            let Some((name, missing, due)) = self.due.pop_front() else {
                return Ok(());
            };
            let path = self.building.folder().join(&name);
            self.open = Some(Open {
                file: File::create_new(&path).map_err(IndexError::io(&path))?,
                name,
                missing,
                due,
                hash: blake3::Hasher::new(),
            });
        }
    }

    /// Opens what arrived, out of sight: its descriptor, authentic under the descriptor key
    /// of `keys`, and how many vectors it holds.
    ///
    /// # Errors
    /// If something is missing or does not belong together.
    pub fn open(&mut self, keys: &BuildKeys) -> Result<(Descriptor, u64), IndexError> {
        if self.missing() > 0 {
            return Err(IndexError::damaged(
                MANIFEST,
                "files that it lists are missing",
            ));
        }
        let Some((_, bytes)) = &self.manifest else {
            return Err(IndexError::damaged(MANIFEST, "it is missing"));
        };
        let folder = self.building.folder();
        if !self.opened {
            layout::write_new(&folder.join(MANIFEST), bytes)?;
            layout::sync_folder(folder)?;
        }
        let index = Index::open(folder, &self.key)?;
        let descriptor = Descriptor::from_bytes(keys.descriptor_key(), index.descriptor_bytes())?;
        self.opened = true;
        Ok((descriptor, index.vectors()))
    }

    /// Makes the index visible, after [`open`](Self::open).
    ///
    /// # Errors
    /// If it was not opened, or the target came into being meanwhile. The target is then
    /// as it was.
    pub fn commit(mut self) -> Result<Committed, IndexError> {
        let Some((manifest, bytes)) = self.manifest.take().filter(|_| self.opened) else {
            return Err(IndexError::damaged(MANIFEST, "nobody has opened it yet"));
        };
        self.building.publish()?;
        Ok(Committed {
            head: manifest.head(&bytes),
            files: manifest.list(bytes.len() as u64),
        })
    }
}
