//! The reference: 128-bit accumulators, one reduction at the end.

use super::{Modulus, Pair};

pub(super) fn inner_product(modulus: &Modulus, out: &mut [u64], pairs: &[Pair<'_>]) {
    for (i, out) in out.iter_mut().enumerate() {
        let mut sum = u128::from(*out);
        for (a, b) in pairs {
            sum += u128::from(a[i]) * u128::from(b[i]);
        }
        *out = modulus.reduce_wide(sum);
    }
}

pub(super) fn tensor(
    modulus: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    query: &[Pair<'_>],
    block: &[Pair<'_>],
) {
    for (i, (out0, out1)) in out0.iter_mut().zip(out1).enumerate() {
        let (mut sum0, mut sum1) = (u128::from(*out0), u128::from(*out1));
        for ((b, a), (block_b, block_a)) in query.iter().zip(block) {
            let (b, a) = (u128::from(b[i]), u128::from(a[i]));
            let (block_b, block_a) = (u128::from(block_b[i]), u128::from(block_a[i]));
            sum0 += b * block_b;
            sum1 += b * block_a + a * block_b;
        }
        *out0 = modulus.reduce_wide(sum0);
        *out1 = modulus.reduce_wide(sum1);
    }
}
