//! Randomness that follows from a secret seed and from what it is used for.

use blake3::Hasher;
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng as _;
use zeroize::Zeroizing;

use crate::{
    BatchEvaluator, BatchScale, EncryptedBatch, Labels, MaskedBatch, MaskedDecryptor,
    PreparedBatchCodebook,
};

/// Generators for the steps of a generation, each a function of a secret seed
/// and of everything that the step computes with.
///
/// A step that is done again with the same inputs and seed gives the same
/// bytes, so a request may be repeated after a broken connection; one with other
/// inputs gets other randomness, which a counter could not promise. It also
/// takes from a searcher the means to average a keeper's dither away: the same
/// question gets the same answer.
///
/// # Security
/// Each role has a seed of its own, drawn for one generation and never used for
/// another. Zeroized on drop.
pub struct DerivedRandomness {
    seed: Zeroizing<[u8; 32]>,
}

impl DerivedRandomness {
    /// Randomness from a seed.
    #[must_use]
    pub const fn new(seed: Zeroizing<[u8; 32]>) -> Self {
        Self { seed }
    }

    /// For the searcher: the encryptions of zero of one item of work.
    /// `codebook` is [`DerivedRandomness::codebook_digest`] of the evaluator.
    #[must_use]
    pub fn evaluation(
        &self,
        codebook: &[u8; 32],
        batch: &EncryptedBatch,
        blocks: &std::ops::Range<usize>,
    ) -> ChaCha20Rng {
        let range = [blocks.start as u64, blocks.end as u64].map(u64::to_le_bytes);
        self.generator(1, &[codebook, range.as_flattened(), &batch.to_bytes()])
    }

    /// What names an evaluator's codebook and scale in
    /// [`DerivedRandomness::evaluation`]; computed once for all of its batches.
    #[must_use]
    pub fn codebook_digest(evaluator: &BatchEvaluator) -> [u8; 32] {
        let mut hasher = Hasher::new_derive_key("oboro 2026 batch codebook v1");
        hasher.update(&evaluator.packing().to_bytes());
        hasher.update(&evaluator.scale().to_bytes());
        hasher.update(&evaluator.codebook().to_bytes());
        *hasher.finalize().as_bytes()
    }

    /// For the keeper: the dither of its answer to one message.
    #[must_use]
    pub fn decryption(
        &self,
        codebook: &PreparedBatchCodebook,
        message: &MaskedBatch,
    ) -> ChaCha20Rng {
        let blocks = message.blocks();
        let range = [blocks.start as u64, blocks.end as u64].map(u64::to_le_bytes);
        self.generator(
            2,
            &[
                codebook.id(),
                &codebook.scale().to_bytes(),
                range.as_flattened(),
                message.as_bytes(),
            ],
        )
    }

    /// For the keeper: the encryption of a codebook of these labels, a
    /// [`crate::MaskedBatchCodebook`] of this scale.
    ///
    /// # Security
    /// The key goes into it: one message under two keys with the same
    /// randomness would tell their difference.
    #[must_use]
    pub fn codebook(
        &self,
        keeper: &MaskedDecryptor,
        scale: &BatchScale,
        labels: &Labels,
    ) -> ChaCha20Rng {
        self.generator(
            3,
            &[
                &keeper.key().to_bytes(),
                &scale.packing().to_bytes(),
                &scale.to_bytes(),
                &labels.to_bytes(),
            ],
        )
    }

    fn generator(&self, purpose: u8, parts: &[&[u8]]) -> ChaCha20Rng {
        let mut hasher = Hasher::new_keyed(&self.seed);
        hasher.update(&[purpose]);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let seed = Zeroizing::new(*hasher.finalize().as_bytes());
        ChaCha20Rng::from_seed(*seed)
    }
}
