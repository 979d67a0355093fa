//! The keeper's key pair.

use std::sync::Arc;

use oboro_ring::{Coefficient, Evaluation, Poly, Ring, sample};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{CkksError, ParameterSet};

/// The secret polynomial s, uniform in {-1, 0, 1}.
///
/// # Security
/// Held by the keeper alone; zeroized on drop; has no `Debug`, no `Clone`.
pub struct SecretKey {
    set: ParameterSet,
    ring: Arc<Ring>,
    s: Poly<Evaluation>,
    s_squared: Poly<Evaluation>,
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.s.zeroize();
        self.s_squared.zeroize();
    }
}

impl ZeroizeOnDrop for SecretKey {}

const SECRET_MAGIC: &[u8; 4] = b"OBSK";
const PUBLIC_MAGIC: &[u8; 4] = b"OBPK";
const VERSION: u8 = 1;

impl SecretKey {
    /// Draws a fresh key.
    #[must_use]
    pub fn generate(set: ParameterSet, rng: &mut impl CryptoRng) -> Self {
        let ring = set.ring();
        Self::from_ternary(set, sample::ternary(&ring, rng))
    }

    fn from_ternary(set: ParameterSet, s: Poly<Coefficient>) -> Self {
        let ring = set.ring();
        let s = s.into_evaluation(&ring);
        let s_squared = s.mul(&ring, &s);
        Self {
            set,
            ring,
            s,
            s_squared,
        }
    }

    /// The parameter set of this key.
    #[must_use]
    pub const fn parameter_set(&self) -> ParameterSet {
        self.set
    }

    /// The public key (e - a·s, a) with a fresh public a.
    #[must_use]
    pub fn public_key(&self, rng: &mut impl CryptoRng) -> PublicKey {
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let a = sample::uniform_from_seed(&self.ring, &seed, 0);
        let mut product = a.mul(&self.ring, &self.s);
        let mut b = sample::gaussian(&self.ring, rng).into_evaluation(&self.ring);
        b.sub_assign(&self.ring, &product);
        product.zeroize();
        PublicKey {
            set: self.set,
            seed,
            b,
            a,
        }
    }

    /// Whether `key` is a public key of this secret: b + a·s is an error, far
    /// smaller than any other key would leave.
    #[must_use]
    pub fn matches(&self, key: &PublicKey) -> bool {
        /// Above every error the sampler draws.
        const LARGEST: u128 = 64;
        if key.set != self.set {
            return false;
        }
        let mut sum = key.b.clone();
        sum.mul_accumulate(&self.ring, &[(&key.a, &self.s)]);
        let error = Zeroizing::new(sum.into_coefficient(&self.ring));
        // One bit is let out, whether the keys belong together.
        let excess = (0..self.set.degree())
            .map(|i| LARGEST.wrapping_sub(error.centered(&self.ring, i).unsigned_abs()) >> 127)
            .fold(0, |all, x| all | x);
        excess == 0
    }

    /// Header, parameter set, then two bits a coefficient.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let s = Zeroizing::new(self.s.clone().into_coefficient(&self.ring));
        let mut out = Zeroizing::new(Vec::with_capacity(Self::encoded_len(self.set)));
        out.extend_from_slice(SECRET_MAGIC);
        out.extend_from_slice(&[VERSION, self.set.code()]);
        for byte in 0..self.set.degree() / 4 {
            let mut packed = 0u8;
            for i in 0..4 {
                // -1, 0, 1 -> 0, 1, 2 without a branch.
                let trit = (s.centered(&self.ring, 4 * byte + i) + 1) as u8;
                packed |= trit << (2 * i);
            }
            out.push(packed);
        }
        out
    }

    const fn encoded_len(set: ParameterSet) -> usize {
        6 + set.degree() / 4
    }

    /// Reads what [`SecretKey::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another header, set, length or a coefficient outside {-1, 0, 1}.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CkksError> {
        let set = header(bytes, SECRET_MAGIC, "the secret key")?;
        exact("the secret key", bytes, Self::encoded_len(set))?;
        let mut values = Zeroizing::new(Vec::with_capacity(set.degree()));
        let mut damaged = 0u8;
        for &byte in &bytes[6..] {
            for i in 0..4 {
                let trit = (byte >> (2 * i)) & 3;
                damaged |= u8::from(trit == 3);
                values.push(i64::from(trit) - 1);
            }
        }
        if damaged != 0 {
            return Err(CkksError::Value("the secret key"));
        }
        Ok(Self::from_ternary(
            set,
            Poly::from_signed(&set.ring(), &values),
        ))
    }

    pub(crate) const fn s(&self) -> &Poly<Evaluation> {
        &self.s
    }

    pub(crate) const fn s_squared(&self) -> &Poly<Evaluation> {
        &self.s_squared
    }
}

/// The public key: an encryption of zero, (e - a·s, a).
#[derive(Clone)]
pub struct PublicKey {
    set: ParameterSet,
    seed: [u8; 32],
    b: Poly<Evaluation>,
    a: Poly<Evaluation>,
}

impl PublicKey {
    /// The parameter set of this key.
    #[must_use]
    pub const fn parameter_set(&self) -> ParameterSet {
        self.set
    }

    /// Header, parameter set, the seed of a, then b at 50 bits a residue.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let ring = self.set.ring();
        let mut out = Vec::with_capacity(Self::encoded_len(self.set));
        out.extend_from_slice(PUBLIC_MAGIC);
        out.extend_from_slice(&[VERSION, self.set.code()]);
        out.extend_from_slice(&self.seed);
        self.b.pack(&ring, &mut out);
        out
    }

    /// Length of [`PublicKey::to_bytes`].
    #[must_use]
    pub fn encoded_len(set: ParameterSet) -> usize {
        6 + 32 + Poly::<Evaluation>::packed_len(&set.ring())
    }

    /// Reads what [`PublicKey::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another header, set, length or a residue outside its range.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CkksError> {
        let set = header(bytes, PUBLIC_MAGIC, "the public key")?;
        exact("the public key", bytes, Self::encoded_len(set))?;
        let ring = set.ring();
        let mut seed = [0; 32];
        seed.copy_from_slice(&bytes[6..38]);
        Ok(Self {
            set,
            seed,
            b: Poly::unpack(&ring, &bytes[38..])?,
            a: sample::uniform_from_seed(&ring, &seed, 0),
        })
    }

    /// A digest by which the key is named in policies, evidence and indexes.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }

    pub(crate) const fn b(&self) -> &Poly<Evaluation> {
        &self.b
    }

    pub(crate) const fn a(&self) -> &Poly<Evaluation> {
        &self.a
    }
}

fn header(bytes: &[u8], magic: &[u8; 4], what: &'static str) -> Result<ParameterSet, CkksError> {
    match bytes {
        [m0, m1, m2, m3, VERSION, code, ..] if [*m0, *m1, *m2, *m3] == *magic => {
            ParameterSet::from_code(*code).ok_or(CkksError::Header(what))
        }
        _ => Err(CkksError::Header(what)),
    }
}

pub(crate) fn exact(what: &'static str, bytes: &[u8], expected: usize) -> Result<(), CkksError> {
    if bytes.len() == expected {
        Ok(())
    } else {
        Err(CkksError::EncodedLength {
            what,
            actual: bytes.len(),
            expected,
        })
    }
}
