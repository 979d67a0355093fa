//! Table scan over blocked codes.
//!
//! Codes lie in blocks of [`BLOCK`] vectors, sub-quantizer after
//! sub-quantizer, so that one 512-bit load brings one sub-code of 64 vectors.
//! A scan adds, for every vector, the table entries its sub-codes name.
//!
//! Every path looks entries up by byte permutes (or by comparing with all
//! entries), never by an address made from a code, so neither codes nor tables
//! show in branches or addresses. All paths give the same sums.

use crate::Arch;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

/// Vectors in a block of codes.
pub const BLOCK: usize = 64;

/// Scores in one row of a score buffer: half a block, even or odd positions.
pub const ROW: usize = 32;

/// Position, counted from the first vector scanned, of the score in `lane` of
/// `row`.
///
/// Row `2 * block` holds the even positions of a block and row
/// `2 * block + 1` the odd ones: sums are kept in 16-bit lanes, and splitting
/// bytes into even and odd is cheaper than splitting them into halves.
#[inline(always)]
#[must_use]
pub const fn position(row: usize, lane: usize) -> usize {
    (row / 2) * BLOCK + 2 * lane + row % 2
}

/// Sums 8-bit codes: `scores[..]` of every vector in `codes`.
///
/// * `codes`: `blocks * subquantizers * 64` bytes,
/// * `tables`: `subquantizers * 256` entries,
/// * `scores`: `blocks * 64` sums modulo 2^16, ordered by [`position`].
///
/// # Panics
/// When the lengths do not fit together.
pub fn scan8(arch: Arch, codes: &[u8], subquantizers: usize, tables: &[u8], scores: &mut [u16]) {
    let stride = subquantizers * BLOCK;
    assert_eq!(tables.len(), subquantizers * 256, "tables do not fit");
    assert_eq!(
        codes.len() * BLOCK,
        scores.len() * stride,
        "codes do not fit"
    );
    assert!(stride > 0, "no sub-quantizers");
    assert_eq!(scores.len() % BLOCK, 0, "scores must cover whole blocks");
    match arch {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx512` value proves the features of the kernel.
        Arch::Avx512(_) => unsafe {
            avx512::oblivious_scan8_avx512(codes, subquantizers, tables, scores);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx2` value proves the features of the kernel.
        Arch::Avx2(_) => unsafe {
            avx2::oblivious_scan8_avx2(codes, subquantizers, tables, scores);
        },
        _ => oblivious_scan8_portable(codes, subquantizers, tables, scores),
    }
}

/// Sums 4-bit codes, two to a byte.
///
/// * `codes`: `blocks * pairs * 64` bytes; the low nibble is the code of
///   sub-quantizer `2 * pair`, the high nibble that of `2 * pair + 1`,
/// * `tables`: `pairs * 32` entries, 16 for each sub-quantizer,
/// * `scores`: `blocks * 64` sums modulo 2^16, ordered by [`position`].
///
/// # Panics
/// When the lengths do not fit together.
pub fn scan4(arch: Arch, codes: &[u8], pairs: usize, tables: &[u8], scores: &mut [u16]) {
    let stride = pairs * BLOCK;
    assert_eq!(tables.len(), pairs * 32, "tables do not fit");
    assert_eq!(
        codes.len() * BLOCK,
        scores.len() * stride,
        "codes do not fit"
    );
    assert!(stride > 0, "no sub-quantizers");
    assert_eq!(scores.len() % BLOCK, 0, "scores must cover whole blocks");
    match arch {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx512` value proves the features of the kernel.
        Arch::Avx512(_) => unsafe {
            avx512::oblivious_scan4_avx512(codes, pairs, tables, scores);
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an `Avx2` value proves the features of the kernel.
        Arch::Avx2(_) => unsafe { avx2::oblivious_scan4_avx2(codes, pairs, tables, scores) },
        _ => oblivious_scan4_portable(codes, pairs, tables, scores),
    }
}

/// One look-up of 64 codes: every entry is compared with every code, so the
/// addresses are the same for all codes.
#[inline(always)]
fn look_up<const ENTRIES: usize>(codes: &[u8; BLOCK], table: &[u8], sum: &mut [u16; BLOCK]) {
    let mut found = [0u8; BLOCK];
    for (entry, &value) in table[..ENTRIES].iter().enumerate() {
        for (found, &code) in found.iter_mut().zip(codes) {
            // All ones where the code names this entry.
            let same = u8::from(code == entry as u8).wrapping_neg();
            *found |= same & value;
        }
    }
    for (sum, &found) in sum.iter_mut().zip(&found) {
        *sum = sum.wrapping_add(u16::from(found));
    }
}

#[inline(always)]
fn store(sum: &[u16; BLOCK], scores: &mut [u16]) {
    let (even, odd) = scores.split_at_mut(ROW);
    for lane in 0..ROW {
        even[lane] = sum[2 * lane];
        odd[lane] = sum[2 * lane + 1];
    }
}

#[inline(never)]
fn oblivious_scan8_portable(codes: &[u8], subquantizers: usize, tables: &[u8], scores: &mut [u16]) {
    let blocks = codes.chunks_exact(subquantizers * BLOCK);
    for (block, scores) in blocks.zip(scores.chunks_exact_mut(BLOCK)) {
        let mut sum = [0u16; BLOCK];
        for (codes, table) in block.chunks_exact(BLOCK).zip(tables.chunks_exact(256)) {
            let codes = codes.try_into().expect("a chunk holds a block");
            look_up::<256>(codes, table, &mut sum);
        }
        store(&sum, scores);
    }
}

#[inline(never)]
fn oblivious_scan4_portable(codes: &[u8], pairs: usize, tables: &[u8], scores: &mut [u16]) {
    let blocks = codes.chunks_exact(pairs * BLOCK);
    for (block, scores) in blocks.zip(scores.chunks_exact_mut(BLOCK)) {
        let mut sum = [0u16; BLOCK];
        for (codes, table) in block.chunks_exact(BLOCK).zip(tables.chunks_exact(32)) {
            let codes: &[u8; BLOCK] = codes.try_into().expect("a chunk holds a block");
            look_up::<16>(&codes.map(|code| code & 15), table, &mut sum);
            look_up::<16>(&codes.map(|code| code >> 4), &table[16..], &mut sum);
        }
        store(&sum, scores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(count: usize, seed: u64) -> Vec<u8> {
        let mut state = seed | 1;
        (0..count)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect()
    }

    #[test]
    fn eight_bit_sums_agree_with_a_plain_loop_on_every_arch() {
        for (blocks, subquantizers) in [
            (1, 1),
            (1, 16),
            (2, 3),
            (3, 16),
            (4, 5),
            (5, 32),
            (9, 64),
            (7, 257),
            (17, 8),
        ] {
            let codes = bytes(blocks * subquantizers * BLOCK, 3);
            let tables = bytes(subquantizers * 256, 5);
            let mut expected = vec![0u16; blocks * BLOCK];
            for (row, scores) in expected.chunks_exact_mut(ROW).enumerate() {
                for (lane, score) in scores.iter_mut().enumerate() {
                    let at = position(row, lane);
                    for j in 0..subquantizers {
                        let code = codes[(at / BLOCK * subquantizers + j) * BLOCK + at % BLOCK];
                        *score += u16::from(tables[j * 256 + usize::from(code)]);
                    }
                }
            }
            for arch in Arch::available() {
                let mut scores = vec![7u16; blocks * BLOCK];
                scan8(arch, &codes, subquantizers, &tables, &mut scores);
                assert_eq!(scores, expected, "{} {blocks} {subquantizers}", arch.name());
            }
        }
    }

    #[test]
    fn eight_bit_sums_reach_the_top_of_sixteen_bits() {
        let tables = vec![255u8; 257 * 256];
        let codes = bytes(257 * BLOCK, 9);
        for arch in Arch::available() {
            let mut scores = vec![0u16; BLOCK];
            scan8(arch, &codes, 257, &tables, &mut scores);
            assert!(
                scores.iter().all(|&score| score == 65535),
                "{}",
                arch.name()
            );
        }
    }

    #[test]
    fn four_bit_sums_agree_with_a_plain_loop_on_every_arch() {
        for (blocks, pairs) in [(1, 1), (1, 8), (2, 3), (5, 16), (9, 32), (4, 64), (7, 128)] {
            let codes = bytes(blocks * pairs * BLOCK, 11);
            let tables = bytes(pairs * 32, 13);
            let mut expected = vec![0u16; blocks * BLOCK];
            for (row, scores) in expected.chunks_exact_mut(ROW).enumerate() {
                for (lane, score) in scores.iter_mut().enumerate() {
                    let at = position(row, lane);
                    for j in 0..pairs {
                        let code = codes[(at / BLOCK * pairs + j) * BLOCK + at % BLOCK];
                        *score += u16::from(tables[j * 32 + usize::from(code & 15)]);
                        *score += u16::from(tables[j * 32 + 16 + usize::from(code >> 4)]);
                    }
                }
            }
            for arch in Arch::available() {
                let mut scores = vec![7u16; blocks * BLOCK];
                scan4(arch, &codes, pairs, &tables, &mut scores);
                assert_eq!(scores, expected, "{} {blocks} {pairs}", arch.name());
            }
        }
    }

    #[test]
    fn positions_of_a_block_are_a_permutation() {
        let mut seen: Vec<_> = (0..4)
            .flat_map(|row| (0..ROW).map(move |lane| position(row, lane)))
            .collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..128));
    }
}
