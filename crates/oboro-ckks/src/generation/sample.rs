//! The owner's side: a training sample in random order, encrypted and in shares.

use chacha20::ChaCha20Rng;
use rand_core::{CryptoRng, Rng as _, SeedableRng as _};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{MASK_BITS, SHARE_BYTES, VALUE_BITS};
use crate::codebook::check;
use crate::key::exact;
use crate::{BatchPacking, BatchScale, CkksError, CodebookOrigin};

/// The largest sample; sums of so many shares fit 128 bits.
pub const MAX_SAMPLES: usize = 1 << 20;

/// What the roles must know of a sample to train on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleBounds {
    samples: usize,
    row_norm: f64,
    codebook_norm: f64,
}

impl SampleBounds {
    /// n, the number of samples.
    #[must_use]
    pub const fn samples(&self) -> usize {
        self.samples
    }

    /// The largest norm of a row after the owner's shuffle.
    #[must_use]
    pub const fn row_norm(&self) -> f64 {
        self.row_norm
    }

    /// √(Σ_i max_v |x_v,i|²), which no codebook of means exceeds.
    #[must_use]
    pub const fn codebook_norm(&self) -> f64 {
        self.codebook_norm
    }

    /// What one unit of a fixed-point value stands for.
    pub(super) fn unit(&self) -> f64 {
        self.codebook_norm / f64::from(1u32 << (VALUE_BITS - 1))
    }

    /// The scale for the first rounds of training.
    ///
    /// # Errors
    /// When the bounds make no scale for `packing`.
    pub fn scale(&self, packing: &BatchPacking) -> Result<BatchScale, CkksError> {
        BatchScale::new(
            packing,
            self.row_norm,
            self.codebook_norm,
            CodebookOrigin::Keeper,
        )
    }

    /// Length of [`SampleBounds::to_bytes`].
    pub const ENCODED_LEN: usize = 20;

    /// The number of samples and the two norms.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::ENCODED_LEN] {
        let mut out = [0; Self::ENCODED_LEN];
        out[..4].copy_from_slice(&(self.samples as u32).to_le_bytes());
        out[4..12].copy_from_slice(&self.row_norm.to_le_bytes());
        out[12..].copy_from_slice(&self.codebook_norm.to_le_bytes());
        out
    }

    /// Reads what [`SampleBounds::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length, fewer samples than centroids or too many, or norms
    /// that make no scale for `packing`.
    pub fn from_bytes(packing: &BatchPacking, bytes: &[u8]) -> Result<Self, CkksError> {
        exact("the bounds of a sample", bytes, Self::ENCODED_LEN)?;
        let mut samples = [0; 4];
        samples.copy_from_slice(&bytes[..4]);
        let norm = |at: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[at..at + 8]);
            f64::from_le_bytes(value)
        };
        let bounds = Self {
            samples: u32::from_le_bytes(samples) as usize,
            row_norm: norm(4),
            codebook_norm: norm(12),
        };
        check_samples(packing, bounds.samples)?;
        bounds.scale(packing)?;
        Ok(bounds)
    }
}

fn check_samples(packing: &BatchPacking, samples: usize) -> Result<(), CkksError> {
    let least = packing.centroids();
    if (least..=MAX_SAMPLES).contains(&samples) {
        Ok(())
    } else {
        Err(CkksError::Shape {
            what: "the size of the training sample",
            actual: samples,
            minimum: least,
            maximum: MAX_SAMPLES,
            set: packing.set().name(),
            fix: "take a sample of about 100 vectors a centroid",
        })
    }
}

/// A training sample at its owner, every sub-space in a random order of its own.
///
/// # Security
/// Vectors in the clear; zeroized on drop.
pub struct TrainingSample {
    packing: BatchPacking,
    bounds: SampleBounds,
    rows: Vec<f32>,
}

impl Drop for TrainingSample {
    fn drop(&mut self) {
        self.rows.zeroize();
    }
}

impl ZeroizeOnDrop for TrainingSample {}

impl TrainingSample {
    /// Takes padded vectors, `[vector][subquantizer][d]`, and shuffles every
    /// sub-space on its own: row v then holds sub-vectors of M vectors that
    /// have nothing to do with one another.
    ///
    /// # Errors
    /// On fewer vectors than centroids or more than [`MAX_SAMPLES`], a length
    /// that is no multiple of M·d, NaN or infinity, or vectors that are all zero.
    ///
    /// # Security
    /// Neither role gets to know the orders: they end with this call.
    pub fn new(
        packing: &BatchPacking,
        vectors: &[f32],
        rng: &mut impl CryptoRng,
    ) -> Result<Self, CkksError> {
        let (length, d) = (packing.vector_len(), packing.width());
        let samples = vectors.len() / length;
        check("the training sample", vectors, samples * length)?;
        check_samples(packing, samples)?;
        let mut rows = vec![0f32; vectors.len()];
        let mut order: Vec<usize> = (0..samples).collect();
        let mut largest = 0.0;
        for slot in 0..packing.subquantizers() {
            shuffle(&mut order, rng);
            let mut longest = 0f64;
            for (row, &from) in rows.chunks_exact_mut(length).zip(&order) {
                let sub = &vectors[from * length + slot * d..][..d];
                row[slot * d..][..d].copy_from_slice(sub);
                longest = longest.max(squared(sub));
            }
            largest += longest;
        }
        order.zeroize();
        let row_norm = rows.chunks_exact(length).map(squared).fold(0.0, f64::max);
        let bounds = SampleBounds {
            samples,
            row_norm: row_norm.sqrt(),
            codebook_norm: largest.sqrt(),
        };
        let sample = Self {
            packing: *packing,
            bounds,
            rows,
        };
        bounds.scale(packing)?;
        Ok(sample)
    }

    /// What the roles must know.
    #[must_use]
    pub const fn bounds(&self) -> SampleBounds {
        self.bounds
    }

    /// The rows of batch `batch`, to encrypt with a [`crate::BatchEncryptor`] of
    /// [`SampleBounds::scale`].
    ///
    /// # Panics
    /// When there is no such batch.
    #[must_use]
    pub fn batch(&self, batch: usize) -> &[f32] {
        let each = self.packing.batch() * self.packing.vector_len();
        let end = (each * (batch + 1)).min(self.rows.len());
        &self.rows[each * batch..end]
    }

    /// Splits every value into x + (-r) modulo 2^104, r from `seed`: the keeper
    /// gets these bytes, the searcher the seed.
    ///
    /// # Security
    /// x is uniform whatever the value. The seed must be used for this sample
    /// only.
    #[must_use]
    pub fn shares(&self, seed: &MaskSeed) -> Vec<u8> {
        let factor = 1.0 / self.bounds.unit();
        let mut out = Vec::with_capacity(self.rows.len() * SHARE_BYTES);
        let mut stream = seed.stream();
        for &value in &self.rows {
            let fixed = (f64::from(value) * factor).round() as i64;
            let share = stream.next().wrapping_add_signed(i128::from(fixed)) & MASK;
            out.extend_from_slice(&share.to_le_bytes()[..SHARE_BYTES]);
        }
        out
    }
}

/// The low [`MASK_BITS`] bits.
const MASK: u128 = (1 << MASK_BITS) - 1;

fn squared(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// A uniformly random order (Fisher-Yates).
fn shuffle(order: &mut [usize], rng: &mut impl CryptoRng) {
    for i in (1..order.len()).rev() {
        let j = below(i + 1, rng);
        order.swap(i, j);
    }
}

/// Uniform below `bound`, up to a bias of 2^-64·bound.
pub(super) fn below(bound: usize, rng: &mut impl CryptoRng) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

/// The seed of the masks r of one sample; owner and searcher have it.
///
/// # Security
/// With it and the keeper's shares the sample is known; zeroized on drop.
#[derive(Clone)]
pub struct MaskSeed(Zeroizing<[u8; 32]>);

impl ZeroizeOnDrop for MaskSeed {}

impl MaskSeed {
    /// Draws a fresh seed.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        Self(seed)
    }

    /// The seed that was sent as these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    /// To send it to the searcher.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The masks, row after row: 13 bytes each of ChaCha20's key stream.
    pub(super) fn stream(&self) -> MaskStream {
        MaskStream {
            rng: ChaCha20Rng::from_seed(*self.0),
            bytes: Zeroizing::new([0; MaskStream::CHUNK]),
            next: MaskStream::CHUNK,
        }
    }
}

/// See [`MaskSeed::stream`].
pub(super) struct MaskStream {
    rng: ChaCha20Rng,
    bytes: Zeroizing<[u8; Self::CHUNK]>,
    next: usize,
}

impl MaskStream {
    const CHUNK: usize = SHARE_BYTES * 256;

    pub(super) fn next(&mut self) -> u128 {
        if self.next == Self::CHUNK {
            self.rng.fill_bytes(&mut *self.bytes);
            self.next = 0;
        }
        let value = share(&self.bytes[self.next..self.next + SHARE_BYTES]);
        self.next += SHARE_BYTES;
        value
    }
}

/// The number that [`SHARE_BYTES`] bytes stand for.
#[inline]
pub(super) fn share(bytes: &[u8]) -> u128 {
    let mut wide = [0; 16];
    wide[..SHARE_BYTES].copy_from_slice(bytes);
    u128::from_le_bytes(wide)
}
