//! What can go wrong, each in one sentence that holds no secret.

use oboro_ring::RingError;

/// An error of this crate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CkksError {
    /// The shape fits no packing of the parameter set.
    #[error("{what} is {actual}, but {set} takes {minimum} to {maximum}; {fix}")]
    Shape {
        /// What is out of range.
        what: &'static str,
        /// The value given.
        actual: usize,
        /// The least value.
        minimum: usize,
        /// The greatest value.
        maximum: usize,
        /// The parameter set.
        set: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// A buffer has the wrong number of values.
    #[error("{what} has {actual} values where {expected} are needed")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        actual: usize,
        /// The length that the packing needs.
        expected: usize,
    },
    /// Encoded bytes have the wrong length.
    #[error(
        "{what} is {actual} bytes long where {expected} are needed; it was truncated or made for another index"
    )]
    EncodedLength {
        /// What was decoded.
        what: &'static str,
        /// Its length.
        actual: usize,
        /// The length that the packing needs.
        expected: usize,
    },
    /// Encoded bytes are of another kind or another version.
    #[error("{0} does not begin with the expected header; it is of another kind or version")]
    Header(&'static str),
    /// Bytes hold a value that no encoder writes.
    #[error("{0} holds a value outside its range; it is damaged")]
    Value(&'static str),
    /// Two objects belong to different parameter sets or packings.
    #[error(
        "{left} and {right} belong to different parameter sets or shapes; use those made for the same index"
    )]
    Mismatch {
        /// The first object.
        left: &'static str,
        /// The second object.
        right: &'static str,
    },
    /// Input with NaN or infinity.
    #[error("{0} holds NaN or an infinite value; remove or replace it")]
    NotFinite(&'static str),
    /// Bounds that make no scale.
    #[error("the {0} must be positive and finite")]
    Bound(&'static str),
    /// The set's modulus leaves too little precision for this shape.
    #[error(
        "{set} leaves only {bits:.1} bits of precision for this table where {minimum} are needed; use N4096_Q100"
    )]
    Precision {
        /// The parameter set.
        set: &'static str,
        /// Bits left.
        bits: f64,
        /// Bits needed.
        minimum: u32,
    },
    /// A decoded table lies outside its proven range.
    #[error(
        "the decoded table lies outside its range; the keeper holds another key, or a message was altered"
    )]
    OutOfRange,
    /// Labels that leave a cluster without a member.
    #[error("{empty} clusters have no member; give every centroid at least one sample")]
    EmptyClusters {
        /// How many, over all sub-spaces.
        empty: usize,
    },
    /// A step of the training was asked for out of its order.
    #[error("the training is not at the step of {0}; take the steps in the order it gives")]
    OutOfOrder(&'static str),
    /// An error of the ring below.
    #[error(transparent)]
    Ring(#[from] RingError),
}
