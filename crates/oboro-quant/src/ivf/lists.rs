//! How codes of lists lie in memory.

use super::{check_lists, no_such_list};
use crate::{BlockedCodes, QuantError};
use aligned_vec::{AVec, ConstAlign};
use oboro_simd::scan::BLOCK;

/// Which vector lies in which place of which list.
#[derive(Clone)]
pub struct IvfLists {
    lists: usize,
    /// Blocks of each.
    blocks: usize,
    vectors: usize,
    /// The vector in each place; [`FILLER`] where none is.
    places: Vec<u32>,
    /// A word a block: ones where a vector is.
    mask: Vec<u64>,
}

/// Where a query is searched.
#[derive(Clone, Copy)]
pub struct Probed<'a> {
    /// How the codes are laid out.
    pub lists: &'a IvfLists,
    /// The lists to look at, each once; always as many, whatever the query.
    pub probes: &'a [u32],
    /// Which places may be found, a word for each block of all lists; fillers
    /// never are.
    pub mask: Option<&'a [u64]>,
}

/// Stands for no vector.
const FILLER: u32 = u32::MAX;

impl IvfLists {
    /// Lays vectors out by their lists, in the order in which they come; all
    /// lists as long as the longest, in whole blocks.
    ///
    /// # Errors
    /// When there are no lists or too many, a list is not there, or places
    /// pass 2^32.
    ///
    /// # Security
    /// Shuffle the vectors before: their order within a list is what makes
    /// lanes random.
    pub fn from_assignments(assignments: &[u32], lists: usize) -> Result<Self, QuantError> {
        check_lists(lists)?;
        let mut counts = vec![0usize; lists];
        for &list in assignments {
            match counts.get_mut(list as usize) {
                Some(count) => *count += 1,
                None => return Err(no_such_list(list, lists)),
            }
        }
        let longest = counts.iter().copied().max().unwrap_or(0);
        let blocks = longest.div_ceil(BLOCK).max(1);
        let places = lists * blocks * BLOCK;
        if places > crate::codes::MAX_VECTORS {
            return Err(QuantError::OutOfRange {
                what: "the number of places in lists",
                actual: places,
                minimum: 1,
                maximum: crate::codes::MAX_VECTORS,
            });
        }
        let mut built = Self {
            lists,
            blocks,
            vectors: assignments.len(),
            places: vec![FILLER; places],
            mask: vec![0; lists * blocks],
        };
        let mut used = vec![0usize; lists];
        for (vector, &list) in assignments.iter().enumerate() {
            let used = &mut used[list as usize];
            let place = list as usize * blocks * BLOCK + *used;
            *used += 1;
            built.places[place] = vector as u32;
            built.mask[place / BLOCK] |= 1 << (place % BLOCK);
        }
        Ok(built)
    }

    /// Number of lists.
    #[must_use]
    pub const fn lists(&self) -> usize {
        self.lists
    }

    /// Blocks of 64 places in each list.
    #[must_use]
    pub const fn blocks_per_list(&self) -> usize {
        self.blocks
    }

    /// Places in all lists.
    #[must_use]
    pub const fn places(&self) -> usize {
        self.places.len()
    }

    /// The vector in a place; `None` for fillers and places that are not
    /// there.
    #[must_use]
    pub fn vector(&self, place: u32) -> Option<u32> {
        let vector = self.places.get(place as usize).copied();
        vector.filter(|&vector| vector != FILLER)
    }

    /// A word for each block, bit `i` set where place `i` has a vector.
    #[must_use]
    pub fn mask(&self) -> &[u64] {
        &self.mask
    }

    /// Places for each vector, fillers included: 1 when all are used.
    #[must_use]
    pub fn padding(&self) -> f64 {
        self.places() as f64 / self.vectors.max(1) as f64
    }

    /// Rows of codes, `width` bytes a vector, in the order of places; zeros in
    /// fillers.
    ///
    /// # Errors
    /// When `rows` is not a row for each vector.
    pub fn arrange(&self, rows: &[u8], width: usize) -> Result<Vec<u8>, QuantError> {
        if rows.len() != self.vectors * width {
            return Err(QuantError::Mismatch {
                what: "the number of bytes of the codes",
                actual: rows.len(),
                expected: self.vectors * width,
            });
        }
        let mut arranged = vec![0; self.places() * width];
        if width > 0 {
            for (row, &vector) in arranged.chunks_exact_mut(width).zip(&self.places) {
                if vector != FILLER {
                    row.copy_from_slice(&rows[vector as usize * width..][..width]);
                }
            }
        }
        Ok(arranged)
    }

    /// Codes in blocks, in the order of places; zeros in fillers.
    ///
    /// # Errors
    /// When `codes` are not as many as there are vectors.
    pub fn arrange_blocks(&self, codes: &BlockedCodes) -> Result<BlockedCodes, QuantError> {
        if codes.len() != self.vectors {
            return Err(QuantError::Mismatch {
                what: "the number of codes",
                actual: codes.len(),
                expected: self.vectors,
            });
        }
        let (subquantizers, bits) = (codes.subquantizers(), codes.bits());
        // Bytes of a vector; with 4 bits a byte has the codes of two sub-quantizers.
        let width = BlockedCodes::byte_len(BLOCK, subquantizers, bits) / BLOCK;
        let mut arranged = AVec::<u8, ConstAlign<64>>::with_capacity(64, 0);
        arranged.resize(
            BlockedCodes::byte_len(self.places(), subquantizers, bits),
            0,
        );
        for (block, vectors) in arranged
            .chunks_exact_mut(width * BLOCK)
            .zip(self.places.chunks_exact(BLOCK))
        {
            for (i, &vector) in vectors.iter().enumerate() {
                if vector == FILLER {
                    continue;
                }
                let vector = vector as usize;
                let from = &codes.as_bytes()[vector / BLOCK * width * BLOCK..];
                for row in 0..width {
                    block[row * BLOCK + i] = from[row * BLOCK + vector % BLOCK];
                }
            }
        }
        BlockedCodes::from_aligned(arranged, self.places(), subquantizers, bits)
    }

    /// The first block of each list, or the error that one is not there or
    /// named twice.
    pub(crate) fn starts(&self, probes: &[u32]) -> Result<Vec<usize>, QuantError> {
        let mut seen = probes.to_vec();
        seen.sort_unstable();
        if let Some(&list) = seen.last().filter(|&&list| list as usize >= self.lists) {
            return Err(no_such_list(list, self.lists));
        }
        seen.dedup();
        if seen.len() != probes.len() {
            return Err(QuantError::Mismatch {
                what: "the number of different lists to probe",
                actual: seen.len(),
                expected: probes.len(),
            });
        }
        Ok(probes
            .iter()
            .map(|&list| list as usize * self.blocks)
            .collect())
    }
}
