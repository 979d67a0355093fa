//! One seed, many independent generators.

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use std::sync::Mutex;
use zeroize::Zeroizing;

/// Lends ChaCha20 generators, each on a stream of its own.
///
/// # Security
/// The seed must be fresh from the system for every start, so that no dither repeats.
pub(crate) struct Randomness {
    seed: Zeroizing<[u8; 32]>,
    idle: Mutex<Idle>,
}

struct Idle {
    generators: Vec<ChaCha20Rng>,
    streams: u64,
}

impl Randomness {
    pub(crate) fn new(seed: Zeroizing<[u8; 32]>) -> Self {
        Self {
            seed,
            idle: Mutex::new(Idle {
                generators: Vec::new(),
                streams: 0,
            }),
        }
    }

    /// Runs `work` with a generator that nobody else uses meanwhile.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut ChaCha20Rng) -> T) -> T {
        let mut generator = self.take();
        let result = work(&mut generator);
        self.lock().generators.push(generator);
        result
    }

    /// `N` fresh bytes.
    pub(crate) fn bytes<const N: usize>(&self) -> [u8; N] {
        self.with(|generator| {
            let mut bytes = [0; N];
            generator.fill_bytes(&mut bytes);
            bytes
        })
    }

    fn take(&self) -> ChaCha20Rng {
        let mut idle = self.lock();
        idle.generators.pop().unwrap_or_else(|| {
            let mut generator = ChaCha20Rng::from_seed(*self.seed);
            generator.set_stream(idle.streams);
            idle.streams += 1;
            generator
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Idle> {
        // A panic elsewhere leaves whole generators behind: nothing to repair.
        self.idle
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_repeats_in_turn_or_nested() {
        let randomness = Randomness::new(Zeroizing::new([7; 32]));
        let mut seen: Vec<[u8; 16]> = (0..500).map(|_| randomness.bytes()).collect();
        randomness.with(|_| {
            seen.extend((0..500).map(|_| randomness.bytes::<16>()));
        });
        seen.extend((0..500).map(|_| randomness.bytes::<16>()));
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1_500);
    }
}
