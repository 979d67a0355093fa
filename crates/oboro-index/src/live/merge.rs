//! The vectors of several segments in a new order.

use crate::{IndexError, Segment};
use aligned_vec::{AVec, ConstAlign};
use oboro_quant::BlockedCodes;
use rand_core::Rng;

/// Vectors of a block of codes.
const BLOCK: usize = 64;

/// Where a vector comes from: the number of its segment among those merged,
/// and its position there.
pub(super) type Source = (u32, u32);

/// The vectors of `segments` that are not deleted, in random order.
pub(super) fn shuffled(segments: &[Segment], rng: &mut impl Rng) -> Vec<Source> {
    let alive: Vec<Source> = (0..)
        .zip(segments)
        .flat_map(|(number, segment)| {
            (0..segment.len() as u32)
                .filter(|&position| segment.is_alive(position))
                .map(move |position| (number, position))
        })
        .collect();
    let mut out = vec![(0, 0); alive.len()];
    for (source, position) in alive.iter().zip(crate::permutation(alive.len(), rng)) {
        out[position as usize] = *source;
    }
    out
}

/// Their codes.
pub(super) fn codes(
    segments: &[Segment],
    sources: &[Source],
    subquantizers: usize,
    bits: usize,
) -> Result<BlockedCodes, IndexError> {
    // Bytes of a vector; with 4 bits a byte holds the codes of two
    // sub-quantizers, and goes with its vector likewise.
    let width = BlockedCodes::byte_len(BLOCK, subquantizers, bits) / BLOCK;
    let mut out = AVec::<u8, ConstAlign<64>>::with_capacity(64, 0);
    out.resize(
        BlockedCodes::byte_len(sources.len(), subquantizers, bits),
        0,
    );
    for (block, sources) in out
        .chunks_exact_mut(width * BLOCK)
        .zip(sources.chunks(BLOCK))
    {
        for (i, &(number, position)) in sources.iter().enumerate() {
            let codes = segments[number as usize].codes().as_bytes();
            let position = position as usize;
            let from = &codes[position / BLOCK * width * BLOCK..][..width * BLOCK];
            for row in 0..width {
                block[row * BLOCK + i] = from[row * BLOCK + position % BLOCK];
            }
        }
    }
    Ok(BlockedCodes::from_aligned(
        out,
        sources.len(),
        subquantizers,
        bits,
    )?)
}

/// A number of each, by `of`.
pub(super) fn numbers<'a>(
    segments: &'a [Segment],
    sources: &[Source],
    of: impl Fn(&'a Segment) -> &'a [u64],
) -> Vec<u64> {
    let of_segments: Vec<&[u64]> = segments.iter().map(of).collect();
    sources
        .iter()
        .map(|&(number, position)| of_segments[number as usize][position as usize])
        .collect()
}
