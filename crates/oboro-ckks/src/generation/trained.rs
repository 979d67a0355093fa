//! What a training gives.

use zeroize::Zeroizing;

use super::{MaskedBatchCodebook, MeanShares};
use crate::{BatchCodebook, BatchEvaluator, BatchScale, CkksError, PublicKey};

/// A codebook at the searcher, encrypted, ready to encode vectors.
pub struct TrainedCodebook {
    pub(super) evaluator: BatchEvaluator,
    pub(super) means: MeanShares,
    pub(super) offsets: Zeroizing<Vec<f32>>,
}

impl TrainedCodebook {
    /// The codebook of an earlier training, from what was kept of it: the searcher's
    /// shares, the offsets as they were measured, and the keeper's shares, which the
    /// keeper has encrypted anew.
    ///
    /// # Errors
    /// When the parts do not belong together.
    pub fn again(
        scale: BatchScale,
        key: PublicKey,
        masked: MaskedBatchCodebook,
        means: MeanShares,
        offsets: Zeroizing<Vec<f32>>,
    ) -> Result<Self, CkksError> {
        crate::codebook::check(
            "the offsets of a codebook",
            &offsets,
            scale.packing().table_len(),
        )?;
        let (codebook, _) = masked.unmask(&means, &scale)?;
        Ok(Self {
            evaluator: BatchEvaluator::new(scale, key, codebook)?,
            means,
            offsets,
        })
    }

    /// Encodes batches; its [`BatchScale`] is the one that vectors have to be
    /// encrypted with.
    #[must_use]
    pub const fn evaluator(&self) -> &BatchEvaluator {
        &self.evaluator
    }

    /// The codebook for batches.
    #[must_use]
    pub const fn codebook(&self) -> &BatchCodebook {
        self.evaluator.codebook()
    }

    /// The searcher's shares of the codebook.
    #[must_use]
    pub const fn means(&self) -> &MeanShares {
        &self.means
    }

    /// -|c|²/2, `[subquantizer][centroid]`, as measured.
    #[must_use]
    pub fn offsets(&self) -> &[f32] {
        &self.offsets
    }

    /// Σ_i max_k |o_ik|, for [`crate::TableScale::new`].
    #[must_use]
    pub fn offset_bound(&self) -> f64 {
        let k = self.evaluator.packing().centroids();
        let largest = |row: &[f32]| row.iter().fold(0f32, |all, x| all.max(x.abs()));
        self.offsets
            .chunks_exact(k)
            .map(|row| f64::from(largest(row)))
            .sum()
    }

    /// A bound on √(Σ_i max_k |c_ik|²), for [`crate::TableScale::new`].
    #[must_use]
    pub const fn codebook_norm(&self) -> f64 {
        self.evaluator.scale().codebook_norm()
    }
}
