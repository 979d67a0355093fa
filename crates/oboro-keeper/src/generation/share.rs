//! The keeper's share of a codebook, as its searcher keeps it.

use oboro_ckks::{BatchPacking, BatchScale, CkksError, MeanShares};
use zeroize::Zeroizing;

/// The keeper's share of a trained codebook, and the scale to encrypt it with.
pub(super) struct Share {
    pub(super) scale: BatchScale,
    pub(super) means: MeanShares,
}

impl Share {
    /// Packing, scale and share: to be sealed.
    pub(super) fn to_bytes(scale: &BatchScale, means: &MeanShares) -> Zeroizing<Vec<u8>> {
        let means = means.to_bytes();
        let fixed = BatchPacking::ENCODED_LEN + BatchScale::ENCODED_LEN;
        let mut out = Zeroizing::new(Vec::with_capacity(fixed + means.len()));
        out.extend_from_slice(&scale.packing().to_bytes());
        out.extend_from_slice(&scale.to_bytes());
        out.extend_from_slice(&means);
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, CkksError> {
        let short = || CkksError::Value("the share of a codebook");
        let (packing, rest) = bytes
            .split_at_checked(BatchPacking::ENCODED_LEN)
            .ok_or_else(short)?;
        let (scale, means) = rest
            .split_at_checked(BatchScale::ENCODED_LEN)
            .ok_or_else(short)?;
        let packing = BatchPacking::from_bytes(packing)?;
        Ok(Self {
            scale: BatchScale::from_bytes(&packing, scale)?,
            means: MeanShares::from_bytes(&packing, means)?,
        })
    }
}
