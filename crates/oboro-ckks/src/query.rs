//! The client's side: a query encrypted under the keeper's public key, or with
//! the secret key by a client that holds it.

use std::sync::Arc;

use oboro_ring::{Coefficient, Evaluation, Poly, Ring, sample};
use oboro_simd::Arch;
use rand_core::CryptoRng;
use zeroize::{Zeroize, Zeroizing};

use crate::embedding::{Embedding, Rows};
use crate::encrypt::{Ciphertext, encrypt, encrypt_seeded};
use crate::key::exact;
use crate::{CkksError, Packing, PublicKey, SecretKey, TableScale};

/// Encrypts queries for one index.
pub struct QueryEncryptor {
    packing: Packing,
    scale: TableScale,
    key: PublicKey,
    ring: Arc<Ring>,
    embedding: Embedding,
}

impl QueryEncryptor {
    /// An encryptor for the index with this packing, scale and public key.
    ///
    /// # Errors
    /// When they belong to different parameter sets.
    pub fn new(packing: Packing, scale: TableScale, key: PublicKey) -> Result<Self, CkksError> {
        if packing.set() != key.parameter_set() || packing.set() != scale.set() {
            return Err(CkksError::Mismatch {
                left: "the packing",
                right: "the public key",
            });
        }
        Ok(Self {
            packing,
            scale,
            ring: packing.set().ring(),
            embedding: Embedding::new(packing.slots()),
            key,
        })
    }

    /// The shape of this encryptor's queries.
    #[must_use]
    pub const fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Encrypts M padded sub-vectors of d values each, `[subquantizer][d]`.
    ///
    /// A query longer than the scale's bound is shortened to it: its direction,
    /// and with it the order of inner products, stays; under L2 such a query
    /// lies far outside the data.
    ///
    /// # Errors
    /// When the length is wrong or a value is NaN or infinite.
    pub fn encrypt(
        &self,
        query: &[f32],
        rng: &mut impl CryptoRng,
    ) -> Result<EncryptedQuery, CkksError> {
        let parts = self
            .messages(query)?
            .into_iter()
            .map(|message| encrypt(&self.ring, &self.key, message, rng))
            .collect();
        Ok(EncryptedQuery {
            packing: self.packing,
            seed: None,
            parts,
        })
    }

    /// Encrypts with the secret key: half the bytes, since a seed stands for
    /// the public parts, and less noise. For a client that plays the keeper.
    ///
    /// # Errors
    /// As [`QueryEncryptor::encrypt`], or when `key` does not belong to the
    /// index's parameter set.
    pub fn encrypt_seeded(
        &self,
        key: &SecretKey,
        query: &[f32],
        rng: &mut impl CryptoRng,
    ) -> Result<EncryptedQuery, CkksError> {
        if key.parameter_set() != self.packing.set() {
            return Err(CkksError::Mismatch {
                left: "the packing",
                right: "the secret key",
            });
        }
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let parts = (0..)
            .zip(self.messages(query)?)
            .map(|(stream, message)| encrypt_seeded(&self.ring, key, message, &seed, stream, rng))
            .collect();
        Ok(EncryptedQuery {
            packing: self.packing,
            seed: Some(seed),
            parts,
        })
    }

    /// The encoded query, one message for each of the d1 ciphertexts.
    fn messages(&self, query: &[f32]) -> Result<Vec<Poly<Coefficient>>, CkksError> {
        let p = &self.packing;
        if query.len() != p.query_len() {
            return Err(CkksError::Length {
                what: "the query",
                actual: query.len(),
                expected: p.query_len(),
            });
        }
        let norm = query
            .iter()
            .map(|&x| f64::from(x) * f64::from(x))
            .sum::<f64>()
            .sqrt();
        if !norm.is_finite() {
            return Err(CkksError::NotFinite("the query"));
        }
        let bound = self.scale.query_norm_bound();
        let factor = self.scale.query_scale() * if norm > bound { bound / norm } else { 1.0 };
        let d2 = p.part();
        let mut coefficients = Zeroizing::new(vec![0i64; p.set().degree()]);
        let mut messages = Vec::with_capacity(p.split());
        for part in 0..p.split() {
            let mut rows = Rows::zero(p.slots(), d2);
            for (slot, sub) in query.chunks_exact(p.width()).enumerate() {
                for (j, &x) in sub.iter().skip(part * d2).take(d2).enumerate() {
                    rows.re[slot * d2 + d2 - 1 - j] = f64::from(x) * factor;
                }
            }
            Arch::detect().vectorize(
                #[inline(always)]
                || self.embedding.to_coefficients(&mut rows),
            );
            coefficients.fill(0);
            for u in 0..p.slots() {
                for r in 0..d2 {
                    coefficients[r + p.stride() * u] = rows.re[u * d2 + r].round_ties_even() as i64;
                    coefficients[r + p.stride() * (u + p.slots())] =
                        rows.im[u * d2 + r].round_ties_even() as i64;
                }
            }
            rows.re.zeroize();
            rows.im.zeroize();
            messages.push(Poly::from_signed(&self.ring, &coefficients));
        }
        Ok(messages)
    }
}

/// A query's d1 ciphertexts.
pub struct EncryptedQuery {
    packing: Packing,
    /// What the a-parts expand from, where they do.
    seed: Option<[u8; 32]>,
    pub(crate) parts: Vec<Ciphertext>,
}

impl EncryptedQuery {
    pub(crate) const fn packing(&self) -> &Packing {
        &self.packing
    }

    /// Length of [`EncryptedQuery::to_bytes`] under the public key.
    #[must_use]
    pub fn encoded_len(packing: &Packing) -> usize {
        packing.split() * Ciphertext::encoded_len(&packing.set().ring())
    }

    /// Length of [`EncryptedQuery::to_bytes`] with the secret key.
    #[must_use]
    pub fn seeded_len(packing: &Packing) -> usize {
        32 + packing.split() * Poly::<Evaluation>::packed_len(&packing.set().ring())
    }

    /// Under the public key each ciphertext's b and a, with the secret key the
    /// seed and each b; evaluation form, 50 bits a residue. The two forms
    /// differ in length.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let ring = self.packing.set().ring();
        let Some(seed) = self.seed else {
            let mut out = Vec::with_capacity(Self::encoded_len(&self.packing));
            for part in &self.parts {
                part.pack(&ring, &mut out);
            }
            return out;
        };
        let mut out = Vec::with_capacity(Self::seeded_len(&self.packing));
        out.extend_from_slice(&seed);
        for part in &self.parts {
            part.b.pack(&ring, &mut out);
        }
        out
    }

    /// Reads what [`EncryptedQuery::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or a residue outside its range.
    ///
    /// # Security
    /// Any well-formed bytes are a valid ciphertext of *something*; a client
    /// that encrypts no vector learns other linear functions of the codebook,
    /// bounded by what a reply tells.
    pub fn from_bytes(packing: &Packing, bytes: &[u8]) -> Result<Self, CkksError> {
        let ring = packing.set().ring();
        if bytes.len() == Self::seeded_len(packing) {
            let mut seed = [0; 32];
            seed.copy_from_slice(&bytes[..32]);
            let parts = (0..)
                .zip(bytes[32..].chunks_exact(Poly::<Evaluation>::packed_len(&ring)))
                .map(|(stream, b)| {
                    Ok(Ciphertext {
                        b: Poly::unpack(&ring, b)?,
                        a: sample::uniform_from_seed(&ring, &seed, stream),
                    })
                })
                .collect::<Result<_, CkksError>>()?;
            return Ok(Self {
                packing: *packing,
                seed: Some(seed),
                parts,
            });
        }
        exact("the encrypted query", bytes, Self::encoded_len(packing))?;
        let parts = bytes
            .chunks_exact(Ciphertext::encoded_len(&ring))
            .map(|chunk| Ciphertext::unpack(&ring, chunk))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            packing: *packing,
            seed: None,
            parts,
        })
    }
}
