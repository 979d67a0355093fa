//! Random polynomials. The generator is always an argument.

use chacha20::ChaCha20Rng;
use rand_core::{CryptoRng, SeedableRng};
use zeroize::{Zeroize, Zeroizing};

use crate::poly::{Coefficient, Evaluation, Form, Poly};
use crate::ring::Ring;

/// Values a sampler makes from one draw of bytes.
const CHUNK: usize = 256;

/// A uniformly random element of R_q.
///
/// Limb after limb, each residue is the next little-endian 64-bit word of the
/// generator's stream of bytes, cut to the bits of the prime, that is below
/// the prime; others are skipped. (More of the stream may be consumed than is
/// used.)
pub fn uniform<F: Form>(ring: &Ring, rng: &mut impl CryptoRng) -> Poly<F> {
    let mut poly = Poly::zero(ring);
    let mut words = Words::new(rng);
    for (modulus, limb) in poly.limbs_mut(ring) {
        let p = modulus.value();
        let mask = u64::MAX >> p.leading_zeros();
        let mut filled = 0;
        while filled < limb.len() {
            for word in words.next(limb.len() - filled) {
                let candidate = word & mask;
                limb[filled] = candidate;
                // Whether a draw was rejected says nothing about those kept.
                filled += usize::from(candidate < p);
            }
        }
    }
    poly
}

/// The uniformly random element that a seed stands for: [`uniform`] from
/// ChaCha20 with this key, counter zero and this stream number. Part of the
/// wire format.
#[must_use]
pub fn uniform_from_seed(ring: &Ring, seed: &[u8; 32], stream: u64) -> Poly<Evaluation> {
    let mut rng = ChaCha20Rng::from_seed(*seed);
    rng.set_stream(stream);
    uniform(ring, &mut rng)
}

/// Coefficients independently and exactly uniform in {-1, 0, 1}.
///
/// A byte below 3^5 = 243 holds five base-3 digits; other bytes are skipped.
///
/// # Security
/// No branch depends on a value. How many bytes are skipped, and so the time,
/// is independent of the values that are kept.
pub fn ternary(ring: &Ring, rng: &mut impl CryptoRng) -> Poly<Coefficient> {
    const DIGITS: usize = 5;
    let mut values = Zeroizing::new(vec![0i8; ring.degree() + DIGITS]);
    let mut bytes = Zeroizing::new([0; CHUNK]);
    let mut filled = 0;
    while filled < ring.degree() {
        rng.fill_bytes(&mut *bytes);
        let kept = bytes.map(|byte| u8::from(byte < 243));
        // Which bytes are skipped says nothing about those that are kept.
        oboro_simd::taint::public(&kept);
        for (&byte, &kept) in bytes.iter().zip(&kept) {
            let mut rest = u32::from(byte);
            for value in &mut values[filled..filled + DIGITS] {
                // rest / 3 for rest < 256, without a division.
                let quotient = (rest * 171) >> 9;
                *value = (rest - 3 * quotient) as i8 - 1;
                rest = quotient;
            }
            filled = (filled + DIGITS * usize::from(kept)).min(ring.degree());
        }
    }
    let mut poly = Poly::zero(ring);
    poly.add_noise(ring, &values[..ring.degree()]);
    poly
}

/// Cumulative probabilities of |x| <= k, k = 0, 1, ..., in units of 2^-15, of
/// the discrete Gaussian with standard deviation 3.2 rounded to such units.
const GAUSSIAN: [u16; 14] = [
    4085, 11866, 18587, 23852, 27592, 30003, 31412, 32158, 32517, 32674, 32736, 32758, 32765, 32767,
];

/// Coefficients independently from a discrete Gaussian with standard deviation
/// 3.2 (variance 10.24, magnitude at most 14): the error distribution.
///
/// Inversion sampling from 16 bits a value, one for the sign and 15 for the
/// magnitude, as FrodoKEM samples its errors.
///
/// # Security
/// Constant time: every value is compared with the whole table.
pub fn gaussian(ring: &Ring, rng: &mut impl CryptoRng) -> Poly<Coefficient> {
    let noise = Zeroizing::new(gaussian_values(ring.degree(), rng));
    let mut poly = Poly::zero(ring);
    poly.add_noise(ring, &noise);
    poly
}

/// `count` values of the distribution of [`gaussian`].
///
/// # Security
/// Constant time.
pub fn gaussian_values(count: usize, rng: &mut impl CryptoRng) -> Vec<i8> {
    let arch = oboro_simd::Arch::detect();
    let mut values = vec![0; count];
    let mut bytes = Zeroizing::new([0; 2 * CHUNK]);
    for values in values.chunks_mut(CHUNK) {
        let bytes = &mut bytes[..2 * values.len()];
        rng.fill_bytes(bytes);
        arch.vectorize(
            #[inline(always)]
            || {
                for (value, word) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    let word = u16::from_le_bytes(*word);
                    let draw = word >> 1;
                    let mut magnitude = 0i16;
                    for bound in GAUSSIAN {
                        // All ones where bound <= draw.
                        magnitude -= !((draw.wrapping_sub(bound) as i16) >> 15);
                    }
                    let sign = -((word & 1) as i16);
                    *value = ((magnitude ^ sign) - sign) as i8;
                }
            },
        );
    }
    values
}

/// A generator's stream as little-endian words.
struct Words<'a, R> {
    rng: &'a mut R,
    bytes: [u8; 8 * CHUNK],
}

impl<'a, R: CryptoRng> Words<'a, R> {
    fn new(rng: &'a mut R) -> Self {
        Self {
            rng,
            bytes: [0; 8 * CHUNK],
        }
    }

    /// At least one and at most `most` further words.
    fn next(&mut self, most: usize) -> impl Iterator<Item = u64> {
        let bytes = &mut self.bytes[..8 * most.min(CHUNK)];
        self.rng.fill_bytes(bytes);
        bytes.chunks_exact(8).map(|bytes| {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            u64::from_le_bytes(word)
        })
    }
}

impl<R> Drop for Words<'_, R> {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::GAUSSIAN;

    #[test]
    fn the_table_is_the_discrete_gaussian() {
        let weight = |k: i32| (-f64::from(k * k) / (2.0 * 3.2 * 3.2)).exp();
        let total: f64 = (-60..=60).map(weight).sum();
        for (k, &bound) in GAUSSIAN.iter().enumerate() {
            let k = k as i32;
            let cumulative = (-k..=k).map(weight).sum::<f64>() / total;
            assert_eq!(f64::from(bound), (cumulative * 32768.0).round());
        }
    }
}
