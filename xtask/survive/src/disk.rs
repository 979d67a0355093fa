//! A folder as a file system keeps it: names apart from what they name.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::Outcome;

/// Number of a file or folder.
pub(crate) type Node = usize;

/// The folder that all others lie in.
pub(crate) const ROOT: Node = 0;

/// A file or folder without its names.
#[derive(Clone)]
pub(crate) struct Inode {
    /// Bytes of a file; none for a folder.
    pub(crate) content: Option<Vec<u8>>,
    pub(crate) mode: u32,
}

impl Inode {
    pub(crate) const fn is_folder(&self) -> bool {
        self.content.is_none()
    }
}

/// Names in folders.
pub(crate) type Names = BTreeMap<(Node, String), Node>;

/// Everything below a folder.
#[derive(Clone)]
pub(crate) struct Disk {
    pub(crate) inodes: Vec<Inode>,
    pub(crate) names: Names,
}

/// What lies under each path; `None` for folders.
pub(crate) type Tree<'a> = BTreeMap<PathBuf, (Option<&'a [u8]>, u32)>;

impl Disk {
    /// Reads the folder `path`.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        let mut disk = Self {
            inodes: vec![Inode {
                content: None,
                mode: 0o755,
            }],
            names: BTreeMap::new(),
        };
        disk.read_into(ROOT, path)?;
        Ok(disk)
    }

    fn read_into(&mut self, node: Node, path: &Path) -> Outcome<()> {
        for entry in fs::read_dir(path).map_err(at(path))? {
            let entry = entry.map_err(at(path))?;
            let path = entry.path();
            let metadata = entry.metadata().map_err(at(&path))?;
            let content = if metadata.is_dir() {
                None
            } else if metadata.is_file() {
                Some(fs::read(&path).map_err(at(&path))?)
            } else {
                return Err(format!("{} is no file and no folder", path.display()));
            };
            let found = self.inodes.len();
            let folder = content.is_none();
            self.inodes.push(Inode {
                content,
                mode: metadata.mode() & 0o777,
            });
            let name = entry
                .file_name()
                .into_string()
                .map_err(|_| format!("{} has a name that is no text", path.display()))?;
            self.names.insert((node, name), found);
            if folder {
                self.read_into(found, &path)?;
            }
        }
        Ok(())
    }

    /// The files and folders that can be reached.
    pub(crate) fn tree(&self) -> Tree<'_> {
        let mut out = BTreeMap::new();
        let mut folders = vec![(ROOT, PathBuf::new())];
        while let Some((folder, path)) = folders.pop() {
            let entries = self
                .names
                .range((folder, String::new())..(folder + 1, String::new()));
            for ((_, name), &node) in entries {
                let path = path.join(name);
                let inode = &self.inodes[node];
                // A folder whose old name was not removed could be reached twice.
                if inode.is_folder() && path.components().count() < 16 {
                    folders.push((node, path.clone()));
                }
                out.insert(path, (inode.content.as_deref(), inode.mode));
            }
        }
        out
    }
}

/// A file whose content differs from run to run: the number of the process that writes.
const LOCK: &str = "LOCK";

/// Names two trees apart.
pub(crate) fn digest(tree: &Tree<'_>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (path, (content, _)) in tree {
        let path = path.as_os_str().as_encoded_bytes();
        hasher.update(&(path.len() as u64).to_le_bytes());
        hasher.update(path);
        match content {
            Some(_) if path.ends_with(LOCK.as_bytes()) => {
                hasher.update(&[0xff; 8]);
            }
            Some(content) => {
                hasher.update(&(content.len() as u64 + 1).to_le_bytes());
                hasher.update(content);
            }
            None => {
                hasher.update(&[0; 8]);
            }
        }
    }
    *hasher.finalize().as_bytes()
}

/// Makes the folder `path` with this below it.
pub(crate) fn write(tree: &Tree<'_>, path: &Path) -> Outcome<()> {
    fs::create_dir_all(path).map_err(at(path))?;
    // A folder comes before what is in it.
    for (below, (content, mode)) in tree {
        let path = path.join(below);
        match content {
            None => DirBuilder::new()
                .mode(*mode)
                .create(&path)
                .map_err(at(&path))?,
            Some(content) => OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(*mode)
                .open(&path)
                .and_then(|mut file| file.write_all(content))
                .map_err(at(&path))?,
        }
    }
    Ok(())
}

/// Puts a path before an error of the operating system.
pub(crate) fn at(path: &Path) -> impl FnOnce(std::io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_read_and_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/b/c"), b"content").unwrap();
        fs::write(from.join("empty"), b"").unwrap();
        let disk = Disk::read(&from).unwrap();
        write(&disk.tree(), &to).unwrap();
        let again = Disk::read(&to).unwrap();
        assert_eq!(digest(&disk.tree()), digest(&again.tree()));
        assert_eq!(disk.tree(), again.tree());
        fs::write(to.join("empty"), b"x").unwrap();
        let other = Disk::read(&to).unwrap();
        assert_ne!(digest(&disk.tree()), digest(&other.tree()));
    }
}
