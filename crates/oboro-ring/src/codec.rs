//! Polynomials as bytes: exact (50 bits a residue) and truncated (the high
//! bits of composed coefficients, which is modulus switching to 2^k).

use aligned_vec::{AVec, CACHELINE_ALIGN};

use crate::error::RingError;
use crate::poly::{Coefficient, Poly};
use crate::ring::Ring;

/// Bits a packed residue takes, whatever its prime: enough for all of them.
pub const RESIDUE_BITS: u32 = 50;

/// Four residues make 200 bits: whole bytes.
const GROUP: usize = 4;
const GROUP_BYTES: usize = 25;
const MASK: u64 = (1 << RESIDUE_BITS) - 1;

impl<F> Poly<F> {
    /// Bytes that [`Self::pack`] appends for a polynomial of this ring.
    #[must_use]
    pub fn packed_len(ring: &Ring) -> usize {
        ring.degree() * ring.limbs() / GROUP * GROUP_BYTES
    }

    /// Appends all residues, limb after limb, 50 bits each, as one
    /// little-endian stream of bits.
    ///
    /// # Panics
    /// When `self` is of another ring.
    pub fn pack(&self, ring: &Ring, out: &mut Vec<u8>) {
        self.check(ring);
        let start = out.len();
        out.resize(start + Self::packed_len(ring), 0);
        let groups = self.residues().chunks_exact(GROUP);
        for (residues, bytes) in groups.zip(out[start..].chunks_exact_mut(GROUP_BYTES)) {
            let [a, b, c, d] = [residues[0], residues[1], residues[2], residues[3]];
            bytes[..8].copy_from_slice(&(a | b << 50).to_le_bytes());
            bytes[8..16].copy_from_slice(&(b >> 14 | c << 36).to_le_bytes());
            bytes[16..24].copy_from_slice(&(c >> 28 | d << 22).to_le_bytes());
            bytes[24] = (d >> 42) as u8;
        }
    }

    /// Reads what [`Self::pack`] wrote.
    ///
    /// # Errors
    /// When the length is not exactly [`Self::packed_len`], or a residue is not
    /// below its prime.
    pub fn unpack(ring: &Ring, bytes: &[u8]) -> Result<Self, RingError> {
        let expected = Self::packed_len(ring);
        if bytes.len() != expected {
            return Err(RingError::Length {
                actual: bytes.len(),
                expected,
            });
        }
        let mut residues = AVec::with_capacity(CACHELINE_ALIGN, ring.degree() * ring.limbs());
        for bytes in bytes.chunks_exact(GROUP_BYTES) {
            let word = |i: usize| {
                let mut word = [0; 8];
                word.copy_from_slice(&bytes[i..i + 8]);
                u64::from_le_bytes(word)
            };
            // Residue k starts at bit 50 k: bytes 0, 6 (+2), 12 (+4), 17 (+14).
            residues.push(word(0) & MASK);
            residues.push(word(6) >> 2 & MASK);
            residues.push(word(12) >> 4 & MASK);
            residues.push(word(17) >> 14);
        }
        let poly = Self::from_residues(ring.degree(), residues);
        for (limb, (modulus, residues)) in poly.limbs(ring).enumerate() {
            // One pass without a branch, so that the common case is fast.
            let p = modulus.value();
            let in_range = ring.arch().vectorize(
                #[inline(always)]
                || {
                    residues
                        .iter()
                        .fold(u64::MAX, |all, &x| all & x.wrapping_sub(p))
                        >> 63
                        == 1
                },
            );
            if !in_range {
                let index = residues.iter().position(|&x| x >= p).unwrap_or(0);
                return Err(RingError::Residue { limb, index });
            }
        }
        Ok(poly)
    }
}

impl Poly<Coefficient> {
    /// The composed coefficients in `[0, q)` without their `drop_bits` low
    /// bits, each in `bytes_per_coefficient` little-endian bytes.
    ///
    /// # Errors
    /// When the bits that are kept do not fit, are none, or
    /// `bytes_per_coefficient` is not in 1 to 16.
    ///
    /// # Panics
    /// When `self` is of another ring.
    pub fn truncate(
        &self,
        ring: &Ring,
        drop_bits: u32,
        bytes_per_coefficient: usize,
    ) -> Result<Vec<u8>, RingError> {
        check_truncation(ring, drop_bits, bytes_per_coefficient)?;
        self.check(ring);
        let mut out = vec![0; ring.degree() * bytes_per_coefficient];
        if let [_] = ring.primes() {
            let values = self.residues().iter().map(|&x| x >> drop_bits);
            write_words(&mut out, bytes_per_coefficient, values);
        } else if bytes_per_coefficient <= 8 {
            let values = (0..ring.degree()).map(|i| (self.composed(ring, i) >> drop_bits) as u64);
            write_words(&mut out, bytes_per_coefficient, values);
        } else {
            let chunks = out.chunks_exact_mut(bytes_per_coefficient);
            for (index, out) in chunks.enumerate() {
                let value = self.composed(ring, index) >> drop_bits;
                out.copy_from_slice(&value.to_le_bytes()[..bytes_per_coefficient]);
            }
        }
        Ok(out)
    }

    /// Reads what [`Self::truncate`] wrote, each coefficient in the middle of
    /// the interval its bits stand for (modulo q): at most 2^(`drop_bits`-1)
    /// from the original.
    ///
    /// # Errors
    /// As [`Self::truncate`]; also when the length is wrong or a value stands
    /// for no number below q.
    pub fn from_truncated(
        ring: &Ring,
        bytes: &[u8],
        drop_bits: u32,
        bytes_per_coefficient: usize,
    ) -> Result<Self, RingError> {
        check_truncation(ring, drop_bits, bytes_per_coefficient)?;
        let expected = ring.degree() * bytes_per_coefficient;
        if bytes.len() != expected {
            return Err(RingError::Length {
                actual: bytes.len(),
                expected,
            });
        }
        if let ([p], 1..8) = (ring.primes(), bytes_per_coefficient) {
            return Self::from_truncated_limb(ring, *p, bytes, drop_bits, bytes_per_coefficient);
        }
        let largest = (ring.modulus() - 1) >> drop_bits;
        let half = (1u128 << drop_bits) >> 1;
        let mut poly = Self::zero(ring);
        let range = |index: Option<usize>| match index {
            Some(index) => Err(RingError::Residue { limb: 0, index }),
            None => Ok(()),
        };
        if bytes_per_coefficient < 8 {
            let mut words = vec![0; ring.degree()];
            read_words(bytes, bytes_per_coefficient, &mut words);
            range(words.iter().position(|&kept| u128::from(kept) > largest))?;
            for (modulus, limb) in poly.limbs_mut(ring) {
                let weight = modulus.multiplier(modulus.reduce_wide(1 << drop_bits));
                let half = modulus.reduce_wide(half);
                for (out, &kept) in limb.iter_mut().zip(&words) {
                    *out = modulus.add(modulus.mul_fixed(kept, weight), half);
                }
            }
            return Ok(poly);
        }
        let chunks = bytes.chunks_exact(bytes_per_coefficient);
        let values: Vec<u128> = chunks
            .map(|bytes| {
                let mut wide = [0; 16];
                wide[..bytes_per_coefficient].copy_from_slice(bytes);
                u128::from_le_bytes(wide)
            })
            .collect();
        range(values.iter().position(|&kept| kept > largest))?;
        for (modulus, limb) in poly.limbs_mut(ring) {
            for (out, kept) in limb.iter_mut().zip(&values) {
                // Perhaps above q, which the reduction takes care of.
                *out = modulus.reduce_wide((kept << drop_bits) + half);
            }
        }
        Ok(poly)
    }

    /// [`Self::from_truncated`] in 64-bit vector code, for one prime.
    fn from_truncated_limb(
        ring: &Ring,
        p: u64,
        bytes: &[u8],
        drop_bits: u32,
        bytes_per_coefficient: usize,
    ) -> Result<Self, RingError> {
        let half = (1u64 << drop_bits) >> 1;
        let mut residues = AVec::with_capacity(CACHELINE_ALIGN, ring.degree());
        residues.resize(ring.degree(), 0);
        read_words(bytes, bytes_per_coefficient, &mut residues);
        let largest = (p - 1) >> drop_bits;
        let in_range = ring.arch().vectorize(
            #[inline(always)]
            || {
                let mut overflow = 0;
                for x in residues.iter_mut() {
                    overflow |= largest.wrapping_sub(*x);
                    let value = (*x << drop_bits).wrapping_add(half);
                    *x = value.min(value.wrapping_sub(p));
                }
                overflow >> 63 == 0
            },
        );
        if in_range {
            Ok(Self::from_residues(ring.degree(), residues))
        } else {
            read_words(bytes, bytes_per_coefficient, &mut residues);
            let index = residues.iter().position(|&x| x > largest).unwrap_or(0);
            Err(RingError::Residue { limb: 0, index })
        }
    }
}

/// Writes the low `bytes` bytes of each word.
fn write_words(out: &mut [u8], bytes: usize, words: impl Iterator<Item = u64>) {
    /// With the width known, the copy is one or two stores.
    fn fixed<const B: usize>(out: &mut [u8], words: impl Iterator<Item = u64>) {
        for (out, word) in out.chunks_exact_mut(B).zip(words) {
            out.copy_from_slice(&word.to_le_bytes()[..B]);
        }
    }
    match bytes {
        1 => fixed::<1>(out, words),
        2 => fixed::<2>(out, words),
        3 => fixed::<3>(out, words),
        4 => fixed::<4>(out, words),
        5 => fixed::<5>(out, words),
        6 => fixed::<6>(out, words),
        7 => fixed::<7>(out, words),
        _ => {
            for (out, word) in out.chunks_exact_mut(bytes).zip(words) {
                out[..8].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

/// Reads words of `bytes` bytes, 1 to 7.
fn read_words(input: &[u8], bytes: usize, out: &mut [u64]) {
    fn fixed<const B: usize>(input: &[u8], out: &mut [u64]) {
        for (out, input) in out.iter_mut().zip(input.as_chunks::<B>().0) {
            let mut word = [0; 8];
            word[..B].copy_from_slice(input);
            *out = u64::from_le_bytes(word);
        }
    }
    match bytes {
        1 => fixed::<1>(input, out),
        2 => fixed::<2>(input, out),
        3 => fixed::<3>(input, out),
        4 => fixed::<4>(input, out),
        5 => fixed::<5>(input, out),
        6 => fixed::<6>(input, out),
        _ => fixed::<7>(input, out),
    }
}

fn check_truncation(ring: &Ring, drop_bits: u32, bytes: usize) -> Result<(), RingError> {
    let modulus_bits = ring.modulus_bits();
    let fits = drop_bits < modulus_bits
        && (1..=16).contains(&bytes)
        && (modulus_bits - drop_bits) as usize <= 8 * bytes;
    if fits {
        Ok(())
    } else {
        Err(RingError::Truncation {
            drop_bits,
            modulus_bits,
            bytes,
        })
    }
}
