//! Masks spread over the lanes of 256-bit registers.

use super::Wanted;
use crate::scan::{BLOCK, ROW};
use std::arch::x86_64::*;

/// # Safety
/// The processor must have AVX2.
#[target_feature(enable = "avx2")]
#[inline(never)]
pub(super) fn oblivious_hide_avx2(masks: &[u64], scores: &mut [u16]) {
    // Lane `i` of a register takes the byte that holds bit `2 i` of 32.
    let bytes = _mm256_setr_epi8(
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3,
        3, 3,
    );
    // Its own bit in that byte: 1, 4, 16, 64 for the even row.
    let even = _mm256_set1_epi64x(0x0040_0010_0004_0001);
    let odd = _mm256_slli_epi16::<1>(even);
    let (scores, _) = scores.as_chunks_mut::<BLOCK>();
    for (&mask, scores) in masks.iter().zip(scores) {
        for half in 0..2 {
            let bits = _mm256_set1_epi32((mask >> (32 * half)) as i32);
            let bits = _mm256_shuffle_epi8(bits, bytes);
            let at = half * ROW / 2;
            hide_lanes(bits, even, &mut scores[at..]);
            hide_lanes(bits, odd, &mut scores[at + ROW..]);
        }
    }
}

/// All ones into the lanes whose `own` bit is not set.
#[target_feature(enable = "avx2")]
#[inline]
fn hide_lanes(bits: __m256i, own: __m256i, scores: &mut [u16]) {
    let scores = &mut scores[..ROW / 2];
    let hidden = _mm256_cmpeq_epi16(_mm256_and_si256(bits, own), _mm256_setzero_si256());
    // SAFETY: 16 scores are as long as the register.
    unsafe {
        let at = scores.as_mut_ptr();
        let row = _mm256_loadu_si256(at.cast());
        _mm256_storeu_si256(at.cast(), _mm256_or_si256(row, hidden));
    }
}

/// # Safety
/// The processor must have AVX2.
#[target_feature(enable = "avx2")]
#[inline(never)]
pub(super) fn oblivious_passing_avx2(tags: &[[u64; BLOCK]], wanted: &Wanted, masks: &mut [u64]) {
    let anything = wanted.anything();
    let any = _mm256_set1_epi64x(wanted.any as i64);
    let all = _mm256_set1_epi64x(wanted.all as i64);
    let none = _mm256_set1_epi64x(wanted.none as i64);
    for (tags, mask) in tags.iter().zip(masks) {
        let (mut missed, mut right) = (0, 0);
        let (rows, _) = tags.as_chunks::<4>();
        for (i, row) in rows.iter().enumerate() {
            // SAFETY: four words are as long as the register.
            let row = unsafe { _mm256_loadu_si256(row.as_ptr().cast()) };
            missed |= zero_lanes(_mm256_and_si256(row, any)) << (4 * i);
            // What is asked for and missing, or there and not wanted.
            let against =
                _mm256_or_si256(_mm256_andnot_si256(row, all), _mm256_and_si256(row, none));
            right |= zero_lanes(against) << (4 * i);
        }
        *mask &= (!missed | anything) & right;
    }
}

/// A bit for each of the four lanes that is zero.
#[target_feature(enable = "avx2")]
#[inline]
fn zero_lanes(lanes: __m256i) -> u64 {
    let zero = _mm256_cmpeq_epi64(lanes, _mm256_setzero_si256());
    _mm256_movemask_pd(_mm256_castsi256_pd(zero)) as u64
}
