//! What a build says at its end.

use oboro_ckks::{EncryptedQuery, MaskedProducts, Packing, PublicKey, TableScale, TableShare};
use oboro_index::IndexHead;
use oboro_quant::SelectionPlan;

use crate::{ListsReport, OpqReport, OwnerError, TrialReport};

/// Everything worth knowing about a new index. No secret is in it.
#[derive(Clone, Debug)]
pub struct BuildReport {
    /// The state of the index that is now on disk, for the keeper to register.
    pub state: IndexHead,
    /// Vectors in it.
    pub vectors: usize,
    /// Values of a vector.
    pub dimension: usize,
    /// How long vectors are.
    pub lengths: Lengths,
    /// Name of the metric.
    pub metric: &'static str,
    /// M.
    pub subquantizers: usize,
    /// K.
    pub centroids: usize,
    /// d1, ciphertexts of a query.
    pub split: usize,
    /// Name of the rotation.
    pub rotation: &'static str,
    /// For the full rotation, the quantization error with it over the one
    /// without, on the sample; other rotations cost nothing.
    pub rotation_cost: Option<f64>,
    /// What the learned matrix gains, where there is one.
    pub opq: Option<OpqReport>,
    /// The lists, where there are any.
    pub lists: Option<ListsReport>,
    /// Name of the originals' encoding.
    pub originals: &'static str,
    /// Bytes of each record for text id and payload.
    pub extra_bytes: u32,
    /// Tags that vectors may have.
    pub tags: usize,
    /// What the encryption costs and gives.
    pub encryption: EncryptionReport,
    /// The most candidates a search may ask for.
    pub candidates_max: usize,
    /// Bytes of one sealed original in a reply.
    pub record_bytes: usize,
    /// Files and their bytes.
    pub files: Vec<(String, u64)>,
    /// Bound on the probability that selection misses one of the best 100
    /// codes of a query, and for the most candidates that may be asked for.
    pub displacement_probability: (f64, f64),
    /// Trial queries.
    pub trial: TrialReport,
    /// Seconds of each stage: reading, training, encoding, writing, trial.
    pub seconds: StageSeconds,
}

/// Euclidean norms of the vectors of a source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lengths {
    /// The largest of all.
    pub longest: f32,
    /// The one in the middle of those in the sample.
    pub median: f32,
}

/// Seconds of a build.
#[derive(Clone, Copy, Debug, Default)]
pub struct StageSeconds {
    /// First pass.
    pub read: f64,
    /// k-means.
    pub train: f64,
    /// Second pass.
    pub encode: f64,
    /// Trial queries.
    pub trial: f64,
    /// Encryption of the codebook and files.
    pub write: f64,
    /// All together.
    pub total: f64,
}

/// Sizes, security and precision of the encrypted tables of an index.
#[derive(Clone, Debug)]
pub struct EncryptionReport {
    /// Name of the parameter set.
    pub parameter_set: &'static str,
    /// Bits of security of the encryption against lattice attacks.
    pub security_bits: u32,
    /// Bytes of the public key.
    pub public_key_bytes: usize,
    /// Bytes of an encrypted query, client to searcher.
    pub query_bytes: usize,
    /// Bytes of masked products, searcher to keeper.
    pub products_bytes: usize,
    /// Bytes of the keeper's share, keeper to searcher.
    pub share_bytes: usize,
    /// Bits between the noise bound and the room it has: what is above 0
    /// cannot wrap around.
    pub margin_bits: f64,
    /// log2 of the noise's standard deviation in a coefficient.
    pub noise_bits: f64,
    /// Low bits the keeper drops after it added a dither over them.
    pub dropped_bits: u32,
    /// Bits by which that dither drowns the noise.
    pub flooding_bits: f64,
    /// Standard deviation of a table entry's error, in the data's units.
    pub table_error: f64,
    /// The longest query that is not shortened.
    pub query_norm_bound: f64,
}

impl EncryptionReport {
    /// What follows from packing and scale.
    #[must_use]
    pub fn new(packing: &Packing, scale: &TableScale) -> Self {
        let set = packing.set();
        Self {
            parameter_set: set.name(),
            security_bits: set.security_bits(),
            public_key_bytes: PublicKey::encoded_len(set),
            query_bytes: EncryptedQuery::encoded_len(packing),
            products_bytes: MaskedProducts::encoded_len(packing),
            share_bytes: TableShare::encoded_len(packing),
            margin_bits: scale.margin_bits(),
            noise_bits: scale.noise_bits(),
            dropped_bits: scale.dropped_bits(),
            flooding_bits: scale.flooding_bits(),
            table_error: scale.table_error(),
            query_norm_bound: scale.query_norm_bound(),
        }
    }
}

/// The bounds of [`BuildReport::displacement_probability`].
///
/// # Errors
/// When there are no vectors or too many candidates.
pub fn displacement(vectors: usize, candidates_max: usize) -> Result<(f64, f64), OwnerError> {
    let bound = |candidates: usize| -> Result<f64, OwnerError> {
        let plan = SelectionPlan::new(vectors, candidates.min(vectors))?;
        Ok(plan.displacement_probability())
    };
    Ok((bound(100)?, bound(candidates_max)?))
}
