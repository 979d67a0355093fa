//! A codebook in the form that batches are multiplied with.

use oboro_ring::{Evaluation, Poly};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::codebook::check;
use crate::embedding::{Embedding, Rows};
use crate::encrypt::{Ciphertext, encrypt};
use crate::key::exact;
use crate::{BatchPacking, BatchScale, CkksError, CodebookOrigin, PublicKey};

/// The K/2 blocks of a codebook, d ciphertexts each, at the searcher.
///
/// # Security
/// Whoever holds the secret key can read the centroids: the ciphertexts never
/// lie or travel outside sealing and TLS.
pub struct BatchCodebook {
    packing: BatchPacking,
    pub(crate) blocks: Vec<Vec<Ciphertext>>,
}

impl BatchCodebook {
    pub(crate) const fn new(packing: BatchPacking, blocks: Vec<Vec<Ciphertext>>) -> Self {
        Self { packing, blocks }
    }

    /// Encrypts `centroids`, `[subquantizer][centroid][d]` padded with zeros,
    /// under the public key: for an owner that has them, so that vectors can be
    /// added in private to an index that it trained itself.
    ///
    /// # Errors
    /// On a wrong length, NaN or infinity, or a scale for a codebook of
    /// [`CodebookOrigin::Keeper`].
    pub fn encrypt(
        scale: &BatchScale,
        key: &PublicKey,
        centroids: &[f32],
        rng: &mut impl CryptoRng,
    ) -> Result<Self, CkksError> {
        let p = scale.packing();
        if p.set() != key.parameter_set() || scale.origin() != CodebookOrigin::Owner {
            return Err(CkksError::Mismatch {
                left: "the batch scale",
                right: "the owner's codebook",
            });
        }
        check("the codebook", centroids, p.codebook_len())?;
        let ring = p.set().ring();
        let embedding = Embedding::new(p.slots());
        let (d, k, batch) = (p.width(), p.centroids(), p.batch());
        let value = |slot: usize, centroid: usize, j: usize| {
            if centroid < k {
                f64::from(centroids[(slot * k + centroid) * d + j]) * scale.centroid_scale()
            } else {
                0.0
            }
        };
        let blocks = (0..p.blocks())
            .map(|block| {
                (0..d)
                    .map(|j| {
                        let mut rows = Rows::zero(p.slots(), 1);
                        for slot in 0..p.subquantizers() {
                            rows.re[slot] = value(slot, 2 * block, j);
                            rows.im[slot] = value(slot, 2 * block + 1, j);
                        }
                        embedding.to_coefficients(&mut rows);
                        let mut values = Zeroizing::new(vec![0i128; p.set().degree()]);
                        for (u, x) in rows.re.iter().chain(&rows.im).enumerate() {
                            values[batch * u] = x.round_ties_even() as i128;
                        }
                        rows.re.zeroize();
                        rows.im.zeroize();
                        encrypt(&ring, key, Poly::from_signed_wide(&ring, &values), rng)
                    })
                    .collect()
            })
            .collect();
        Ok(Self::new(*p, blocks))
    }

    /// The shape of this codebook.
    #[must_use]
    pub const fn packing(&self) -> &BatchPacking {
        &self.packing
    }

    /// The public parts a of every ciphertext, for a keeper that did not make
    /// them itself.
    #[must_use]
    pub fn masks(&self) -> BatchCodebookMasks {
        BatchCodebookMasks {
            packing: self.packing,
            blocks: self
                .blocks
                .iter()
                .map(|parts| parts.iter().map(|part| part.a.clone()).collect())
                .collect(),
        }
    }

    /// Length of [`BatchCodebook::to_bytes`].
    #[must_use]
    pub fn encoded_len(packing: &BatchPacking) -> usize {
        packing.blocks() * packing.width() * Ciphertext::encoded_len(&packing.set().ring())
    }

    /// Every ciphertext, 50 bits a residue.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let ring = self.packing.set().ring();
        let mut out = Vec::with_capacity(Self::encoded_len(&self.packing));
        for part in self.blocks.iter().flatten() {
            part.pack(&ring, &mut out);
        }
        out
    }

    /// Reads what [`BatchCodebook::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or a residue outside its range.
    pub fn from_bytes(packing: &BatchPacking, bytes: &[u8]) -> Result<Self, CkksError> {
        exact("the batch codebook", bytes, Self::encoded_len(packing))?;
        let ring = packing.set().ring();
        let each = Ciphertext::encoded_len(&ring);
        let blocks = bytes
            .chunks_exact(each * packing.width())
            .map(|block| {
                block
                    .chunks_exact(each)
                    .map(|chunk| Ciphertext::unpack(&ring, chunk))
                    .collect()
            })
            .collect::<Result<_, _>>()?;
        Ok(Self::new(*packing, blocks))
    }
}

/// The a-parts of a codebook's ciphertexts, `[block][j]`: pseudorandom, they
/// tell nothing without the b-parts.
pub struct BatchCodebookMasks {
    packing: BatchPacking,
    pub(crate) blocks: Vec<Vec<Poly<Evaluation>>>,
}

impl BatchCodebookMasks {
    /// The shape of the codebook.
    #[must_use]
    pub const fn packing(&self) -> &BatchPacking {
        &self.packing
    }

    /// Length of [`BatchCodebookMasks::to_bytes`].
    #[must_use]
    pub fn encoded_len(packing: &BatchPacking) -> usize {
        packing.blocks() * packing.width() * Poly::<Evaluation>::packed_len(&packing.set().ring())
    }

    /// Every polynomial at 50 bits a residue.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let ring = self.packing.set().ring();
        let mut out = Vec::with_capacity(Self::encoded_len(&self.packing));
        for mask in self.blocks.iter().flatten() {
            mask.pack(&ring, &mut out);
        }
        out
    }

    /// Reads what [`BatchCodebookMasks::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or a residue outside its range.
    pub fn from_bytes(packing: &BatchPacking, bytes: &[u8]) -> Result<Self, CkksError> {
        exact(
            "the batch codebook's public part",
            bytes,
            Self::encoded_len(packing),
        )?;
        let ring = packing.set().ring();
        let each = Poly::<Evaluation>::packed_len(&ring);
        let blocks = bytes
            .chunks_exact(each * packing.width())
            .map(|block| {
                block
                    .chunks_exact(each)
                    .map(|mask| Poly::unpack(&ring, mask))
                    .collect()
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            packing: *packing,
            blocks,
        })
    }
}
