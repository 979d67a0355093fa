//! The reference: Harvey's lazy butterflies with 64-bit Shoup products.

use super::{NttTable, Root, Roots};

impl Roots {
    fn root(&self, index: usize) -> Root {
        Root::from_parts(self.value[index], self.quotient64[index])
    }
}

/// Cooley-Tukey; entries stay below 4p between stages.
pub(super) fn forward(table: &NttTable, values: &mut [u64]) {
    let modulus = &table.modulus;
    let two_p = 2 * modulus.value();
    let mut blocks = 1;
    while blocks < table.degree {
        let half = table.degree / (2 * blocks);
        for (i, block) in values.chunks_exact_mut(2 * half).enumerate() {
            let root = table.forward.root(blocks + i);
            let (upper, lower) = block.split_at_mut(half);
            for (x, y) in upper.iter_mut().zip(lower) {
                let u = modulus.twice(*x);
                let v = modulus.mul_lazy(*y, root);
                *x = u + v;
                *y = u + two_p - v;
            }
        }
        blocks *= 2;
    }
    for x in values {
        *x = modulus.canonical(*x);
    }
}

/// Gentleman-Sande; entries stay below 2p between stages.
pub(super) fn inverse(table: &NttTable, values: &mut [u64]) {
    let modulus = &table.modulus;
    let two_p = 2 * modulus.value();
    let mut blocks = table.degree / 2;
    while blocks > 1 {
        let half = table.degree / (2 * blocks);
        for (i, block) in values.chunks_exact_mut(2 * half).enumerate() {
            let root = table.inverse.root(blocks + i);
            let (upper, lower) = block.split_at_mut(half);
            for (x, y) in upper.iter_mut().zip(lower) {
                let (u, v) = (*x, *y);
                *x = modulus.twice(u + v);
                *y = modulus.mul_lazy(u + two_p - v, root);
            }
        }
        blocks /= 2;
    }
    let (upper, lower) = values.split_at_mut(table.degree / 2);
    for (x, y) in upper.iter_mut().zip(lower) {
        let (u, v) = (*x, *y);
        *x = modulus.mul_fixed(u + v, table.scale[0]);
        *y = modulus.mul_fixed(u + two_p - v, table.scale[1]);
    }
}
