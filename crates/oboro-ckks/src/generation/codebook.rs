//! A codebook from its shares into the form for batches.

use std::ops::Range;

use oboro_ring::{Evaluation, Poly, Ring, sample};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::MeanShares;
use super::linear::LinearMap;
use crate::encrypt::Ciphertext;
use crate::key::exact;
use crate::{
    BatchCodebook, BatchPacking, BatchScale, CkksError, CodebookOrigin, EncryptedBatch,
    MaskedDecryptor, PreparedBatchCodebook, SecretKey,
};

/// The message of every ciphertext of a batch codebook, in the order of their
/// streams: blocks, then the centroids as rows of batches.
fn messages<'a>(
    ring: &'a Ring,
    means: &'a MeanShares,
    scale: &BatchScale,
) -> Result<impl Iterator<Item = Poly<Evaluation>> + 'a, CkksError> {
    let p = *scale.packing();
    if means.packing() != scale.packing() || scale.origin() != CodebookOrigin::Keeper {
        return Err(CkksError::Mismatch {
            left: "the shares of a codebook",
            right: "the batch scale",
        });
    }
    let map = |scale: f64| LinearMap::new(ring, p.slots(), means.unit(), scale);
    let of_blocks = map(scale.centroid_scale())?;
    let of_rows = map(scale.vector_scale() * scale.shortening())?;
    let (d, batch) = (p.width(), p.batch());
    let blocks = (0..p.blocks() * d).map(move |index| {
        let (block, j) = (index / d, index % d);
        of_blocks.message(
            ring,
            1,
            |slot, _| means.value(slot, 2 * block, j),
            |slot, _| means.value(slot, 2 * block + 1, j),
        )
    });
    let rows = (0..row_batches(&p) * d).map(move |index| {
        let (first, j) = (index / d * batch, index % d);
        let value = |slot: usize, row: usize| means.value(slot, first + row, j);
        of_rows.message(ring, batch, value, |_, _| 0)
    });
    Ok(blocks.chain(rows))
}

/// Batches that the centroids fill as rows.
pub(super) const fn row_batches(packing: &BatchPacking) -> usize {
    packing.batches(packing.centroids())
}

/// The blocks that hold the centroids which are rows of `batch`: those in which
/// a row meets itself.
pub(super) fn own_blocks(packing: &BatchPacking, batch: usize) -> Range<usize> {
    let first = batch * packing.batch();
    first / 2..(first + packing.batch()).div_ceil(2).min(packing.blocks())
}

/// (m + e - a·s, a) with a from stream `stream` of `seed`; a is given back.
pub(super) fn encrypt_evaluated(
    ring: &Ring,
    key: &SecretKey,
    mut message: Poly<Evaluation>,
    seed: &[u8; 32],
    stream: u64,
    rng: &mut impl CryptoRng,
) -> Ciphertext {
    let a = sample::uniform_from_seed(ring, seed, stream);
    let error = Zeroizing::new(sample::gaussian(ring, rng).into_evaluation(ring));
    let product = Zeroizing::new(a.mul(ring, key.s()));
    message.add_assign(ring, &error);
    message.sub_assign(ring, &product);
    Ciphertext { b: message, a }
}

impl MaskedDecryptor {
    /// Encrypts a codebook of which the keeper holds one share: what goes to
    /// the searcher, and what stays to decrypt its products.
    ///
    /// # Errors
    /// When shares and scale belong to different shapes or another parameter set.
    ///
    /// # Security
    /// The messages are masked; nobody but the searcher can take the masks off,
    /// and it has no key.
    pub fn encrypt_batch_codebook(
        &self,
        means: &MeanShares,
        scale: &BatchScale,
        rng: &mut impl CryptoRng,
    ) -> Result<(MaskedBatchCodebook, PreparedBatchCodebook), CkksError> {
        if scale.set() != self.parameter_set() {
            return Err(CkksError::Mismatch {
                left: "the batch scale",
                right: "the secret key",
            });
        }
        let p = *scale.packing();
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let mut parts = Vec::with_capacity((p.blocks() + row_batches(&p)) * p.width());
        let mut prepared = vec![Vec::with_capacity(p.width()); p.blocks()];
        for (stream, message) in messages(&self.ring, means, scale)?.enumerate() {
            let ciphertext =
                encrypt_evaluated(&self.ring, self.key(), message, &seed, stream as u64, rng);
            if let Some(block) = prepared.get_mut(stream / p.width()) {
                block.push(ciphertext.a.mul(&self.ring, self.key().s_squared()));
            }
            parts.push(ciphertext.b);
        }
        let masked = MaskedBatchCodebook {
            packing: p,
            seed,
            parts,
        };
        let id = blake3::derive_key("oboro 2026 batch codebook seed v1", &seed);
        Ok((masked, PreparedBatchCodebook::new(*scale, id, prepared)))
    }
}

/// The keeper's encryption of its share of a codebook: as blocks, and its
/// centroids once more as rows of batches, from which the searcher learns their
/// lengths.
pub struct MaskedBatchCodebook {
    packing: BatchPacking,
    /// What the a-parts expand from.
    seed: [u8; 32],
    /// The b-parts of blocks, then rows.
    parts: Vec<Poly<Evaluation>>,
}

impl MaskedBatchCodebook {
    /// Takes the masks off: the codebook, and its centroids as batches.
    ///
    /// # Errors
    /// When the searcher's shares are of another shape.
    pub fn unmask(
        self,
        means: &MeanShares,
        scale: &BatchScale,
    ) -> Result<(BatchCodebook, Vec<EncryptedBatch>), CkksError> {
        let p = self.packing;
        if scale.packing() != &p {
            return Err(CkksError::Mismatch {
                left: "the masked codebook",
                right: "the batch scale",
            });
        }
        let ring = p.set().ring();
        let mut ciphertexts = Vec::with_capacity(self.parts.len());
        let masks = messages(&ring, means, scale)?;
        for ((stream, mut b), mask) in (0..).zip(self.parts).zip(masks) {
            b.sub_assign(&ring, &Zeroizing::new(mask));
            let a = sample::uniform_from_seed(&ring, &self.seed, stream);
            ciphertexts.push(Ciphertext { b, a });
        }
        let rows = ciphertexts.split_off(p.blocks() * p.width());
        let blocks = ciphertexts.chunks_exact(p.width()).map(<[_]>::to_vec);
        let rows = rows
            .chunks_exact(p.width())
            .map(|parts| EncryptedBatch::new(p, parts.to_vec()))
            .collect();
        Ok((BatchCodebook::new(p, blocks.collect()), rows))
    }

    /// Length of [`MaskedBatchCodebook::to_bytes`].
    #[must_use]
    pub fn encoded_len(packing: &BatchPacking) -> usize {
        let parts = (packing.blocks() + row_batches(packing)) * packing.width();
        32 + parts * Poly::<Evaluation>::packed_len(&packing.set().ring())
    }

    /// The seed, then every b-part, 50 bits a residue.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let ring = self.packing.set().ring();
        let mut out = Vec::with_capacity(Self::encoded_len(&self.packing));
        out.extend_from_slice(&self.seed);
        for part in &self.parts {
            part.pack(&ring, &mut out);
        }
        out
    }

    /// Reads what [`MaskedBatchCodebook::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or a residue outside its range.
    pub fn from_bytes(packing: &BatchPacking, bytes: &[u8]) -> Result<Self, CkksError> {
        exact(
            "the masked batch codebook",
            bytes,
            Self::encoded_len(packing),
        )?;
        let ring = packing.set().ring();
        let mut seed = [0; 32];
        seed.copy_from_slice(&bytes[..32]);
        let parts = bytes[32..]
            .chunks_exact(Poly::<Evaluation>::packed_len(&ring))
            .map(|part| Ok(Poly::unpack(&ring, part)?))
            .collect::<Result<_, CkksError>>()?;
        Ok(Self {
            packing: *packing,
            seed,
            parts,
        })
    }
}
