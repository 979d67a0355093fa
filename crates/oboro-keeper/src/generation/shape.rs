//! What is to be made, as the owner says it.

use crate::shared::malformed;
use oboro_ckks::{
    BatchPacking, Labels, MaskedBatchCodebook, MaskedCodebook, Packing, ParameterSet, SampleBounds,
    SampleShares,
};
use oboro_protocol::generation::{MAX_PAYLOAD_BYTES, MAX_ROUNDS, MAX_SEGMENTS, v1};
use oboro_protocol::{Failure, Reason, validate};

/// Most bytes of the keeper's shares of one sample.
const MAX_SHARE_BYTES: usize = 2 << 30;

/// Codebooks that the start of a training needs at most, beside one a round.
const EXTRA_CODEBOOKS: u64 = 8;

/// How often everything may be done, to make good for lost connections.
const REPEATS: u64 = 2;

/// What is made in one generation, and how much work that is.
#[derive(PartialEq)]
pub(super) struct Shape {
    pub(super) index_id: [u8; 16],
    pub(super) packing: Packing,
    pub(super) batches: BatchPacking,
    pub(super) bounds: SampleBounds,
    rounds: u64,
    vectors: u64,
    segments: u64,
}

impl Shape {
    /// Checks what a request names against the keeper's limits.
    pub(super) fn parse(message: Option<&v1::Shape>, held: ParameterSet) -> Result<Self, Failure> {
        let bad = |sentence: &str| Err(Failure::new(Reason::BadRequest, sentence));
        let Some(message) = message else {
            return bad("the request names no shape of a generation");
        };
        let index_id = validate::index_id(&message.index_id)?;
        if index_id == [0; 16] {
            return bad("index ids of 0 are not in use");
        }
        let batches = BatchPacking::from_bytes(&message.batch_packing).map_err(malformed)?;
        if batches.set() != held {
            return bad("the generation is for another parameter set than the key's");
        }
        let packing = Packing::new(
            held,
            batches.subquantizers(),
            batches.width(),
            batches.centroids(),
            message.split as usize,
        )
        .map_err(malformed)?;
        let bounds = SampleBounds::from_bytes(&batches, &message.bounds).map_err(malformed)?;
        let shape = Self {
            index_id,
            packing,
            batches,
            bounds,
            rounds: message.rounds.into(),
            vectors: message.vectors,
            segments: message.segments.into(),
        };
        shape.check_limits(message)?;
        Ok(shape)
    }

    fn check_limits(&self, message: &v1::Shape) -> Result<(), Failure> {
        let limit = |sentence: String| Err(Failure::new(Reason::Limit, sentence));
        if message.rounds == 0 || message.rounds > MAX_ROUNDS {
            return limit(format!(
                "a training has 1 to {MAX_ROUNDS} rounds; {} were asked for",
                message.rounds
            ));
        }
        if self.vectors == 0 || self.vectors > u64::from(u32::MAX) {
            return limit(format!(
                "a generation makes 1 to {} vectors; {} were announced",
                u32::MAX,
                self.vectors
            ));
        }
        if message.segments == 0 || message.segments > MAX_SEGMENTS {
            return limit(format!(
                "a generation has 1 to {MAX_SEGMENTS} segments; {} were announced",
                message.segments
            ));
        }
        let codebook = MaskedBatchCodebook::encoded_len(&self.batches)
            .max(MaskedCodebook::largest_len(&self.packing));
        if codebook > MAX_PAYLOAD_BYTES {
            return limit(format!(
                "a codebook of this shape takes {codebook} bytes and a message at most {MAX_PAYLOAD_BYTES}; use fewer centroids or more sub-quantizers, or build locally"
            ));
        }
        let labels = Labels::encoded_len(&self.batches, self.bounds.samples());
        if labels > MAX_PAYLOAD_BYTES {
            return limit(format!(
                "the labels of this sample take {labels} bytes and a message at most {MAX_PAYLOAD_BYTES}; take a smaller sample"
            ));
        }
        let shares = SampleShares::encoded_len(&self.batches, self.bounds.samples());
        if shares > MAX_SHARE_BYTES {
            return limit(format!(
                "the shares of this sample take {shares} bytes, and a keeper holds {MAX_SHARE_BYTES}; take a smaller sample"
            ));
        }
        Ok(())
    }

    /// Codebooks that a session makes at most.
    pub(super) const fn codebooks(&self) -> u64 {
        REPEATS * (self.rounds + EXTRA_CODEBOOKS)
    }

    /// Blocks of tables, one a batch and block of the codebook, that a session
    /// decrypts at most.
    pub(super) fn table_blocks(&self) -> u64 {
        let p = &self.batches;
        let centroids = p.centroids();
        // Candidates against candidates, four codebooks of them.
        let start = 4 * p.batches(4 * centroids) as u64;
        let lengths = (self.rounds + 2) * p.batches(centroids) as u64;
        let rounds = self.rounds * p.batches(self.bounds.samples()) as u64;
        // The last batch of a segment may not be full.
        let encoding = self.vectors / p.batch() as u64 + self.segments + 1;
        REPEATS * p.blocks() as u64 * (start + lengths + rounds + encoding)
    }
}
