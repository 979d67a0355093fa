//! Parameter sets, named by what they are; there are no free parameters.

use std::sync::{Arc, OnceLock};

use oboro_ring::Ring;

/// A ring degree and a modulus with a known security level.
///
/// Security is the smaller of the primal (usvp, bdd) and dual-hybrid attacks'
/// cost by the lattice estimator (BDGL16 sieving, classical), for a secret
/// uniform in {-1, 0, 1} and errors of standard deviation 3.16; the errors
/// drawn here are slightly larger, 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParameterSet {
    /// N = 2048, one 50-bit prime: 139 bits. The default.
    N2048Q50,
    /// N = 4096, two 50-bit primes: 140 bits. Leaves about 25 bits more room to
    /// drown the noise in, for settings in which tables may be observed.
    N4096Q100,
}

/// The largest primes below 2^50 that are 1 modulo 2N.
const PRIMES_2048: [u64; 1] = [1_125_899_906_826_241];
const PRIMES_4096: [u64; 2] = [1_125_899_906_826_241, 1_125_899_906_629_633];

/// (N, largest log2 q, bits of security at that q): the estimator's results
/// that bound a set from above.
const ESTIMATES: [(usize, f64, u32); 6] = [
    (2048, 50.0, 139),
    (2048, 53.0, 131),
    (2048, 54.0, 127),
    (4096, 100.0, 140),
    (4096, 106.0, 131),
    (4096, 109.0, 127),
];

impl ParameterSet {
    /// Every set.
    pub const ALL: [Self; 2] = [Self::N2048Q50, Self::N4096Q100];

    /// `N2048_Q50` or `N4096_Q100`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::N2048Q50 => "N2048_Q50",
            Self::N4096Q100 => "N4096_Q100",
        }
    }

    /// The set of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }

    /// N, the number of coefficients.
    #[must_use]
    pub const fn degree(self) -> usize {
        match self {
            Self::N2048Q50 => 2048,
            Self::N4096Q100 => 4096,
        }
    }

    /// The primes whose product is q.
    #[must_use]
    pub const fn primes(self) -> &'static [u64] {
        match self {
            Self::N2048Q50 => &PRIMES_2048,
            Self::N4096Q100 => &PRIMES_4096,
        }
    }

    /// log2 q.
    #[must_use]
    pub fn log2_modulus(self) -> f64 {
        self.primes().iter().map(|&p| (p as f64).log2()).sum()
    }

    /// Bits of security against the best known classical lattice attack.
    #[must_use]
    pub fn security_bits(self) -> u32 {
        let log2_q = self.log2_modulus();
        ESTIMATES
            .iter()
            .filter(|(degree, largest, _)| *degree == self.degree() && log2_q <= *largest)
            .map(|&(_, _, bits)| bits)
            .max()
            .unwrap_or(0)
    }

    /// The ring, shared by all who ask.
    #[must_use]
    pub fn ring(self) -> Arc<Ring> {
        static RINGS: [OnceLock<Arc<Ring>>; 2] = [OnceLock::new(), OnceLock::new()];
        RINGS[self as usize]
            .get_or_init(|| {
                Ring::new(self.degree(), self.primes())
                    .expect("the primes of every set are checked by a test")
            })
            .clone()
    }

    /// One byte on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::N2048Q50 => 1,
            Self::N4096Q100 => 2,
        }
    }

    /// The set of that byte.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.code() == code)
    }

    /// Low bits of each coefficient that need not travel to the keeper, and
    /// the bytes that the rest takes. Dropping them costs an error far below
    /// the keeper's dither; [`crate::TableScale`] counts it.
    #[must_use]
    pub(crate) const fn truncation(self) -> (u32, usize) {
        match self {
            Self::N2048Q50 => (26, 3),
            Self::N4096Q100 => (52, 6),
        }
    }

    /// Bits by which a share is shifted so that it fits 50 bits.
    pub(crate) const fn share_shift(self) -> u32 {
        match self {
            Self::N2048Q50 => 0,
            Self::N4096Q100 => 50,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oboro_ring::prime;

    #[test]
    fn every_set_has_128_bits_and_the_primes_it_claims() {
        for set in ParameterSet::ALL {
            assert!(set.security_bits() >= 128, "{}", set.name());
            let count = set.primes().len();
            assert_eq!(
                prime::largest_ntt_primes(set.degree(), 50, count),
                set.primes(),
                "{}",
                set.name()
            );
            assert!(set.log2_modulus() <= 50.0 * count as f64);
            assert_eq!(ParameterSet::from_name(set.name()), Some(set));
            assert_eq!(ParameterSet::from_code(set.code()), Some(set));
        }
    }

    #[test]
    fn a_modulus_beyond_the_table_has_no_security_claim() {
        assert!(ESTIMATES.iter().filter(|e| e.2 < 128).all(|e| e.1 > 50.0));
    }
}
