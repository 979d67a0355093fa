//! Who may write to an index: whoever holds the lock on its file `LOCK`.
//!
//! The lock goes with the process that holds it; the file stays, and what is
//! written in it matters to people only.

use crate::IndexError;
use crate::layout::{self, LOCK};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;

/// Times that a folder may be replaced while it is being locked.
const ATTEMPTS: usize = 10;

/// The lock on one index, held until this is dropped.
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks the index in `folder`.
    pub(crate) fn acquire(folder: &Path) -> Result<Arc<Self>, IndexError> {
        let path = folder.join(LOCK);
        let io = |source| IndexError::io(&path)(source);
        for _ in 0..ATTEMPTS {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(io)?;
            if !layout::try_lock(&file) {
                return Err(IndexError::Locked {
                    path: folder.to_owned(),
                    pid: holder(&mut file),
                });
            }
            // A build with force may have exchanged the folder between the two
            // calls: then this is the lock of what was there before.
            if layout::is_at(&file, &path).map_err(io)? {
                // For the message of whoever comes next; without it that one
                // is told less.
                let _ = note_process(&mut file);
                return Ok(Arc::new(Self { _file: file }));
            }
        }
        Err(IndexError::Locked {
            path: folder.to_owned(),
            pid: None,
        })
    }
}

fn note_process(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fail_a_second_writer_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let lock = FolderLock::acquire(dir.path()).unwrap();
        let error = FolderLock::acquire(dir.path()).err().unwrap();
        let pid = std::process::id();
        assert!(
            error.to_string().contains(&format!("process {pid}")),
            "{error}"
        );
        drop(lock);
        // Whatever lies in the file, the lock is what counts.
        std::fs::write(dir.path().join(LOCK), "no number, and far too long for one").unwrap();
        let lock = FolderLock::acquire(dir.path()).unwrap();
        std::fs::write(dir.path().join(LOCK), [0xff; 40]).unwrap();
        let error = FolderLock::acquire(dir.path()).err().unwrap();
        assert!(error.to_string().contains("another process"), "{error}");
        drop(lock);
        assert!(FolderLock::acquire(&dir.path().join("nowhere")).is_err());
    }
}
