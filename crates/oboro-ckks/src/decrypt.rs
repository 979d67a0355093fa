//! The keeper's side: the target coefficients of c1·s + c2·s², dithered.

use std::sync::Arc;

use oboro_ring::{Evaluation, Poly, Ring};
use oboro_simd::Arch;
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::{CkksError, CodebookMasks, MaskedProducts, Packing, SecretKey, TableScale, TableShare};

/// A codebook's public parts times s², ready for queries.
///
/// # Security
/// Depends on the secret key; zeroized on drop.
pub struct PreparedCodebook {
    packing: Packing,
    scale: TableScale,
    indexes: Vec<usize>,
    blocks: Vec<Vec<Poly<Evaluation>>>,
}

impl Drop for PreparedCodebook {
    fn drop(&mut self) {
        for mask in self.blocks.iter_mut().flatten() {
            mask.zeroize();
        }
    }
}

impl PreparedCodebook {
    /// The shape of the codebook.
    #[must_use]
    pub const fn packing(&self) -> &Packing {
        &self.packing
    }
}

/// Decrypts masked products with the secret key.
pub struct MaskedDecryptor {
    key: SecretKey,
    pub(crate) ring: Arc<Ring>,
}

impl MaskedDecryptor {
    /// A decryptor that owns the key.
    #[must_use]
    pub fn new(key: SecretKey) -> Self {
        Self {
            ring: key.parameter_set().ring(),
            key,
        }
    }

    /// The key's parameter set.
    #[must_use]
    pub const fn parameter_set(&self) -> crate::ParameterSet {
        self.key.parameter_set()
    }

    /// The key itself, to seal it or to re-encrypt codebooks with it.
    #[must_use]
    pub const fn key(&self) -> &SecretKey {
        &self.key
    }

    /// Whether `key` is a public key of this decryptor's secret key.
    #[must_use]
    pub fn matches(&self, key: &crate::PublicKey) -> bool {
        self.key.matches(key)
    }

    /// Encrypts a query with the secret key this decryptor holds.
    ///
    /// # Errors
    /// As [`crate::QueryEncryptor::encrypt_seeded`].
    pub fn encrypt(
        &self,
        encryptor: &crate::QueryEncryptor,
        query: &[f32],
        rng: &mut impl CryptoRng,
    ) -> Result<crate::EncryptedQuery, CkksError> {
        encryptor.encrypt_seeded(&self.key, query, rng)
    }

    /// Multiplies a codebook's public parts with s², once.
    ///
    /// # Errors
    /// When the codebook belongs to another parameter set.
    pub fn prepare(
        &self,
        packing: Packing,
        scale: TableScale,
        masks: &CodebookMasks,
    ) -> Result<PreparedCodebook, CkksError> {
        if packing.set() != self.key.parameter_set()
            || scale.set() != packing.set()
            || *masks.packing() != packing
        {
            return Err(CkksError::Mismatch {
                left: "the codebook",
                right: "the secret key",
            });
        }
        let blocks = masks
            .blocks
            .iter()
            .map(|parts| {
                parts
                    .iter()
                    .map(|a| a.mul(&self.ring, self.key.s_squared()))
                    .collect()
            })
            .collect();
        Ok(PreparedCodebook {
            packing,
            scale,
            indexes: packing.target_indexes().collect(),
            blocks,
        })
    }

    /// The keeper's share of a table.
    ///
    /// # Errors
    /// When the products belong to another packing or hold residues outside
    /// their range.
    ///
    /// # Security
    /// Every coefficient returned carries a fresh dither and lacks its low
    /// [`TableScale::dropped_bits`] bits; nothing else leaves.
    pub fn decrypt(
        &self,
        codebook: &PreparedCodebook,
        products: &MaskedProducts,
        rng: &mut impl CryptoRng,
    ) -> Result<TableShare, CkksError> {
        let p = &codebook.packing;
        if products.packing != *p {
            return Err(CkksError::Mismatch {
                left: "the masked product",
                right: "the codebook",
            });
        }
        let query = products.query_masks()?;
        let mut values = Vec::with_capacity(p.blocks() * p.targets_per_block());
        let mut dither = Zeroizing::new(vec![0u8; 8 * p.targets_per_block()]);
        let shift = p.set().share_shift();
        let modulus = (self.ring.modulus() >> shift) as u64;
        for (block, masks) in products.blocks().zip(&codebook.blocks) {
            let c1 = block?.into_evaluation(&self.ring);
            let mut sum = c1.mul(&self.ring, self.key.s());
            let pairs: Vec<_> = query.iter().zip(masks).collect();
            sum.mul_accumulate(&self.ring, &pairs);
            let sum = Zeroizing::new(sum.into_coefficient(&self.ring));
            let targets: Zeroizing<Vec<u64>> = Zeroizing::new(
                sum.residues_at(&self.ring, codebook.indexes.iter().copied())
                    .into_iter()
                    .map(|x| (x >> shift) as u64)
                    .collect(),
            );
            rng.fill_bytes(&mut dither);
            oblivious_drop_low_bits(
                Arch::detect(),
                &targets,
                &dither,
                codebook.scale.dropped_bits() - shift,
                modulus,
                &mut values,
            );
        }
        Ok(TableShare::new(*p, values))
    }
}

/// v = ((x + r) mod q) >> w with r uniform below 2^w, for every target.
#[inline(never)]
pub(crate) fn oblivious_drop_low_bits(
    arch: Arch,
    targets: &[u64],
    dither: &[u8],
    dropped_bits: u32,
    modulus: u64,
    out: &mut Vec<u16>,
) {
    let mask = (1u64 << dropped_bits) - 1;
    let start = out.len();
    out.resize(start + targets.len(), 0);
    let out = &mut out[start..];
    arch.vectorize(
        #[inline(always)]
        || {
            for ((out, &x), r) in out.iter_mut().zip(targets).zip(dither.as_chunks::<8>().0) {
                let sum = x + (u64::from_le_bytes(*r) & mask);
                *out = (sum.min(sum.wrapping_sub(modulus)) >> dropped_bits) as u16;
            }
        },
    );
}
