//! A folder beside its target in which an index comes to be, and how it takes its place.

use crate::IndexError;
use crate::layout::{self, MANIFEST};
use crate::live::FolderLock;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A hidden folder for files that nobody sees before [`publish`](Self::publish). It is
/// removed when this is dropped before; what a killed process leaves of it, the next one
/// for the same target removes.
pub(crate) struct Building {
    target: PathBuf,
    folder: PathBuf,
    /// Held while the build lives, so that nobody takes it for a leftover.
    _lock: File,
    force: bool,
    published: bool,
}

impl Building {
    /// Begins one for the new index `index_id`, which will lie at `target`.
    ///
    /// # Errors
    /// If `target` exists and `force` is not given, or is something else than
    /// an index, or the folder beside it cannot be made.
    pub(crate) fn create(
        target: &Path,
        index_id: &[u8; 16],
        force: bool,
    ) -> Result<Self, IndexError> {
        let target = target.to_owned();
        refuse_existing(&target, force)?;
        // So that the news does not come after an hour of work.
        drop(lock_index(&target)?);
        let prefix = building_prefix(&target)?;
        let parent = layout::parent(&target);
        remove_leftovers(&parent, &prefix)?;
        let mut name = prefix;
        name.push(&layout::hex(index_id)[..16]);
        let folder = parent.join(name);
        let lock = make_locked(&folder).map_err(IndexError::io(&folder))?;
        Ok(Self {
            target,
            folder,
            _lock: lock,
            force,
            published: false,
        })
    }

    /// Where the files are to be written.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes what is in the folder visible at the target, in one step.
    pub(crate) fn publish(&mut self) -> Result<(), IndexError> {
        if self.force && self.target.exists() {
            refuse_existing(&self.target, true)?;
            // Nobody may be writing to what is replaced, and nobody begin to
            // before it is gone.
            let _lock = lock_index(&self.target)?;
            let old = layout::exchange(&self.folder, &self.target)
                .map_err(IndexError::io(&self.target))?;
            self.published = true;
            layout::sync_change(&layout::parent(&self.target))?;
            // The new index is in place; an old one that cannot be removed is
            // a leftover of the next build.
            let _ = fs::remove_dir_all(old);
            return Ok(());
        }
        layout::rename_new(&self.folder, &self.target).map_err(|source| {
            if source.kind() == io::ErrorKind::AlreadyExists {
                IndexError::Exists {
                    path: self.target.clone(),
                }
            } else {
                IndexError::io(&self.target)(source)
            }
        })?;
        self.published = true;
        layout::sync_change(&layout::parent(&self.target))
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Locks the index that is to be replaced, if there is one.
fn lock_index(target: &Path) -> Result<Option<Arc<FolderLock>>, IndexError> {
    match target.join(MANIFEST).is_file() {
        true => FolderLock::acquire(target).map(Some),
        false => Ok(None),
    }
}

/// Refuses a target that must not be replaced.
fn refuse_existing(target: &Path, force: bool) -> Result<(), IndexError> {
    let metadata = match fs::symlink_metadata(target) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(IndexError::io(target)(error)),
    };
    if !force {
        return Err(IndexError::Exists {
            path: target.to_owned(),
        });
    }
    // Force replaces an index or an empty folder, never somebody's files.
    let replaceable = metadata.is_dir()
        && (target.join(MANIFEST).is_file()
            || fs::read_dir(target)
                .map_err(IndexError::io(target))?
                .next()
                .is_none());
    if replaceable {
        Ok(())
    } else {
        Err(IndexError::NotReplaced {
            path: target.to_owned(),
        })
    }
}

/// `.NAME.building-`
fn building_prefix(target: &Path) -> Result<OsString, IndexError> {
    let name = target.file_name().ok_or_else(|| IndexError::NotReplaced {
        path: target.to_owned(),
    })?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".building-");
    Ok(prefix)
}

/// Attempts at a folder that another build takes for a leftover.
const ATTEMPTS: usize = 10;

/// Makes the folder `path` and locks it. Between the two another build of the
/// same target may remove it: then it is made again.
fn make_locked(path: &Path) -> io::Result<File> {
    for attempt in 0..ATTEMPTS {
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt > 0 => {}
            made => made?,
        }
        match File::open(path) {
            Ok(lock) if layout::try_lock(&lock) && layout::is_at(&lock, path)? => return Ok(lock),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Whoever locked it is about to remove it.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Err(io::Error::other(
        "other builds of the same index remove its folder again and again; run one at a time",
    ))
}

/// Removes what killed builds of the same target left behind. A build that
/// still lives holds a lock and is left alone.
fn remove_leftovers(folder: &Path, prefix: &OsString) -> Result<(), IndexError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return Err(IndexError::io(folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(IndexError::io(folder))?;
        let name = entry.file_name();
        if !name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes())
        {
            continue;
        }
        let path = entry.path();
        if let Ok(lock) = File::open(&path)
            && layout::try_lock(&lock)
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}
