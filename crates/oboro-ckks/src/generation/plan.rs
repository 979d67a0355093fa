//! What an owner announces.

use zeroize::Zeroizing;

use super::{MaskSeed, SampleBounds};
use crate::{BatchPacking, PublicKey};

/// What is to be made in one generation, and how.
///
/// # Security
/// Searcher and keeper get different parts of it: the seeds are the searcher's, and the
/// keeper must never have them.
pub struct GenerationPlan {
    /// The new index, random.
    pub index_id: [u8; 16],
    /// The packing of batches.
    pub packing: BatchPacking,
    /// d1, ciphertexts of a query.
    pub split: u32,
    /// What is to be known of the sample.
    pub bounds: SampleBounds,
    /// Rounds of training.
    pub rounds: u32,
    /// Vectors that will be encoded.
    pub vectors: u64,
    /// Segments they will lie in.
    pub segments: u32,
    /// The keeper's key.
    pub public_key: PublicKey,
    /// What the keeper's shares are masked with.
    pub mask_seed: MaskSeed,
    /// The choices of the training.
    pub training_seed: Zeroizing<[u8; 32]>,
    /// The largest norm of a vector.
    pub vector_norm: f64,
    /// The largest norm of a query that is searched as it is.
    pub query_norm: f64,
    /// Scores have offsets: the metric is a distance.
    pub offsets: bool,
}
