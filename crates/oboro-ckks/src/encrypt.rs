//! Encryption, shared by queries and codebooks: under the public key, or with
//! the secret key and a public part that a seed stands for.

use oboro_ring::{Coefficient, Evaluation, Poly, Ring, sample};
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::{PublicKey, SecretKey};

/// A ciphertext (b, a) in evaluation form with b + a·s = m + e.
#[derive(Clone)]
pub(crate) struct Ciphertext {
    pub(crate) b: Poly<Evaluation>,
    pub(crate) a: Poly<Evaluation>,
}

/// (b_pk·u + e0 + m, a_pk·u + e1) with fresh ternary u and errors e0, e1.
pub(crate) fn encrypt(
    ring: &Ring,
    key: &PublicKey,
    mut message: Poly<Coefficient>,
    rng: &mut impl CryptoRng,
) -> Ciphertext {
    let mut u = sample::ternary(ring, rng).into_evaluation(ring);
    let e0 = Zeroizing::new(sample::gaussian_values(ring.degree(), rng));
    message.add_noise(ring, &e0);
    let mut b = message.into_evaluation(ring);
    let mut a = sample::gaussian(ring, rng).into_evaluation(ring);
    b.mul_accumulate(ring, &[(key.b(), &u)]);
    a.mul_accumulate(ring, &[(key.a(), &u)]);
    u.zeroize();
    Ciphertext { b, a }
}

/// (m + e - a·s, a) with a from stream `stream` of a fresh public `seed`.
pub(crate) fn encrypt_seeded(
    ring: &Ring,
    key: &SecretKey,
    mut message: Poly<Coefficient>,
    seed: &[u8; 32],
    stream: u64,
    rng: &mut impl CryptoRng,
) -> Ciphertext {
    let a = sample::uniform_from_seed(ring, seed, stream);
    let error = Zeroizing::new(sample::gaussian_values(ring.degree(), rng));
    message.add_noise(ring, &error);
    let mut b = message.into_evaluation(ring);
    let product = Zeroizing::new(a.mul(ring, key.s()));
    b.sub_assign(ring, &product);
    Ciphertext { b, a }
}

impl Ciphertext {
    pub(crate) fn encoded_len(ring: &Ring) -> usize {
        2 * Poly::<Evaluation>::packed_len(ring)
    }

    pub(crate) fn pack(&self, ring: &Ring, out: &mut Vec<u8>) {
        self.b.pack(ring, out);
        self.a.pack(ring, out);
    }

    /// `bytes` must be [`Ciphertext::encoded_len`] long.
    pub(crate) fn unpack(ring: &Ring, bytes: &[u8]) -> Result<Self, oboro_ring::RingError> {
        let (b, a) = bytes.split_at(bytes.len() / 2);
        Ok(Self {
            b: Poly::unpack(ring, b)?,
            a: Poly::unpack(ring, a)?,
        })
    }
}
