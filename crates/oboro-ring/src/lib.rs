//! Arithmetic in R_q = Z_q\[X\]/(X^N + 1), the ring of the encrypted tables.
//!
//! q is a product of few primes below 2^50, each 1 mod 2N, so a polynomial is
//! one *limb* of residues a prime. A [`Poly`] says by its type in which form it
//! is: [`Coefficient`], or [`Evaluation`] (number-theoretic transform), where
//! products are element-wise.
//!
//! # Security
//! Arithmetic, transforms, noise samplers and composition take the same time
//! and touch the same addresses whatever the residues are. Decoders and
//! [`sample::uniform`] branch only on public bytes or on rejected randomness.
//! Polynomials implement `Zeroize` but do not zeroize on drop, as most of them
//! are public ciphertexts: types that hold a secret one must.
//!
//! ```
//! use oboro_ring::{Poly, Ring, prime};
//!
//! let ring = Ring::new(1024, &prime::largest_ntt_primes(1024, 50, 1))?;
//! let mut x = vec![0; 1024];
//! x[1023] = 3;
//! let p = Poly::from_signed(&ring, &x).into_evaluation(&ring);
//! // (3 X^1023)^2 = 9 X^2046 = -9 X^1022.
//! let square = p.mul(&ring, &p).into_coefficient(&ring);
//! assert_eq!(square.centered(&ring, 1022), -9);
//! # Ok::<(), oboro_ring::RingError>(())
//! ```

mod codec;
mod crt;
mod error;
mod poly;
pub mod prime;
mod ring;
pub mod sample;

pub use codec::RESIDUE_BITS;
pub use error::RingError;
pub use poly::{Coefficient, Evaluation, Form, Poly, tensor};
pub use ring::Ring;
