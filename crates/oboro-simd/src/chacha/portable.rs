//! The reference: one block after the other.

use super::{Batch, CONSTANT, DOUBLE_ROUNDS, QUARTERS};

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
            for quarter in QUARTERS {
                quarter_round(&mut x, quarter);
            }
        }
        for ((out, x), input) in out.as_chunks_mut().0.iter_mut().zip(x).zip(input) {
            *out = x.wrapping_add(input).to_le_bytes();
        }
    }
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
