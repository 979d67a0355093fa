//! The folder in which an index lies while it is made: sealed files only.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::failure::{Failure, Named, Outcome};

/// The index's name in it.
const INDEX: &str = "index";

/// What hidden folders of an index that was not finished begin with.
const HIDDEN: &str = ".index.building-";

/// A folder that only this process uses.
pub(super) struct Work {
    path: PathBuf,
    /// Held so that no second generator takes the folder.
    _lock: File,
    /// Removed at the end as far as a locked-down process may: what is in it.
    _temporary: Option<TempDir>,
}

impl Work {
    /// Takes the folder `given`, which is made if it is not there, or a new one in the
    /// system's temporary folder. What a killed generator left in it is removed.
    pub(super) fn claim(given: Option<&Path>) -> Outcome<Self> {
        let (path, temporary) = match given {
            Some(path) => {
                if !path.exists() {
                    DirBuilder::new()
                        .mode(0o700)
                        .create(path)
                        .named("make", path.display())?;
                }
                (path.to_owned(), None)
            }
            None => {
                let folder = tempfile::Builder::new()
                    .prefix("oboro-generator-")
                    .permissions(std::fs::Permissions::from_mode(0o700))
                    .tempdir()
                    .named("make", "a temporary folder")?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        let lock = File::open(&path).named("open", path.display())?;
        if lock.try_lock().is_err() {
            return Err(Failure::refused(format_args!(
                "{} is in use by another generator; give each its own folder with --work",
                path.display()
            )));
        }
        let work = Self {
            path,
            _lock: lock,
            _temporary: temporary,
        };
        work.clear();
        let entries = work.path.read_dir().named("read", work.path.display())?;
        if entries.count() > 0 {
            return Err(Failure::refused(format_args!(
                "{} holds other files; give the generator a folder of its own with --work",
                work.path.display()
            )));
        }
        Ok(work)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where an index is to be made.
    pub(super) fn index(&self) -> PathBuf {
        self.path.join(INDEX)
    }

    /// Removes what a build left.
    pub(super) fn clear(&self) {
        let Ok(entries) = self.path.read_dir() else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let bytes = name.as_encoded_bytes();
            if bytes == INDEX.as_bytes() || bytes.starts_with(HIDDEN.as_bytes()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_private_and_cleared() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("work");
        let work = Work::claim(Some(&path)).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::create_dir(work.index()).unwrap();
        std::fs::write(work.index().join("MANIFEST"), "x").unwrap();
        std::fs::create_dir(path.join(".index.building-00")).unwrap();
        drop(work);
        assert_eq!(path.read_dir().unwrap().count(), 0);
        // As a killed one leaves it.
        std::fs::create_dir(path.join(".index.building-00")).unwrap();
        let work = Work::claim(Some(&path)).unwrap();
        assert_eq!(path.read_dir().unwrap().count(), 0);
        drop(work);
        let temporary = Work::claim(None).unwrap();
        let path = temporary.path().to_owned();
        assert!(path.is_dir());
        drop(temporary);
        assert!(!path.exists());
    }

    #[test]
    fn fail_folders_of_others() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("note.txt"), "mine").unwrap();
        assert!(Work::claim(Some(outer.path())).is_err());
        assert!(outer.path().join("note.txt").is_file());
        let path = outer.path().join("work");
        let _first = Work::claim(Some(&path)).unwrap();
        let second = Work::claim(Some(&path)).map(|_| ()).unwrap_err();
        assert!(second.message.contains("another generator"));
        assert!(Work::claim(Some(&outer.path().join("note.txt"))).is_err());
    }
}
