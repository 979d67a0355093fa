//! What travels between searcher and keeper.

use oboro_ring::{Coefficient, Evaluation, Poly};
use zeroize::Zeroize;

use crate::key::exact;
use crate::{CkksError, Packing};

/// The searcher's message to the keeper: the a-parts of the query, 50 bits a
/// residue, then c1 of every block in coefficient form without its low bits.
///
/// # Security
/// Independent of query and codebook to whoever holds the secret key, as long
/// as a fresh encryption of zero went into every block.
#[derive(Clone)]
pub struct MaskedProducts {
    pub(crate) packing: Packing,
    pub(crate) bytes: Vec<u8>,
}

impl MaskedProducts {
    /// Length of [`MaskedProducts::to_bytes`].
    #[must_use]
    pub fn encoded_len(packing: &Packing) -> usize {
        Self::query_len(packing) + packing.blocks() * Self::block_len(packing)
    }

    pub(crate) fn query_len(packing: &Packing) -> usize {
        packing.split() * Poly::<Evaluation>::packed_len(&packing.set().ring())
    }

    pub(crate) fn block_len(packing: &Packing) -> usize {
        packing.set().degree() * packing.set().truncation().1
    }

    /// The encoded message.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The encoded message.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes bytes of the right length; their residues are checked when they
    /// are used.
    ///
    /// # Errors
    /// On another length.
    pub fn from_bytes(packing: &Packing, bytes: &[u8]) -> Result<Self, CkksError> {
        exact("the masked product", bytes, Self::encoded_len(packing))?;
        Ok(Self {
            packing: *packing,
            bytes: bytes.to_vec(),
        })
    }

    pub(crate) fn query_masks(&self) -> Result<Vec<Poly<Evaluation>>, CkksError> {
        let ring = self.packing.set().ring();
        self.bytes[..Self::query_len(&self.packing)]
            .chunks_exact(Poly::<Evaluation>::packed_len(&ring))
            .map(|mask| Ok(Poly::unpack(&ring, mask)?))
            .collect()
    }

    pub(crate) fn blocks(&self) -> impl Iterator<Item = Result<Poly<Coefficient>, CkksError>> {
        let ring = self.packing.set().ring();
        let (drop_bits, bytes_each) = self.packing.set().truncation();
        self.bytes[Self::query_len(&self.packing)..]
            .chunks_exact(Self::block_len(&self.packing))
            .map(move |block| Ok(Poly::from_truncated(&ring, block, drop_bits, bytes_each)?))
    }
}

/// The keeper's share of a table: per block and target, 16 bits.
pub struct TableShare {
    packing: Packing,
    pub(crate) values: Vec<u16>,
}

impl Drop for TableShare {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

impl TableShare {
    pub(crate) const fn new(packing: Packing, values: Vec<u16>) -> Self {
        Self { packing, values }
    }

    pub(crate) const fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Length of [`TableShare::to_bytes`].
    #[must_use]
    pub const fn encoded_len(packing: &Packing) -> usize {
        2 * packing.blocks() * packing.targets_per_block()
    }

    /// Little-endian 16-bit values.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    /// Reads what [`TableShare::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length.
    pub fn from_bytes(packing: &Packing, bytes: &[u8]) -> Result<Self, CkksError> {
        exact("the table share", bytes, Self::encoded_len(packing))?;
        let values = bytes
            .chunks_exact(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
            .collect();
        Ok(Self {
            packing: *packing,
            values,
        })
    }
}
