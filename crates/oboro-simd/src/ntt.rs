//! The negacyclic number-theoretic transform of Z_p\[X\]/(X^n + 1).
//!
//! Forward takes coefficients in natural order to values in bit-reversed
//! order: position `i` holds the value at psi^(2 rev(i) + 1), psi a primitive
//! 2n-th root of unity, its powers merged into the butterflies. Both forms
//! hold canonical residues, so all instruction sets give the same bytes; the
//! order and the choice of psi are part of what goes on the wire.

use aligned_vec::{AVec, CACHELINE_ALIGN};

use crate::Arch;
use crate::modmul::Modulus;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Largest supported degree.
pub const MAX_DEGREE: usize = 1 << 15;

/// Roots of unity of one degree and prime, ready for every instruction set.
pub struct NttTable {
    degree: usize,
    modulus: Modulus,
    forward: Roots,
    inverse: Roots,
    #[cfg(target_arch = "x86_64")]
    forward52: avx512::Roots52,
    #[cfg(target_arch = "x86_64")]
    inverse52: avx512::Roots52,
    #[cfg(target_arch = "x86_64")]
    forward_float: avx2::RootsFloat,
    #[cfg(target_arch = "x86_64")]
    inverse_float: avx2::RootsFloat,
    /// 1/n, and 1/n times the root of the last inverse stage.
    scale: [Root; 2],
}

/// A root with Shoup's quotient for a 64-bit word.
type Root = crate::modmul::Multiplier;

/// Roots in the order in which the stages use them: entry `m + i` serves block
/// `i` of the stage with `m` blocks; entry 0 is unused.
struct Roots {
    value: AVec<u64>,
    /// floor(value * 2^64 / p).
    quotient64: AVec<u64>,
}

impl Roots {
    fn new(modulus: &Modulus, powers: &[u64]) -> Self {
        let multipliers = || powers.iter().map(|&w| modulus.multiplier(w));
        Self {
            value: AVec::from_slice(CACHELINE_ALIGN, powers),
            quotient64: AVec::from_iter(CACHELINE_ALIGN, multipliers().map(Root::quotient)),
        }
    }
}

impl NttTable {
    /// Tables for degree `n` and prime `p`.
    ///
    /// psi is g^((p-1)/2n) for the least g >= 2 that makes it primitive.
    ///
    /// # Panics
    /// Unless `degree` is a power of two in `2..=`[`MAX_DEGREE`], and `prime`
    /// is a prime below 2^50 that is 1 mod `2 * degree`. (A composite is
    /// refused when no root is found; test primality before.)
    #[must_use]
    pub fn new(degree: usize, prime: u64) -> Self {
        assert!(
            degree.is_power_of_two() && (2..=MAX_DEGREE).contains(&degree),
            "degree {degree} is not a power of two in 2..={MAX_DEGREE}"
        );
        let order = 2 * degree as u64;
        assert!(
            prime % order == 1,
            "modulus {prime} is not 1 mod {order}, so it has no root of unity of that order"
        );
        let modulus = Modulus::new(prime);
        // Half of all residues are squares: 256 failures do not happen for a prime.
        let psi = (2..258)
            .map(|g| modulus.pow(g, (prime - 1) / order))
            .find(|&psi| modulus.pow(psi, degree as u64) == prime - 1)
            .unwrap_or_else(|| panic!("modulus {prime} is not a prime"));
        let powers = |root: u64| {
            let mut table = vec![0; degree];
            let mut power = 1;
            for i in 0..degree {
                table[i.reverse_bits() >> (usize::BITS - degree.trailing_zeros())] = power;
                power = modulus.mul(power, root);
            }
            table
        };
        let (forward, inverse) = (powers(psi), powers(modulus.inverse(psi)));
        let scale = modulus.inverse(degree as u64);
        Self {
            degree,
            modulus,
            scale: [scale, modulus.mul(scale, inverse[1])].map(|w| modulus.multiplier(w)),
            #[cfg(target_arch = "x86_64")]
            forward52: avx512::Roots52::new(&modulus, &forward),
            #[cfg(target_arch = "x86_64")]
            inverse52: avx512::Roots52::new(&modulus, &inverse),
            #[cfg(target_arch = "x86_64")]
            forward_float: avx2::RootsFloat::new(&modulus, &forward),
            #[cfg(target_arch = "x86_64")]
            inverse_float: avx2::RootsFloat::new(&modulus, &inverse),
            forward: Roots::new(&modulus, &forward),
            inverse: Roots::new(&modulus, &inverse),
        }
    }

    /// Number of coefficients.
    #[must_use]
    pub const fn degree(&self) -> usize {
        self.degree
    }

    /// The prime with its constants.
    #[must_use]
    pub const fn modulus(&self) -> &Modulus {
        &self.modulus
    }

    /// Coefficients to values, in place.
    ///
    /// # Panics
    /// When `values` has not exactly as many entries as the degree.
    pub fn forward(&self, arch: Arch, values: &mut [u64]) {
        assert_eq!(values.len(), self.degree, "length differs from the degree");
        match arch {
            #[cfg(target_arch = "x86_64")]
            Arch::Avx512(_) if self.degree >= avx512::MIN_DEGREE => {
                // SAFETY: an `Avx512` value proves the features of the kernel.
                unsafe { avx512::forward(self, values) }
            }
            #[cfg(target_arch = "x86_64")]
            Arch::Avx512(_) | Arch::Avx2(_) if self.degree >= avx2::MIN_DEGREE => {
                // SAFETY: either value proves the features of the kernel.
                unsafe { avx2::forward(self, values) }
            }
            _ => portable::forward(self, values),
        }
    }

    /// Values to coefficients, in place; undoes [`Self::forward`].
    ///
    /// # Panics
    /// When `values` has not exactly as many entries as the degree.
    pub fn inverse(&self, arch: Arch, values: &mut [u64]) {
        assert_eq!(values.len(), self.degree, "length differs from the degree");
        match arch {
            #[cfg(target_arch = "x86_64")]
            Arch::Avx512(_) if self.degree >= avx512::MIN_DEGREE => {
                // SAFETY: an `Avx512` value proves the features of the kernel.
                unsafe { avx512::inverse(self, values) }
            }
            #[cfg(target_arch = "x86_64")]
            Arch::Avx512(_) | Arch::Avx2(_) if self.degree >= avx2::MIN_DEGREE => {
                // SAFETY: either value proves the features of the kernel.
                unsafe { avx2::inverse(self, values) }
            }
            _ => portable::inverse(self, values),
        }
    }
}

#[cfg(test)]
mod tests;
