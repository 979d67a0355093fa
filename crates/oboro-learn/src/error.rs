use std::path::PathBuf;

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
    /// Two things that belong together have different lengths.
    #[error("{what} has {actual} values where {expected} are needed")]
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
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file whose contents are not what its name promises.
    #[error("{} is not as expected: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
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
}
