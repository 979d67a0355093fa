//! Arithmetic modulo a prime below 2^50: single residues, element-wise sums,
//! and fused multiply-accumulate over whole polynomials.
//!
//! All functions take and return *canonical* residues, in `[0, p)`, so every
//! instruction set gives the same bytes. Residues are secret: there is no
//! branch, index or division that depends on one.

use crate::Arch;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Most products that one call accumulates before its single reduction.
///
/// A product of two residues below 2^50 has a low half below 2^52 and a high
/// half below 2^48. Twice this many products (the second output of
/// [`tensor`] takes two a pair) plus the initial value keep the sum of low
/// halves below 2^64 and the whole sum below 2^112.
pub const MAX_PAIRS: usize = 1024;

/// Largest modulus, exclusive: four times a residue fits 52 bits, the width of
/// the IFMA multiplier, and a residue is exact in an `f64`.
pub const MODULUS_LIMIT: u64 = 1 << 50;

/// Two polynomials of one limb; what they mean is the caller's affair.
pub type Pair<'a> = (&'a [u64], &'a [u64]);

/// An odd modulus `p`, `3 <= p < 2^50`, with its precomputed constants.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Modulus {
    p: u64,
    /// floor(2^64 / p), for Barrett reduction of one word.
    barrett: u64,
    /// 2^64 mod p.
    word: Multiplier,
    /// 2^52 mod p and 2^104 mod p, weights of the IFMA accumulators.
    limb: Multiplier,
    limb_squared: Multiplier,
}

/// A fixed factor with Shoup's quotient, so that a product needs no division.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Multiplier {
    /// The factor, in `[0, p)`.
    value: u64,
    /// floor(value * 2^64 / p).
    quotient: u64,
}

impl Multiplier {
    /// The factor.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.value
    }

    /// A factor whose quotient was computed before.
    pub(crate) const fn from_parts(value: u64, quotient: u64) -> Self {
        Self { value, quotient }
    }

    /// floor(value * 2^64 / p).
    #[must_use]
    pub(crate) const fn quotient(self) -> u64 {
        self.quotient
    }
}

impl Modulus {
    /// Precomputes the constants of `p`. Time depends on `p`, which is public.
    ///
    /// # Panics
    /// Unless `p` is odd and `3 <= p < 2^50`.
    #[must_use]
    pub fn new(p: u64) -> Self {
        assert!(
            p % 2 == 1 && (3..MODULUS_LIMIT).contains(&p),
            "modulus {p} is not odd and in 3..2^50"
        );
        let multiplier = |value: u128| {
            let value = value % u128::from(p);
            Multiplier {
                value: value as u64,
                quotient: ((value << 64) / u128::from(p)) as u64,
            }
        };
        Self {
            p,
            barrett: u64::MAX / p,
            word: multiplier(1 << 64),
            limb: multiplier(1 << 52),
            limb_squared: multiplier(1 << 104),
        }
    }

    /// The modulus itself.
    #[must_use]
    pub const fn value(&self) -> u64 {
        self.p
    }

    /// Prepares a fixed factor.
    ///
    /// # Panics
    /// Unless `value < p`.
    ///
    /// # Security
    /// Divides, so its time may depend on `value`: for public factors only.
    #[must_use]
    pub fn multiplier(&self, value: u64) -> Multiplier {
        assert!(value < self.p, "a factor must be below its modulus");
        Multiplier {
            value,
            quotient: ((u128::from(value) << 64) / u128::from(self.p)) as u64,
        }
    }

    /// `x` mod `p` for any word.
    #[inline(always)]
    #[must_use]
    pub const fn reduce(&self, x: u64) -> u64 {
        self.once(self.reduce_lazy(x))
    }

    /// `x` mod `p` for any double word.
    #[inline(always)]
    #[must_use]
    pub const fn reduce_wide(&self, x: u128) -> u64 {
        let high = self.mul_lazy((x >> 64) as u64, self.word);
        let low = self.reduce_lazy(x as u64);
        self.canonical(high + low)
    }

    /// `a * b` mod `p` for canonical `a`, `b` (any words, in fact).
    #[inline(always)]
    #[must_use]
    pub const fn mul(&self, a: u64, b: u64) -> u64 {
        self.reduce_wide(a as u128 * b as u128)
    }

    /// `a` times a fixed factor, mod `p`, for any word `a`.
    #[inline(always)]
    #[must_use]
    pub const fn mul_fixed(&self, a: u64, factor: Multiplier) -> u64 {
        self.once(self.mul_lazy(a, factor))
    }

    /// `a + b` mod `p` for canonical `a`, `b`.
    #[inline(always)]
    #[must_use]
    pub const fn add(&self, a: u64, b: u64) -> u64 {
        self.once(a + b)
    }

    /// `a - b` mod `p` for canonical `a`, `b`.
    #[inline(always)]
    #[must_use]
    pub const fn sub(&self, a: u64, b: u64) -> u64 {
        self.once(a + self.p - b)
    }

    /// `-a` mod `p` for canonical `a`.
    #[inline(always)]
    #[must_use]
    pub const fn neg(&self, a: u64) -> u64 {
        self.once(self.p - a)
    }

    /// `base` to the power `exponent`, mod `p`.
    ///
    /// # Security
    /// Time depends on the exponent: for public exponents only.
    #[must_use]
    pub const fn pow(&self, base: u64, mut exponent: u64) -> u64 {
        let mut square = self.reduce(base);
        let mut result = 1;
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = self.mul(result, square);
            }
            square = self.mul(square, square);
            exponent >>= 1;
        }
        result
    }

    /// `1 / a` mod `p`, for a prime `p` and `a` not zero mod `p`.
    #[must_use]
    pub const fn inverse(&self, a: u64) -> u64 {
        self.pow(a, self.p - 2)
    }

    /// `a * factor` mod `p` up to one `p` too much, for any word `a`.
    #[inline(always)]
    pub(crate) const fn mul_lazy(&self, a: u64, factor: Multiplier) -> u64 {
        let q = ((a as u128 * factor.quotient as u128) >> 64) as u64;
        a.wrapping_mul(factor.value)
            .wrapping_sub(q.wrapping_mul(self.p))
    }

    /// From `[0, 2p)` to `[0, p)`.
    #[inline(always)]
    pub(crate) const fn once(&self, x: u64) -> u64 {
        minimum(x, x.wrapping_sub(self.p))
    }

    /// From `[0, 4p)` to `[0, 2p)`.
    #[inline(always)]
    pub(crate) const fn twice(&self, x: u64) -> u64 {
        minimum(x, x.wrapping_sub(2 * self.p))
    }

    /// From `[0, 4p)` to `[0, p)`.
    #[inline(always)]
    pub(crate) const fn canonical(&self, x: u64) -> u64 {
        self.once(self.twice(x))
    }

    /// To `[0, 2p)` from any word.
    #[inline(always)]
    const fn reduce_lazy(&self, x: u64) -> u64 {
        let q = ((x as u128 * self.barrett as u128) >> 64) as u64;
        x.wrapping_sub(q.wrapping_mul(self.p))
    }
}

/// The smaller of two words where at most one has its top bit set or both are
/// below 2^63: a mask from the borrow, so that no compiler makes it a branch
/// on the residue.
#[inline(always)]
const fn minimum(x: u64, reduced: u64) -> u64 {
    // `reduced` = x - k is negative (top bit set) exactly when x < k.
    let borrow = (reduced >> 63).wrapping_neg();
    (x & borrow) | (reduced & !borrow)
}

/// `out[i] = out[i] + x[i]` mod `p`.
///
/// # Panics
/// When the lengths differ.
pub fn add_assign(arch: Arch, modulus: &Modulus, out: &mut [u64], x: &[u64]) {
    assert_eq!(out.len(), x.len(), "polynomials of different lengths");
    arch.vectorize(
        #[inline(always)]
        || {
            for (out, &x) in out.iter_mut().zip(x) {
                *out = modulus.add(*out, x);
            }
        },
    );
}

/// `out[i] = out[i] - x[i]` mod `p`.
///
/// # Panics
/// When the lengths differ.
pub fn sub_assign(arch: Arch, modulus: &Modulus, out: &mut [u64], x: &[u64]) {
    assert_eq!(out.len(), x.len(), "polynomials of different lengths");
    arch.vectorize(
        #[inline(always)]
        || {
            for (out, &x) in out.iter_mut().zip(x) {
                *out = modulus.sub(*out, x);
            }
        },
    );
}

/// `out[i] = -out[i]` mod `p`.
pub fn negate(arch: Arch, modulus: &Modulus, out: &mut [u64]) {
    arch.vectorize(
        #[inline(always)]
        || {
            for out in out.iter_mut() {
                *out = modulus.neg(*out);
            }
        },
    );
}

/// `out[i] = out[i] + sum of a[i] * b[i]` over all pairs `(a, b)`, mod `p`.
///
/// # Panics
/// When a length differs from that of `out`, or with more than [`MAX_PAIRS`].
pub fn inner_product(arch: Arch, modulus: &Modulus, out: &mut [u64], pairs: &[Pair<'_>]) {
    check_pairs(out.len(), pairs);
    match arch {
        #[cfg(target_arch = "x86_64")]
        Arch::Avx512(_) if out.len().is_multiple_of(8) => {
            // SAFETY: an `Avx512` value proves the features of the kernel.
            unsafe { avx512::inner_product(modulus, out, pairs) }
        }
        #[cfg(target_arch = "x86_64")]
        Arch::Avx512(_) | Arch::Avx2(_) if out.len().is_multiple_of(4) => {
            // SAFETY: either value proves the features of the kernel.
            unsafe { avx2::inner_product(modulus, out, pairs) }
        }
        _ => portable::inner_product(modulus, out, pairs),
    }
}

/// The first two parts of a sum of ciphertext products.
///
/// For each query ciphertext `(b, a)` and the block ciphertext `(b', a')` of
/// the same position, `out0[i] += b[i] * b'[i]` and
/// `out1[i] += b[i] * a'[i] + a[i] * b'[i]`, mod `p`.
///
/// # Panics
/// When a length differs from that of `out0`, when there are more than
/// [`MAX_PAIRS`], or not as many query as block ciphertexts.
pub fn tensor(
    arch: Arch,
    modulus: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    query: &[Pair<'_>],
    block: &[Pair<'_>],
) {
    check_pairs(out0.len(), query);
    check_pairs(out0.len(), block);
    assert_eq!(out0.len(), out1.len(), "outputs of different lengths");
    assert_eq!(
        query.len(),
        block.len(),
        "{} query ciphertexts against {} of the block",
        query.len(),
        block.len()
    );
    match arch {
        #[cfg(target_arch = "x86_64")]
        Arch::Avx512(_) if out0.len().is_multiple_of(8) => {
            // SAFETY: an `Avx512` value proves the features of the kernel.
            unsafe { avx512::tensor(modulus, out0, out1, query, block) }
        }
        #[cfg(target_arch = "x86_64")]
        Arch::Avx512(_) | Arch::Avx2(_) if out0.len().is_multiple_of(4) => {
            // SAFETY: either value proves the features of the kernel.
            unsafe { avx2::tensor(modulus, out0, out1, query, block) }
        }
        _ => portable::tensor(modulus, out0, out1, query, block),
    }
}

fn check_pairs(length: usize, pairs: &[Pair<'_>]) {
    assert!(
        pairs.len() <= MAX_PAIRS,
        "{} products exceed the {MAX_PAIRS} that one reduction covers",
        pairs.len()
    );
    for (a, b) in pairs {
        assert_eq!(a.len(), length, "polynomials of different lengths");
        assert_eq!(b.len(), length, "polynomials of different lengths");
    }
}

#[cfg(test)]
mod tests;
