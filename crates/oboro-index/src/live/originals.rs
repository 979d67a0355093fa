//! The file of a merged segment's originals, as it comes to be.

use super::checkpoint::Checkpoint;
use super::throttle::Pace;
use crate::IndexError;
use crate::manifest::FileEntry;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes that are read back at a time.
const PIECE: usize = 1 << 20;

/// A file that is written front to back.
pub(super) struct Originals {
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    written: u64,
}

impl Originals {
    /// Begins the new file `path`.
    pub(super) fn create(path: PathBuf) -> Result<Self, IndexError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(IndexError::io(&path))?;
        Ok(Self {
            path,
            file,
            hasher: blake3::Hasher::new(),
            written: 0,
        })
    }

    /// Goes on with the file of a compaction that was stopped, after reading back what it
    /// has: `None` if that is not what its journal says. What was written after the
    /// journal may be anything, and is cut off.
    pub(super) fn go_on(
        folder: &Path,
        checkpoint: &Checkpoint,
        pace: &mut Pace<'_>,
    ) -> Result<Option<Self>, IndexError> {
        let path = checkpoint.records(folder);
        let io = |source| IndexError::io(&path)(source);
        let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let written = checkpoint.written();
        if file.metadata().map_err(io)?.len() < written {
            return Ok(None);
        }
        file.set_len(written).map_err(io)?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; PIECE];
        let mut read = 0;
        loop {
            let count = file.read(&mut buffer).map_err(io)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            read += count as u64;
            // Whoever stops this need not wait for it; reading is not throttled.
            pace.wrote(0)?;
        }
        let same = read == written && *hasher.finalize().as_bytes() == checkpoint.journal.hash;
        Ok(same.then_some(Self {
            path,
            file,
            hasher,
            written,
        }))
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), IndexError> {
        self.file
            .write_all(bytes)
            .map_err(IndexError::io(&self.path))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Bytes that the file has.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    /// Makes durable what was written; its hash.
    pub(super) fn sync(&self) -> Result<[u8; 32], IndexError> {
        self.file.sync_all().map_err(IndexError::io(&self.path))?;
        Ok(*self.hasher.finalize().as_bytes())
    }

    /// The file, whole and durable.
    pub(super) fn finish(self, id: [u8; 16]) -> Result<(FileEntry, File), IndexError> {
        let entry = FileEntry {
            id,
            bytes: self.written,
            hash: self.sync()?,
        };
        Ok((entry, self.file))
    }
}
