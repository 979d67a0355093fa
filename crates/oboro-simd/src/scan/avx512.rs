//! 512-bit scans: a table of 256 entries in four registers.

use super::{BLOCK, ROW};
use std::arch::x86_64::*;

/// Blocks whose sums are kept at a time; each table row is loaded once for
/// them. More blocks make more streams than the prefetchers follow.
const BLOCKS: usize = 2;

/// How far ahead of the scan codes are fetched, in bytes. Blocks are read
/// row by row across [`BLOCKS`] blocks, which hides their order from the
/// hardware's own prefetching.
const AHEAD: usize = 16_384;

/// Sums of one block. Adding whole bytes to 16-bit lanes costs one addition
/// for even bytes and pollutes them with 256 times the odd ones, which are
/// also summed alone and taken off at the end.
#[derive(Clone, Copy)]
struct Sums {
    all: __m512i,
    odd: __m512i,
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn zero() -> Sums {
    Sums {
        all: _mm512_setzero_si512(),
        odd: _mm512_setzero_si512(),
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn add(sums: &mut Sums, values: __m512i) {
    sums.all = _mm512_add_epi16(sums.all, values);
    sums.odd = _mm512_add_epi16(sums.odd, _mm512_srli_epi16::<8>(values));
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn store(sums: Sums, scores: &mut [u16; BLOCK]) {
    let even = _mm512_sub_epi16(sums.all, _mm512_slli_epi16::<8>(sums.odd));
    let at = scores.as_mut_ptr();
    // SAFETY: the array holds two registers of 32 lanes.
    unsafe {
        _mm512_storeu_si512(at.cast(), even);
        _mm512_storeu_si512(at.add(ROW).cast(), sums.odd);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the array is as long as the register.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Asks for what lies [`AHEAD`] of `bytes` plus `offset`.
#[inline(always)]
fn fetch_ahead(bytes: &[u8], offset: usize) {
    // The address may lie beyond the allocation: a prefetch never faults.
    let at = bytes.as_ptr().wrapping_add(AHEAD + offset);
    // SAFETY: SSE is part of the x86-64 baseline.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

/// # Safety
/// The processor must have AVX-512 F, BW and VBMI.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
#[inline(never)]
pub(super) fn oblivious_scan8_avx512(
    codes: &[u8],
    subquantizers: usize,
    tables: &[u8],
    scores: &mut [u16],
) {
    let stride = subquantizers * BLOCK;
    let whole = scores.len() / (BLOCKS * BLOCK);
    let (codes, last_codes) = codes.split_at(whole * BLOCKS * stride);
    let (scores, last_scores) = scores.split_at_mut(whole * BLOCKS * BLOCK);
    for (codes, scores) in codes
        .chunks_exact(BLOCKS * stride)
        .zip(scores.chunks_exact_mut(BLOCKS * BLOCK))
    {
        scan8::<BLOCKS>(codes, stride, tables, scores);
    }
    for (codes, scores) in last_codes
        .chunks_exact(stride)
        .zip(last_scores.chunks_exact_mut(BLOCK))
    {
        scan8::<1>(codes, stride, tables, scores);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
#[inline]
fn scan8<const B: usize>(codes: &[u8], stride: usize, tables: &[u8], scores: &mut [u16]) {
    let mut sums = [zero(); B];
    let (tables, _) = tables.as_chunks::<64>();
    for (j, table) in tables.chunks_exact(4).enumerate() {
        let [t0, t1, t2, t3] = [
            load(&table[0]),
            load(&table[1]),
            load(&table[2]),
            load(&table[3]),
        ];
        for (i, sums) in sums.iter_mut().enumerate() {
            fetch_ahead(codes, (j * B + i) * BLOCK);
            let Some(code) = codes[i * stride + j * BLOCK..].first_chunk() else {
                return;
            };
            let code = load(code);
            let low = _mm512_permutex2var_epi8(t0, code, t1);
            let high = _mm512_permutex2var_epi8(t2, code, t3);
            add(
                sums,
                _mm512_mask_blend_epi8(_mm512_movepi8_mask(code), low, high),
            );
        }
    }
    let (scores, _) = scores.as_chunks_mut::<BLOCK>();
    for (sums, scores) in sums.into_iter().zip(scores) {
        store(sums, scores);
    }
}

/// # Safety
/// The processor must have AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline(never)]
pub(super) fn oblivious_scan4_avx512(
    codes: &[u8],
    pairs: usize,
    tables: &[u8],
    scores: &mut [u16],
) {
    let stride = pairs * BLOCK;
    let whole = scores.len() / (BLOCKS * BLOCK);
    let (codes, last_codes) = codes.split_at(whole * BLOCKS * stride);
    let (scores, last_scores) = scores.split_at_mut(whole * BLOCKS * BLOCK);
    for (codes, scores) in codes
        .chunks_exact(BLOCKS * stride)
        .zip(scores.chunks_exact_mut(BLOCKS * BLOCK))
    {
        scan4::<BLOCKS>(codes, stride, tables, scores);
    }
    for (codes, scores) in last_codes
        .chunks_exact(stride)
        .zip(last_scores.chunks_exact_mut(BLOCK))
    {
        scan4::<1>(codes, stride, tables, scores);
    }
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn scan4<const B: usize>(codes: &[u8], stride: usize, tables: &[u8], scores: &mut [u16]) {
    let mut sums = [zero(); B];
    let nibble = _mm512_set1_epi8(15);
    let (tables, _) = tables.as_chunks::<16>();
    for (j, table) in tables.chunks_exact(2).enumerate() {
        let [even, odd] = [broadcast(&table[0]), broadcast(&table[1])];
        for (i, sums) in sums.iter_mut().enumerate() {
            fetch_ahead(codes, (j * B + i) * BLOCK);
            let Some(code) = codes[i * stride + j * BLOCK..].first_chunk() else {
                return;
            };
            let code = load(code);
            let low = _mm512_and_si512(code, nibble);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(code), nibble);
            add(sums, _mm512_shuffle_epi8(even, low));
            add(sums, _mm512_shuffle_epi8(odd, high));
        }
    }
    let (scores, _) = scores.as_chunks_mut::<BLOCK>();
    for (sums, scores) in sums.into_iter().zip(scores) {
        store(sums, scores);
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn broadcast(table: &[u8; 16]) -> __m512i {
    // SAFETY: the array is as long as the register.
    _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(table.as_ptr().cast()) })
}
