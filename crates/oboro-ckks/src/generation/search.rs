//! A codebook from its shares into the form for searching, with offsets that
//! the searcher knows.
//!
//! Offsets need no shares: the searcher encodes them, adds a uniform element of
//! R_q to each message and keeps it; the keeper encrypts what it cannot read,
//! as in a rotation of keys ([`mod@crate::reencrypt`]).

use oboro_ring::{Evaluation, Poly, sample};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::MeanShares;
use super::codebook::encrypt_evaluated;
use super::linear::LinearMap;
use crate::codebook::{Block, check, encode};
use crate::embedding::{Embedding, Rows};
use crate::key::exact;
use crate::{CkksError, EncryptedCodebook, MaskedCodebook, MaskedDecryptor, Packing, TableScale};

/// The message of part `part` of block `block`, of the shares of one role.
fn message(
    means: &MeanShares,
    map: &LinearMap,
    p: &Packing,
    block: usize,
    part: usize,
) -> Poly<Evaluation> {
    let (d2, positions) = (p.part(), p.positions());
    let first = block * p.centroids_per_block();
    let value = |slot: usize, r: usize, plane: usize| {
        let (position, j) = (r / d2, r % d2);
        means.value(slot, first + plane * positions + position, part * d2 + j)
    };
    map.message(
        &p.set().ring(),
        positions * d2,
        |slot, r| value(slot, r, 0),
        |slot, r| value(slot, r, 1),
    )
}

fn map(means: &MeanShares, p: &Packing, scale: &TableScale) -> Result<LinearMap, CkksError> {
    let shapes = means.packing();
    let same = p.set() == shapes.set()
        && p.subquantizers() == shapes.subquantizers()
        && p.width() == shapes.width()
        && p.centroids() == shapes.centroids();
    if !same || scale.set() != p.set() {
        return Err(CkksError::Mismatch {
            left: "the shares of a codebook",
            right: "the packing",
        });
    }
    LinearMap::new(
        &p.set().ring(),
        p.slots(),
        means.unit(),
        scale.centroid_scale(),
    )
}

/// Offsets under a uniform mask each, from searcher to keeper; without offsets,
/// nothing.
pub struct MaskedOffsets {
    packing: Packing,
    blocks: Vec<Poly<Evaluation>>,
}

/// What takes the masks off again; stays with the searcher.
///
/// # Security
/// With it the keeper could read the offsets. Zeroized on drop.
pub struct OffsetKeep {
    packing: Packing,
    masks: Vec<Poly<Evaluation>>,
}

impl Drop for OffsetKeep {
    fn drop(&mut self) {
        for mask in &mut self.masks {
            mask.zeroize();
        }
    }
}

impl ZeroizeOnDrop for OffsetKeep {}

impl MaskedOffsets {
    /// Encodes `offsets`, `[subquantizer][centroid]`, and adds fresh masks.
    ///
    /// # Errors
    /// On a wrong length, NaN or infinity, or a scale of another parameter set.
    pub fn new(
        packing: &Packing,
        scale: &TableScale,
        offsets: Option<&[f32]>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, OffsetKeep), CkksError> {
        let p = packing;
        if scale.set() != p.set() {
            return Err(CkksError::Mismatch {
                left: "the table scale",
                right: "the packing",
            });
        }
        let ring = p.set().ring();
        let embedding = Embedding::new(p.slots());
        let (mut blocks, mut masks) = (Vec::new(), Vec::new());
        if let Some(offsets) = offsets {
            check("the codebook's offsets", offsets, p.table_len())?;
            for block in 0..p.blocks() {
                let mut rows = Rows::zero(p.slots(), p.stride());
                let first = block * p.centroids_per_block();
                for (slot, offsets) in offsets.chunks_exact(p.centroids()).enumerate() {
                    for position in 0..p.positions() {
                        let at = slot * p.stride() + p.target(position);
                        let offset = |k: usize| offsets.get(k).copied().map_or(0.0, f64::from);
                        rows.re[at] = offset(first + position);
                        rows.im[at] = offset(first + p.positions() + position);
                    }
                }
                let mut masked = encode(p, &ring, &embedding, rows, scale.product_scale())
                    .into_evaluation(&ring);
                let mask: Poly<Evaluation> = sample::uniform(&ring, rng);
                masked.add_assign(&ring, &mask);
                blocks.push(masked);
                masks.push(mask);
            }
        }
        let keep = OffsetKeep { packing: *p, masks };
        Ok((
            Self {
                packing: *p,
                blocks,
            },
            keep,
        ))
    }

    /// Largest length of [`MaskedOffsets::to_bytes`].
    #[must_use]
    pub fn largest_len(packing: &Packing) -> usize {
        packing.blocks() * Poly::<Evaluation>::packed_len(&packing.set().ring())
    }

    /// Every element, 50 bits a residue; no bytes without offsets.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let ring = self.packing.set().ring();
        let mut out = Vec::with_capacity(Self::largest_len(&self.packing));
        for block in &self.blocks {
            block.pack(&ring, &mut out);
        }
        out
    }

    /// Reads what [`MaskedOffsets::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or a residue outside its range.
    pub fn from_bytes(packing: &Packing, bytes: &[u8]) -> Result<Self, CkksError> {
        if !bytes.is_empty() {
            exact("the masked offsets", bytes, Self::largest_len(packing))?;
        }
        let ring = packing.set().ring();
        let blocks = bytes
            .chunks_exact(Poly::<Evaluation>::packed_len(&ring))
            .map(|block| Ok(Poly::unpack(&ring, block)?))
            .collect::<Result<_, CkksError>>()?;
        Ok(Self {
            packing: *packing,
            blocks,
        })
    }
}

impl MaskedDecryptor {
    /// Encrypts a codebook of which the keeper holds one share, in the form for
    /// searching, with the masked offsets.
    ///
    /// # Errors
    /// When shares, shape, scale and offsets do not belong together.
    pub fn encrypt_search_codebook(
        &self,
        means: &MeanShares,
        packing: &Packing,
        scale: &TableScale,
        offsets: &MaskedOffsets,
        rng: &mut impl CryptoRng,
    ) -> Result<MaskedCodebook, CkksError> {
        let p = packing;
        if p.set() != self.parameter_set() || offsets.packing != *p {
            return Err(CkksError::Mismatch {
                left: "the packing",
                right: "the secret key",
            });
        }
        let map = map(means, p, scale)?;
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let mut stream = 0;
        let mut encrypt = |message| {
            stream += 1;
            encrypt_evaluated(&self.ring, self.key(), message, &seed, stream - 1, rng)
        };
        let blocks = (0..p.blocks())
            .map(|block| Block {
                parts: (0..p.split())
                    .map(|part| encrypt(message(means, &map, p, block, part)))
                    .collect(),
                offsets: offsets.blocks.get(block).map(|x| encrypt(x.clone())),
            })
            .collect();
        Ok(MaskedCodebook(EncryptedCodebook::new(*p, blocks)))
    }
}

impl OffsetKeep {
    /// Takes all masks off: the codebook for searching.
    ///
    /// # Errors
    /// When codebook, shares and scale do not belong together.
    pub fn unmask(
        self,
        masked: MaskedCodebook,
        means: &MeanShares,
        scale: &TableScale,
    ) -> Result<EncryptedCodebook, CkksError> {
        let mut codebook = masked.0;
        let p = self.packing;
        if *codebook.packing() != p || codebook.has_offsets() == self.masks.is_empty() {
            return Err(CkksError::Mismatch {
                left: "the masked codebook",
                right: "the masked offsets",
            });
        }
        let map = map(means, &p, scale)?;
        let ring = p.set().ring();
        for (index, block) in codebook.blocks.iter_mut().enumerate() {
            for (part, ciphertext) in block.parts.iter_mut().enumerate() {
                let mask = Zeroizing::new(message(means, &map, &p, index, part));
                ciphertext.b.sub_assign(&ring, &mask);
            }
            if let (Some(offsets), Some(mask)) = (&mut block.offsets, self.masks.get(index)) {
                offsets.b.sub_assign(&ring, mask);
            }
        }
        Ok(codebook)
    }
}
