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
    #[error(
        "{path}: unknown kind of file; use .fvecs, .bvecs, .ivecs, .npy, .fbin, .u8bin, .parquet, .arrow, .arrows or .feather"
    )]
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
    /// A record that cannot be taken, where all must be.
    #[error("{path}: row {row} {why}; repair or remove that row")]
    Refused {
        /// The file.
        path: PathBuf,
        /// The row, counted from 0.
        row: u64,
        /// What is wrong with it.
        why: crate::Why,
    },
    /// The vectors of a file are not of the dimension that is needed.
    #[error("{path}: holds vectors of dimension {found} where {expected} is needed")]
    WrongDimension {
        /// The file.
        path: PathBuf,
        /// The dimension of its vectors.
        found: usize,
        /// The dimension that is needed.
        expected: usize,
    },
    /// A file of ids and a file of vectors that do not belong together.
    #[error("{path}: holds {ids} ids for {rows} vectors; there must be one for each, in order")]
    IdCount {
        /// The file of ids.
        path: PathBuf,
        /// The ids that were found.
        ids: u64,
        /// The vectors that were found.
        rows: u64,
    },
    /// A file of ids that is not one id a line.
    #[error("{path}: line {line} {reason}")]
    IdLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The columns of a Parquet or Arrow file do not tell what is what, or
    /// cannot be used as they were asked for.
    #[error("{path}: {reason}")]
    Columns {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A Parquet or Arrow file that cannot be decoded.
    #[error("{path}: {reason}")]
    Columnar {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// Something of a Parquet or Arrow file is larger than is read at once.
    #[error(
        "{path}: {what} of {found} is more than the {limit} that are read at once; write the file again with smaller {smaller}"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large, with its unit, as "a batch in bytes".
        what: &'static str,
        /// Its declared size.
        found: u64,
        /// What is accepted.
        limit: u64,
        /// What to make smaller.
        smaller: &'static str,
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
