//! Sixteen blocks, one a lane.

use std::arch::x86_64::*;

use super::{Batch, CONSTANT, DOUBLE_ROUNDS};

type State = [__m512i; 16];

#[target_feature(enable = "avx512f")]
pub(super) fn fill(key: &[u32; 8], stream: u64, counter: u64, out: &mut Batch) {
    let splat = |word: u32| _mm512_set1_epi32(word as i32);
    let mut input: State = [_mm512_setzero_si512(); 16];
    for i in 0..4 {
        input[i] = splat(CONSTANT[i]);
    }
    for i in 0..8 {
        input[4 + i] = splat(key[i]);
    }
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let low = _mm512_add_epi32(splat(counter as u32), lanes);
    // A lane that wrapped is below its lane number.
    let carry = _mm512_cmplt_epu32_mask(low, lanes);
    let high = splat((counter >> 32) as u32);
    input[12] = low;
    input[13] = _mm512_mask_add_epi32(high, carry, high, splat(1));
    input[14] = splat(stream as u32);
    input[15] = splat((stream >> 32) as u32);

    let mut x = input;
    for _ in 0..DOUBLE_ROUNDS {
        double_round(&mut x);
    }
    for i in 0..16 {
        x[i] = _mm512_add_epi32(x[i], input[i]);
    }
    transpose(&mut x);
    for (out, x) in out.as_chunks_mut::<64>().0.iter_mut().zip(x) {
        // SAFETY: the reference covers the 64 bytes that are written.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), x) }
    }
}

/// Columns, then diagonals; written out so that the state stays in registers.
#[inline]
#[target_feature(enable = "avx512f")]
fn double_round(x: &mut State) {
    quarter_round(x, [0, 4, 8, 12]);
    quarter_round(x, [1, 5, 9, 13]);
    quarter_round(x, [2, 6, 10, 14]);
    quarter_round(x, [3, 7, 11, 15]);
    quarter_round(x, [0, 5, 10, 15]);
    quarter_round(x, [1, 6, 11, 12]);
    quarter_round(x, [2, 7, 8, 13]);
    quarter_round(x, [3, 4, 9, 14]);
}

#[inline]
#[target_feature(enable = "avx512f")]
fn quarter_round(x: &mut State, [a, b, c, d]: [usize; 4]) {
    x[a] = _mm512_add_epi32(x[a], x[b]);
    x[d] = _mm512_rol_epi32::<16>(_mm512_xor_si512(x[d], x[a]));
    x[c] = _mm512_add_epi32(x[c], x[d]);
    x[b] = _mm512_rol_epi32::<12>(_mm512_xor_si512(x[b], x[c]));
    x[a] = _mm512_add_epi32(x[a], x[b]);
    x[d] = _mm512_rol_epi32::<8>(_mm512_xor_si512(x[d], x[a]));
    x[c] = _mm512_add_epi32(x[c], x[d]);
    x[b] = _mm512_rol_epi32::<7>(_mm512_xor_si512(x[b], x[c]));
}

/// Word `i` of block `j` is in lane `j` of vector `i`; swaps the two.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(x: &mut State) {
    let mut y = *x;
    // Pairs, then quads of words of one block; four blocks, 4 apart, a vector.
    for i in 0..8 {
        y[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        y[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    for i in 0..4 {
        let [a, b, c, d] = [y[4 * i], y[4 * i + 1], y[4 * i + 2], y[4 * i + 3]];
        x[4 * i] = _mm512_unpacklo_epi64(a, c);
        x[4 * i + 1] = _mm512_unpackhi_epi64(a, c);
        x[4 * i + 2] = _mm512_unpacklo_epi64(b, d);
        x[4 * i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    // x[4 i + k] holds words 4 i to 4 i + 3 of blocks k, k + 4, k + 8, k + 12.
    for k in 0..4 {
        let [a, b, c, d] = [x[k], x[4 + k], x[8 + k], x[12 + k]];
        let first = [
            _mm512_shuffle_i32x4::<0x44>(a, b),
            _mm512_shuffle_i32x4::<0x44>(c, d),
        ];
        let last = [
            _mm512_shuffle_i32x4::<0xee>(a, b),
            _mm512_shuffle_i32x4::<0xee>(c, d),
        ];
        y[k] = _mm512_shuffle_i32x4::<0x88>(first[0], first[1]);
        y[4 + k] = _mm512_shuffle_i32x4::<0xdd>(first[0], first[1]);
        y[8 + k] = _mm512_shuffle_i32x4::<0x88>(last[0], last[1]);
        y[12 + k] = _mm512_shuffle_i32x4::<0xdd>(last[0], last[1]);
    }
    *x = y;
}
