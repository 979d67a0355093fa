use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// An error of this crate; the message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LearnError {
    /// A setting outside its range.
    #[error("{what} is {actual}; {wanted}")]
    Setting {
        /// The setting.
        what: &'static str,
        /// Its value.
        actual: String,
        /// What it has to be.
        wanted: &'static str,
    },
    /// A device that cannot be had.
    #[error("{what}")]
    Device {
        /// What is missing, and what to do.
        what: String,
    },
    /// Two things that belong together have different lengths.
    #[error("{what} has {actual} values where {expected} are needed; give as many")]
    Length {
        /// What has the wrong length.
        what: &'static str,
        /// Its length.
        actual: usize,
        /// The length it needs.
        expected: usize,
    },
    /// A label that a loss was not built with.
    #[error(
        "item {row} of the batch is of class {label}, but the loss was built for {classes} classes; build it with the number of classes of the training set"
    )]
    Label {
        /// The first such item.
        row: usize,
        /// Its label.
        label: usize,
        /// Classes of the loss.
        classes: usize,
    },
    /// A value that is not finite.
    #[error(
        "row {row} of {what} holds a value that is not finite; find out where the training went wrong"
    )]
    NotFinite {
        /// Which vectors.
        what: &'static str,
        /// The first such row.
        row: usize,
    },
    /// A point that is not inside the Poincaré ball.
    #[error(
        "row {row} of {what} lies outside the Poincaré ball of curvature -{curvature}; clip before the exponential map or give the curvature that the points were made with"
    )]
    OutsideBall {
        /// Which points.
        what: &'static str,
        /// The first such row.
        row: usize,
        /// The curvature's magnitude.
        curvature: f64,
    },
    /// No query has anything to find.
    #[error(
        "none of the {queries} queries has another item of its class to find; give classes with two or more items"
    )]
    NothingToFind {
        /// Queries given.
        queries: usize,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}; {}", path.display(), on_reading(source.kind()))]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file whose contents are not what its name promises.
    #[error("{} is not as expected: {what}{}", path.display(), on_malformed(what))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and, after a semicolon, what to do where it
        /// does not help to get the file again.
        what: String,
    },
    /// A checkpoint that cannot be written.
    #[error(
        "cannot write the checkpoint {}: {source}; make room or let this program write there, then resume: checkpoints before it are whole",
        path.display()
    )]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A loss or gradient that is not finite. The step was not taken.
    #[error(
        "step {step} has come to values that are not finite ({what}) at a learning rate of {rate}; {}",
        go_on(checkpoint.as_deref())
    )]
    Diverged {
        /// What is not finite.
        what: &'static str,
        /// The step, from 0.
        step: u64,
        /// Its learning rate.
        rate: f64,
        /// The last good checkpoint.
        checkpoint: Option<PathBuf>,
    },
    /// Records of a data set that cannot be used, where all were demanded.
    #[error("{refused}; mend them or skip bad records")]
    Refused {
        /// How many and which.
        refused: crate::data::Refused,
    },
    /// A data set without a usable record.
    #[error("{} holds no usable record ({refused}); check that it is the folder of this data set", path.display())]
    Empty {
        /// The folder or file.
        path: PathBuf,
        /// What was refused.
        refused: crate::data::Refused,
    },
    /// Weights that do not fit a network.
    #[error("the weights of {origin} do not fit: {mismatch}")]
    Weights {
        /// The file, or what else they come from.
        origin: String,
        /// The first tensor that does not fit.
        mismatch: crate::model::Mismatch,
    },
    /// Somebody asked to stop.
    #[error("stopped on request; what was not finished is not kept")]
    Cancelled,
    /// A file that cannot be written.
    #[error("cannot write {}: {source}; {}", path.display(), on_writing(source.kind()))]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file of vectors that cannot be written.
    #[error(transparent)]
    Vectors(#[from] oboro_vectors::VectorsError),
}

/// What to do where something cannot be read.
fn on_reading(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound | ErrorKind::NotADirectory => "check the path",
        ErrorKind::PermissionDenied => "let this program read it",
        ErrorKind::IsADirectory => "name a file in it",
        _ => "check the disk and try again",
    }
}

/// What to do where something cannot be written.
fn on_writing(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound | ErrorKind::NotADirectory => "make the folder that it is to lie in",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "let this program write there, or choose another folder"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room",
        _ => "check the disk and try again",
    }
}

/// What to do with a malformed file of which nothing more is known.
fn on_malformed(what: &str) -> &'static str {
    if what.contains("; ") {
        ""
    } else {
        "; get it again"
    }
}

/// What to do after a run has diverged.
fn go_on(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(path) => format!("lower the rate and resume from {}", path.display()),
        None => "there is no checkpoint yet: lower the rate and start again".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Error;

    #[test]
    fn messages_say_what_to_do() {
        let path = || PathBuf::from("a/b");
        let kinds = [
            (ErrorKind::NotFound, "check the path", "make the folder"),
            (
                ErrorKind::PermissionDenied,
                "let this program read",
                "let this program write",
            ),
            (ErrorKind::StorageFull, "check the disk", "make room"),
            (ErrorKind::Other, "check the disk", "check the disk"),
        ];
        for (kind, reading, writing) in kinds {
            let read = LearnError::Read {
                path: path(),
                source: Error::from(kind),
            };
            let write = LearnError::Write {
                path: path(),
                source: Error::from(kind),
            };
            assert!(read.to_string().contains(reading), "{read}");
            assert!(write.to_string().contains(writing), "{write}");
        }
        for (what, expected) in [
            ("it is cut short", "it is cut short; get it again"),
            ("it is old; make it anew", "it is old; make it anew"),
        ] {
            let error = LearnError::Malformed {
                path: path(),
                what: what.to_owned(),
            };
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }
}
