//! One seed, many independent generators.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use chacha20::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use zeroize::Zeroizing;

/// Hands out ChaCha20 generators, each on a stream of its own.
///
/// # Security
/// The seed must be fresh from the system for every start: re-randomization
/// with the same stream twice would show the keeper differences of products.
pub(crate) struct Randomness {
    seed: Zeroizing<[u8; 32]>,
    next: AtomicU64,
}

impl Randomness {
    pub(crate) fn new(seed: Zeroizing<[u8; 32]>) -> Self {
        Self {
            seed,
            next: AtomicU64::new(0),
        }
    }

    /// A generator nobody else has or gets.
    pub(crate) fn generator(&self) -> ChaCha20Rng {
        let mut generator = ChaCha20Rng::from_seed(*self.seed);
        generator.set_stream(self.next.fetch_add(1, Relaxed));
        generator
    }

    /// `N` fresh bytes.
    pub(crate) fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.generator().fill_bytes(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_generators_agree() {
        let randomness = Randomness::new(Zeroizing::new([7; 32]));
        let mut seen: Vec<[u8; 16]> = (0..1_000).map(|_| randomness.bytes()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1_000);
    }
}
