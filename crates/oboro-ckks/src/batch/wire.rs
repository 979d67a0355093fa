//! What travels between searcher and keeper for a batch.

use std::ops::Range;

use oboro_ring::{Coefficient, Evaluation, Poly};
use zeroize::Zeroize;

use crate::key::exact;
use crate::{BatchPacking, CkksError};

/// Checks that `blocks` are blocks of the codebook, at least one.
pub(crate) fn check_blocks(packing: &BatchPacking, blocks: &Range<usize>) -> Result<(), CkksError> {
    if blocks.start < blocks.end && blocks.end <= packing.blocks() {
        Ok(())
    } else {
        Err(CkksError::Length {
            what: "the range of codebook blocks",
            actual: blocks.end.saturating_sub(blocks.start),
            expected: packing.blocks(),
        })
    }
}

/// The searcher's message to the keeper for one batch and a range of codebook
/// blocks: the a-parts of the batch, 50 bits a residue, then c1 of every block
/// in coefficient form without its low bits.
///
/// # Security
/// Independent of vectors and centroids to whoever holds the secret key, as
/// long as a fresh encryption of zero went into every block.
pub struct MaskedBatch {
    packing: BatchPacking,
    blocks: Range<usize>,
    bytes: Vec<u8>,
}

impl MaskedBatch {
    pub(crate) const fn new(packing: BatchPacking, blocks: Range<usize>, bytes: Vec<u8>) -> Self {
        Self {
            packing,
            blocks,
            bytes,
        }
    }

    /// Length of [`MaskedBatch::to_bytes`] for a number of blocks.
    #[must_use]
    pub fn encoded_len(packing: &BatchPacking, blocks: usize) -> usize {
        Self::batch_len(packing) + blocks * Self::block_len(packing)
    }

    fn batch_len(packing: &BatchPacking) -> usize {
        packing.width() * Poly::<Evaluation>::packed_len(&packing.set().ring())
    }

    const fn block_len(packing: &BatchPacking) -> usize {
        packing.set().degree() * packing.set().truncation().1
    }

    /// The codebook blocks it is about.
    #[must_use]
    pub fn blocks(&self) -> Range<usize> {
        self.blocks.clone()
    }

    pub(crate) const fn packing(&self) -> &BatchPacking {
        &self.packing
    }

    /// The encoded message; the range of blocks goes beside it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoded message; the range of blocks goes beside it.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes bytes of the right length; their residues are checked when they
    /// are used.
    ///
    /// # Errors
    /// On a range outside the codebook or another length.
    pub fn from_bytes(
        packing: &BatchPacking,
        blocks: Range<usize>,
        bytes: Vec<u8>,
    ) -> Result<Self, CkksError> {
        check_blocks(packing, &blocks)?;
        let expected = Self::encoded_len(packing, blocks.len());
        exact("the masked batch", &bytes, expected)?;
        Ok(Self::new(*packing, blocks, bytes))
    }

    pub(crate) fn batch_masks(&self) -> Result<Vec<Poly<Evaluation>>, CkksError> {
        let ring = self.packing.set().ring();
        self.bytes[..Self::batch_len(&self.packing)]
            .chunks_exact(Poly::<Evaluation>::packed_len(&ring))
            .map(|mask| Ok(Poly::unpack(&ring, mask)?))
            .collect()
    }

    /// c1 of block `index` of the range.
    pub(crate) fn product(&self, index: usize) -> Result<Poly<Coefficient>, CkksError> {
        let ring = self.packing.set().ring();
        let (drop_bits, bytes_each) = self.packing.set().truncation();
        let each = Self::block_len(&self.packing);
        let start = Self::batch_len(&self.packing) + index * each;
        let bytes = &self.bytes[start..start + each];
        Ok(Poly::from_truncated(&ring, bytes, drop_bits, bytes_each)?)
    }
}

/// The keeper's share of a batch's tables: per block and coefficient, 16 bits.
///
/// # Security
/// Together with the searcher's share it is the tables; zeroized on drop.
pub struct BatchTableShare {
    packing: BatchPacking,
    blocks: Range<usize>,
    pub(crate) values: Vec<u16>,
}

impl Drop for BatchTableShare {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

impl BatchTableShare {
    pub(crate) const fn new(packing: BatchPacking, blocks: Range<usize>, values: Vec<u16>) -> Self {
        Self {
            packing,
            blocks,
            values,
        }
    }

    pub(crate) const fn packing(&self) -> &BatchPacking {
        &self.packing
    }

    /// The codebook blocks it is about.
    #[must_use]
    pub fn blocks(&self) -> Range<usize> {
        self.blocks.clone()
    }

    /// Length of [`BatchTableShare::to_bytes`] for a number of blocks.
    #[must_use]
    pub const fn encoded_len(packing: &BatchPacking, blocks: usize) -> usize {
        2 * blocks * packing.set().degree()
    }

    /// Little-endian 16-bit values.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0; 2 * self.values.len()];
        for (out, value) in out.as_chunks_mut::<2>().0.iter_mut().zip(&self.values) {
            *out = value.to_le_bytes();
        }
        out
    }

    /// Reads what [`BatchTableShare::to_bytes`] wrote.
    ///
    /// # Errors
    /// On a range outside the codebook or another length.
    pub fn from_bytes(
        packing: &BatchPacking,
        blocks: Range<usize>,
        bytes: &[u8],
    ) -> Result<Self, CkksError> {
        check_blocks(packing, &blocks)?;
        let expected = Self::encoded_len(packing, blocks.len());
        exact("the share of a batch's tables", bytes, expected)?;
        let values = bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|b| u16::from_le_bytes(*b))
            .collect();
        Ok(Self::new(*packing, blocks, values))
    }
}
