//! Codes laid out for the scan.

use crate::QuantError;
use aligned_vec::{AVec, ConstAlign};
use oboro_simd::scan::BLOCK;

/// Bits of a code that names one of `centroids`: 4 up to 16, otherwise 8.
#[must_use]
pub const fn code_bits(centroids: usize) -> usize {
    if centroids <= 16 { 4 } else { 8 }
}

/// Codes of many vectors in blocks of 64, sub-quantizer after sub-quantizer.
///
/// With 8 bits, byte `(block * M + m) * 64 + i` is the code of sub-quantizer
/// `m` of vector `64 * block + i`. With 4 bits, byte
/// `(block * ceil(M / 2) + p) * 64 + i` holds sub-quantizer `2 p` in its low
/// and `2 p + 1` in its high nibble. The last block is padded with zeros.
#[derive(Clone)]
pub struct BlockedCodes {
    bytes: AVec<u8, ConstAlign<64>>,
    len: usize,
    subquantizers: usize,
    bits: usize,
}

/// Bytes that one vector adds to a full block.
fn bytes_per_vector(subquantizers: usize, bits: usize) -> usize {
    if bits == 4 {
        subquantizers.div_ceil(2)
    } else {
        subquantizers
    }
}

fn check(subquantizers: usize, bits: usize, len: usize) -> Result<(), QuantError> {
    if bits != 4 && bits != 8 {
        return Err(QuantError::Mismatch {
            what: "the number of bits of a code",
            actual: bits,
            expected: 8,
        });
    }
    if subquantizers == 0 || subquantizers > MAX_SUBQUANTIZERS {
        return Err(QuantError::OutOfRange {
            what: "the number of sub-quantizers",
            actual: subquantizers,
            minimum: 1,
            maximum: MAX_SUBQUANTIZERS,
        });
    }
    // Positions are 32 bits wide.
    if len > MAX_VECTORS {
        return Err(QuantError::OutOfRange {
            what: "the number of vectors in a segment",
            actual: len,
            minimum: 0,
            maximum: MAX_VECTORS,
        });
    }
    Ok(())
}

/// Beyond this, quantized tables could not tell entries apart any more.
pub(crate) const MAX_SUBQUANTIZERS: usize = 4096;

/// Positions are `u32`.
pub(crate) const MAX_VECTORS: usize = u32::MAX as usize;

impl BlockedCodes {
    /// Lays out rows of codes: `subquantizers` bytes a vector, as
    /// [`crate::Codebook::encode`] gives them; `bits` is 4 or 8.
    ///
    /// # Errors
    /// When `rows` is not whole rows, `bits` is neither 4 nor 8, or a code
    /// does not fit 4 bits.
    pub fn from_rows(rows: &[u8], subquantizers: usize, bits: usize) -> Result<Self, QuantError> {
        check(subquantizers, bits, 0)?;
        if !rows.len().is_multiple_of(subquantizers) {
            return Err(QuantError::Ragged {
                values: rows.len(),
                dimension: subquantizers,
            });
        }
        let len = rows.len() / subquantizers;
        check(subquantizers, bits, len)?;
        if bits == 4 && rows.iter().fold(0, |all, code| all | code) > 15 {
            return Err(QuantError::OutOfRange {
                what: "the largest code of 4 bits",
                actual: usize::from(rows.iter().fold(0, |max, &code| max.max(code))),
                minimum: 0,
                maximum: 15,
            });
        }
        let stride = bytes_per_vector(subquantizers, bits) * BLOCK;
        let mut bytes = AVec::<u8, ConstAlign<64>>::with_capacity(64, 0);
        bytes.resize(len.div_ceil(BLOCK) * stride, 0);
        let blocks = rows
            .chunks(BLOCK * subquantizers)
            .zip(bytes.chunks_exact_mut(stride));
        for (rows, block) in blocks {
            for (i, row) in rows.chunks_exact(subquantizers).enumerate() {
                for (m, &code) in row.iter().enumerate() {
                    if bits == 8 {
                        block[m * BLOCK + i] = code;
                    } else {
                        block[m / 2 * BLOCK + i] |= code << (m % 2 * 4);
                    }
                }
            }
        }
        Ok(Self {
            bytes,
            len,
            subquantizers,
            bits,
        })
    }

    /// Takes bytes that [`Self::as_bytes`] gave, without a copy.
    ///
    /// # Errors
    /// When the length is not that of `len` vectors.
    pub fn from_aligned(
        bytes: AVec<u8, ConstAlign<64>>,
        len: usize,
        subquantizers: usize,
        bits: usize,
    ) -> Result<Self, QuantError> {
        check(subquantizers, bits, len)?;
        let expected = Self::byte_len(len, subquantizers, bits);
        if bytes.len() != expected {
            return Err(QuantError::Mismatch {
                what: "the number of bytes of the codes",
                actual: bytes.len(),
                expected,
            });
        }
        Ok(Self {
            bytes,
            len,
            subquantizers,
            bits,
        })
    }

    /// Copies bytes that [`Self::as_bytes`] gave.
    ///
    /// # Errors
    /// When the length is not that of `len` vectors.
    pub fn from_bytes(
        bytes: &[u8],
        len: usize,
        subquantizers: usize,
        bits: usize,
    ) -> Result<Self, QuantError> {
        Self::from_aligned(AVec::from_slice(64, bytes), len, subquantizers, bits)
    }

    /// Bytes of `len` vectors laid out in blocks.
    #[must_use]
    pub fn byte_len(len: usize, subquantizers: usize, bits: usize) -> usize {
        len.div_ceil(BLOCK) * BLOCK * bytes_per_vector(subquantizers, bits)
    }

    /// Number of vectors.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no vector.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of sub-quantizers, M.
    #[must_use]
    pub const fn subquantizers(&self) -> usize {
        self.subquantizers
    }

    /// Bits of a code, 4 or 8.
    #[must_use]
    pub const fn bits(&self) -> usize {
        self.bits
    }

    /// Number of blocks of 64 vectors.
    #[must_use]
    pub const fn blocks(&self) -> usize {
        self.len.div_ceil(BLOCK)
    }

    /// The codes as they lie in memory.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The codes of one vector, `subquantizers` bytes.
    ///
    /// # Panics
    /// When `position` is not below the length.
    #[must_use]
    pub fn row(&self, position: usize) -> Vec<u8> {
        assert!(position < self.len, "position {position} of {}", self.len);
        let stride = self.block_bytes();
        let block = &self.bytes[position / BLOCK * stride..][..stride];
        let i = position % BLOCK;
        (0..self.subquantizers)
            .map(|m| match self.bits {
                8 => block[m * BLOCK + i],
                _ => block[m / 2 * BLOCK + i] >> (m % 2 * 4) & 15,
            })
            .collect()
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(&self) -> usize {
        bytes_per_vector(self.subquantizers, self.bits) * BLOCK
    }

    /// The bytes of `blocks` blocks from block `first`.
    pub(crate) fn block_range(&self, first: usize, blocks: usize) -> &[u8] {
        let stride = self.block_bytes();
        &self.bytes[first * stride..(first + blocks) * stride]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_and_bytes_round_trip(
            subquantizers in 1usize..20,
            len in 0usize..200,
            bits in prop::sample::select(vec![4usize, 8]),
            seed in any::<u64>(),
        ) {
            let mask = if bits == 4 { 15 } else { 255 };
            let rows: Vec<u8> = (0..len * subquantizers)
                .map(|i| ((seed.wrapping_mul(i as u64 * 2 + 1) >> 40) & mask) as u8)
                .collect();
            let codes = BlockedCodes::from_rows(&rows, subquantizers, bits).unwrap();
            prop_assert_eq!(codes.len(), len);
            let again = BlockedCodes::from_bytes(codes.as_bytes(), len, subquantizers, bits).unwrap();
            for position in 0..len {
                let row = &rows[position * subquantizers..][..subquantizers];
                prop_assert_eq!(&codes.row(position)[..], row);
                prop_assert_eq!(&again.row(position)[..], row);
            }
        }
    }

    #[test]
    fn fail_bytes_of_another_length() {
        assert!(BlockedCodes::from_bytes(&[0; 63], 1, 1, 8).is_err());
        assert!(BlockedCodes::from_bytes(&[0; 64], 65, 1, 8).is_err());
        assert!(BlockedCodes::from_bytes(&[0; 128], 1, 1, 8).is_err());
        assert!(BlockedCodes::from_bytes(&[0; 64], 1, 1, 7).is_err());
        assert!(BlockedCodes::from_bytes(&[0; 64], usize::MAX, 1, 8).is_err());
    }

    #[test]
    fn fail_rows_that_do_not_fit() {
        assert!(BlockedCodes::from_rows(&[0; 5], 2, 8).is_err());
        assert!(BlockedCodes::from_rows(&[0; 4], 0, 8).is_err());
        assert!(BlockedCodes::from_rows(&[16; 4], 2, 4).is_err());
    }
}
