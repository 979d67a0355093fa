//! 256-bit registers: a quarter of a row of keys each.

use super::LANES;
use super::network::{bitonic, exchange, lane_best_kernel, sort};
use std::arch::x86_64::*;

type Row = __m256i;

/// A register of scores is half a row.
const PARTS: usize = 2;

#[target_feature(enable = "avx2")]
#[inline]
fn zero() -> Row {
    _mm256_setzero_si256()
}

#[target_feature(enable = "avx2")]
#[inline]
fn min(a: Row, b: Row) -> Row {
    _mm256_min_epu32(a, b)
}

#[target_feature(enable = "avx2")]
#[inline]
fn max(a: Row, b: Row) -> Row {
    _mm256_max_epu32(a, b)
}

/// Keys of the low or the high four scores of every group of eight.
#[target_feature(enable = "avx2")]
#[inline]
fn keys<const HIGH: bool>(scores: &[u16], row: u32) -> Row {
    let scores = &scores[..LANES / 2];
    // SAFETY: 16 scores are as long as the register.
    let scores = unsafe { _mm256_loadu_si256(scores.as_ptr().cast()) };
    let row = _mm256_set1_epi16(row as i16);
    if HIGH {
        _mm256_unpackhi_epi16(row, scores)
    } else {
        _mm256_unpacklo_epi16(row, scores)
    }
}

/// Half a row of keys in the order of lanes to the two registers of [`keys`].
#[target_feature(enable = "avx2")]
#[inline]
fn load_best(best: &[u32]) -> [Row; 2] {
    let best = &best[..LANES / 2];
    // SAFETY: 16 keys are as long as two registers.
    let (a, b) = unsafe {
        (
            _mm256_loadu_si256(best.as_ptr().cast()),
            _mm256_loadu_si256(best[8..].as_ptr().cast()),
        )
    };
    [
        _mm256_permute2x128_si256::<0x20>(a, b),
        _mm256_permute2x128_si256::<0x31>(a, b),
    ]
}

/// The way back from [`load_best`].
#[target_feature(enable = "avx2")]
#[inline]
fn store_best(best: &mut [u32], low: Row, high: Row) {
    let (a, b) = best[..LANES / 2].split_at_mut(8);
    // SAFETY: each half of 8 keys is as long as a register.
    unsafe {
        _mm256_storeu_si256(
            a.as_mut_ptr().cast(),
            _mm256_permute2x128_si256::<0x20>(low, high),
        );
        _mm256_storeu_si256(
            b.as_mut_ptr().cast(),
            _mm256_permute2x128_si256::<0x31>(low, high),
        );
    }
}

lane_best_kernel!(
    #[target_feature(enable = "avx2")]
    oblivious_lane_best_4_avx2,
    4,
    4
);
lane_best_kernel!(
    #[target_feature(enable = "avx2")]
    oblivious_lane_best_8_avx2,
    8,
    8
);
lane_best_kernel!(
    #[target_feature(enable = "avx2")]
    oblivious_lane_best_16_avx2,
    16,
    8
);
lane_best_kernel!(
    #[target_feature(enable = "avx2")]
    oblivious_lane_best_32_avx2,
    32,
    8
);
