//! Sums and means of shares: the same arithmetic at keeper and searcher.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::sample::{MaskSeed, SampleBounds, share};
use super::{FRACTION_BITS, Labels, SHARE_BYTES};
use crate::key::exact;
use crate::{BatchPacking, CkksError};

/// The keeper's shares of a training sample.
///
/// # Security
/// Uniformly random to whoever has not the seed of the masks; zeroized on drop
/// all the same.
pub struct SampleShares {
    packing: BatchPacking,
    bounds: SampleBounds,
    bytes: Vec<u8>,
}

impl Drop for SampleShares {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl ZeroizeOnDrop for SampleShares {}

impl SampleShares {
    /// Room for the shares of a sample.
    #[must_use]
    pub fn new(packing: &BatchPacking, bounds: SampleBounds) -> Self {
        let length = Self::encoded_len(packing, bounds.samples());
        Self {
            packing: *packing,
            bounds,
            // Grown step by step, one would leave copies behind.
            bytes: Vec::with_capacity(length),
        }
    }

    /// Bytes of the shares of `samples` samples.
    #[must_use]
    pub const fn encoded_len(packing: &BatchPacking, samples: usize) -> usize {
        samples * packing.vector_len() * SHARE_BYTES
    }

    /// Takes the next bytes that [`super::TrainingSample::shares`] made, in any
    /// portions.
    ///
    /// # Errors
    /// When there are more than the sample has.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), CkksError> {
        let expected = Self::encoded_len(&self.packing, self.bounds.samples());
        let actual = self.bytes.len() + bytes.len();
        if actual > expected {
            return Err(CkksError::EncodedLength {
                what: "the shares of a sample",
                actual,
                expected,
            });
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The sample's bounds.
    #[must_use]
    pub const fn bounds(&self) -> &SampleBounds {
        &self.bounds
    }

    /// The shape of the codebook.
    #[must_use]
    pub const fn packing(&self) -> &BatchPacking {
        &self.packing
    }

    /// The keeper's share of the mean of every cluster.
    ///
    /// # Errors
    /// When shares are missing, or the labels do not fit the sample or leave a
    /// cluster empty.
    pub fn means(&self, labels: &Labels) -> Result<MeanShares, CkksError> {
        exact(
            "the shares of a sample",
            &self.bytes,
            Self::encoded_len(&self.packing, self.bounds.samples()),
        )?;
        let mut values = self.bytes.chunks_exact(SHARE_BYTES);
        MeanShares::new(&self.packing, &self.bounds, labels, || {
            values.next().map_or(0, share)
        })
    }
}

impl MaskSeed {
    /// The searcher's share of the mean of every cluster, to be subtracted.
    ///
    /// # Errors
    /// When the labels do not fit the sample or leave a cluster empty.
    pub fn means(
        &self,
        packing: &BatchPacking,
        bounds: &SampleBounds,
        labels: &Labels,
    ) -> Result<MeanShares, CkksError> {
        let mut stream = self.stream();
        MeanShares::new(packing, bounds, labels, || stream.next())
    }
}

/// One role's share of a codebook: what the keeper holds minus what the searcher
/// holds is the codebook, in fixed point.
///
/// A role may keep its share, sealed, for as long as the index lives: from the
/// two the codebook can be encrypted anew under any key at any time, with no
/// more noise than the first time.
///
/// # Security
/// One share alone is independent of the codebook. Zeroized on drop.
pub struct MeanShares {
    packing: BatchPacking,
    unit: f64,
    /// `[subquantizer][centroid][d]`, below 2^112.
    values: Vec<u128>,
}

impl Drop for MeanShares {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

impl ZeroizeOnDrop for MeanShares {}

/// Bytes of a mean: those of a share and its fraction.
const MEAN_BYTES: usize = SHARE_BYTES + FRACTION_BITS as usize / 8;

impl MeanShares {
    /// Sums what `next` gives, row after row, by label and divides, keeping
    /// [`FRACTION_BITS`] more bits and rounding down.
    fn new(
        packing: &BatchPacking,
        bounds: &SampleBounds,
        labels: &Labels,
        mut next: impl FnMut() -> u128,
    ) -> Result<Self, CkksError> {
        labels.check(packing, bounds.samples())?;
        let (k, d) = (packing.centroids(), packing.width());
        let mut values = vec![0u128; packing.codebook_len()];
        for sample in 0..bounds.samples() {
            for slot in 0..packing.subquantizers() {
                match labels.label(slot, sample) {
                    Some(label) => {
                        let at = (slot * k + label) * d;
                        for sum in &mut values[at..at + d] {
                            *sum += next();
                        }
                    }
                    None => (0..d).for_each(|_| {
                        next();
                    }),
                }
            }
        }
        for (sums, count) in values.chunks_exact_mut(d).zip(labels.counts(k)) {
            let count = u128::from(count);
            for sum in sums {
                let (whole, rest) = (*sum / count, *sum % count);
                *sum = (whole << FRACTION_BITS) + (rest << FRACTION_BITS) / count;
            }
        }
        Ok(Self {
            packing: *packing,
            unit: bounds.unit() / f64::from(1u32 << FRACTION_BITS),
            values,
        })
    }

    /// The shape of the codebook.
    #[must_use]
    pub const fn packing(&self) -> &BatchPacking {
        &self.packing
    }

    /// What one unit of a value stands for.
    pub(super) const fn unit(&self) -> f64 {
        self.unit
    }

    /// Coordinate `j` of a centroid; zero where the codebook has none.
    pub(super) fn value(&self, slot: usize, centroid: usize, j: usize) -> u128 {
        let p = &self.packing;
        if slot < p.subquantizers() && centroid < p.centroids() && j < p.width() {
            self.values[(slot * p.centroids() + centroid) * p.width() + j]
        } else {
            0
        }
    }

    /// Length of [`MeanShares::to_bytes`].
    #[must_use]
    pub const fn encoded_len(packing: &BatchPacking) -> usize {
        8 + packing.codebook_len() * MEAN_BYTES
    }

    /// The unit, then 14 bytes a value: to be sealed at its role, never to be
    /// sent to the other.
    #[must_use]
    pub fn to_bytes(&self) -> zeroize::Zeroizing<Vec<u8>> {
        let mut out = Vec::with_capacity(Self::encoded_len(&self.packing));
        out.extend_from_slice(&self.unit.to_le_bytes());
        for value in &self.values {
            out.extend_from_slice(&value.to_le_bytes()[..MEAN_BYTES]);
        }
        out.into()
    }

    /// Reads what [`MeanShares::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length or a unit that is not positive and finite.
    pub fn from_bytes(packing: &BatchPacking, bytes: &[u8]) -> Result<Self, CkksError> {
        exact(
            "the shares of a codebook",
            bytes,
            Self::encoded_len(packing),
        )?;
        let mut unit = [0; 8];
        unit.copy_from_slice(&bytes[..8]);
        let unit = f64::from_le_bytes(unit);
        if !(unit.is_finite() && unit > 0.0) {
            return Err(CkksError::Value("the shares of a codebook"));
        }
        let values = bytes[8..]
            .chunks_exact(MEAN_BYTES)
            .map(|bytes| {
                let mut wide = [0; 16];
                wide[..MEAN_BYTES].copy_from_slice(bytes);
                u128::from_le_bytes(wide)
            })
            .collect();
        Ok(Self {
            packing: *packing,
            unit,
            values,
        })
    }
}
