//! Chinese remaindering: residues of one coefficient to the number they stand
//! for, in mixed radix, so that all products are modulo one prime.

use oboro_simd::modmul::{Modulus, Multiplier};

/// Constants to compose residues of a fixed list of primes.
pub(crate) struct Composer {
    digits: Vec<Digit>,
    modulus: u128,
}

/// The step that adds prime `i` to the product of those before it.
struct Digit {
    prime: Modulus,
    /// p_0 ... p_(i-1) as a number.
    weight: u128,
    /// (p_0 ... p_(i-1))^-1 mod p_i.
    inverse: Multiplier,
}

impl Composer {
    /// The primes must be distinct and their product below 2^126.
    pub(crate) fn new(primes: &[u64]) -> Self {
        let mut weight = 1u128;
        let digits = primes
            .iter()
            .map(|&p| {
                let prime = Modulus::new(p);
                let inverse = prime.multiplier(prime.inverse(prime.reduce_wide(weight)));
                let digit = Digit {
                    prime,
                    weight,
                    inverse,
                };
                weight *= u128::from(p);
                digit
            })
            .collect();
        Self {
            digits,
            modulus: weight,
        }
    }

    pub(crate) const fn modulus(&self) -> u128 {
        self.modulus
    }

    /// The number in `[0, q)` with these residues; `residue(i)` is the one
    /// modulo prime `i`.
    #[inline(always)]
    pub(crate) fn compose(&self, residue: impl Fn(usize) -> u64) -> u128 {
        let first = residue(0);
        let mut value = u128::from(first);
        for (i, digit) in self.digits.iter().enumerate().skip(1) {
            let prime = &digit.prime;
            let known = if i == 1 {
                prime.reduce(first)
            } else {
                prime.reduce_wide(value)
            };
            let factor = prime.mul_fixed(prime.sub(residue(i), known), digit.inverse);
            value += digit.weight * u128::from(factor);
        }
        value
    }

    /// From `[0, q)` to the representative nearest zero, in `(-q/2, q/2)`.
    #[inline(always)]
    pub(crate) const fn center(&self, value: u128) -> i128 {
        // All ones when value > (q-1)/2, without a branch; q is odd.
        let above = ((self.modulus >> 1) as i128 - value as i128) >> 127;
        value as i128 - (self.modulus as i128 & above)
    }
}
