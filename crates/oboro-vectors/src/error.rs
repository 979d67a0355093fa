use std::path::{Path, PathBuf};

/// What can go wrong with a file of vectors. Each message is one sentence
/// that names the file; none repeats a value of a vector.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorsError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The extension is none that is known here.
    #[error("{path}: unknown kind of file; use .fvecs, .bvecs, .ivecs, .npy, .fbin or .u8bin")]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// The kind is known but holds ids where vectors were expected, or the
    /// other way round.
    #[error("{path}: holds {found} where {expected} are expected")]
    WrongContent {
        /// The file.
        path: PathBuf,
        /// What the file holds.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// No row at all.
    #[error("{path}: holds no vectors")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A dimension of zero, below zero, or above [`crate::MAX_DIMENSION`].
    #[error("{path}: row {row} declares dimension {dimension}; it must be from 1 to {max}", max = crate::MAX_DIMENSION)]
    Dimension {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: u64,
        /// The declared dimension.
        dimension: i64,
    },
    /// Two rows of different dimension.
    #[error(
        "{path}: row {row} has dimension {found} but row 0 has {expected}; all rows must agree"
    )]
    Ragged {
        /// The file.
        path: PathBuf,
        /// The first row that differs, counted from 0.
        row: u64,
        /// Its dimension.
        found: i64,
        /// The dimension of the first row.
        expected: usize,
    },
    /// The file ends inside a row, or before the number of rows its header
    /// promises.
    #[error(
        "{path}: ends early: {expected} bytes are needed for {rows} rows, {found} are there; copy the file again"
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The number of rows that begin in the file or are promised.
        rows: u64,
        /// The bytes they need.
        expected: u64,
        /// The bytes of the file.
        found: u64,
    },
    /// More bytes than the header accounts for.
    #[error("{path}: has {extra} bytes after its {rows} rows; the header or the file is damaged")]
    Trailing {
        /// The file.
        path: PathBuf,
        /// The promised rows.
        rows: u64,
        /// The bytes too many.
        extra: u64,
    },
    /// NaN or infinity.
    #[error("{path}: row {row} holds NaN or infinity; repair or remove that row")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: u64,
    },
    /// A `.npy` file that is not a plain two-dimensional array of a known
    /// type.
    #[error("{path}: {reason}")]
    Npy {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The length of the data is no multiple of the dimension.
    #[error("{values} values are no whole number of rows of dimension {dimension}")]
    Shape {
        /// How many values.
        values: usize,
        /// The dimension.
        dimension: usize,
    },
}

impl VectorsError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    pub(crate) fn npy(path: &Path, reason: impl Into<String>) -> Self {
        Self::Npy {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}
