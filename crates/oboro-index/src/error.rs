use std::path::{Path, PathBuf};

/// What can go wrong with keys, records and indexes. Each message is one
/// sentence that says what to do; none repeats a vector, an id or key bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The operating system refused.
    #[error("{path}: {source}{}", advice(.source))]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A change came into force, and the system could not say that it will outlast a
    /// loss of power.
    #[error(
        "{path}: the change was made, but may or may not outlast a loss of power: {source}; what is found when the index is opened again is whole, with it or without"
    )]
    Unsure {
        /// The folder of the index.
        path: PathBuf,
        /// Why its names could not be made durable.
        source: std::io::Error,
    },
    /// The output is there already.
    #[error("{path} exists already; choose another path or allow replacing it with --force")]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// Something that is no index would have been replaced.
    #[error("{path} exists and is no index, so it is not replaced; choose another path")]
    NotReplaced {
        /// The output.
        path: PathBuf,
    },
    /// No manifest where an index should be.
    #[error("{path} is no index: it has no MANIFEST; give the folder that a build made")]
    NotAnIndex {
        /// The folder.
        path: PathBuf,
    },
    /// Bytes that are not what was written.
    #[error("{file} is damaged ({what}); restore it from a copy or build again")]
    Damaged {
        /// The file or message.
        file: String,
        /// What does not fit.
        what: &'static str,
    },
    /// An index of a format that is no longer read.
    #[error(
        "the index has format version {found} and this program reads version {supported}; build it again from its vectors"
    )]
    OldFormat {
        /// The version of the index.
        found: u16,
        /// The version that can be read.
        supported: u16,
    },
    /// Somebody else writes to the index.
    #[error(
        "{path} is being written by {}; end that one or try again when it is done",
        holder(*.pid)
    )]
    Locked {
        /// The folder of the index.
        path: PathBuf,
        /// The process that holds the lock, if it has said so.
        pid: Option<u32>,
    },
    /// A strict change of which something would have been left out.
    #[error(
        "nothing was changed: {refused} new vectors have ids that are there already or twice, and {unknown} ids to delete are not there; correct them or change without strict"
    )]
    Refused {
        /// New vectors that would have been left out.
        refused: u64,
        /// Ids to delete that are not in the index.
        unknown: u64,
    },
    /// A string id and payload that do not fit.
    #[error(
        "a record's string id and payload need {needed} extra bytes and the index has {available}; shorten them or build the index with more"
    )]
    ExtraTooLong {
        /// The bytes needed.
        needed: usize,
        /// The bytes of the region.
        available: usize,
    },
    /// Made under the key of an epoch that is over.
    #[error("the key was rotated, from epoch {made} to {now}, after this was made; make it again")]
    Outdated {
        /// The epoch it was made in.
        made: u64,
        /// The epoch now.
        now: u64,
    },
    /// Work that was told to stop.
    #[error("the compaction was stopped, and the index is as it was; {}", going_on(*.kept))]
    Cancelled {
        /// Bytes of originals that are written, with which the next compaction goes on.
        kept: u64,
    },
    /// A newer or unknown format.
    #[error(
        "{file} has format version {found}; this program reads version {supported}, so use a program that matches"
    )]
    Version {
        /// The file or message.
        file: String,
        /// Its version.
        found: u16,
        /// The version that can be read.
        supported: u16,
    },
    /// Sealed or authenticated under another key.
    #[error("{file} was made under another {key}; use the {key} of this index's owner")]
    ForeignKey {
        /// The file or message.
        file: String,
        /// The kind of key.
        key: &'static str,
    },
    /// A key for another index.
    #[error(
        "the storage key was derived for another index; derive it for the index in this folder"
    )]
    OtherIndex,
    /// A key for another epoch.
    #[error(
        "the index is at epoch {found} but the storage key was derived for epoch {key}; look at the index again and derive the key anew"
    )]
    OtherEpoch {
        /// The epoch of the index.
        found: u64,
        /// The epoch of the key.
        key: u64,
    },
    /// The keeper's share is needed and was not given.
    #[error(
        "the index opens only with what its keeper releases, and the keeper's share is missing; connect to the keeper or give the owner's key"
    )]
    ShareMissing,
    /// A share was given for an index that has none.
    #[error(
        "the index was built without a keeper's share, but one was given; derive the key without it"
    )]
    ShareUnused,
    /// A key file that cannot be used.
    #[error("{path}: {reason}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A secret that others can read.
    #[error("{path} has mode {mode:04o} and others can read it; run chmod 600 {path}")]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Text that is no key.
    #[error("{0}")]
    KeyText(String),
    /// Two sizes that must agree do not.
    #[error("{what} is {found} but must be {expected}")]
    Mismatch {
        /// What was counted.
        what: &'static str,
        /// The count.
        found: u64,
        /// What it must be.
        expected: u64,
    },
    /// The same id for two vectors.
    #[error(
        "two vectors have the same id (positions {first} and {second} of the segment); give every vector an id of its own"
    )]
    DuplicateId {
        /// A position in the segment.
        first: usize,
        /// Another position in the segment.
        second: usize,
    },
    /// A record that its key does not open.
    #[error(
        "record {position} of a segment does not open under this client key; the index is damaged or belongs to another owner"
    )]
    Record {
        /// The position within its segment.
        position: u32,
    },
    /// A value or combination that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// From the encryption layer.
    #[error(transparent)]
    Ckks(#[from] oboro_ckks::CkksError),
    /// From the quantizer.
    #[error(transparent)]
    Quant(#[from] oboro_quant::QuantError),
}

/// What to do where the system's own words do not say it.
fn advice(source: &std::io::Error) -> &'static str {
    use rustix::io::Errno;
    use std::io::ErrorKind;
    if let Some(Errno::MFILE | Errno::NFILE) = Errno::from_io_error(source) {
        return "; raise the limit of open files (ulimit -n), of which each segment of an index takes one";
    }
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; make room on it and try again",
        ErrorKind::ReadOnlyFilesystem => "; use a folder that can be written",
        _ => "",
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another process".to_owned(),
        |pid| format!("process {pid}"),
    )
}

fn going_on(kept: u64) -> String {
    match kept {
        0 => "run it again to merge".to_owned(),
        kept => format!("the next one goes on from {kept} bytes of originals that are kept"),
    }
}

impl IndexError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn damaged(file: impl Into<String>, what: &'static str) -> Self {
        Self::Damaged {
            file: file.into(),
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn errors_of_disks_say_what_to_do() {
        let text = |kind: ErrorKind| {
            let error = IndexError::io(Path::new("x/MANIFEST.next"))(kind.into());
            let text = error.to_string();
            assert!(text.starts_with("x/MANIFEST.next: ") && !text.contains('\n'));
            text
        };
        assert!(text(ErrorKind::StorageFull).contains("make room"));
        assert!(text(ErrorKind::QuotaExceeded).contains("make room"));
        assert!(text(ErrorKind::ReadOnlyFilesystem).contains("can be written"));
        assert!(!text(ErrorKind::NotFound).contains(';'));
        let full = std::io::Error::from(rustix::io::Errno::MFILE);
        let text = IndexError::io(Path::new("x"))(full).to_string();
        assert!(text.contains("ulimit -n"), "{text}");
    }
}
