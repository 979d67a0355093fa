//! Names of the files of an index, and how they come to lie under them.

use crate::IndexError;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The file that makes a folder an index.
pub(crate) const MANIFEST: &str = "MANIFEST";

/// The next manifest, before it is in force.
pub(crate) const NEXT: &str = "MANIFEST.next";

/// The file that whoever writes to an index holds a lock on.
pub(crate) const LOCK: &str = "LOCK";

/// What a file of an index holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FileKind {
    Descriptor,
    Codebook,
    Codes,
    Ids,
    Records,
    Tags,
    Deleted,
    Model,
    QueryModel,
    Lists,
    Merge,
}

impl FileKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Descriptor => 1,
            Self::Codebook => 2,
            Self::Codes => 3,
            Self::Ids => 4,
            Self::Records => 5,
            Self::Tags => 6,
            Self::Deleted => 7,
            Self::Model => 8,
            Self::QueryModel => 9,
            Self::Lists => 10,
            Self::Merge => 11,
        }
    }

    /// Whether files of this kind are sealed under an epoch's key, and so have
    /// to be written anew for the next.
    pub(crate) const fn is_of_epoch(self) -> bool {
        !matches!(self, Self::Records | Self::Model | Self::QueryModel)
    }

    /// The name within the index; `id` is the segment's or, for the files that
    /// are no part of a segment, one drawn when the file was written. Originals
    /// and models outlive epochs.
    pub(crate) fn file_name(self, epoch: u64, id: &[u8; 16]) -> String {
        match self {
            Self::Descriptor => format!("descriptor-{epoch}.oboro"),
            Self::Codebook => format!("codebook-{epoch}.oboro"),
            Self::Codes => format!("segment-{}-{epoch}.codes", hex(id)),
            Self::Ids => format!("segment-{}-{epoch}.ids", hex(id)),
            Self::Records => format!("segment-{}.records", hex(id)),
            Self::Tags => format!("segment-{}-{epoch}.tags", hex(id)),
            Self::Deleted => format!("deleted-{}-{epoch}.oboro", hex(id)),
            Self::Model => "model.oboro".to_owned(),
            Self::QueryModel => "query-model.oboro".to_owned(),
            Self::Lists => format!("segment-{}-{epoch}.lists", hex(id)),
            Self::Merge => format!("merge-{}-{epoch}.oboro", hex(id)),
        }
    }
}

/// Whether a file of this name is one of an index, of whatever epoch.
pub(crate) fn is_own_name(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let id = |text: &str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(epoch) = name
        .strip_prefix("descriptor-")
        .or_else(|| name.strip_prefix("codebook-"))
    {
        return epoch.strip_suffix(".oboro").is_some_and(number);
    }
    let of_epoch = |text: &str| {
        text.split_once('-')
            .is_some_and(|(name, epoch)| id(name) && number(epoch))
    };
    if let Some(listed) = name
        .strip_prefix("deleted-")
        .or_else(|| name.strip_prefix("merge-"))
    {
        return listed.strip_suffix(".oboro").is_some_and(of_epoch);
    }
    if [FileKind::Model, FileKind::QueryModel]
        .iter()
        .any(|kind| name == kind.file_name(0, &[0; 16]))
    {
        return true;
    }
    let Some(segment) = name.strip_prefix("segment-") else {
        return false;
    };
    if let Some(segment) = segment.strip_suffix(".records") {
        return id(segment);
    }
    segment
        .strip_suffix(".codes")
        .or_else(|| segment.strip_suffix(".ids"))
        .or_else(|| segment.strip_suffix(".tags"))
        .or_else(|| segment.strip_suffix(".lists"))
        .is_some_and(of_epoch)
}

pub(crate) fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id of the journal of this name, if it is one of this epoch.
pub(crate) fn merge_id(name: &str, epoch: u64) -> Option<[u8; 16]> {
    let digits = name.strip_prefix("merge-")?.get(..32)?.as_bytes();
    let value = |digit: u8| char::from(digit).to_digit(16);
    let mut id = [0; 16];
    for (byte, &[high, low]) in id.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = (value(high)? << 4 | value(low)?) as u8;
    }
    (name == FileKind::Merge.file_name(epoch, &id)).then_some(id)
}

/// The folder that holds `path`.
pub(crate) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Makes names and renames within `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), IndexError> {
    #[cfg(test)]
    faults::sync_folder(folder)?;
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(IndexError::io(folder))
}

/// As [`sync_folder`], after a change that came into force by a rename.
pub(crate) fn sync_change(folder: &Path) -> Result<(), IndexError> {
    sync_folder(folder).map_err(|error| match error {
        IndexError::Io { path, source } => IndexError::Unsure { path, source },
        other => other,
    })
}

/// Puts the manifest in place once more, durably: it may have come there by a
/// rename that was never made durable, and then its predecessor may come back.
pub(crate) fn renew_manifest(folder: &Path, manifest: &[u8]) -> Result<(), IndexError> {
    let (next, path) = (folder.join(NEXT), folder.join(MANIFEST));
    let _ = std::fs::remove_file(&next);
    write_new(&next, manifest)?;
    std::fs::rename(&next, &path).map_err(IndexError::io(&path))?;
    sync_folder(folder)
}

/// Writes the file `path`, which must not exist, and makes its content durable.
pub(crate) fn write_new(path: &Path, content: &[u8]) -> Result<(), IndexError> {
    File::create_new(path)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .map_err(IndexError::io(path))
}

/// Renames `from` to `to`, which must not exist.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // File systems without the flag say so; then check and rename.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            other => return other.map_err(Into::into),
        }
    }
    if to.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    std::fs::rename(from, to)
}

/// Swaps the folders `new` and `old`, in one step where the file system can.
/// Afterwards the former content of `old` lies under the returned name.
pub(crate) fn exchange(new: &Path, old: &Path) -> io::Result<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            Err(other) => return Err(other.into()),
            Ok(()) => return Ok(new.to_owned()),
        }
    }
    let mut aside = new.as_os_str().to_owned();
    aside.push(".replaced");
    let aside = PathBuf::from(aside);
    std::fs::rename(old, &aside)?;
    if let Err(error) = std::fs::rename(new, old) {
        // Better the old index than none.
        let _ = std::fs::rename(&aside, old);
        return Err(error);
    }
    Ok(aside)
}

/// Whether the open file or folder is still the one under its name.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(theirs) => Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes an exclusive lock on an open folder, or says that another has it.
pub(crate) fn try_lock(folder: &File) -> bool {
    rustix::fs::flock(folder, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
}

/// Failures that tests ask for.
#[cfg(test)]
pub(crate) mod faults {
    use crate::IndexError;
    use std::cell::Cell;
    use std::path::Path;

    thread_local! {
        static SYNCS: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// On this thread the folder is made durable `count` times more, and never after;
    /// always again with `None`.
    pub(crate) fn fail_syncs_after(count: Option<usize>) {
        SYNCS.set(count);
    }

    pub(super) fn sync_folder(folder: &Path) -> Result<(), IndexError> {
        match SYNCS.get() {
            Some(0) => Err(IndexError::io(folder)(std::io::Error::other("no room"))),
            left => {
                SYNCS.set(left.map(|left| left - 1));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_an_index_are_recognised() {
        for kind in [
            FileKind::Descriptor,
            FileKind::Codebook,
            FileKind::Codes,
            FileKind::Ids,
            FileKind::Records,
            FileKind::Tags,
            FileKind::Deleted,
            FileKind::Model,
            FileKind::QueryModel,
            FileKind::Lists,
            FileKind::Merge,
        ] {
            assert!(is_own_name(&kind.file_name(17, &[0xa5; 16])), "{kind:?}");
        }
        for other in [
            "note.txt",
            "descriptor-.oboro",
            "descriptor-1.oboro.bak",
            "codebook-x.oboro",
            "segment-1.codes",
            "segment-00000000000000000000000000000000.codes",
            "segment-00000000000000000000000000000000-1.records",
            "deleted-1.oboro",
            "deleted-00000000000000000000000000000000.oboro",
            "merge-00000000000000000000000000000000.oboro",
            "merge-00000000000000000000000000000000-1.records",
            "model-1.oboro",
            "my segment-00000000000000000000000000000000-1.ids",
        ] {
            assert!(!is_own_name(other), "{other}");
            assert!(merge_id(other, 1).is_none(), "{other}");
        }
        let name = FileKind::Merge.file_name(17, &[0xa5; 16]);
        assert_eq!(merge_id(&name, 17), Some([0xa5; 16]));
        for (name, epoch) in [
            (name.as_str(), 1),
            (&name.to_uppercase(), 17),
            (&name.replace("a5", "A5"), 17),
            (&format!("{name}.bak"), 17),
            ("merge-\u{e9}", 17),
        ] {
            assert!(merge_id(name, epoch).is_none(), "{name}");
        }
    }
}
