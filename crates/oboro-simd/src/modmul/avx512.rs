//! Sums of the low and the high 52 bits of products (IFMA), eight lanes.

use std::arch::x86_64::*;

use super::{Modulus, Multiplier, Pair};

const LANES: usize = 8;
type Words = [u64; LANES];

/// Products whose high halves, below 2^48 each, add up to less than 2^52 with
/// the carry from the low halves: one step less to reduce.
const FEW: usize = 8;

/// Constants in registers.
#[derive(Clone, Copy)]
struct Prime {
    p: __m512i,
    two_p: __m512i,
    /// 2^52 - p.
    minus_p: __m512i,
    /// 2^52 - 1.
    mask: __m512i,
    /// floor(2^52 / p).
    barrett: __m512i,
    /// 2^52 and 2^104 mod p, with Shoup's quotients.
    limb: [__m512i; 2],
    limb_squared: [__m512i; 2],
}

/// Low and high halves, not carried.
#[derive(Clone, Copy)]
struct Sum {
    low: __m512i,
    high: __m512i,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(words: &Words) -> Self {
        Self {
            low: load(words),
            high: _mm512_setzero_si512(),
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn add_product(&mut self, a: __m512i, b: __m512i) {
        self.low = _mm512_madd52lo_epu64(self.low, a, b);
        self.high = _mm512_madd52hi_epu64(self.high, a, b);
    }
}

impl Prime {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(modulus: &Modulus) -> Self {
        let splat = |x: u64| _mm512_set1_epi64(x as i64);
        let pair = |m: Multiplier| [splat(m.value()), splat(m.quotient() >> 12)];
        let p = modulus.value();
        Self {
            p: splat(p),
            two_p: splat(2 * p),
            minus_p: splat((1 << 52) - p),
            mask: splat((1 << 52) - 1),
            barrett: splat((1 << 52) / p),
            limb: pair(modulus.limb),
            limb_squared: pair(modulus.limb_squared),
        }
    }

    /// low + 2^52 high mod p, canonical.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn reduce<const MANY: bool>(self, sum: Sum) -> __m512i {
        let zero = _mm512_setzero_si512();
        let high = _mm512_add_epi64(sum.high, _mm512_srli_epi64::<52>(sum.low));
        let low = _mm512_and_si512(sum.low, self.mask);
        // Multiplication reads the low 52 bits of `high` only.
        let q = _mm512_madd52hi_epu64(zero, high, self.limb[1]);
        let q = _mm512_madd52hi_epu64(q, low, self.barrett);
        let x = _mm512_madd52lo_epu64(low, high, self.limb[0]);
        let x = _mm512_madd52lo_epu64(x, q, self.minus_p);
        // The true value is in [0, 4p), so its low 52 bits are all of it.
        let x = _mm512_and_si512(x, self.mask);
        let x = self.once(self.at_most(x, self.two_p));
        if !MANY {
            return x;
        }
        let top = _mm512_srli_epi64::<52>(high);
        let q = _mm512_madd52hi_epu64(zero, top, self.limb_squared[1]);
        let y = _mm512_madd52lo_epu64(zero, top, self.limb_squared[0]);
        let y = _mm512_madd52lo_epu64(y, q, self.minus_p);
        let y = self.once(_mm512_and_si512(y, self.mask));
        self.once(_mm512_add_epi64(x, y))
    }

    /// From [0, 2p) to [0, p).
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn once(self, x: __m512i) -> __m512i {
        self.at_most(x, self.p)
    }

    /// From [0, 2 limit) to [0, limit).
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn at_most(self, x: __m512i, limit: __m512i) -> __m512i {
        _mm512_min_epu64(x, _mm512_sub_epi64(x, limit))
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

/// `COUNT` vectors of a polynomial from vector `i` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn vectors<const COUNT: usize>(words: &[u64], i: usize) -> &[Words; COUNT] {
    &words.as_chunks::<LANES>().0[i..].as_chunks::<COUNT>().0[0]
}

/// Lengths must be multiples of eight; the caller sees to the rest.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn inner_product(modulus: &Modulus, out: &mut [u64], pairs: &[Pair<'_>]) {
    if pairs.len() <= FEW {
        inner_product_sized::<false>(modulus, out, pairs);
    } else {
        inner_product_sized::<true>(modulus, out, pairs);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn inner_product_sized<const MANY: bool>(modulus: &Modulus, out: &mut [u64], pairs: &[Pair<'_>]) {
    let prime = Prime::new(modulus);
    let out = out.as_chunks_mut::<LANES>().0;
    let (wide, rest) = out.as_chunks_mut::<8>();
    let start = 8 * wide.len();
    for (i, out) in wide.iter_mut().enumerate() {
        inner_product_at::<MANY, 8>(prime, 8 * i, out, pairs);
    }
    for (i, out) in rest.iter_mut().enumerate() {
        let out = std::array::from_mut(out);
        inner_product_at::<MANY, 1>(prime, start + i, out, pairs);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn inner_product_at<const MANY: bool, const COUNT: usize>(
    prime: Prime,
    i: usize,
    out: &mut [Words; COUNT],
    pairs: &[Pair<'_>],
) {
    let mut sums = [Sum::new(&[0; LANES]); COUNT];
    for (sum, out) in sums.iter_mut().zip(&*out) {
        *sum = Sum::new(out);
    }
    for (a, b) in pairs {
        let (a, b) = (vectors::<COUNT>(a, i), vectors::<COUNT>(b, i));
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            sum.add_product(load(a), load(b));
        }
    }
    for (sum, out) in sums.into_iter().zip(out) {
        store(out, prime.reduce::<MANY>(sum));
    }
}

/// Lengths must be multiples of eight; the caller sees to the rest.
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn tensor(
    modulus: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    query: &[Pair<'_>],
    block: &[Pair<'_>],
) {
    if 2 * query.len() <= FEW {
        tensor_sized::<false>(modulus, out0, out1, query, block);
    } else {
        tensor_sized::<true>(modulus, out0, out1, query, block);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn tensor_sized<const MANY: bool>(
    modulus: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    query: &[Pair<'_>],
    block: &[Pair<'_>],
) {
    let prime = Prime::new(modulus);
    let out0 = out0.as_chunks_mut::<LANES>().0;
    let out1 = out1.as_chunks_mut::<LANES>().0;
    let (wide0, rest0) = out0.as_chunks_mut::<4>();
    let (wide1, rest1) = out1.as_chunks_mut::<4>();
    let start = 4 * wide0.len();
    for (i, (out0, out1)) in wide0.iter_mut().zip(wide1).enumerate() {
        tensor_at::<MANY, 4>(prime, 4 * i, out0, out1, query, block);
    }
    for (i, (out0, out1)) in rest0.iter_mut().zip(rest1).enumerate() {
        let (out0, out1) = (std::array::from_mut(out0), std::array::from_mut(out1));
        tensor_at::<MANY, 1>(prime, start + i, out0, out1, query, block);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn tensor_at<const MANY: bool, const COUNT: usize>(
    prime: Prime,
    i: usize,
    out0: &mut [Words; COUNT],
    out1: &mut [Words; COUNT],
    query: &[Pair<'_>],
    block: &[Pair<'_>],
) {
    let zero = Sum::new(&[0; LANES]);
    let (mut sums0, mut sums1) = ([zero; COUNT], [zero; COUNT]);
    for k in 0..COUNT {
        sums0[k] = Sum::new(&out0[k]);
        sums1[k] = Sum::new(&out1[k]);
    }
    for ((b, a), (block_b, block_a)) in query.iter().zip(block) {
        let (b, a) = (vectors::<COUNT>(b, i), vectors::<COUNT>(a, i));
        let block_b = vectors::<COUNT>(block_b, i);
        let block_a = vectors::<COUNT>(block_a, i);
        for k in 0..COUNT {
            let (b, block_b) = (load(&b[k]), load(&block_b[k]));
            sums0[k].add_product(b, block_b);
            sums1[k].add_product(b, load(&block_a[k]));
            sums1[k].add_product(load(&a[k]), block_b);
        }
    }
    for k in 0..COUNT {
        store(&mut out0[k], prime.reduce::<MANY>(sums0[k]));
        store(&mut out1[k], prime.reduce::<MANY>(sums1[k]));
    }
}
