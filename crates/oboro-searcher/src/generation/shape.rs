//! What is to be made, as the owner says it.

use oboro_ckks::{
    BatchPacking, EncryptedBatch, Labels, MaskSeed, MaskedBatch, MaskedBatchCodebook, Packing,
    PublicKey, SampleBounds,
};
use oboro_protocol::generation::{MAX_PAYLOAD_BYTES, MAX_ROUNDS, MAX_SEGMENTS, v1};
use oboro_protocol::{Reason, validate};
use prost::Message as _;
use zeroize::Zeroizing;

use super::{malformed, refused};
use crate::SearcherError;

/// What is made in one generation.
pub(super) struct Shape {
    pub(super) index_id: [u8; 16],
    pub(super) packing: Packing,
    pub(super) batches: BatchPacking,
    pub(super) bounds: SampleBounds,
    pub(super) rounds: usize,
    pub(super) vectors: u64,
    pub(super) segments: u32,
}

/// How it is made.
pub(super) struct Plan {
    pub(super) public_key: PublicKey,
    pub(super) mask_seed: MaskSeed,
    pub(super) training_seed: Zeroizing<[u8; 32]>,
    pub(super) vector_norm: f64,
    pub(super) query_norm: f64,
    pub(super) offsets: bool,
    /// Digest of all of this and of the shape. It holds secret seeds, so whoever knows
    /// the same plan is who began it.
    pub(super) digest: [u8; 32],
}

impl Shape {
    pub(super) fn parse(message: Option<&v1::Shape>) -> Result<Self, SearcherError> {
        let bad = |sentence: String| Err(refused(Reason::BadRequest, sentence));
        let Some(message) = message else {
            return bad("the request names no shape of a generation".to_owned());
        };
        let batches = BatchPacking::from_bytes(&message.batch_packing).map_err(malformed)?;
        let packing = Packing::new(
            batches.set(),
            batches.subquantizers(),
            batches.width(),
            batches.centroids(),
            message.split as usize,
        )
        .map_err(malformed)?;
        let bounds = SampleBounds::from_bytes(&batches, &message.bounds).map_err(malformed)?;
        let within = |value: u64, most: u64| (1..=most).contains(&value);
        if !within(message.rounds.into(), MAX_ROUNDS.into())
            || !within(message.segments.into(), MAX_SEGMENTS.into())
            || !within(message.vectors, u32::MAX.into())
        {
            return bad(format!(
                "{} rounds, {} segments and {} vectors are outside the 1 to {MAX_ROUNDS}, {MAX_SEGMENTS} and {} of a generation",
                message.rounds,
                message.segments,
                message.vectors,
                u32::MAX
            ));
        }
        let largest = MaskedBatchCodebook::encoded_len(&batches)
            .max(MaskedBatch::encoded_len(&batches, batches.blocks()))
            .max(EncryptedBatch::encoded_len(&batches))
            .max(Labels::encoded_len(&batches, bounds.samples()));
        if largest > MAX_PAYLOAD_BYTES {
            return bad(format!(
                "messages of this shape take {largest} bytes, and at most {MAX_PAYLOAD_BYTES} are sent; use fewer centroids, a smaller sample or other sub-quantizers, or build locally"
            ));
        }
        Ok(Self {
            index_id: validate::index_id(&message.index_id)?,
            packing,
            batches,
            bounds,
            rounds: message.rounds as usize,
            vectors: message.vectors,
            segments: message.segments,
        })
    }
}

impl Plan {
    pub(super) fn parse(
        request: &v1::GeneratorBeginRequest,
        shape: &Shape,
    ) -> Result<Self, SearcherError> {
        let public_key = PublicKey::from_bytes(&request.public_key).map_err(malformed)?;
        if public_key.parameter_set() != shape.batches.set() {
            return Err(refused(
                Reason::BadRequest,
                "the public key is of another parameter set than the packing",
            ));
        }
        let seed = |bytes: &[u8], what| validate::digest(bytes, what).map(Zeroizing::new);
        Ok(Self {
            public_key,
            mask_seed: MaskSeed::from_bytes(seed(&request.mask_seed, "seed of the masks")?),
            training_seed: seed(&request.training_seed, "seed of the training")?,
            vector_norm: request.vector_norm,
            query_norm: request.query_norm,
            offsets: request.offsets,
            digest: digest(request),
        })
    }
}

/// All that a request to begin says but for the keeper's session, which is another one
/// after an interruption.
fn digest(request: &v1::GeneratorBeginRequest) -> [u8; 32] {
    let mut request = request.clone();
    request.session.clear();
    let bytes = Zeroizing::new(request.encode_to_vec());
    blake3::derive_key("oboro 2026 plan of a generation v1", &bytes)
}
