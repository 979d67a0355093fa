//! The context that polynomials of one ring share.

use std::sync::Arc;

use oboro_simd::Arch;
use oboro_simd::modmul::Modulus;
use oboro_simd::ntt::NttTable;

use crate::crt::Composer;
use crate::error::RingError;
use crate::prime;

/// Smallest and largest degree; which of them are secure with which modulus is
/// the affair of the parameter sets above.
const DEGREES: (usize, usize) = (8, oboro_simd::ntt::MAX_DEGREE);

/// Largest modulus, so that centred coefficients and their sums fit an `i128`.
const MODULUS_BITS: u32 = 124;

/// Z_q\[X\]/(X^N + 1) with q a product of distinct primes: roots of unity,
/// constants and the instruction set in use.
pub struct Ring {
    arch: Arch,
    degree: usize,
    primes: Vec<u64>,
    tables: Vec<NttTable>,
    composer: Composer,
}

impl Ring {
    /// The ring of this degree and these primes, on the best instruction set.
    ///
    /// # Errors
    /// When the degree is not a power of two from 8 to 32,768, a prime is not a
    /// distinct prime below 2^50 that is 1 mod 2·`degree`, or the product of
    /// the primes has more than 124 bits.
    pub fn new(degree: usize, primes: &[u64]) -> Result<Arc<Self>, RingError> {
        Self::with_arch(Arch::detect(), degree, primes)
    }

    /// As [`Ring::new`], on a given instruction set; all give the same bytes.
    ///
    /// # Errors
    /// As [`Ring::new`].
    pub fn with_arch(arch: Arch, degree: usize, primes: &[u64]) -> Result<Arc<Self>, RingError> {
        let (minimum, maximum) = DEGREES;
        if !degree.is_power_of_two() || !(minimum..=maximum).contains(&degree) {
            return Err(RingError::Degree {
                degree,
                minimum,
                maximum,
            });
        }
        let order = 2 * degree;
        for (i, &modulus) in primes.iter().enumerate() {
            let fits = modulus < oboro_simd::modmul::MODULUS_LIMIT
                && modulus % order as u64 == 1
                && prime::is_prime(modulus)
                && !primes[..i].contains(&modulus);
            if !fits {
                return Err(RingError::Prime { modulus, order });
            }
        }
        let bits: f64 = primes.iter().map(|&p| (p as f64).log2()).sum();
        if primes.is_empty() || bits > f64::from(MODULUS_BITS) {
            return Err(RingError::Modulus {
                count: primes.len(),
                bits,
                maximum: MODULUS_BITS,
            });
        }
        Ok(Arc::new(Self {
            arch,
            degree,
            primes: primes.to_vec(),
            tables: primes.iter().map(|&p| NttTable::new(degree, p)).collect(),
            composer: Composer::new(primes),
        }))
    }

    /// N, the number of coefficients.
    #[must_use]
    pub const fn degree(&self) -> usize {
        self.degree
    }

    /// The primes whose product is q, in the order of the limbs.
    #[must_use]
    pub fn primes(&self) -> &[u64] {
        &self.primes
    }

    /// Number of primes.
    #[must_use]
    pub fn limbs(&self) -> usize {
        self.primes.len()
    }

    /// q.
    #[must_use]
    pub const fn modulus(&self) -> u128 {
        self.composer.modulus()
    }

    /// log2 of q.
    #[must_use]
    pub fn log2_modulus(&self) -> f64 {
        self.primes.iter().map(|&p| (p as f64).log2()).sum()
    }

    /// The instruction set in use.
    #[must_use]
    pub const fn arch(&self) -> Arch {
        self.arch
    }

    /// Bits of q, the length of its binary form.
    pub(crate) const fn modulus_bits(&self) -> u32 {
        u128::BITS - self.modulus().leading_zeros()
    }

    pub(crate) const fn composer(&self) -> &Composer {
        &self.composer
    }

    pub(crate) fn tables(&self) -> &[NttTable] {
        &self.tables
    }

    pub(crate) fn moduli(&self) -> impl Iterator<Item = &Modulus> {
        self.tables.iter().map(NttTable::modulus)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn error(degree: usize, primes: &[u64]) -> RingError {
        Ring::new(degree, primes).err().unwrap()
    }

    #[test]
    fn says_what_it_is() {
        let primes = prime::largest_ntt_primes(4096, 50, 2);
        let ring = Ring::new(4096, &primes).unwrap();
        assert_eq!((ring.degree(), ring.limbs()), (4096, 2));
        assert_eq!(ring.primes(), primes);
        assert_eq!(
            ring.modulus(),
            u128::from(primes[0]) * u128::from(primes[1])
        );
        assert!(ring.log2_modulus() > 99.99 && ring.log2_modulus() < 100.0);
        assert_eq!(ring.modulus_bits(), 100);
    }

    #[test]
    fn fail_degree() {
        for degree in [0, 4, 100, 1 << 16] {
            assert!(matches!(error(degree, &[12289]), RingError::Degree { .. }));
        }
    }

    #[test]
    fn fail_primes() {
        let good = prime::largest_ntt_primes(1024, 50, 3);
        let not_ntt = (1 << 40) - 87; // prime, but not 1 mod 2048
        let composite = good[0] - 2048 * 2;
        let wide = prime::largest_ntt_primes(1024, 51, 1)[0];
        for bad in [0, 1, 2, not_ntt, composite, wide, good[0]] {
            assert!(matches!(
                error(1024, &[good[0], bad]),
                RingError::Prime { .. }
            ));
        }
        assert!(matches!(error(1024, &[]), RingError::Modulus { .. }));
        assert!(matches!(error(1024, &good), RingError::Modulus { .. }));
    }
}
