//! What can be wrong with a ring or with bytes from elsewhere.

/// Why a ring cannot be made or bytes are not a polynomial.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The degree is not supported.
    #[error(
        "ring degree {degree} is not a power of two from {minimum} to {maximum}; choose one of those"
    )]
    Degree {
        /// The degree asked for.
        degree: usize,
        /// Smallest degree.
        minimum: usize,
        /// Largest degree.
        maximum: usize,
    },
    /// No primes, or so many that a coefficient would not fit 128 bits.
    #[error(
        "{count} primes of {bits:.1} bits in all do not make a modulus; give at least one prime and at most {maximum} bits"
    )]
    Modulus {
        /// Number of primes.
        count: usize,
        /// Bits of their product.
        bits: f64,
        /// Most bits of a product.
        maximum: u32,
    },
    /// A modulus is not a prime fit for the transform, or appears twice.
    #[error(
        "modulus {modulus} is not a distinct prime below 2^50 that is 1 mod {order}; take primes from largest_ntt_primes"
    )]
    Prime {
        /// The modulus refused.
        modulus: u64,
        /// Twice the degree.
        order: usize,
    },
    /// Bytes of the wrong length.
    #[error(
        "{actual} bytes do not hold a polynomial of this ring, which takes {expected}; send exactly that many"
    )]
    Length {
        /// Bytes given.
        actual: usize,
        /// Bytes wanted.
        expected: usize,
    },
    /// A residue or truncated coefficient at or above its modulus.
    #[error(
        "coefficient {index} of limb {limb} is not below its modulus; the bytes are damaged or belong to another ring"
    )]
    Residue {
        /// Prime concerned (0 for a truncated coefficient).
        limb: usize,
        /// Position in the polynomial.
        index: usize,
    },
    /// Truncation that does not fit its bytes, or drops everything.
    #[error(
        "dropping {drop_bits} of {modulus_bits} bits does not fit {bytes} bytes a coefficient; drop more bits or take more bytes, and keep at least one bit"
    )]
    Truncation {
        /// Low bits to drop.
        drop_bits: u32,
        /// Bits of the modulus.
        modulus_bits: u32,
        /// Bytes a coefficient, 1 to 16.
        bytes: usize,
    },
}
