//! 52-bit Shoup products (IFMA), eight lanes, two stages a pass.
//!
//! The last four or five stages of the forward transform, and the first of the
//! inverse, run in registers on two or four vectors at a time.

use std::arch::x86_64::*;

use aligned_vec::{AVec, CACHELINE_ALIGN};

use super::NttTable;
use crate::modmul::Modulus;

/// Smallest degree these kernels take: one tail of four vectors.
pub(super) const MIN_DEGREE: usize = 32;

const LANES: usize = 8;
type Words = [u64; LANES];

/// Roots with Shoup's quotient for 52-bit products.
///
/// The order is that of [`super::Roots`], but for the entries of the last two
/// stages, which are permuted to the lanes that need them.
pub(super) struct Roots52 {
    value: AVec<u64>,
    quotient: AVec<u64>,
}

impl Roots52 {
    pub(super) fn new(modulus: &Modulus, powers: &[u64]) -> Self {
        let mut value = powers.to_vec();
        let n = powers.len();
        if n >= MIN_DEGREE {
            for quad in value[n / 4..n / 2].chunks_exact_mut(4) {
                quad.swap(1, 2);
            }
            for eight in value[n / 2..].chunks_exact_mut(8) {
                eight.swap(2, 4);
                eight.swap(3, 5);
            }
        }
        let quotient = value
            .iter()
            .map(|&w| modulus.multiplier(w).quotient() >> 12);
        Self {
            quotient: AVec::from_iter(CACHELINE_ALIGN, quotient),
            value: AVec::from_slice(CACHELINE_ALIGN, &value),
        }
    }

    /// One root in all lanes.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn one(&self, index: usize) -> Root {
        Root::splat(self.value[index], self.quotient[index])
    }

    /// `SIZE` roots from `index` on, a lane each as `lanes` says.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn spread<const SIZE: usize>(&self, index: usize, lanes: __m512i) -> Root {
        Root {
            value: _mm512_permutexvar_epi64(lanes, load_part::<SIZE>(&self.value[index..])),
            quotient: _mm512_permutexvar_epi64(lanes, load_part::<SIZE>(&self.quotient[index..])),
        }
    }

    /// Eight roots from `index` on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    fn eight(&self, index: usize) -> Root {
        Root {
            value: load_part::<8>(&self.value[index..]),
            quotient: load_part::<8>(&self.quotient[index..]),
        }
    }
}

#[derive(Clone, Copy)]
struct Root {
    value: __m512i,
    quotient: __m512i,
}

impl Root {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn splat(value: u64, quotient: u64) -> Self {
        Self {
            value: _mm512_set1_epi64(value as i64),
            quotient: _mm512_set1_epi64(quotient as i64),
        }
    }
}

/// Constants in registers.
#[derive(Clone, Copy)]
struct Prime {
    p: __m512i,
    two_p: __m512i,
    /// 2^52 - p.
    minus_p: __m512i,
    /// 2^52 - 1.
    mask: __m512i,
}

impl Prime {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(modulus: &Modulus) -> Self {
        let p = modulus.value() as i64;
        Self {
            p: _mm512_set1_epi64(p),
            two_p: _mm512_set1_epi64(2 * p),
            minus_p: _mm512_set1_epi64((1 << 52) - p),
            mask: _mm512_set1_epi64((1 << 52) - 1),
        }
    }

    /// `y * root` mod p in [0, 2p), for `y` below 2^52.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn mul(self, y: __m512i, root: Root) -> __m512i {
        let zero = _mm512_setzero_si512();
        let q = _mm512_madd52hi_epu64(zero, y, root.quotient);
        // y w - q p is below 2^52, so its low 52 bits are all of it.
        let low = _mm512_madd52lo_epu64(zero, y, root.value);
        _mm512_and_si512(_mm512_madd52lo_epu64(low, q, self.minus_p), self.mask)
    }

    /// From [0, 4p) to [0, 2p).
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn twice(self, x: __m512i) -> __m512i {
        _mm512_min_epu64(x, _mm512_sub_epi64(x, self.two_p))
    }

    /// From [0, 2p) to [0, p).
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn once(self, x: __m512i) -> __m512i {
        _mm512_min_epu64(x, _mm512_sub_epi64(x, self.p))
    }

    /// From [0, 4p) to [0, p).
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn canonical(self, x: __m512i) -> __m512i {
        self.once(self.twice(x))
    }

    /// Cooley-Tukey on [0, 4p).
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn forward(self, x: &mut __m512i, y: &mut __m512i, root: Root) {
        let u = self.twice(*x);
        let v = self.mul(*y, root);
        *x = _mm512_add_epi64(u, v);
        *y = _mm512_sub_epi64(_mm512_add_epi64(u, self.two_p), v);
    }

    /// Gentleman-Sande on [0, 2p).
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn inverse(self, x: &mut __m512i, y: &mut __m512i, root: Root) {
        let difference = _mm512_sub_epi64(_mm512_add_epi64(*x, self.two_p), *y);
        *x = self.twice(_mm512_add_epi64(*x, *y));
        *y = self.mul(difference, root);
    }

    /// The last inverse butterfly, which also divides by n; canonical.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn inverse_last(self, x: &mut __m512i, y: &mut __m512i, scale: [Root; 2]) {
        let difference = _mm512_sub_epi64(_mm512_add_epi64(*x, self.two_p), *y);
        *x = self.once(self.mul(_mm512_add_epi64(*x, *y), scale[0]));
        *y = self.once(self.mul(difference, scale[1]));
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(words: &Words) -> __m512i {
    // SAFETY: the reference covers the 64 bytes that are read.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(words: &mut Words, x: __m512i) {
    // SAFETY: the reference covers the 64 bytes that are written.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), x) }
}

/// The first `SIZE` (2, 4 or 8) words, the other lanes undefined.
#[inline]
#[target_feature(enable = "avx512f,avx512vl")]
fn load_part<const SIZE: usize>(words: &[u64]) -> __m512i {
    let words: *const u64 = words[..SIZE].as_ptr();
    // SAFETY: the slice above has the `SIZE` words that are read.
    unsafe {
        match SIZE {
            2 => _mm512_castsi128_si512(_mm_loadu_si128(words.cast())),
            4 => _mm512_castsi256_si512(_mm256_loadu_si256(words.cast())),
            _ => _mm512_loadu_si512(words.cast()),
        }
    }
}

/// How many vectors a tail takes: four when that leaves an even number of
/// stages for the passes, which do two each.
const fn tail_vectors(degree: usize) -> usize {
    if degree.trailing_zeros() % 2 == 1 {
        4
    } else {
        2
    }
}

/// Coefficients to values.
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
pub(super) fn forward(table: &NttTable, values: &mut [u64]) {
    let prime = Prime::new(&table.modulus);
    let roots = &table.forward52;
    let vectors = values.as_chunks_mut::<LANES>().0;
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
                let [mut a, mut b, mut c, mut d] = [load(x0), load(x1), load(x2), load(x3)];
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
            let [mut a, mut b, mut c, mut d] = [load(x0), load(x1), load(x2), load(x3)];
            let first = roots.one(blocks + i);
            prime.forward(&mut a, &mut c, first);
            prime.forward(&mut b, &mut d, first);
            forward_tail(prime, roots, table.degree, 2 * i, &mut a, &mut b);
            forward_tail(prime, roots, table.degree, 2 * i + 1, &mut c, &mut d);
            store(x0, a);
            store(x1, b);
            store(x2, c);
            store(x3, d);
        }
    } else {
        for (i, [x0, x1]) in vectors.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [mut a, mut b] = [load(x0), load(x1)];
            forward_tail(prime, roots, table.degree, i, &mut a, &mut b);
            store(x0, a);
            store(x1, b);
        }
    }
}

/// The last four stages on the 16 entries of `a` and `b`, pair `i` of vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
fn forward_tail(
    prime: Prime,
    roots: &Roots52,
    degree: usize,
    i: usize,
    a: &mut __m512i,
    b: &mut __m512i,
) {
    prime.forward(a, b, roots.one(degree / 16 + i));
    // a0-3 b0-3 | a4-7 b4-7
    let mut x = _mm512_shuffle_i64x2::<0x44>(*a, *b);
    let mut y = _mm512_shuffle_i64x2::<0xee>(*a, *b);
    let lanes = _mm512_setr_epi64(0, 0, 0, 0, 1, 1, 1, 1);
    prime.forward(&mut x, &mut y, roots.spread::<2>(degree / 8 + 2 * i, lanes));
    // a01 b01 a45 b45 | a23 b23 a67 b67
    let mut u = _mm512_shuffle_i64x2::<0x88>(x, y);
    let mut v = _mm512_shuffle_i64x2::<0xdd>(x, y);
    let lanes = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
    prime.forward(&mut u, &mut v, roots.spread::<4>(degree / 4 + 4 * i, lanes));
    // a0 a2 b0 b2 a4 a6 b4 b6 | a1 a3 b1 b3 a5 a7 b5 b7
    let mut x = _mm512_unpacklo_epi64(u, v);
    let mut y = _mm512_unpackhi_epi64(u, v);
    prime.forward(&mut x, &mut y, roots.eight(degree / 2 + 8 * i));
    let (x, y) = (prime.canonical(x), prime.canonical(y));
    let first = _mm512_setr_epi64(0, 8, 1, 9, 4, 12, 5, 13);
    let second = _mm512_setr_epi64(2, 10, 3, 11, 6, 14, 7, 15);
    *a = _mm512_permutex2var_epi64(x, first, y);
    *b = _mm512_permutex2var_epi64(x, second, y);
}

/// Values to coefficients.
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
pub(super) fn inverse(table: &NttTable, values: &mut [u64]) {
    let prime = Prime::new(&table.modulus);
    let roots = &table.inverse52;
    let scale = table
        .scale
        .map(|root| Root::splat(root.value(), root.quotient() >> 12));
    let vectors = values.as_chunks_mut::<LANES>().0;
    let tail = tail_vectors(table.degree);
    let mut blocks = vectors.len() / tail;
    let only_tail = blocks == 1;
    if tail == 4 {
        for (i, [x0, x1, x2, x3]) in vectors.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let [mut a, mut b, mut c, mut d] = [load(x0), load(x1), load(x2), load(x3)];
            inverse_tail(prime, roots, table.degree, 2 * i, &mut a, &mut b);
            inverse_tail(prime, roots, table.degree, 2 * i + 1, &mut c, &mut d);
            if only_tail {
                prime.inverse_last(&mut a, &mut c, scale);
                prime.inverse_last(&mut b, &mut d, scale);
            } else {
                let root = roots.one(blocks + i);
                prime.inverse(&mut a, &mut c, root);
                prime.inverse(&mut b, &mut d, root);
            }
            store(x0, a);
            store(x1, b);
            store(x2, c);
            store(x3, d);
        }
    } else {
        for (i, [x0, x1]) in vectors.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [mut a, mut b] = [load(x0), load(x1)];
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
                } else {
                    prime.inverse(&mut a, &mut c, second);
                    prime.inverse(&mut b, &mut d, second);
                }
                store(x0, a);
                store(x1, b);
                store(x2, c);
                store(x3, d);
            }
        }
    }
}

/// The first four stages on the 16 entries of `a` and `b`, pair `i` of vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
fn inverse_tail(
    prime: Prime,
    roots: &Roots52,
    degree: usize,
    i: usize,
    a: &mut __m512i,
    b: &mut __m512i,
) {
    // a0 a2 b0 b2 a4 a6 b4 b6 | a1 a3 b1 b3 a5 a7 b5 b7
    let even = _mm512_setr_epi64(0, 2, 8, 10, 4, 6, 12, 14);
    let odd = _mm512_setr_epi64(1, 3, 9, 11, 5, 7, 13, 15);
    let mut x = _mm512_permutex2var_epi64(*a, even, *b);
    let mut y = _mm512_permutex2var_epi64(*a, odd, *b);
    prime.inverse(&mut x, &mut y, roots.eight(degree / 2 + 8 * i));
    // a01 b01 a45 b45 | a23 b23 a67 b67
    let mut u = _mm512_unpacklo_epi64(x, y);
    let mut v = _mm512_unpackhi_epi64(x, y);
    let lanes = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
    prime.inverse(&mut u, &mut v, roots.spread::<4>(degree / 4 + 4 * i, lanes));
    // a01 b01 a23 b23 | a45 b45 a67 b67
    let mut x = _mm512_shuffle_i64x2::<0x44>(u, v);
    let mut y = _mm512_shuffle_i64x2::<0xee>(u, v);
    let lanes = _mm512_setr_epi64(0, 0, 1, 1, 0, 0, 1, 1);
    prime.inverse(&mut x, &mut y, roots.spread::<2>(degree / 8 + 2 * i, lanes));
    *a = _mm512_shuffle_i64x2::<0x88>(x, y);
    *b = _mm512_shuffle_i64x2::<0xdd>(x, y);
    prime.inverse(a, b, roots.one(degree / 16 + i));
}
