//! A codebook from one key to another, without anyone seeing it.
//!
//! A rotation of the keeper's key needs every codebook ciphertext under the new
//! key. The keeper could decrypt and encrypt, but must not see centroids; the
//! searcher holds the ciphertexts, but no key. So the searcher adds a mask first:
//!
//! 1. Searcher: b' = b + r with r uniform in R_q ([`CodebookMasking::mask`]).
//! 2. Keeper: v = b' + a·s_old = m + e + r, then (v + e' - a'·s_new, a') with a
//!    fresh uniform a' and a fresh error e' ([`reencrypt`]).
//! 3. Searcher: subtracts r ([`MaskKeep::unmask`]). What is left is
//!    (m + e + e' - a'·s_new, a'): the same message under the new key.
//!
//! # Security
//! v is m + e plus a value uniform in R_q, so it is itself uniform whatever the
//! codebook, for any computing power: a one-time pad. The pad is as secret as the
//! searcher's memory and is used for one message: masking anew draws anew, and
//! [`MaskKeep::unmask`] takes the pad by value. The searcher sees encryptions under
//! the new key only.
//!
//! A searcher with altered code could send a chosen a and have a·s_old encrypted
//! under the new key; as for tables, attestation is to exclude that. The keeper
//! answers only while the owner has opened a rotation.
//!
//! # Noise
//! Each rotation adds e' and nothing else: variance 10.24 to the 27,972 that an
//! encryption under the public key of `N2048_Q50` has. [`crate::TableScale`] counts
//! [`MAX_ROTATIONS`] of them in from the start.

use oboro_ring::{Evaluation, Poly, Ring, sample};
use oboro_simd::taint;
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::encrypt::Ciphertext;
use crate::{CkksError, EncryptedCodebook, Packing, SecretKey};

/// Rotations of one codebook that [`crate::TableScale`]'s bounds cover; then it has
/// to be encrypted anew.
pub const MAX_ROTATIONS: u64 = 1_000;

/// Masks codebooks for re-encryption.
pub struct CodebookMasking;

impl CodebookMasking {
    /// Adds a fresh uniform element to the b-part of every ciphertext. The masked
    /// codebook goes to the keeper; what takes the mask off again stays.
    pub fn mask(
        codebook: &EncryptedCodebook,
        rng: &mut impl CryptoRng,
    ) -> (MaskedCodebook, MaskKeep) {
        let ring = codebook.packing().set().ring();
        let mut masks = Vec::new();
        let masked = codebook.map(|ciphertext| {
            let mask: Poly<Evaluation> = sample::uniform(&ring, rng);
            let mut b = ciphertext.b.clone();
            b.add_assign(&ring, &mask);
            masks.push(mask);
            Ciphertext {
                b,
                a: ciphertext.a.clone(),
            }
        });
        let keep = MaskKeep {
            packing: *codebook.packing(),
            with_offsets: codebook.has_offsets(),
            masks,
        };
        (MaskedCodebook(masked), keep)
    }
}

/// A codebook whose messages are masked; travels between searcher and keeper.
///
/// # Security
/// Uniform to whoever holds the secret key but not the mask.
pub struct MaskedCodebook(pub(crate) EncryptedCodebook);

impl MaskedCodebook {
    /// The shape of the codebook.
    #[must_use]
    pub const fn packing(&self) -> &Packing {
        self.0.packing()
    }

    /// Largest length of [`MaskedCodebook::to_bytes`] for a shape.
    #[must_use]
    pub fn largest_len(packing: &Packing) -> usize {
        EncryptedCodebook::encoded_len(packing, true)
    }

    /// One byte that tells whether there are offsets, then the ciphertexts.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// Reads what [`MaskedCodebook::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or a residue outside its range.
    pub fn from_bytes(packing: &Packing, bytes: &[u8]) -> Result<Self, CkksError> {
        EncryptedCodebook::from_bytes(packing, bytes).map(Self)
    }
}

/// What takes the mask off a re-encrypted codebook; stays with the searcher.
///
/// # Security
/// With it the keeper could read the codebook. Used once: [`MaskKeep::unmask`] takes
/// it by value. Zeroized on drop; has no `Debug`, no `Clone` and no encoding.
pub struct MaskKeep {
    packing: Packing,
    with_offsets: bool,
    masks: Vec<Poly<Evaluation>>,
}

impl Drop for MaskKeep {
    fn drop(&mut self) {
        for mask in &mut self.masks {
            mask.zeroize();
        }
    }
}

impl ZeroizeOnDrop for MaskKeep {}

impl MaskKeep {
    /// The codebook under the new key.
    ///
    /// # Errors
    /// When `reencrypted` has another shape than what was masked.
    pub fn unmask(self, reencrypted: MaskedCodebook) -> Result<EncryptedCodebook, CkksError> {
        let mut codebook = reencrypted.0;
        if *codebook.packing() != self.packing || codebook.has_offsets() != self.with_offsets {
            return Err(CkksError::Mismatch {
                left: "the re-encrypted codebook",
                right: "the masked codebook",
            });
        }
        let ring = self.packing.set().ring();
        for (ciphertext, mask) in codebook.ciphertexts_mut().zip(&self.masks) {
            ciphertext.b.sub_assign(&ring, mask);
        }
        Ok(codebook)
    }
}

/// The keeper's part: what is encrypted under `old`, under `new`.
///
/// With a pair of keys that is not the codebook's the result is noise: nobody can
/// tell before a table is decoded.
///
/// # Errors
/// When keys, shape and codebook belong to different parameter sets or shapes.
///
/// # Security
/// Constant time in keys, message and error. Answer only what came from
/// [`CodebookMasking::mask`] in an attested searcher, while its owner rotates keys:
/// without the mask this would show the keeper the codebook.
pub fn reencrypt(
    old: &SecretKey,
    new: &SecretKey,
    packing: &Packing,
    masked: &MaskedCodebook,
    rng: &mut impl CryptoRng,
) -> Result<MaskedCodebook, CkksError> {
    let set = packing.set();
    if old.parameter_set() != set || new.parameter_set() != set {
        return Err(CkksError::Mismatch {
            left: "the packing",
            right: "the secret keys",
        });
    }
    if masked.packing() != packing {
        return Err(CkksError::Mismatch {
            left: "the masked codebook",
            right: "the packing",
        });
    }
    let ring = set.ring();
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    // The new a-parts are sent out.
    taint::public(&seed);
    let mut stream = 0;
    Ok(MaskedCodebook(masked.0.map(|ciphertext| {
        let a = sample::uniform_from_seed(&ring, &seed, stream);
        stream += 1;
        switch(&ring, old.s(), new.s(), ciphertext, a, rng)
    })))
}

/// (b + a·s_old + e' - a'·s_new, a') for one ciphertext (b, a).
fn switch(
    ring: &Ring,
    old: &Poly<Evaluation>,
    new: &Poly<Evaluation>,
    ciphertext: &Ciphertext,
    fresh: Poly<Evaluation>,
    rng: &mut impl CryptoRng,
) -> Ciphertext {
    let error = sample::gaussian(ring, rng).into_evaluation(ring);
    let error = Zeroizing::new(error);
    let hidden = Zeroizing::new(fresh.mul(ring, new));
    let mut b = ciphertext.b.clone();
    b.mul_accumulate(ring, &[(&ciphertext.a, old)]);
    b.add_assign(ring, &error);
    b.sub_assign(ring, &hidden);
    Ciphertext { b, a: fresh }
}

#[cfg(test)]
mod tests;
