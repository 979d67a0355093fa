//! Residues as `f64`, products by fused multiply-add, four lanes.
//!
//! With h = a b rounded, l = a b - h exactly and q = h / p rounded,
//! a b - q p = (h - q p) + l. For canonical a, b below 2^50 the three
//! roundings in h (1/p) add less than 3/8, so the result is at most 7/8 p in
//! magnitude, and every sum here is an integer below 2^53: exact.

use std::arch::x86_64::*;

use super::{Modulus, Pair};

const LANES: usize = 4;

/// One vector.
pub(crate) type Words = [u64; LANES];

/// Products summed between two reductions: 1 + 4 * 7/8 p is below 2^53.
const BURST: usize = 4;

/// Constants in registers.
#[derive(Clone, Copy)]
pub(crate) struct Prime {
    p: __m256d,
    inverse: __m256d,
}

impl Prime {
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn new(modulus: &Modulus) -> Self {
        let p = modulus.value() as f64;
        Self {
            p: _mm256_set1_pd(p),
            inverse: _mm256_set1_pd(1.0 / p),
        }
    }

    /// `high + low - round(quotient) * p`.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn fold(self, high: __m256d, low: __m256d, quotient: __m256d) -> __m256d {
        let q = round(quotient);
        _mm256_add_pd(_mm256_fnmadd_pd(q, self.p, high), low)
    }

    /// `a * b` mod p for canonical integers, below p in magnitude.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn mul(self, a: __m256d, b: __m256d) -> __m256d {
        let high = _mm256_mul_pd(a, b);
        let low = _mm256_fmsub_pd(a, b, high);
        self.fold(high, low, _mm256_mul_pd(high, self.inverse))
    }

    /// The representative nearest zero of an integer below 2^53 in magnitude.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub(crate) fn reduce(self, x: __m256d) -> __m256d {
        let q = round(_mm256_mul_pd(x, self.inverse));
        _mm256_fnmadd_pd(q, self.p, x)
    }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn round(x: __m256d) -> __m256d {
    _mm256_round_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
}

/// Words below 2^52 as numbers: put them in the mantissa of 2^52, take that
/// away.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn load_integers(words: &Words) -> __m256d {
    // SAFETY: the reference covers the 32 bytes that are read.
    let bits = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
    let magic = _mm256_set1_pd((1u64 << 52) as f64);
    let shifted = _mm256_or_si256(bits, _mm256_castpd_si256(magic));
    _mm256_sub_pd(_mm256_castsi256_pd(shifted), magic)
}

/// Integers below 2^53 in magnitude to canonical residues.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn store_canonical(prime: Prime, words: &mut Words, x: __m256d) {
    let x = prime.reduce(x);
    // blendv looks at the sign alone; -0 + p would be p, but a difference of
    // equal numbers is +0 when rounding to nearest.
    let x = _mm256_blendv_pd(x, _mm256_add_pd(x, prime.p), x);
    let magic = _mm256_set1_pd((1u64 << 52) as f64);
    let bits = _mm256_castpd_si256(_mm256_add_pd(x, magic));
    let bits = _mm256_xor_si256(bits, _mm256_castpd_si256(magic));
    // SAFETY: the reference covers the 32 bytes that are written.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), bits) }
}

/// Lengths must be multiples of four; the caller sees to the rest.
#[target_feature(enable = "avx2,fma")]
pub(super) fn inner_product(modulus: &Modulus, out: &mut [u64], pairs: &[Pair<'_>]) {
    let prime = Prime::new(modulus);
    for (i, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let mut sum = load_integers(out);
        for burst in pairs.chunks(BURST) {
            for (a, b) in burst {
                let product = prime.mul(at(a, i), at(b, i));
                sum = _mm256_add_pd(sum, product);
            }
            sum = prime.reduce(sum);
        }
        store_canonical(prime, out, sum);
    }
}

/// Lengths must be multiples of four; the caller sees to the rest.
#[target_feature(enable = "avx2,fma")]
pub(super) fn tensor(
    modulus: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    query: &[Pair<'_>],
    block: &[Pair<'_>],
) {
    let prime = Prime::new(modulus);
    let outs = out0
        .as_chunks_mut::<LANES>()
        .0
        .iter_mut()
        .zip(out1.as_chunks_mut::<LANES>().0);
    for (i, (out0, out1)) in outs.enumerate() {
        let (mut sum0, mut sum1) = (load_integers(out0), load_integers(out1));
        for (query, block) in query.chunks(BURST / 2).zip(block.chunks(BURST / 2)) {
            for ((b, a), (block_b, block_a)) in query.iter().zip(block) {
                let (b, a) = (at(b, i), at(a, i));
                let (block_b, block_a) = (at(block_b, i), at(block_a, i));
                sum0 = _mm256_add_pd(sum0, prime.mul(b, block_b));
                sum1 = _mm256_add_pd(sum1, prime.mul(b, block_a));
                sum1 = _mm256_add_pd(sum1, prime.mul(a, block_b));
            }
            sum0 = prime.reduce(sum0);
            sum1 = prime.reduce(sum1);
        }
        store_canonical(prime, out0, sum0);
        store_canonical(prime, out1, sum1);
    }
}

/// Vector `i` of a polynomial.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn at(words: &[u64], i: usize) -> __m256d {
    load_integers(&words.as_chunks::<LANES>().0[i])
}
