//! The reference: one block after the other.

use super::{Batch, CONSTANT, DOUBLE_ROUNDS};

pub(super) fn fill(key: &[u32; 8], stream: u64, counter: u64, out: &mut Batch) {
    for (i, out) in (0..).zip(out.as_chunks_mut::<64>().0) {
        let counter = counter.wrapping_add(i);
        let mut input = [0; 16];
        input[..4].copy_from_slice(&CONSTANT);
        input[4..12].copy_from_slice(key);
        input[12] = counter as u32;
        input[13] = (counter >> 32) as u32;
        input[14] = stream as u32;
        input[15] = (stream >> 32) as u32;
        let mut x = input;
        for _ in 0..DOUBLE_ROUNDS {
            double_round(&mut x);
        }
        for ((out, x), input) in out.as_chunks_mut().0.iter_mut().zip(x).zip(input) {
            *out = x.wrapping_add(input).to_le_bytes();
        }
    }
}

/// Columns, then diagonals; written out so that the state stays in registers.
#[inline(always)]
fn double_round(x: &mut [u32; 16]) {
    quarter_round(x, [0, 4, 8, 12]);
    quarter_round(x, [1, 5, 9, 13]);
    quarter_round(x, [2, 6, 10, 14]);
    quarter_round(x, [3, 7, 11, 15]);
    quarter_round(x, [0, 5, 10, 15]);
    quarter_round(x, [1, 6, 11, 12]);
    quarter_round(x, [2, 7, 8, 13]);
    quarter_round(x, [3, 4, 9, 14]);
}

#[inline(always)]
fn quarter_round(x: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(16);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(12);
    x[a] = x[a].wrapping_add(x[b]);
    x[d] = (x[d] ^ x[a]).rotate_left(8);
    x[c] = x[c].wrapping_add(x[d]);
    x[b] = (x[b] ^ x[c]).rotate_left(7);
}
