//! Masks in mask registers.

use super::Wanted;
use crate::scan::{BLOCK, ROW};
use std::arch::x86_64::*;

/// # Safety
/// The processor must have AVX-512 F and BW.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline(never)]
pub(super) fn oblivious_hide_avx512(masks: &[u64], scores: &mut [u16]) {
    let (scores, _) = scores.as_chunks_mut::<BLOCK>();
    for (&mask, scores) in masks.iter().zip(scores) {
        // A byte of ones for each hidden vector, then one half of every pair
        // of bytes spread over both.
        let hidden = _mm512_movm_epi8(!mask);
        let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(hidden));
        let odd = _mm512_srai_epi16::<8>(hidden);
        // SAFETY: the array holds two registers of 32 scores.
        unsafe {
            let at = scores.as_mut_ptr();
            let row = _mm512_loadu_si512(at.cast());
            _mm512_storeu_si512(at.cast(), _mm512_or_si512(row, even));
            let at = at.add(ROW);
            let row = _mm512_loadu_si512(at.cast());
            _mm512_storeu_si512(at.cast(), _mm512_or_si512(row, odd));
        }
    }
}

/// # Safety
/// The processor must have AVX-512 F.
#[target_feature(enable = "avx512f")]
#[inline(never)]
pub(super) fn oblivious_passing_avx512(tags: &[[u64; BLOCK]], wanted: &Wanted, masks: &mut [u64]) {
    /// Of bits a, b, c the index `4 a + 2 b + c`: `a ? c : b`.
    const AGAINST: i32 = 0b1010_1100;
    let anything = wanted.anything();
    let any = _mm512_set1_epi64(wanted.any as i64);
    let all = _mm512_set1_epi64(wanted.all as i64);
    let none = _mm512_set1_epi64(wanted.none as i64);
    for (tags, mask) in tags.iter().zip(masks) {
        let (mut hit, mut right) = (0, 0);
        let (rows, _) = tags.as_chunks::<8>();
        for (i, row) in rows.iter().enumerate() {
            // SAFETY: eight words are as long as the register.
            let row = unsafe { _mm512_loadu_si512(row.as_ptr().cast()) };
            hit |= u64::from(_mm512_test_epi64_mask(row, any)) << (8 * i);
            // What is asked for and missing, or there and not wanted.
            let against = _mm512_ternarylogic_epi64::<AGAINST>(row, all, none);
            right |= u64::from(_mm512_testn_epi64_mask(against, against)) << (8 * i);
        }
        *mask &= (hit | anything) & right;
    }
}
