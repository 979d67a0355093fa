//! Blind k-means: a codebook of vectors that no server sees, made by two that
//! see nothing but what is listed below.
//!
//! # Roles
//! The **owner** has the vectors and the keeper's public key. The **searcher**
//! has no key and computes. The **keeper** has the secret key and gets masked
//! values only.
//!
//! # Before the training
//! 1. The owner takes a random sample and puts every sub-space into a random
//!    order of its own ([`TrainingSample`]): what lies in one row belongs to M
//!    different vectors. Nobody else ever knows these orders.
//! 2. It encrypts the rows for the searcher ([`crate::BatchEncryptor`] with
//!    [`SampleBounds::scale`]).
//! 3. It turns every value into fixed point, 24 bits with the sign, and splits it:
//!    x = (value + r) mod 2^104, r from a seed. The keeper gets x
//!    ([`SampleShares`]), the searcher the seed ([`MaskSeed`]).
//!
//! # A round
//! 1. Searcher → keeper: a label for every sample and sub-space ([`Labels`]).
//! 2. Keeper: sums x by label, divides ([`SampleShares::means`]), encodes and
//!    encrypts under the secret key
//!    ([`crate::MaskedDecryptor::encrypt_batch_codebook`]). Encoding is exact
//!    integer arithmetic, so the mask survives it as a difference of messages.
//! 3. Searcher: does the same with r and subtracts the message from the b-parts
//!    ([`BlindTrainer::install`]): what is left is an encryption of the centroids,
//!    fresh, under a key that the searcher has not got.
//! 4. The centroids were also encrypted as rows. Tables of centroids against
//!    themselves give |c|², and with them offsets.
//! 5. Tables of the sample against the codebook ([`mod@crate::batch`]) give the
//!    labels of the next round. An empty cluster takes half of the largest.
//!
//! The start: up to 4K samples are centroids of one member each, their tables
//! against one another give inner products, and greedy k-means++ chooses among
//! them. The end: one more codebook whose scale fits the lengths that were
//! measured ([`TrainedCodebook`]), and the same centroids in the form for searching
//! ([`crate::MaskedDecryptor::encrypt_search_codebook`]). The two roles' shares of
//! the codebook ([`MeanShares`]) may be kept, sealed: they make it anew under any
//! key.
//!
//! # Bounds
//! * *Masks hide perfectly*: x is uniform in \[0, 2^104) whatever the value; its
//!   statistical distance from a uniform value is zero, for as many values as
//!   there are. (That r looks uniform is the assumption on ChaCha20.)
//! * *A value is wrong*, by 2^104, when value + r leaves \[0, 2^104): probability
//!   below 2^-80 a value. [`wrap_probability`] gives it for a whole sample. What
//!   follows then is a table outside its range, an error.
//! * *Means* are exact to 2^-8 of a unit, a unit being 2^-23 of the codebook's
//!   norm; their messages to one unit of the coefficients, whose error has
//!   variance 10.2 anyway; the scale to 2^-20.
//!
//! # What each role learns
//! | role | learns | does not |
//! |---|---|---|
//! | keeper | how many samples, and the bounds on norms that scales are made of; for every sub-space the labels of the sample in an order nobody knows, every round: sizes of clusters, how they change, which clusters exchange members | values, centroids, distances; which sub-vectors belong to one vector; anything else of the vectors that are encoded |
//! | searcher | as in search, tables: inner products of samples and centroids, of up to 4K samples with one another, lengths of centroids; inner products of every encoded vector with the centroids; codes | values and centroids as such |
//! | owner | bounds of the finished codebook | |
//!
//! The searcher's tables determine sub-vectors, of the sample and of every encoded
//! vector, up to one rotation of each sub-space and the noise of tables: all distances
//! between vectors follow. About d vectors that are known, with their ids, determine
//! these rotations, and then everything. Where vectors of the sample are encoded
//! afterwards, as in a build, their tables also tell which sub-vectors of the sample
//! belong together; the orders hide that from the keeper for good, from the searcher
//! only until then.
//!
//! A host that sees which addresses either role uses learns the labels, as the
//! keeper does, for sums by label go where labels point; and at the searcher which
//! samples were tried as first centroids.
//!
//! # The same bytes
//! All random choices come from [`TrainingPlan::seed`]; tables carry noise from the
//! generators given to `evaluate` and `decrypt_batches`. A [`DerivedRandomness`]
//! makes these from what is computed, so that a step that is repeated after an
//! interruption gives the same bytes, and another never shares its randomness. The
//! seed of each role may be that of one index for good: what depends on nothing but a
//! seed and what is computed is the same after a restart.

pub mod codebook;
pub mod derived;
pub mod labels;
mod linear;
pub mod means;
pub mod plan;
mod rounds;
pub mod sample;
pub mod search;
mod start;
pub mod trained;
pub mod trainer;

pub use codebook::MaskedBatchCodebook;
pub use derived::DerivedRandomness;
pub use labels::Labels;
pub use means::{MeanShares, SampleShares};
pub use plan::GenerationPlan;
pub use sample::{MAX_SAMPLES, MaskSeed, SampleBounds, TrainingSample};
pub use search::{MaskedOffsets, OffsetKeep};
pub use trained::TrainedCodebook;
pub use trainer::{BlindTrainer, Found, Step, TrainingPlan, Work, WorkRows};

/// Bits of a mask and of a share.
const MASK_BITS: u32 = 104;
/// Bytes of a share.
const SHARE_BYTES: usize = MASK_BITS as usize / 8;
/// Bits of a fixed-point value, with its sign.
const VALUE_BITS: u32 = 24;
/// Bits that means have besides.
const FRACTION_BITS: u32 = 8;

/// A bound on the probability that any of `values` fixed-point values of a
/// sample wrapped around when it was split.
///
/// ```
/// // A sample of 65,536 vectors of 128 dimensions.
/// let bound = oboro_ckks::generation::wrap_probability(65_536 * 128);
/// assert_eq!(bound, 2f64.powi(-58));
/// ```
#[must_use]
pub fn wrap_probability(values: u64) -> f64 {
    // |value| <= 2^23, and r must lie that far from one end.
    values as f64 * 2f64.powi(VALUE_BITS as i32 - 1 - MASK_BITS as i32)
}
