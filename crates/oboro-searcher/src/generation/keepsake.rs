//! What the searcher keeps of a training, so that it can encode vectors later.
//!
//! | bytes | content |
//! |---|---|
//! | 13 | packing of batches |
//! | 17 | scale of batches |
//! | 2, 8 each | mean scores of the sample after each round |
//! | 4 each | offsets, `[subquantizer][centroid]` |
//! | then | the searcher's share of the codebook |
//!
//! It rests sealed ([`oboro_index::SealedBlind`]).

use oboro_ckks::{BatchPacking, BatchScale, CkksError, MeanShares};
use oboro_protocol::generation::MAX_ROUNDS;
use zeroize::Zeroizing;

/// The searcher's part of a trained codebook.
pub(super) struct Keepsake {
    pub(super) scale: BatchScale,
    pub(super) gains: Vec<f64>,
    pub(super) offsets: Zeroizing<Vec<f32>>,
    pub(super) means: MeanShares,
}

const DAMAGED: CkksError = CkksError::Value("what is kept of a training");

/// The bytes of what is kept.
pub(super) fn to_bytes(
    scale: &BatchScale,
    gains: &[f64],
    offsets: &[f32],
    means: &MeanShares,
) -> Zeroizing<Vec<u8>> {
    let means = means.to_bytes();
    let fixed = BatchPacking::ENCODED_LEN + BatchScale::ENCODED_LEN + 2;
    let length = fixed + 8 * gains.len() + 4 * offsets.len() + means.len();
    // Grown step by step, one would leave copies behind.
    let mut out = Zeroizing::new(Vec::with_capacity(length));
    out.extend_from_slice(&scale.packing().to_bytes());
    out.extend_from_slice(&scale.to_bytes());
    out.extend_from_slice(&(gains.len() as u16).to_le_bytes());
    for gain in gains {
        out.extend_from_slice(&gain.to_le_bytes());
    }
    for offset in offsets {
        out.extend_from_slice(&offset.to_le_bytes());
    }
    out.extend_from_slice(&means);
    out
}

impl Keepsake {
    /// Reads what [`to_bytes`] wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, CkksError> {
        let mut rest = bytes;
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at_checked(count).ok_or(DAMAGED)?;
            rest = left;
            Ok::<_, CkksError>(taken)
        };
        let packing = BatchPacking::from_bytes(take(BatchPacking::ENCODED_LEN)?)?;
        let scale = BatchScale::from_bytes(&packing, take(BatchScale::ENCODED_LEN)?)?;
        let count = take(2)?.try_into().map(u16::from_le_bytes);
        let count = usize::from(count.map_err(|_| DAMAGED)?);
        if count > MAX_ROUNDS as usize {
            return Err(DAMAGED);
        }
        let gains = take(8 * count)?.as_chunks::<8>().0.iter();
        let gains: Vec<f64> = gains.map(|bytes| f64::from_le_bytes(*bytes)).collect();
        let offsets = take(4 * packing.table_len())?.as_chunks::<4>().0.iter();
        let offsets: Zeroizing<Vec<f32>> =
            Zeroizing::new(offsets.map(|bytes| f32::from_le_bytes(*bytes)).collect());
        if gains.iter().any(|x| !x.is_finite()) || offsets.iter().any(|x| !x.is_finite()) {
            return Err(DAMAGED);
        }
        let means = MeanShares::from_bytes(&packing, take(MeanShares::encoded_len(&packing))?)?;
        if !rest.is_empty() {
            return Err(DAMAGED);
        }
        Ok(Self {
            scale,
            gains,
            offsets,
            means,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use oboro_ckks::{Labels, MaskSeed, ParameterSet, TrainingSample};
    use rand_core::SeedableRng;

    fn kept() -> Vec<u8> {
        let mut rng = chacha20::ChaCha20Rng::from_seed([1; 32]);
        let packing = BatchPacking::new(ParameterSet::N2048Q50, 2, 3, 4).unwrap();
        let values: Vec<f32> = (0..8 * packing.vector_len()).map(|x| x as f32).collect();
        let sample = TrainingSample::new(&packing, &values, &mut rng).unwrap();
        let labels: Vec<u8> = (0..16u8).flat_map(|x| [x % 4, 0]).collect();
        let labels = Labels::from_bytes(&packing, 8, &labels).unwrap();
        let bounds = sample.bounds();
        let seed = MaskSeed::generate(&mut rng);
        let means = seed.means(&packing, &bounds, &labels).unwrap();
        let offsets: Vec<f32> = (0..packing.table_len()).map(|x| -(x as f32)).collect();
        let scale = bounds.scale(&packing).unwrap();
        to_bytes(&scale, &[0.5, 0.75], &offsets, &means).to_vec()
    }

    #[test]
    fn gives_back_what_was_kept() {
        let bytes = kept();
        let read = Keepsake::from_bytes(&bytes).unwrap();
        assert_eq!(read.gains, [0.5, 0.75]);
        assert_eq!(read.offsets[7], -7.0);
        let again = to_bytes(&read.scale, &read.gains, &read.offsets, &read.means);
        assert_eq!(*again, bytes);
    }

    #[test]
    fn fail_cut_longer_or_not_finite() {
        let bytes = kept();
        for length in 0..bytes.len() {
            assert!(Keepsake::from_bytes(&bytes[..length]).is_err(), "{length}");
        }
        let mut long = bytes.clone();
        long.push(0);
        assert!(Keepsake::from_bytes(&long).is_err());
        for at in [32, 48] {
            let mut bad = bytes.clone();
            bad[at..at + 8].fill(0xff);
            assert!(Keepsake::from_bytes(&bad).is_err(), "{at}");
        }
        // Nothing panics, whatever a byte says.
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x81;
            let _ = Keepsake::from_bytes(&bad);
        }
    }
}
