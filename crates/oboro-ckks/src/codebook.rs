//! The encrypted codebook, and its public parts that the keeper registers.

use oboro_ring::{Evaluation, Poly, Ring};
use oboro_simd::Arch;
use rand_core::CryptoRng;

use crate::embedding::{Embedding, Rows};
use crate::encrypt::{Ciphertext, encrypt};
use crate::key::exact;
use crate::{CkksError, Packing, PublicKey, TableScale};

/// One block: d1 ciphertexts of centroids, and one of their offsets.
pub(crate) struct Block {
    pub(crate) parts: Vec<Ciphertext>,
    pub(crate) offsets: Option<Ciphertext>,
}

/// All centroids under the keeper's public key.
///
/// # Security
/// Whoever holds the secret key can read the centroids: the ciphertexts never
/// lie or travel outside sealing and TLS.
pub struct EncryptedCodebook {
    packing: Packing,
    pub(crate) blocks: Vec<Block>,
}

impl EncryptedCodebook {
    pub(crate) const fn new(packing: Packing, blocks: Vec<Block>) -> Self {
        Self { packing, blocks }
    }

    /// Encrypts `centroids`, `[subquantizer][centroid][d]` padded with zeros,
    /// and `offsets`, `[subquantizer][centroid]`, that are added to the inner
    /// products (-|c|²/2 for squared distances).
    ///
    /// # Errors
    /// On a wrong length, NaN or infinity, or values beyond the scale's bounds.
    pub fn encrypt(
        packing: Packing,
        scale: &TableScale,
        key: &PublicKey,
        centroids: &[f32],
        offsets: Option<&[f32]>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, CkksError> {
        let p = &packing;
        if p.set() != key.parameter_set() || p.set() != scale.set() {
            return Err(CkksError::Mismatch {
                left: "the packing",
                right: "the public key",
            });
        }
        check("the codebook", centroids, p.table_len() * p.width())?;
        if let Some(offsets) = offsets {
            check("the codebook's offsets", offsets, p.table_len())?;
        }
        let ring = p.set().ring();
        let embedding = Embedding::new(p.slots());
        let value = |slot: usize, k: usize, j: usize| {
            if slot < p.subquantizers() && k < p.centroids() && j < p.width() {
                f64::from(centroids[(slot * p.centroids() + k) * p.width() + j])
            } else {
                0.0
            }
        };
        let offset = |offsets: &[f32], slot: usize, k: usize| {
            if slot < p.subquantizers() && k < p.centroids() {
                f64::from(offsets[slot * p.centroids() + k])
            } else {
                0.0
            }
        };
        let (d2, positions, stride) = (p.part(), p.positions(), p.stride());
        let blocks = (0..p.blocks())
            .map(|block| {
                let first = block * p.centroids_per_block();
                let parts = (0..p.split())
                    .map(|part| {
                        let mut rows = Rows::zero(p.slots(), stride);
                        for slot in 0..p.subquantizers() {
                            for position in 0..positions {
                                for j in 0..d2 {
                                    let at = slot * stride + position * d2 + j;
                                    let dim = part * d2 + j;
                                    rows.re[at] = value(slot, first + position, dim);
                                    rows.im[at] = value(slot, first + positions + position, dim);
                                }
                            }
                        }
                        let message = encode(p, &ring, &embedding, rows, scale.centroid_scale());
                        encrypt(&ring, key, message, rng)
                    })
                    .collect();
                let offsets = offsets.map(|offsets| {
                    let mut rows = Rows::zero(p.slots(), stride);
                    for slot in 0..p.subquantizers() {
                        for position in 0..positions {
                            let at = slot * stride + p.target(position);
                            rows.re[at] = offset(offsets, slot, first + position);
                            rows.im[at] = offset(offsets, slot, first + positions + position);
                        }
                    }
                    let message = encode(p, &ring, &embedding, rows, scale.product_scale());
                    encrypt(&ring, key, message, rng)
                });
                Block { parts, offsets }
            })
            .collect();
        Ok(Self { packing, blocks })
    }

    /// The shape of this codebook.
    #[must_use]
    pub const fn packing(&self) -> &Packing {
        &self.packing
    }

    pub(crate) fn has_offsets(&self) -> bool {
        self.blocks.iter().all(|block| block.offsets.is_some())
    }

    /// The same shape with every ciphertext, in the order of its bytes, replaced.
    pub(crate) fn map(&self, mut replace: impl FnMut(&Ciphertext) -> Ciphertext) -> Self {
        let blocks = self
            .blocks
            .iter()
            .map(|block| Block {
                parts: block.parts.iter().map(&mut replace).collect(),
                offsets: block.offsets.as_ref().map(&mut replace),
            })
            .collect();
        Self {
            packing: self.packing,
            blocks,
        }
    }

    /// Every ciphertext, in the order of its bytes.
    pub(crate) fn ciphertexts_mut(&mut self) -> impl Iterator<Item = &mut Ciphertext> {
        self.blocks
            .iter_mut()
            .flat_map(|block| block.parts.iter_mut().chain(&mut block.offsets))
    }

    /// The public parts a of every centroid ciphertext, for the keeper.
    #[must_use]
    pub fn masks(&self) -> CodebookMasks {
        CodebookMasks {
            packing: self.packing,
            blocks: self
                .blocks
                .iter()
                .map(|block| block.parts.iter().map(|part| part.a.clone()).collect())
                .collect(),
        }
    }

    /// One byte that tells whether there are offsets, then the ciphertexts.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let ring = self.packing.set().ring();
        let with_offsets = self.has_offsets();
        let mut out = Vec::with_capacity(Self::encoded_len(&self.packing, with_offsets));
        out.push(u8::from(with_offsets));
        for block in &self.blocks {
            for ciphertext in block.parts.iter().chain(&block.offsets) {
                ciphertext.pack(&ring, &mut out);
            }
        }
        out
    }

    pub(crate) fn encoded_len(packing: &Packing, with_offsets: bool) -> usize {
        let each = packing.split() + usize::from(with_offsets);
        1 + packing.blocks() * each * Ciphertext::encoded_len(&packing.set().ring())
    }

    /// Reads what [`EncryptedCodebook::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or a residue outside its range.
    pub fn from_bytes(packing: &Packing, bytes: &[u8]) -> Result<Self, CkksError> {
        let with_offsets = match bytes.first() {
            Some(0) => false,
            Some(1) => true,
            _ => return Err(CkksError::Header("the encrypted codebook")),
        };
        exact(
            "the encrypted codebook",
            bytes,
            Self::encoded_len(packing, with_offsets),
        )?;
        let ring = packing.set().ring();
        let each = Ciphertext::encoded_len(&ring);
        let per_block = packing.split() + usize::from(with_offsets);
        let blocks = bytes[1..]
            .chunks_exact(each * per_block)
            .map(|block| {
                let mut parts = block
                    .chunks_exact(each)
                    .map(|chunk| Ciphertext::unpack(&ring, chunk))
                    .collect::<Result<Vec<_>, _>>()?;
                let offsets = if with_offsets { parts.pop() } else { None };
                Ok(Block { parts, offsets })
            })
            .collect::<Result<_, CkksError>>()?;
        Ok(Self {
            packing: *packing,
            blocks,
        })
    }
}

/// Slots to a message with integer coefficients.
pub(crate) fn encode(
    p: &Packing,
    ring: &Ring,
    embedding: &Embedding,
    mut rows: Rows,
    scale: f64,
) -> Poly<oboro_ring::Coefficient> {
    Arch::detect().vectorize(
        #[inline(always)]
        || embedding.to_coefficients(&mut rows),
    );
    let stride = p.stride();
    let mut coefficients = vec![0i128; p.set().degree()];
    for u in 0..p.slots() {
        for r in 0..stride {
            coefficients[r + stride * u] = (rows.re[u * stride + r] * scale).round() as i128;
            coefficients[r + stride * (u + p.slots())] =
                (rows.im[u * stride + r] * scale).round() as i128;
        }
    }
    Poly::from_signed_wide(ring, &coefficients)
}

pub(crate) fn check(what: &'static str, values: &[f32], expected: usize) -> Result<(), CkksError> {
    if values.len() != expected {
        return Err(CkksError::Length {
            what,
            actual: values.len(),
            expected,
        });
    }
    if values.iter().any(|x| !x.is_finite()) {
        return Err(CkksError::NotFinite(what));
    }
    Ok(())
}

/// The a-parts of a codebook's ciphertexts: pseudorandom polynomials that tell
/// nothing without the b-parts, `[block][part]`.
pub struct CodebookMasks {
    packing: Packing,
    pub(crate) blocks: Vec<Vec<Poly<Evaluation>>>,
}

impl CodebookMasks {
    /// The shape of the codebook.
    #[must_use]
    pub const fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Length of [`CodebookMasks::to_bytes`].
    #[must_use]
    pub fn encoded_len(packing: &Packing) -> usize {
        packing.blocks() * packing.split() * Poly::<Evaluation>::packed_len(&packing.set().ring())
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

    /// Reads what [`CodebookMasks::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or a residue outside its range.
    pub fn from_bytes(packing: &Packing, bytes: &[u8]) -> Result<Self, CkksError> {
        exact(
            "the codebook's public part",
            bytes,
            Self::encoded_len(packing),
        )?;
        let ring = packing.set().ring();
        let each = Poly::<Evaluation>::packed_len(&ring);
        let blocks = bytes
            .chunks_exact(each * packing.split())
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

    /// A digest by which the keeper names the registered codebook.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("oboro 2026 codebook masks v1");
        hasher.update(&self.packing.to_bytes());
        hasher.update(&self.to_bytes());
        *hasher.finalize().as_bytes()
    }
}
