//! The owner's side: batches of vectors under the keeper's public key.

use std::sync::Arc;

use oboro_ring::{Coefficient, Poly, Ring};
use oboro_simd::Arch;
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::embedding::{Embedding, Rows};
use crate::encrypt::{Ciphertext, encrypt};
use crate::key::exact;
use crate::{BatchPacking, BatchScale, CkksError, PublicKey};

/// Encrypts batches of vectors.
pub struct BatchEncryptor {
    scale: BatchScale,
    key: PublicKey,
    ring: Arc<Ring>,
    embedding: Embedding,
}

impl BatchEncryptor {
    /// An encryptor with this scale under this public key.
    ///
    /// # Errors
    /// When they belong to different parameter sets.
    pub fn new(scale: BatchScale, key: PublicKey) -> Result<Self, CkksError> {
        if scale.set() != key.parameter_set() {
            return Err(CkksError::Mismatch {
                left: "the batch scale",
                right: "the public key",
            });
        }
        Ok(Self {
            ring: scale.set().ring(),
            embedding: Embedding::new(scale.packing().slots()),
            scale,
            key,
        })
    }

    /// The shape of the batches.
    #[must_use]
    pub const fn packing(&self) -> &BatchPacking {
        self.scale.packing()
    }

    /// Encrypts up to B padded vectors, `[vector][subquantizer][d]`; a shorter
    /// batch is filled with zeros, whose codes are to be thrown away.
    ///
    /// A vector longer than the scale's bound is shortened to it.
    ///
    /// # Errors
    /// When the length is no multiple of M·d or more than B·M·d, or a value is
    /// NaN or infinite.
    pub fn encrypt(
        &self,
        vectors: &[f32],
        rng: &mut impl CryptoRng,
    ) -> Result<EncryptedBatch, CkksError> {
        let p = self.packing();
        let (length, batch) = (p.vector_len(), p.batch());
        if !vectors.len().is_multiple_of(length) || vectors.len() > batch * length {
            return Err(CkksError::Length {
                what: "the batch",
                actual: vectors.len(),
                expected: batch * length,
            });
        }
        let bound = self.scale.vector_norm();
        let mut factors = Zeroizing::new(Vec::with_capacity(batch));
        for vector in vectors.chunks_exact(length) {
            let norm = vector
                .iter()
                .map(|&x| f64::from(x) * f64::from(x))
                .sum::<f64>()
                .sqrt();
            if !norm.is_finite() {
                return Err(CkksError::NotFinite("the batch"));
            }
            factors.push(self.scale.vector_scale() * (bound / norm).min(1.0));
        }
        let parts = (0..p.width())
            .map(|j| {
                let mut rows = Rows::zero(p.slots(), batch);
                for ((v, vector), factor) in vectors.chunks_exact(length).enumerate().zip(&*factors)
                {
                    for (slot, sub) in vector.chunks_exact(p.width()).enumerate() {
                        rows.re[slot * batch + v] = f64::from(sub[j]) * factor;
                    }
                }
                let message = self.message(rows);
                encrypt(&self.ring, &self.key, message, rng)
            })
            .collect();
        Ok(EncryptedBatch { packing: *p, parts })
    }

    /// Slots to a message; the rows are full, so they are the coefficients.
    fn message(&self, mut rows: Rows) -> Poly<Coefficient> {
        Arch::detect().vectorize(
            #[inline(always)]
            || self.embedding.to_coefficients(&mut rows),
        );
        let message = if self.ring.limbs() == 1 {
            let round = |x: &f64| x.round_ties_even() as i64;
            let values: Zeroizing<Vec<i64>> =
                Zeroizing::new(rows.re.iter().chain(&rows.im).map(round).collect());
            Poly::from_signed(&self.ring, &values)
        } else {
            let round = |x: &f64| x.round_ties_even() as i128;
            let values: Zeroizing<Vec<i128>> =
                Zeroizing::new(rows.re.iter().chain(&rows.im).map(round).collect());
            Poly::from_signed_wide(&self.ring, &values)
        };
        rows.re.zeroize();
        rows.im.zeroize();
        message
    }
}

/// A batch's d ciphertexts.
#[derive(Clone)]
pub struct EncryptedBatch {
    packing: BatchPacking,
    pub(crate) parts: Vec<Ciphertext>,
}

impl EncryptedBatch {
    pub(crate) const fn new(packing: BatchPacking, parts: Vec<Ciphertext>) -> Self {
        Self { packing, parts }
    }

    /// The shape of the batch.
    #[must_use]
    pub const fn packing(&self) -> &BatchPacking {
        &self.packing
    }

    /// Length of [`EncryptedBatch::to_bytes`].
    #[must_use]
    pub fn encoded_len(packing: &BatchPacking) -> usize {
        packing.width() * Ciphertext::encoded_len(&packing.set().ring())
    }

    /// Each ciphertext's b and a, evaluation form, 50 bits a residue.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let ring = self.packing.set().ring();
        let mut out = Vec::with_capacity(Self::encoded_len(&self.packing));
        for part in &self.parts {
            part.pack(&ring, &mut out);
        }
        out
    }

    /// Reads what [`EncryptedBatch::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or a residue outside its range.
    pub fn from_bytes(packing: &BatchPacking, bytes: &[u8]) -> Result<Self, CkksError> {
        exact("the encrypted batch", bytes, Self::encoded_len(packing))?;
        let ring = packing.set().ring();
        let parts = bytes
            .chunks_exact(Ciphertext::encoded_len(&ring))
            .map(|chunk| Ciphertext::unpack(&ring, chunk))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            packing: *packing,
            parts,
        })
    }
}
