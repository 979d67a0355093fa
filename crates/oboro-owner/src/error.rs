//! What can go wrong.

use crate::Reason;

/// A build or a change failed. Nothing of a failed build is visible, and nothing of the
/// commit that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The vectors could not be read.
    #[error(transparent)]
    Vectors(#[from] oboro_vectors::VectorsError),
    /// Training or encoding failed.
    #[error(transparent)]
    Quant(#[from] oboro_quant::QuantError),
    /// Encryption parameters do not fit the data.
    #[error(transparent)]
    Ckks(#[from] oboro_ckks::CkksError),
    /// The index could not be written.
    #[error(transparent)]
    Index(#[from] oboro_index::IndexError),
    /// A build is to go on with something else than it began with.
    #[error(
        "the vectors or the options are others than those that the interrupted build began with; give the same ones, or remove its state and begin anew"
    )]
    OtherInput,
    /// What the roles of a blind build gave does not fit.
    #[error("the blind build is stopped: {0}; look at the roles' logs")]
    Roles(String),
    /// What the generator of a build in an enclave gave or got does not fit.
    #[error("the build in the enclave is stopped: {0}; look at the generator's log")]
    Generator(String),
    /// Fewer vectors than centroids where these are trained blindly.
    #[error(
        "{vectors} vectors cannot train {centroids} centroids in a blind build; give at least that many vectors, lower --centroids or choose another --mode"
    )]
    TooFewVectors {
        /// How many there are.
        vectors: usize,
        /// How many centroids each sub-quantizer has.
        centroids: usize,
    },
    /// More vectors than an index can name.
    #[error("{vectors} vectors are more than the {maximum} that one segment holds; split the file")]
    TooManyVectors {
        /// How many there are.
        vectors: usize,
        /// How many fit.
        maximum: usize,
    },
    /// More sub-quantizers than dimensions.
    #[error(
        "{subquantizers} sub-quantizers are more than the {dimension} dimensions; lower --subquantizers"
    )]
    TooManySubquantizers {
        /// How many were asked for.
        subquantizers: usize,
        /// The dimension of the vectors.
        dimension: usize,
    },
    /// A learned matrix or lists under a metric that has neither.
    #[error(
        "the Lorentz metric tells time from space, which a learned matrix and lists do not; build without --opq and --lists"
    )]
    LorentzModel,
    /// More lists than there can be.
    #[error("{lists} lists are more than the {maximum} that these vectors can have; lower --lists")]
    TooManyLists {
        /// How many were asked for.
        lists: usize,
        /// How many can be.
        maximum: usize,
    },
    /// A number of lists to look at that cannot be.
    #[error(
        "a search cannot look at {probes} of {lists} lists; set --probes-max to 1 to {maximum}"
    )]
    Probes {
        /// How many were asked for.
        probes: usize,
        /// How many lists there are.
        lists: usize,
        /// How many can be.
        maximum: usize,
    },
    /// Lists to look at, and no lists.
    #[error("--probes-max is for an index with lists; add --lists or leave it out")]
    ProbesWithoutLists,
    /// One id twice.
    #[error("rows {first} and {second} have the same id; make the ids unique")]
    DuplicateId {
        /// The first row with it.
        first: usize,
        /// The second row with it.
        second: usize,
    },
    /// More tags than a set has bits.
    #[error(
        "{tags} different tags are more than the {maximum} that an index can have; name those that matter with --tags"
    )]
    TooManyTags {
        /// How many there are.
        tags: usize,
        /// How many fit.
        maximum: usize,
    },
    /// A tag that is none of the index's.
    #[error(
        "row {row} has a tag that is none of those given with --tags; add it or take it off the row"
    )]
    UnknownTag {
        /// The row, from 0.
        row: usize,
    },
    /// Text ids and payloads that do not fit.
    #[error(
        "the longest text id and payload need {needed} extra bytes where {available} are the most; shorten them or raise --extra-bytes"
    )]
    ExtraTooLong {
        /// The bytes needed.
        needed: usize,
        /// The bytes that there are.
        available: u32,
    },
    /// A vector of zeros under the cosine metric.
    #[error(
        "row {row} is all zeros and has no direction for the cosine metric; remove it or choose another metric"
    )]
    NoDirection {
        /// The row, from 0.
        row: usize,
    },
    /// Values so large that products overflow.
    #[error("row {row} has a norm beyond {maximum:e}; scale the vectors down")]
    TooLong {
        /// The row, from 0.
        row: usize,
        /// The largest norm.
        maximum: f32,
    },
    /// A vector under the cosine metric that is not all zeros, and whose length is.
    #[error(
        "row {row} is so short that its length is lost in single precision, and with it its direction for the cosine metric; scale the vectors up"
    )]
    TooShort {
        /// The row, from 0.
        row: usize,
    },
    /// Vectors that are not all zeros, and whose lengths are.
    #[error(
        "all {vectors} vectors are so short that their lengths are lost in single precision; scale them up so that lengths are about 1"
    )]
    AllTooShort {
        /// How many there are.
        vectors: usize,
    },
    /// Every vector is zero.
    #[error("all {vectors} vectors are zero; there is nothing to search")]
    AllZero {
        /// How many there are.
        vectors: usize,
    },
    /// The encrypted path gave other tables than plain arithmetic.
    #[error(
        "the check of the encrypted path failed: a table entry is off by {error:.3e} where at most {bound:.3e} is possible; nothing was written, report this"
    )]
    TrialFailed {
        /// The largest error seen.
        error: f64,
        /// The bound.
        bound: f64,
    },
    /// The folder of the output.
    #[error("cannot write into {}: {source}", folder.display())]
    Unwritable {
        /// The folder.
        folder: std::path::PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// More vectors in the second pass than in the first.
    #[error("the vectors changed while they were read; build again when nobody writes to them")]
    SourceChanged,
    /// The caller asked to stop.
    #[error("stopped; nothing was changed")]
    Cancelled,
    /// A row that the index cannot take, where all or none were to be.
    #[error("nothing was changed: row {row} {reason}; correct it or insert without --strict")]
    Strict {
        /// The row, from 0.
        row: u64,
        /// What is wrong with it.
        reason: Reason,
    },
    /// More ids than one commit takes.
    #[error(
        "{ids} ids to delete are more than the {maximum} of one commit; delete without --strict"
    )]
    TooManyDeletes {
        /// How many there are.
        ids: usize,
        /// How many one commit takes.
        maximum: usize,
    },
    /// The thread pool could not start.
    #[error("cannot start {threads} threads; lower --threads")]
    Threads {
        /// How many were asked for.
        threads: usize,
    },
}
