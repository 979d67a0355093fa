//! The keeper's side: c1·s + c2·s² of every block, dithered.

use oboro_ring::{Evaluation, Poly};
use oboro_simd::Arch;
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::decrypt::oblivious_drop_low_bits;
use crate::{
    BatchCodebookMasks, BatchPacking, BatchScale, BatchTableShare, CkksError, MaskedBatch,
    MaskedDecryptor,
};

/// A batch codebook's public parts times s².
///
/// # Security
/// Depends on the secret key; zeroized on drop.
pub struct PreparedBatchCodebook {
    scale: BatchScale,
    /// Names the codebook: a digest of its public parts, or of their seed.
    id: [u8; 32],
    blocks: Vec<Vec<Poly<Evaluation>>>,
}

impl Drop for PreparedBatchCodebook {
    fn drop(&mut self) {
        for mask in self.blocks.iter_mut().flatten() {
            mask.zeroize();
        }
    }
}

impl ZeroizeOnDrop for PreparedBatchCodebook {}

impl PreparedBatchCodebook {
    pub(crate) const fn new(
        scale: BatchScale,
        id: [u8; 32],
        blocks: Vec<Vec<Poly<Evaluation>>>,
    ) -> Self {
        Self { scale, id, blocks }
    }

    /// The scales.
    #[must_use]
    pub const fn scale(&self) -> &BatchScale {
        &self.scale
    }

    /// Names the codebook: the same encryption, the same name.
    #[must_use]
    pub const fn id(&self) -> &[u8; 32] {
        &self.id
    }

    /// The shape of the codebook.
    #[must_use]
    pub const fn packing(&self) -> &BatchPacking {
        self.scale.packing()
    }
}

impl MaskedDecryptor {
    /// Multiplies a batch codebook's public parts with s², once.
    ///
    /// # Errors
    /// When the codebook belongs to another parameter set or packing.
    pub fn prepare_batch(
        &self,
        scale: BatchScale,
        masks: &BatchCodebookMasks,
    ) -> Result<PreparedBatchCodebook, CkksError> {
        if scale.set() != self.parameter_set() || masks.packing() != scale.packing() {
            return Err(CkksError::Mismatch {
                left: "the batch codebook",
                right: "the secret key",
            });
        }
        let times_square = |a: &Poly<Evaluation>| a.mul(&self.ring, self.key().s_squared());
        let blocks = masks
            .blocks
            .iter()
            .map(|parts| parts.iter().map(times_square).collect())
            .collect();
        let id = blake3::derive_key("oboro 2026 batch codebook masks v1", &masks.to_bytes());
        Ok(PreparedBatchCodebook::new(scale, id, blocks))
    }

    /// The keeper's shares of the tables of several batches, which pass through
    /// the prepared codebook together. Each has its own generator, so that what
    /// comes out does not depend on the grouping.
    ///
    /// # Errors
    /// When there are not as many generators as batches, they are for different
    /// blocks, belong to another packing or hold residues outside their range.
    ///
    /// # Security
    /// Every coefficient returned carries a dither from its generator and lacks
    /// its low [`BatchScale::dropped_bits`] bits; nothing else leaves.
    pub fn decrypt_batches<R: CryptoRng>(
        &self,
        codebook: &PreparedBatchCodebook,
        products: &[MaskedBatch],
        rngs: &mut [R],
    ) -> Result<Vec<BatchTableShare>, CkksError> {
        let p = codebook.packing();
        if products.len() != rngs.len() {
            return Err(CkksError::Length {
                what: "the list of generators",
                actual: rngs.len(),
                expected: products.len(),
            });
        }
        let Some(blocks) = products.first().map(MaskedBatch::blocks) else {
            return Ok(Vec::new());
        };
        let fits = |product: &MaskedBatch| product.packing() == p && product.blocks() == blocks;
        if p.set() != self.parameter_set() || !products.iter().all(fits) {
            return Err(CkksError::Mismatch {
                left: "the masked batch",
                right: "the batch codebook",
            });
        }
        let degree = self.ring.degree();
        let shift = p.set().share_shift();
        let modulus = (self.ring.modulus() >> shift) as u64;
        let batches = products
            .iter()
            .map(MaskedBatch::batch_masks)
            .collect::<Result<Vec<_>, _>>()?;
        let mut values: Vec<Vec<u16>> = products
            .iter()
            .map(|_| Vec::with_capacity(blocks.len() * degree))
            .collect();
        let mut dither = Zeroizing::new(vec![0u8; 8 * degree]);
        let mut targets = Zeroizing::new(Vec::with_capacity(degree));
        for (index, block) in blocks.clone().enumerate() {
            let masks = &codebook.blocks[block];
            let work = products.iter().zip(&batches).zip(&mut *rngs);
            for (((product, batch), rng), values) in work.zip(&mut values) {
                let c1 = product.product(index)?.into_evaluation(&self.ring);
                let mut pairs: Vec<_> = batch.iter().zip(masks).collect();
                pairs.push((&c1, self.key().s()));
                let mut sum = Poly::zero(&self.ring);
                sum.mul_accumulate(&self.ring, &pairs);
                let sum = Zeroizing::new(sum.into_coefficient(&self.ring));
                targets.clear();
                if self.ring.limbs() == 1 {
                    targets.extend_from_slice(sum.limb(0));
                } else {
                    let residues = sum.residues_at(&self.ring, 0..degree);
                    targets.extend(residues.iter().map(|&x| (x >> shift) as u64));
                    Zeroizing::new(residues);
                }
                rng.fill_bytes(&mut dither);
                oblivious_drop_low_bits(
                    Arch::detect(),
                    &targets,
                    &dither,
                    codebook.scale.dropped_bits() - shift,
                    modulus,
                    values,
                );
            }
        }
        Ok(values
            .into_iter()
            .map(|values| BatchTableShare::new(*p, blocks.clone(), values))
            .collect())
    }
}
