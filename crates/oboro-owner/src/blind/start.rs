//! Where a build begins, and what all randomness in it follows from.

use chacha20::ChaCha20Rng;
use oboro_index::BuildState;
use rand_core::{CryptoRng, SeedableRng as _};
use zeroize::Zeroizing;

use crate::{Owner, OwnerError};

/// Most vectors of a segment.
pub(super) const SEGMENT_VECTORS: usize = 65_536;

impl Owner {
    /// The state of a build, sealed under the owner's key.
    #[must_use]
    pub fn seal_state(&self, state: &BuildState, rng: &mut impl CryptoRng) -> Vec<u8> {
        state.to_bytes(&self.key, rng)
    }

    /// Opens what [`seal_state`](Self::seal_state) gave.
    ///
    /// # Errors
    /// If it was altered or is another owner's.
    pub fn open_state(&self, bytes: &[u8]) -> Result<BuildState, OwnerError> {
        Ok(BuildState::from_bytes(&self.key, bytes)?)
    }
}

/// Where a blind build begins.
pub struct BlindStart<'a> {
    /// A fresh state, or that of a build that was interrupted.
    pub state: BuildState,
    /// The state is of an interrupted build: the input must be the same. If the keeper's
    /// key was rotated meanwhile, the build begins anew, under the new one.
    pub resume: bool,
    /// Most vectors of a segment, at most 65,536: as many are encoded again at most after
    /// an interruption.
    pub segment_vectors: usize,
    /// Called once, before anything leaves the owner; whoever keeps what it is given can
    /// go on after an interruption.
    pub keep: &'a mut dyn FnMut(&BuildState) -> Result<(), OwnerError>,
}

impl<'a> BlindStart<'a> {
    /// A build from the beginning.
    pub fn new(
        rng: &mut impl CryptoRng,
        keep: &'a mut dyn FnMut(&BuildState) -> Result<(), OwnerError>,
    ) -> Self {
        let mut index_id = [0; 16];
        rng.fill_bytes(&mut index_id);
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        let state = BuildState {
            index_id,
            seed,
            input: [0; 32],
            apart_from_key: None,
        };
        Self {
            state,
            resume: false,
            segment_vectors: SEGMENT_VECTORS,
            keep,
        }
    }
}

/// What each part of a build draws from the seed.
#[derive(Clone, Copy)]
pub(super) enum Part {
    Sample,
    Masks,
    Training,
    Batches,
    Segment(u32),
}

/// The generator of one part. The input goes into it, so that no two inputs are ever
/// encrypted with the same randomness.
pub(super) fn generator(state: &BuildState, part: Part) -> ChaCha20Rng {
    let number: u64 = match part {
        Part::Sample => 0,
        Part::Masks => 1,
        Part::Training => 2,
        Part::Batches => 3,
        Part::Segment(number) => 1 << 32 | u64::from(number),
    };
    let mut hasher = blake3::Hasher::new_keyed(&state.seed);
    hasher.update(&state.input);
    hasher.update(&number.to_le_bytes());
    let seed = Zeroizing::new(*hasher.finalize().as_bytes());
    ChaCha20Rng::from_seed(*seed)
}
