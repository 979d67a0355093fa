//! Residues as `f64`, products by fused multiply-add, four lanes, two stages
//! a pass.
//!
//! Between stages an entry is a signed integer below 4p < 2^52 in magnitude.
//! With h = y w rounded, l = y w - h exactly (one fused multiply-add) and
//! q = y (w/p) rounded, y w - q p = (h - q p) + l. For a root |w| <= p/2 the
//! error of q is at most 1/2 + |y| 2^-53, so the result is at most p in
//! magnitude (3p/4 for |y| <= 2p); h - q p and the sum are integers below
//! 2^53: nothing is rounded but h and q, and the result is exact.

use std::arch::x86_64::*;

use aligned_vec::{AVec, CACHELINE_ALIGN};

use super::NttTable;
use crate::modmul::Modulus;
use crate::modmul::avx2::{Prime, Words, load_integers, store_canonical};

/// Smallest degree these kernels take: one tail of four vectors.
pub(super) const MIN_DEGREE: usize = 16;

const LANES: usize = 4;

/// Roots nearest zero and their ratio to p, in the order of [`super::Roots`].
pub(super) struct RootsFloat {
    value: AVec<f64>,
    ratio: AVec<f64>,
}

impl RootsFloat {
    pub(super) fn new(modulus: &Modulus, powers: &[u64]) -> Self {
        let p = modulus.value();
        let value = || powers.iter().map(move |&w| centered(w, p));
        Self {
            value: AVec::from_iter(CACHELINE_ALIGN, value()),
            ratio: AVec::from_iter(CACHELINE_ALIGN, value().map(|w| w / p as f64)),
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn one(&self, index: usize) -> Root {
        Root::splat(self.value[index], self.ratio[index])
    }

    /// Two roots from `index` on, two lanes each.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn two(&self, index: usize) -> Root {
        let spread = |w: &[f64]| _mm256_setr_pd(w[0], w[0], w[1], w[1]);
        Root {
            value: spread(&self.value[index..index + 2]),
            ratio: spread(&self.ratio[index..index + 2]),
        }
    }

    /// Four roots from `index` on.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn four(&self, index: usize) -> Root {
        let load = |w: &[f64]| {
            // SAFETY: the slice has the four numbers that are read.
            unsafe { _mm256_loadu_pd(w[..LANES].as_ptr()) }
        };
        Root {
            value: load(&self.value[index..]),
            ratio: load(&self.ratio[index..]),
        }
    }
}

/// The representative of `w` nearest zero.
fn centered(w: u64, p: u64) -> f64 {
    if w > p / 2 {
        -((p - w) as f64)
    } else {
        w as f64
    }
}

#[derive(Clone, Copy)]
struct Root {
    value: __m256d,
    ratio: __m256d,
}

impl Root {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn splat(value: f64, ratio: f64) -> Self {
        Self {
            value: _mm256_set1_pd(value),
            ratio: _mm256_set1_pd(ratio),
        }
    }
}

impl Prime {
    /// `y * root` mod p, at most p in magnitude.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn mul_root(self, y: __m256d, root: Root) -> __m256d {
        let high = _mm256_mul_pd(y, root.value);
        let low = _mm256_fmsub_pd(y, root.value, high);
        self.fold(high, low, _mm256_mul_pd(y, root.ratio))
    }

    /// Cooley-Tukey; `x` has been reduced lately.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn forward(self, x: &mut __m256d, y: &mut __m256d, root: Root) {
        let v = self.mul_root(*y, root);
        (*x, *y) = (_mm256_add_pd(*x, v), _mm256_sub_pd(*x, v));
    }

    /// Gentleman-Sande; the sum is not reduced.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn inverse(self, x: &mut __m256d, y: &mut __m256d, root: Root) {
        let difference = _mm256_sub_pd(*x, *y);
        *x = _mm256_add_pd(*x, *y);
        *y = self.mul_root(difference, root);
    }

    /// The last inverse butterfly, which also divides by n.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn inverse_last(self, x: &mut __m256d, y: &mut __m256d, scale: [Root; 2]) {
        let difference = _mm256_sub_pd(*x, *y);
        *x = self.mul_root(_mm256_add_pd(*x, *y), scale[0]);
        *y = self.mul_root(difference, scale[1]);
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn load(words: &Words) -> __m256d {
    // SAFETY: the reference covers the 32 bytes that are read.
    unsafe { _mm256_loadu_pd(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn store(words: &mut Words, x: __m256d) {
    // SAFETY: the reference covers the 32 bytes that are written.
    unsafe { _mm256_storeu_pd(words.as_mut_ptr().cast(), x) }
}

/// As in the 512-bit kernels: an even number of stages is left for the passes.
const fn tail_vectors(degree: usize) -> usize {
    if degree.trailing_zeros().is_multiple_of(2) {
        4
    } else {
        2
    }
}

/// Coefficients to values.
///
/// A pass reduces the two entries that its first stage does not multiply to
/// p/2, so its results are below p/2 + p + 0.7p, and below 2p from the second
/// pass on; a tail of four stages then stays below 3.5p.
#[target_feature(enable = "avx2,fma")]
pub(super) fn forward(table: &NttTable, values: &mut [u64]) {
    let prime = Prime::new(&table.modulus);
    let roots = &table.forward_float;
    let vectors = values.as_chunks_mut::<LANES>().0;
    for x in &mut *vectors {
        store(x, load_integers(x));
    }
    let tail = tail_vectors(table.degree);
    let mut blocks = 1;
    while vectors.len() / blocks > tail {
        let size = vectors.len() / blocks;
        for (i, block) in vectors.chunks_exact_mut(size).enumerate() {
            let first = roots.one(blocks + i);
            let second = [roots.one(2 * (blocks + i)), roots.one(2 * (blocks + i) + 1)];
            let (x0, rest) = block.split_at_mut(size / 4);
            let (x1, rest) = rest.split_at_mut(size / 4);
            let (x2, x3) = rest.split_at_mut(size / 4);
            for (((x0, x1), x2), x3) in x0.iter_mut().zip(x1).zip(x2).zip(x3) {
                let [mut c, mut d] = [load(x2), load(x3)];
                let [mut a, mut b] = [prime.reduce(load(x0)), prime.reduce(load(x1))];
                prime.forward(&mut a, &mut c, first);
                prime.forward(&mut b, &mut d, first);
                prime.forward(&mut a, &mut b, second[0]);
                prime.forward(&mut c, &mut d, second[1]);
                store(x0, a);
                store(x1, b);
                store(x2, c);
                store(x3, d);
            }
        }
        blocks *= 4;
    }
    if tail == 4 {
        for (i, [x0, x1, x2, x3]) in vectors.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let [mut c, mut d] = [load(x2), load(x3)];
            let [mut a, mut b] = [prime.reduce(load(x0)), prime.reduce(load(x1))];
            let first = roots.one(blocks + i);
            prime.forward(&mut a, &mut c, first);
            prime.forward(&mut b, &mut d, first);
            forward_tail(prime, roots, table.degree, 2 * i, &mut a, &mut b);
            forward_tail(prime, roots, table.degree, 2 * i + 1, &mut c, &mut d);
            store_canonical(prime, x0, a);
            store_canonical(prime, x1, b);
            store_canonical(prime, x2, c);
            store_canonical(prime, x3, d);
        }
    } else {
        for (i, [x0, x1]) in vectors.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [mut a, mut b] = [prime.reduce(load(x0)), load(x1)];
            forward_tail(prime, roots, table.degree, i, &mut a, &mut b);
            store_canonical(prime, x0, a);
            store_canonical(prime, x1, b);
        }
    }
}

/// The last three stages on the eight entries of `a` and `b`, pair `i`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn forward_tail(
    prime: Prime,
    roots: &RootsFloat,
    degree: usize,
    i: usize,
    a: &mut __m256d,
    b: &mut __m256d,
) {
    prime.forward(a, b, roots.one(degree / 8 + i));
    // a01 b01 | a23 b23
    let mut x = _mm256_permute2f128_pd::<0x20>(*a, *b);
    let mut y = _mm256_permute2f128_pd::<0x31>(*a, *b);
    prime.forward(&mut x, &mut y, roots.two(degree / 4 + 2 * i));
    // a0 a2 b0 b2 | a1 a3 b1 b3
    let mut u = _mm256_unpacklo_pd(x, y);
    let mut v = _mm256_unpackhi_pd(x, y);
    prime.forward(&mut u, &mut v, roots.four(degree / 2 + 4 * i));
    let (x, y) = (_mm256_unpacklo_pd(u, v), _mm256_unpackhi_pd(u, v));
    *a = _mm256_permute2f128_pd::<0x20>(x, y);
    *b = _mm256_permute2f128_pd::<0x31>(x, y);
}

/// Values to coefficients.
///
/// Every pass starts from entries of at most p in magnitude: differences reach
/// 4p, and the sums that no root multiplies are reduced at its end.
#[target_feature(enable = "avx2,fma")]
pub(super) fn inverse(table: &NttTable, values: &mut [u64]) {
    let prime = Prime::new(&table.modulus);
    let roots = &table.inverse_float;
    let p = table.modulus.value();
    let scale = table.scale.map(|root| {
        let value = centered(root.value(), p);
        Root::splat(value, value / p as f64)
    });
    let vectors = values.as_chunks_mut::<LANES>().0;
    let tail = tail_vectors(table.degree);
    let mut blocks = vectors.len() / tail;
    let only_tail = blocks == 1;
    if tail == 4 {
        for (i, [x0, x1, x2, x3]) in vectors.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let [mut a, mut b] = [load_integers(x0), load_integers(x1)];
            let [mut c, mut d] = [load_integers(x2), load_integers(x3)];
            inverse_tail(prime, roots, table.degree, 2 * i, &mut a, &mut b);
            inverse_tail(prime, roots, table.degree, 2 * i + 1, &mut c, &mut d);
            if only_tail {
                prime.inverse_last(&mut a, &mut c, scale);
                prime.inverse_last(&mut b, &mut d, scale);
                store_canonical(prime, x0, a);
                store_canonical(prime, x1, b);
                store_canonical(prime, x2, c);
                store_canonical(prime, x3, d);
            } else {
                let root = roots.one(blocks + i);
                prime.inverse(&mut a, &mut c, root);
                prime.inverse(&mut b, &mut d, root);
                store(x0, prime.reduce(a));
                store(x1, prime.reduce(b));
                store(x2, c);
                store(x3, d);
            }
        }
    } else {
        for (i, [x0, x1]) in vectors.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [mut a, mut b] = [load_integers(x0), load_integers(x1)];
            inverse_tail(prime, roots, table.degree, i, &mut a, &mut b);
            store(x0, a);
            store(x1, b);
        }
    }
    while blocks > 1 {
        blocks /= 4;
        let size = vectors.len() / blocks;
        for (i, block) in vectors.chunks_exact_mut(size).enumerate() {
            let first = [roots.one(2 * (blocks + i)), roots.one(2 * (blocks + i) + 1)];
            let second = roots.one(blocks + i);
            let (x0, rest) = block.split_at_mut(size / 4);
            let (x1, rest) = rest.split_at_mut(size / 4);
            let (x2, x3) = rest.split_at_mut(size / 4);
            for (((x0, x1), x2), x3) in x0.iter_mut().zip(x1).zip(x2).zip(x3) {
                let [mut a, mut b, mut c, mut d] = [load(x0), load(x1), load(x2), load(x3)];
                prime.inverse(&mut a, &mut b, first[0]);
                prime.inverse(&mut c, &mut d, first[1]);
                if blocks == 1 {
                    prime.inverse_last(&mut a, &mut c, scale);
                    prime.inverse_last(&mut b, &mut d, scale);
                    store_canonical(prime, x0, a);
                    store_canonical(prime, x1, b);
                    store_canonical(prime, x2, c);
                    store_canonical(prime, x3, d);
                } else {
                    prime.inverse(&mut a, &mut c, second);
                    prime.inverse(&mut b, &mut d, second);
                    store(x0, prime.reduce(a));
                    store(x1, prime.reduce(b));
                    store(x2, c);
                    store(x3, d);
                }
            }
        }
    }
}

/// The first three stages on the eight entries of `a` and `b`, pair `i`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn inverse_tail(
    prime: Prime,
    roots: &RootsFloat,
    degree: usize,
    i: usize,
    a: &mut __m256d,
    b: &mut __m256d,
) {
    // a01 b01 | a23 b23, then a0 a2 b0 b2 | a1 a3 b1 b3
    let x = _mm256_permute2f128_pd::<0x20>(*a, *b);
    let y = _mm256_permute2f128_pd::<0x31>(*a, *b);
    let mut u = _mm256_unpacklo_pd(x, y);
    let mut v = _mm256_unpackhi_pd(x, y);
    prime.inverse(&mut u, &mut v, roots.four(degree / 2 + 4 * i));
    let u = prime.reduce(u);
    let mut x = _mm256_unpacklo_pd(u, v);
    let mut y = _mm256_unpackhi_pd(u, v);
    prime.inverse(&mut x, &mut y, roots.two(degree / 4 + 2 * i));
    let x = prime.reduce(x);
    *a = _mm256_permute2f128_pd::<0x20>(x, y);
    *b = _mm256_permute2f128_pd::<0x31>(x, y);
    prime.inverse(a, b, roots.one(degree / 8 + i));
    *a = prime.reduce(*a);
}
