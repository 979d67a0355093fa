//! Files and folders that are there whole or not at all, also after a kill or a loss of
//! power, and durable once they are said to be written.
//!
//! Everything is written under a hidden name beside its place, made durable, and renamed.
//! What a kill leaves under a hidden name, the next write to the same place removes.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::failure::{Named, Outcome};

/// Makes the folder `path`, of mode 0700, with what `fill` puts into it. An empty folder
/// may be there already.
pub(crate) fn folder<T>(path: &Path, fill: impl FnOnce(&Path) -> Outcome<T>) -> Outcome<T> {
    let parent = parent(path);
    make_all(&parent).named("make", parent.display())?;
    let making = Making::begin(path, &parent).named("make a folder in", parent.display())?;
    let filled = fill(&making.path)?;
    sync_all(&making.path)
        .and_then(|()| fs::rename(&making.path, path))
        .and_then(|()| sync(&parent))
        .named("make", path.display())?;
    Ok(filled)
}

/// Writes the new file `path`, of mode 0600.
pub(crate) fn create(path: &Path, content: &[u8]) -> Outcome<()> {
    write(path, content, |from, to| {
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // File systems without the flag say so; then check and rename.
            Err(Errno::INVAL | Errno::NOSYS) if !to.exists() => fs::rename(from, to),
            Err(Errno::INVAL | Errno::NOSYS) => Err(io::ErrorKind::AlreadyExists.into()),
            other => other.map_err(Into::into),
        }
    })
}

/// Writes the file `path`, of mode 0600, in the place of what was there.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Outcome<()> {
    write(path, content, |from, to| fs::rename(from, to))
}

fn write(
    path: &Path,
    content: &[u8],
    publish: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> Outcome<()> {
    let parent = parent(path);
    let next = parent.join(hidden(path, ".next"));
    let attempt = || {
        // Two that write the same file do so one after the other.
        let lock = File::open(&parent)?;
        lock.lock()?;
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let written = options.open(&next).and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()?;
            publish(&next, path)
        });
        if written.is_err() {
            let _ = fs::remove_file(&next);
        }
        written?;
        lock.sync_all()
    };
    attempt().named("write", path.display())
}

/// A folder under its hidden name; removed unless it was renamed.
struct Making {
    path: PathBuf,
    /// Held so that nobody takes it for a leftover.
    _lock: File,
}

impl Making {
    fn begin(path: &Path, parent: &Path) -> io::Result<Self> {
        let prefix = hidden(path, ".making-");
        for entry in fs::read_dir(parent)? {
            let entry = entry?;
            let name = entry.file_name();
            let ours = name
                .as_encoded_bytes()
                .starts_with(prefix.as_encoded_bytes());
            // One that is still being made is locked.
            if ours
                && let Ok(lock) = File::open(entry.path())
                && lock.try_lock().is_ok()
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        let making = tempfile::Builder::new()
            .prefix(&prefix)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .tempdir_in(parent)?;
        let lock = File::open(making.path())?;
        let _ = lock.try_lock();
        Ok(Self {
            path: making.keep(),
            _lock: lock,
        })
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// `.NAME` and an ending.
fn hidden(path: &Path, ending: &str) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(ending);
    name
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes a folder and those above it, their names durable.
fn make_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    make_all(&above)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    sync(&above)
}

/// Makes all below a folder durable, and its own list of names.
fn sync_all(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            sync(&entry.path())?;
        }
    }
    sync(path)
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use std::os::unix::fs::PermissionsExt;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_folder_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er/keys");
        let fill = |making: &Path| {
            fs::create_dir(making.join("owner")).unwrap();
            fs::write(making.join("owner/key"), b"secret").unwrap();
            assert!(!path.exists());
            Ok(())
        };
        folder(&path, fill).unwrap();
        assert_eq!(fs::read(path.join("owner/key")).unwrap(), b"secret");
        assert_eq!(mode(&path), 0o700);
        assert_eq!(names(path.parent().unwrap()), ["keys"]);
        // Another one is refused and leaves what is there.
        assert!(
            folder(&path, |making| fs::write(making.join("x"), b"")
                .named("write", "x"))
            .is_err()
        );
        assert!(folder(&path, |_| Err::<(), _>(Failure::failed("no"))).is_err());
        assert_eq!(names(&path), ["owner"]);
        assert_eq!(names(path.parent().unwrap()), ["keys"]);
    }

    #[test]
    fn what_a_kill_left_is_removed_and_what_is_being_made_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::create_dir(dir.path().join(".keys.making-killed")).unwrap();
        fs::write(dir.path().join(".keys.making-killed/key"), b"secret").unwrap();
        let alive = Making::begin(&path, dir.path()).unwrap();
        folder(&path, |_| Ok(())).unwrap();
        let left = names(dir.path());
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(alive.path.is_dir());
        drop(alive);
        assert_eq!(names(dir.path()), ["keys"]);
    }

    #[test]
    fn files_are_created_once_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        fs::write(
            dir.path().join(".list.next"),
            b"what a kill left, and longer",
        )
        .unwrap();
        create(&path, b"one").unwrap();
        assert!(create(&path, b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(dir.path()), ["list"]);
        assert!(replace(&dir.path().join("nowhere/list"), b"").is_err());
    }
}
