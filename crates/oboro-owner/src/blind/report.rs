//! What a blind build says of itself.

use oboro_index::IndexHead;

use crate::{EncryptionReport, StageSeconds};

/// Everything worth knowing about an index that was built blindly. No secret is in it.
#[derive(Clone, Debug)]
pub struct BlindReport {
    /// The state of the index that the searcher now has.
    pub state: IndexHead,
    /// The keeper has not recorded it yet.
    pub unrecorded: bool,
    /// It was to go on with an interrupted build, but the keeper's key had been rotated
    /// meanwhile: everything was done again, under the new one.
    pub begun_anew: bool,
    /// Vectors in it.
    pub vectors: usize,
    /// Values of a vector.
    pub dimension: usize,
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
    /// Name of the originals' encoding.
    pub originals: &'static str,
    /// Bytes of each record for text id and payload.
    pub extra_bytes: u32,
    /// Tags that vectors may have.
    pub tags: usize,
    /// Vectors that the codebook was trained on, and rounds.
    pub sample: usize,
    /// Rounds of training.
    pub rounds: usize,
    /// The quantization error of the sample after each round: mean squared distance of a
    /// vector from its centroids, as the noisy tables give it.
    pub distortions: Vec<f64>,
    /// What the encryption of the index costs and gives.
    pub encryption: EncryptionReport,
    /// Bits between dither and noise while vectors are encoded.
    pub batch_flooding_bits: f64,
    /// Bytes of vectors, encrypted, from owner to searcher.
    pub uploaded_bytes: u64,
    /// The most candidates a search may ask for.
    pub candidates_max: usize,
    /// Bytes of one sealed original in a reply.
    pub record_bytes: usize,
    /// Files and their bytes.
    pub files: Vec<(String, u64)>,
    /// As in a local build.
    pub displacement_probability: (f64, f64),
    /// Seconds of each stage.
    pub seconds: StageSeconds,
}
