//! What can go wrong in a build.

/// A build failed; nothing of it is visible.
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
    /// Fewer vectors than centroids.
    #[error(
        "{vectors} vectors cannot train {centroids} centroids; give at least that many vectors or lower --centroids"
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
    /// No whole number of ids for the vectors.
    #[error("{ids} ids were given for {vectors} vectors; give one id for each vector")]
    IdCount {
        /// How many ids there are.
        ids: usize,
        /// How many vectors there are.
        vectors: usize,
    },
    /// One id twice.
    #[error("rows {first} and {second} have the same id; make the ids unique")]
    DuplicateId {
        /// The first row with it.
        first: usize,
        /// The second row with it.
        second: usize,
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
    /// More vectors in the second pass than in the first.
    #[error("the vectors changed while they were read; build again when nobody writes to them")]
    SourceChanged,
    /// The caller asked to stop.
    #[error("the build was stopped; nothing was written")]
    Cancelled,
    /// The thread pool could not start.
    #[error("cannot start {threads} threads; lower --threads")]
    Threads {
        /// How many were asked for.
        threads: usize,
    },
}
