//! 512-bit merges: eight columns at a time, up to four stages of a bitonic
//! sort for every time that keys are read and written.

use super::{Shape, merge};
use crate::select::network::{bitonic, exchange};
use std::arch::x86_64::*;

/// Keys in a register.
const WIDTH: usize = 8;

/// Eight neighbouring keys of a row.
type Keys = [u64; WIDTH];

#[target_feature(enable = "avx512f")]
#[inline]
fn min(a: __m512i, b: __m512i) -> __m512i {
    _mm512_min_epu64(a, b)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn max(a: __m512i, b: __m512i) -> __m512i {
    _mm512_max_epu64(a, b)
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(keys: &Keys) -> __m512i {
    // SAFETY: the array is as long as the register.
    unsafe { _mm512_loadu_si512(keys.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(keys: &mut Keys, value: __m512i) {
    // SAFETY: the array is as long as the register.
    unsafe { _mm512_storeu_si512(keys.as_mut_ptr().cast(), value) };
}

#[target_feature(enable = "avx512f")]
#[inline]
fn zero() -> __m512i {
    _mm512_setzero_si512()
}

/// Bitonic stages over `N` rows in registers.
macro_rules! stages {
    ($rows:ident) => {
        match N {
            2 => {
                exchange!($rows, (0, 1));
            }
            4 => {
                bitonic!(4, $rows, 0);
            }
            8 => {
                bitonic!(8, $rows, 0);
            }
            16 => {
                bitonic!(16, $rows, 0);
            }
            _ => {}
        }
    };
}

/// Merges the left with the right half of the columns, down to 8 columns, and
/// those within registers. Fewer columns, and 8 that still grow, are left to
/// plain loops.
///
/// # Safety
/// The processor must have AVX-512 F.
#[target_feature(enable = "avx512f")]
#[inline(never)]
pub(super) fn oblivious_merge_columns_avx512(
    keys: &mut [u64],
    scratch: &mut [u64],
    shape: Shape,
    keep: usize,
) -> usize {
    let Shape {
        mut rows,
        mut columns,
    } = shape;
    let (mut from, mut to) = (keys.as_chunks_mut().0, scratch.as_chunks_mut().0);
    // Each round reads one matrix and writes the other.
    let mut swapped = false;
    while columns >= 2 * WIDTH {
        let grow = rows < keep;
        let width = columns / WIDTH;
        let (low, high) = to.split_at_mut(rows * width / 2);
        merge_halves::<false>(from, low, rows, width);
        if grow {
            merge_halves::<true>(from, &mut high[..rows * width / 2], rows, width);
            rows *= 2;
        }
        columns /= 2;
        (from, to) = (to, from);
        swapped = !swapped;
    }
    let within = columns == WIDTH && rows == keep;
    if within {
        // Halves, quarters and single columns of a register against each
        // other; the other side holds the same keys mirrored.
        merge_within::<0>(from, to, rows);
        merge_within::<1>(to, from, rows);
        merge_within::<2>(from, to, rows);
        columns = 1;
        swapped = !swapped;
    }
    let used = rows * columns;
    // A column that was merged within registers has a register for each key.
    if swapped {
        if within {
            for (key, row) in keys.iter_mut().zip(scratch.chunks_exact(WIDTH)).take(used) {
                *key = row[0];
            }
        } else {
            keys[..used].copy_from_slice(&scratch[..used]);
        }
    } else if within {
        for i in 0..used {
            keys[i] = keys[i * WIDTH];
        }
    }
    merge(&mut keys[..used], scratch, Shape { rows, columns }, keep)
}

/// The smaller (or the larger) half of left and right columns, sorted;
/// `width` registers make a row of `from`, half as many one of `to`.
#[target_feature(enable = "avx512f")]
#[inline]
fn merge_halves<const LARGER: bool>(from: &[Keys], to: &mut [Keys], rows: usize, width: usize) {
    // The first stages of the sort are done with the comparison of the halves.
    let fused = first_stages(rows);
    match fused {
        1 => cross::<1, LARGER>(from, to, rows, width),
        2 => cross::<2, LARGER>(from, to, rows, width),
        4 => cross::<4, LARGER>(from, to, rows, width),
        8 => cross::<8, LARGER>(from, to, rows, width),
        _ => cross::<16, LARGER>(from, to, rows, width),
    }
    sort_runs(to, rows / fused, width / 2);
}

/// Rows that the first pass takes together.
const fn first_stages(rows: usize) -> usize {
    if rows < 16 { rows } else { 16 }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn cross<const N: usize, const LARGER: bool>(
    from: &[Keys],
    to: &mut [Keys],
    rows: usize,
    width: usize,
) {
    let stride = rows / N;
    let half = width / 2;
    for i in 0..stride {
        for column in 0..half {
            let mut list = [zero(); N];
            for (j, value) in list.iter_mut().enumerate() {
                let row = i + j * stride;
                let left = load(&from[row * width + column]);
                let right = load(&from[(rows - 1 - row) * width + half + column]);
                *value = if LARGER {
                    max(left, right)
                } else {
                    min(left, right)
                };
            }
            stages!(list);
            for (j, value) in list.into_iter().enumerate() {
                store(&mut to[(i + j * stride) * half + column], value);
            }
        }
    }
}

/// Sorts bitonic runs of `run` rows of `width` registers.
#[target_feature(enable = "avx512f")]
#[inline]
fn sort_runs(keys: &mut [Keys], run: usize, width: usize) {
    let mut run = run;
    while run > 1 {
        let fused = first_stages(run);
        match fused {
            2 => sort_stages::<2>(keys, run, width),
            4 => sort_stages::<4>(keys, run, width),
            8 => sort_stages::<8>(keys, run, width),
            _ => sort_stages::<16>(keys, run, width),
        }
        run /= fused;
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn sort_stages<const N: usize>(keys: &mut [Keys], run: usize, width: usize) {
    // `N` rows that are `run / N` rows apart, for every start.
    let stride = run / N * width;
    for keys in keys.chunks_exact_mut(run * width) {
        for i in 0..stride {
            let mut list = [zero(); N];
            for (j, value) in list.iter_mut().enumerate() {
                *value = load(&keys[i + j * stride]);
            }
            stages!(list);
            for (j, value) in list.into_iter().enumerate() {
                store(&mut keys[i + j * stride], value);
            }
        }
    }
}

/// Merges columns of the same register: halves (step 0), quarters (1) or
/// neighbours (2).
#[target_feature(enable = "avx512f")]
#[inline]
fn merge_within<const STEP: u8>(from: &[Keys], to: &mut [Keys], rows: usize) {
    for row in 0..rows {
        let left = load(&from[row]);
        let right = load(&from[rows - 1 - row]);
        let right = match STEP {
            0 => _mm512_shuffle_i64x2::<0b01_00_11_10>(right, right),
            1 => _mm512_permutex_epi64::<0b01_00_11_10>(right),
            _ => _mm512_permutex_epi64::<0b10_11_00_01>(right),
        };
        store(&mut to[row], min(left, right));
    }
    sort_runs(&mut to[..rows], rows, 1);
}
