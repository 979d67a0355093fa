//! 512-bit registers: half a row of keys each.

use super::LANES;
use super::network::{bitonic, exchange, lane_best_kernel, sort};
use std::arch::x86_64::*;

type Row = __m512i;

/// A register of scores is a whole row.
const PARTS: usize = 1;

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn zero() -> Row {
    _mm512_setzero_si512()
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn min(a: Row, b: Row) -> Row {
    _mm512_min_epu32(a, b)
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn max(a: Row, b: Row) -> Row {
    _mm512_max_epu32(a, b)
}

/// Keys of the low or the high four scores of every group of eight.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn keys<const HIGH: bool>(scores: &[u16], row: u32) -> Row {
    let scores = &scores[..LANES];
    // SAFETY: a row of 32 scores is as long as the register.
    let scores = unsafe { _mm512_loadu_si512(scores.as_ptr().cast()) };
    let row = _mm512_set1_epi16(row as i16);
    if HIGH {
        _mm512_unpackhi_epi16(row, scores)
    } else {
        _mm512_unpacklo_epi16(row, scores)
    }
}

/// A row of keys in the order of lanes to the two registers of [`keys`].
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn load_best(best: &[u32]) -> [Row; 2] {
    let best = &best[..LANES];
    // SAFETY: 32 keys are as long as two registers.
    let (a, b) = unsafe {
        (
            _mm512_loadu_si512(best.as_ptr().cast()),
            _mm512_loadu_si512(best[16..].as_ptr().cast()),
        )
    };
    let low = _mm512_setr_epi64(0, 1, 4, 5, 8, 9, 12, 13);
    let high = _mm512_setr_epi64(2, 3, 6, 7, 10, 11, 14, 15);
    [
        _mm512_permutex2var_epi64(a, low, b),
        _mm512_permutex2var_epi64(a, high, b),
    ]
}

/// The way back from [`load_best`].
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn store_best(best: &mut [u32], low: Row, high: Row) {
    let (a, b) = best[..LANES].split_at_mut(16);
    let first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    let second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    // SAFETY: each half of 16 keys is as long as a register.
    unsafe {
        _mm512_storeu_si512(
            a.as_mut_ptr().cast(),
            _mm512_permutex2var_epi64(low, first, high),
        );
        _mm512_storeu_si512(
            b.as_mut_ptr().cast(),
            _mm512_permutex2var_epi64(low, second, high),
        );
    }
}

lane_best_kernel!(
    #[target_feature(enable = "avx512f,avx512bw")]
    oblivious_lane_best_4_avx512,
    4,
    4
);
lane_best_kernel!(
    #[target_feature(enable = "avx512f,avx512bw")]
    oblivious_lane_best_8_avx512,
    8,
    8
);
lane_best_kernel!(
    #[target_feature(enable = "avx512f,avx512bw")]
    oblivious_lane_best_16_avx512,
    16,
    8
);
lane_best_kernel!(
    #[target_feature(enable = "avx512f,avx512bw")]
    oblivious_lane_best_32_avx512,
    32,
    8
);
