//! Eight blocks, one a lane, twice.

use std::arch::x86_64::*;

use super::{Batch, CONSTANT, DOUBLE_ROUNDS};

type State = [__m256i; 16];

#[target_feature(enable = "avx2")]
pub(super) fn fill(key: &[u32; 8], stream: u64, counter: u64, out: &mut Batch) {
    for (half, out) in (0..).zip(out.as_chunks_mut::<512>().0) {
        fill_half(key, stream, counter.wrapping_add(8 * half), out);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn fill_half(key: &[u32; 8], stream: u64, counter: u64, out: &mut [u8; 512]) {
    let splat = |word: u32| _mm256_set1_epi32(word as i32);
    let mut input: State = [_mm256_setzero_si256(); 16];
    for i in 0..4 {
        input[i] = splat(CONSTANT[i]);
    }
    for i in 0..8 {
        input[4 + i] = splat(key[i]);
    }
    let counters: [u64; 8] = std::array::from_fn(|i| counter.wrapping_add(i as u64));
    let half = |shift: u32| {
        let word = |i: usize| (counters[i] >> shift) as i32;
        _mm256_setr_epi32(
            word(0),
            word(1),
            word(2),
            word(3),
            word(4),
            word(5),
            word(6),
            word(7),
        )
    };
    input[12] = half(0);
    input[13] = half(32);
    input[14] = splat(stream as u32);
    input[15] = splat((stream >> 32) as u32);

    let mut x = input;
    for _ in 0..DOUBLE_ROUNDS {
        double_round(&mut x);
    }
    for i in 0..16 {
        x[i] = _mm256_add_epi32(x[i], input[i]);
    }
    // Words 0 to 7 of each block, then words 8 to 15.
    let (low, high) = x.split_at(8);
    let halves = transpose(low).into_iter().zip(transpose(high));
    for (out, (low, high)) in out.as_chunks_mut::<64>().0.iter_mut().zip(halves) {
        let out: *mut __m256i = out.as_mut_ptr().cast();
        // SAFETY: the reference covers the twice 32 bytes that are written.
        unsafe {
            _mm256_storeu_si256(out, low);
            _mm256_storeu_si256(out.add(1), high);
        }
    }
}

/// Columns, then diagonals; written out so that the state stays in registers.
#[inline]
#[target_feature(enable = "avx2")]
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
#[target_feature(enable = "avx2")]
fn quarter_round(x: &mut State, [a, b, c, d]: [usize; 4]) {
    let by16 = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13,
    ));
    let by8 = _mm256_broadcastsi128_si256(_mm_setr_epi8(
        3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14,
    ));
    x[a] = _mm256_add_epi32(x[a], x[b]);
    x[d] = _mm256_shuffle_epi8(_mm256_xor_si256(x[d], x[a]), by16);
    x[c] = _mm256_add_epi32(x[c], x[d]);
    x[b] = rotate::<12, 20>(_mm256_xor_si256(x[b], x[c]));
    x[a] = _mm256_add_epi32(x[a], x[b]);
    x[d] = _mm256_shuffle_epi8(_mm256_xor_si256(x[d], x[a]), by8);
    x[c] = _mm256_add_epi32(x[c], x[d]);
    x[b] = rotate::<7, 25>(_mm256_xor_si256(x[b], x[c]));
}

#[inline]
#[target_feature(enable = "avx2")]
fn rotate<const LEFT: i32, const RIGHT: i32>(x: __m256i) -> __m256i {
    _mm256_or_si256(_mm256_slli_epi32::<LEFT>(x), _mm256_srli_epi32::<RIGHT>(x))
}

/// Word `i` of block `j` is in lane `j` of vector `i`; swaps the two.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(x: &[__m256i]) -> [__m256i; 8] {
    let mut y = [x[0]; 8];
    for i in 0..4 {
        y[2 * i] = _mm256_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        y[2 * i + 1] = _mm256_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    let mut z = y;
    for i in 0..2 {
        let [a, b, c, d] = [y[4 * i], y[4 * i + 1], y[4 * i + 2], y[4 * i + 3]];
        z[4 * i] = _mm256_unpacklo_epi64(a, c);
        z[4 * i + 1] = _mm256_unpackhi_epi64(a, c);
        z[4 * i + 2] = _mm256_unpacklo_epi64(b, d);
        z[4 * i + 3] = _mm256_unpackhi_epi64(b, d);
    }
    for k in 0..4 {
        y[k] = _mm256_permute2x128_si256::<0x20>(z[k], z[4 + k]);
        y[4 + k] = _mm256_permute2x128_si256::<0x31>(z[k], z[4 + k]);
    }
    y
}
