//! What can go wrong.

/// An error of quantization; the message says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantError {
    /// A dimension or number of sub-quantizers that cannot be split.
    #[error(
        "cannot split dimension {dimension} into {count} sub-spaces; choose between 1 and {dimension} sub-quantizers"
    )]
    Subspaces {
        /// Values of a vector.
        dimension: usize,
        /// Sub-quantizers asked for.
        count: usize,
    },
    /// A number of centroids outside 1 to 256.
    #[error("{centroids} centroids do not fit 8-bit codes; choose between 1 and 256")]
    Centroids {
        /// Centroids asked for.
        centroids: usize,
    },
    /// Fewer training vectors than centroids.
    #[error(
        "{vectors} training vectors are fewer than the {centroids} centroids; give more vectors or ask for fewer centroids"
    )]
    TooFewVectors {
        /// Vectors given.
        vectors: usize,
        /// Centroids asked for.
        centroids: usize,
    },
    /// Values that do not make whole vectors.
    #[error("{values} values are not a whole number of vectors of dimension {dimension}")]
    Ragged {
        /// Values given.
        values: usize,
        /// Values of a vector.
        dimension: usize,
    },
    /// NaN or an infinity.
    #[error("vector {row} holds a value that is not finite; remove it or replace the value")]
    NotFinite {
        /// Number of the vector, from 0.
        row: usize,
    },
    /// Something has another size than something else.
    #[error("{what} is {actual}, but {expected} is needed")]
    Mismatch {
        /// What was measured.
        what: &'static str,
        /// The size given.
        actual: usize,
        /// The size needed.
        expected: usize,
    },
    /// A number outside the range that is supported.
    #[error("{what} is {actual}; choose between {minimum} and {maximum}")]
    OutOfRange {
        /// What was measured.
        what: &'static str,
        /// The number given.
        actual: usize,
        /// The smallest supported.
        minimum: usize,
        /// The largest supported.
        maximum: usize,
    },
    /// Bytes that are not what they should be.
    #[error("the encoded codebook is damaged: {0}")]
    Decode(&'static str),
    /// Bytes of a transform that are not what they should be.
    #[error("the encoded transform is damaged: {0}")]
    DecodeTransform(&'static str),
    /// The caller asked to stop.
    #[error("stopped on request")]
    Cancelled,
}

/// The first row with a value that is not finite, as an error.
pub(crate) fn check_finite(values: &[f32], dimension: usize) -> Result<(), QuantError> {
    // Adding zeros keeps finite values finite and turns the rest into NaN, so
    // the usual case is one vectorized pass.
    if values.iter().fold(0.0f32, |sum, v| sum + v * 0.0) == 0.0 {
        return Ok(());
    }
    match values.iter().position(|v| !v.is_finite()) {
        Some(at) => Err(QuantError::NotFinite {
            row: at / dimension,
        }),
        None => Ok(()),
    }
}

/// Rows of `dimension` values, or the error that says why not.
pub(crate) fn check_rows(values: &[f32], dimension: usize) -> Result<usize, QuantError> {
    if dimension == 0 || !values.len().is_multiple_of(dimension) {
        return Err(QuantError::Ragged {
            values: values.len(),
            dimension,
        });
    }
    Ok(values.len() / dimension)
}
