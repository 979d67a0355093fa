//! Randomness that follows from a secret seed and from what it is used for.

use blake3::Hasher;
use chacha20::ChaCha20Rng;
use rand_core::SeedableRng as _;
use zeroize::Zeroizing;

use crate::{
    BatchEvaluator, BatchScale, EncryptedBatch, MaskedBatch, MaskedDecryptor, MaskedOffsets,
    MeanShares, PreparedBatchCodebook, TableScale,
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
/// Each role has a seed of its own for every index. Everything that a step computes
/// with goes into its generator, secret messages too, so that a seed that comes back
/// after a restart, or an owner that begins the same index with other vectors, never
/// makes two encryptions of different messages under the same randomness. Zeroized on
/// drop.
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

    /// For the keeper: the encryption of a codebook of which it holds this share, a
    /// [`crate::MaskedBatchCodebook`] of this scale.
    ///
    /// # Security
    /// Key and share go into it: one message under two keys, or two messages under one,
    /// with the same randomness would tell their difference.
    #[must_use]
    pub fn codebook(
        &self,
        keeper: &MaskedDecryptor,
        scale: &BatchScale,
        means: &MeanShares,
    ) -> ChaCha20Rng {
        self.generator(
            3,
            &[
                &keeper.key().to_bytes(),
                &scale.packing().to_bytes(),
                &scale.to_bytes(),
                &means.to_bytes(),
            ],
        )
    }

    /// For the keeper: the encryption of a codebook in the form for searching.
    ///
    /// # Security
    /// As [`codebook`](Self::codebook); the masked offsets are a part of the message.
    #[must_use]
    pub fn search_codebook(
        &self,
        keeper: &MaskedDecryptor,
        scale: &TableScale,
        means: &MeanShares,
        offsets: &MaskedOffsets,
    ) -> ChaCha20Rng {
        self.generator(
            4,
            &[
                &keeper.key().to_bytes(),
                &means.packing().to_bytes(),
                &scale.to_bytes(),
                &means.to_bytes(),
                &offsets.to_bytes(),
            ],
        )
    }

    /// For the searcher: the masks of offsets, for [`MaskedOffsets::new`].
    ///
    /// # Security
    /// The offsets go into it, since the masks of two lists that differ must.
    #[must_use]
    pub fn offsets(&self, scale: &TableScale, offsets: Option<&[f32]>) -> ChaCha20Rng {
        let values = offsets.unwrap_or_default().iter();
        let bytes: Zeroizing<Vec<u8>> =
            Zeroizing::new(values.flat_map(|value| value.to_le_bytes()).collect());
        self.generator(5, &[&scale.to_bytes(), &bytes])
    }

    /// For the searcher: names of files, which are no secrets, of the step `step`.
    #[must_use]
    pub fn names(&self, step: &[u8]) -> ChaCha20Rng {
        self.generator(6, &[step])
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
