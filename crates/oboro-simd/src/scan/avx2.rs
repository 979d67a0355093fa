//! 256-bit scans: a table of 256 entries as 16 tables of 16.

use super::{BLOCK, ROW};
use std::arch::x86_64::*;

/// Sums of half a block; see the 512-bit scan for the even and odd bytes.
#[derive(Clone, Copy)]
struct Sums {
    all: __m256i,
    odd: __m256i,
}

#[target_feature(enable = "avx2")]
#[inline]
fn zero() -> Sums {
    Sums {
        all: _mm256_setzero_si256(),
        odd: _mm256_setzero_si256(),
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn add(sums: &mut Sums, values: __m256i) {
    sums.all = _mm256_add_epi16(sums.all, values);
    sums.odd = _mm256_add_epi16(sums.odd, _mm256_srli_epi16::<8>(values));
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(sums: [Sums; 2], scores: &mut [u16; BLOCK]) {
    for (half, sums) in sums.into_iter().enumerate() {
        let even = _mm256_sub_epi16(sums.all, _mm256_slli_epi16::<8>(sums.odd));
        let at = scores[half * ROW / 2..].as_mut_ptr();
        // SAFETY: 16 lanes fit from 0 and 16 in the even row, and the same in
        // the odd row that follows it.
        unsafe {
            _mm256_storeu_si256(at.cast(), even);
            _mm256_storeu_si256(at.add(ROW).cast(), sums.odd);
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(codes: &[u8; BLOCK]) -> [__m256i; 2] {
    let at = codes.as_ptr();
    // SAFETY: the array is as long as two registers.
    unsafe {
        [
            _mm256_loadu_si256(at.cast()),
            _mm256_loadu_si256(at.add(32).cast()),
        ]
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn broadcast(table: &[u8; 16]) -> __m256i {
    // SAFETY: the array is as long as the register.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
}

/// # Safety
/// The processor must have AVX2.
#[target_feature(enable = "avx2")]
#[inline(never)]
pub(super) fn oblivious_scan8_avx2(
    codes: &[u8],
    subquantizers: usize,
    tables: &[u8],
    scores: &mut [u16],
) {
    let blocks = codes.chunks_exact(subquantizers * BLOCK);
    let (tables, _) = tables.as_chunks::<16>();
    let (scores, _) = scores.as_chunks_mut::<BLOCK>();
    // Turns a code into a permute's index when its high nibble is zero, and
    // sets the top bit, which makes the permute give zero, otherwise.
    let keep_low = _mm256_set1_epi8(0x70);
    for (block, scores) in blocks.zip(scores) {
        let mut sums = [zero(); 2];
        let (block, _) = block.as_chunks::<BLOCK>();
        for (codes, table) in block.iter().zip(tables.chunks_exact(16)) {
            let codes = load(codes);
            let mut values = [_mm256_setzero_si256(); 2];
            for (high, table) in table.iter().enumerate() {
                let high = _mm256_set1_epi8((high << 4) as i8);
                let table = broadcast(table);
                for (value, code) in values.iter_mut().zip(codes) {
                    let index = _mm256_adds_epu8(_mm256_xor_si256(code, high), keep_low);
                    *value = _mm256_or_si256(*value, _mm256_shuffle_epi8(table, index));
                }
            }
            for (sums, value) in sums.iter_mut().zip(values) {
                add(sums, value);
            }
        }
        store(sums, scores);
    }
}

/// # Safety
/// The processor must have AVX2.
#[target_feature(enable = "avx2")]
#[inline(never)]
pub(super) fn oblivious_scan4_avx2(codes: &[u8], pairs: usize, tables: &[u8], scores: &mut [u16]) {
    let blocks = codes.chunks_exact(pairs * BLOCK);
    let (tables, _) = tables.as_chunks::<16>();
    let (scores, _) = scores.as_chunks_mut::<BLOCK>();
    let nibble = _mm256_set1_epi8(15);
    for (block, scores) in blocks.zip(scores) {
        let mut sums = [zero(); 2];
        let (block, _) = block.as_chunks::<BLOCK>();
        for (codes, table) in block.iter().zip(tables.chunks_exact(2)) {
            let [even, odd] = [broadcast(&table[0]), broadcast(&table[1])];
            for (sums, code) in sums.iter_mut().zip(load(codes)) {
                let low = _mm256_and_si256(code, nibble);
                let high = _mm256_and_si256(_mm256_srli_epi16::<4>(code), nibble);
                add(sums, _mm256_shuffle_epi8(even, low));
                add(sums, _mm256_shuffle_epi8(odd, high));
            }
        }
        store(sums, scores);
    }
}
