//! To which cluster each sub-vector of the sample belongs.

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::key::exact;
use crate::{BatchPacking, CkksError};

/// One label for each sub-space and sample, `[subquantizer][sample]`: a centroid
/// below K, or none.
///
/// # Security
/// What the keeper learns in training. The owner put the samples of every
/// sub-space into a random order of its own, so labels of two sub-spaces have
/// nothing to do with one another. Zeroized on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels {
    subquantizers: usize,
    samples: usize,
    values: Vec<u16>,
}

impl Drop for Labels {
    fn drop(&mut self) {
        self.values.zeroize();
    }
}

impl ZeroizeOnDrop for Labels {}

/// Stands for "in no cluster".
const NONE: u16 = u16::MAX;

impl Labels {
    /// Labels that put every sample into no cluster.
    #[must_use]
    pub fn none(packing: &BatchPacking, samples: usize) -> Self {
        Self {
            subquantizers: packing.subquantizers(),
            samples,
            values: vec![NONE; packing.subquantizers() * samples],
        }
    }

    /// n, the number of samples.
    #[must_use]
    pub const fn samples(&self) -> usize {
        self.samples
    }

    /// The label of a sample in a sub-space.
    pub(super) fn label(&self, slot: usize, sample: usize) -> Option<usize> {
        let value = self.values[slot * self.samples + sample];
        (value != NONE).then_some(usize::from(value))
    }

    pub(crate) fn set(&mut self, slot: usize, sample: usize, label: usize) {
        self.values[slot * self.samples + sample] = label as u16;
    }

    /// Members of every cluster, `[subquantizer][centroid]`.
    pub(super) fn counts(&self, centroids: usize) -> Vec<u32> {
        let mut counts = vec![0; self.subquantizers * centroids];
        for (values, counts) in self
            .values
            .chunks_exact(self.samples.max(1))
            .zip(counts.chunks_exact_mut(centroids))
        {
            for &value in values {
                if let Some(count) = counts.get_mut(usize::from(value)) {
                    *count += 1;
                }
            }
        }
        counts
    }

    /// Checks the shape, and that every label names a centroid and every
    /// centroid has a member.
    pub(super) fn check(&self, packing: &BatchPacking, samples: usize) -> Result<(), CkksError> {
        if self.subquantizers != packing.subquantizers() || self.samples != samples {
            return Err(CkksError::Mismatch {
                left: "the labels",
                right: "the sample",
            });
        }
        let k = packing.centroids();
        if self
            .values
            .iter()
            .any(|&x| x != NONE && usize::from(x) >= k)
        {
            return Err(CkksError::Value("the list of labels"));
        }
        let empty = self.counts(k).iter().filter(|&&count| count == 0).count();
        if empty > 0 {
            return Err(CkksError::EmptyClusters { empty });
        }
        Ok(())
    }

    /// Length of [`Labels::to_bytes`].
    #[must_use]
    pub const fn encoded_len(packing: &BatchPacking, samples: usize) -> usize {
        2 * packing.subquantizers() * samples
    }

    /// Little-endian 16-bit values, 65,535 for none.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    /// Reads what [`Labels::to_bytes`] wrote.
    ///
    /// # Errors
    /// On another length, a label that is no centroid, or a centroid without a
    /// member.
    pub fn from_bytes(
        packing: &BatchPacking,
        samples: usize,
        bytes: &[u8],
    ) -> Result<Self, CkksError> {
        exact(
            "the list of labels",
            bytes,
            Self::encoded_len(packing, samples),
        )?;
        let labels = Self {
            subquantizers: packing.subquantizers(),
            samples,
            values: bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| u16::from_le_bytes(*b))
                .collect(),
        };
        labels.check(packing, samples)?;
        Ok(labels)
    }
}
