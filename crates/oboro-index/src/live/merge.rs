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

/// Their codes; `bits` is that of the segment with most.
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
            let codes = segments[number as usize].codes();
            let position = position as usize;
            if codes.bits() == bits {
                let from = &codes.as_bytes()[position / BLOCK * width * BLOCK..];
                for row in 0..width {
                    block[row * BLOCK + i] = from[row * BLOCK + position % BLOCK];
                }
            } else {
                // Of 4 bits among some of 8.
                for (row, code) in codes.row(position).into_iter().enumerate() {
                    block[row * BLOCK + i] = code;
                }
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
pub(super) fn numbers<'a, T: Copy + 'a>(
    segments: &'a [Segment],
    sources: &[Source],
    of: impl Fn(&'a Segment) -> &'a [T],
) -> Vec<T> {
    let of_segments: Vec<&[T]> = segments.iter().map(of).collect();
    sources
        .iter()
        .map(|&(number, position)| of_segments[number as usize][position as usize])
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::segment::Records;
    use crate::{RecordEncoding, RecordLayout};
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    const SUBQUANTIZERS: usize = 5;

    fn row(id: u64, bits: usize) -> Vec<u8> {
        (0..SUBQUANTIZERS)
            .map(|m| (id as usize * 37 + m * 11) as u8 >> (8 - bits))
            .collect()
    }

    fn segment(ids: std::ops::Range<u64>, bits: usize) -> Segment {
        let rows: Vec<u8> = ids.clone().flat_map(|id| row(id, bits)).collect();
        let codes = BlockedCodes::from_rows(&rows, SUBQUANTIZERS, bits).unwrap();
        let layout = RecordLayout::plain(RecordEncoding::F32, 5);
        let records = Records::new(tempfile::tempfile().unwrap(), layout, false);
        Segment::new([0; 16], codes, ids.collect(), None, records)
    }

    #[test]
    fn codes_and_ids_stay_together_whatever_the_bits() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        for (bits, out) in [([8, 8], 8), ([4, 4], 4), ([4, 8], 8), ([8, 4], 8)] {
            let first = segment(0..150, bits[0]);
            let mut alive = crate::alive::all(150);
            (0..150)
                .step_by(3)
                .for_each(|position| crate::alive::clear(&mut alive, position));
            let segments = [first.with_alive(alive.into()), segment(150..333, bits[1])];
            let sources = shuffled(&segments, &mut rng);
            assert_eq!(sources.len(), 100 + 183);
            let codes = codes(&segments, &sources, SUBQUANTIZERS, out).unwrap();
            let ids = numbers(&segments, &sources, Segment::ids);
            for (position, &id) in ids.iter().enumerate() {
                let of = bits[usize::from(id >= 150)];
                assert_eq!(codes.row(position), row(id, of), "{bits:?}");
            }
            assert!(!ids.is_sorted());
            let mut sorted = ids;
            sorted.sort_unstable();
            let want: Vec<u64> = (0..333).filter(|id| *id >= 150 || id % 3 != 0).collect();
            assert_eq!(sorted, want);
        }
    }
}
