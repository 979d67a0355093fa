//! One seed, many independent generators.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use chacha20::ChaCha20Rng;
use rand_core::{CryptoRng, Rng as _, SeedableRng as _};
use zeroize::Zeroizing;

/// Hands out ChaCha20 generators, each on a stream of its own, to any number of
/// threads.
///
/// # Security
/// Every role draws from it what must never be drawn twice:
///
/// - a client its encryptions: two queries under the same randomness tell the
///   searcher their difference;
/// - a searcher its encryptions of zero: two products re-randomized alike tell
///   the keeper theirs;
/// - a keeper its dither: a dither that repeats, or can be foretold, no longer
///   hides what the dropped bits say about the key.
///
/// Within one value no stream is handed out twice. Across values only the seed
/// keeps streams apart: it must come fresh from the operating system for every
/// client and for every start of a server, and nobody else may use it. There is
/// no `Clone` for the same reason. The seed is zeroized on drop, and so is every
/// generator.
pub struct Randomness {
    seed: Zeroizing<[u8; 32]>,
    /// 64 bits: a stream per nanosecond lasts for five centuries.
    next: AtomicU64,
}

impl Randomness {
    /// Streams of `seed`, beginning with the first.
    #[must_use]
    pub fn new(seed: Zeroizing<[u8; 32]>) -> Self {
        Self {
            seed,
            next: AtomicU64::new(0),
        }
    }

    /// A generator nobody else has or gets.
    #[must_use]
    pub fn generator(&self) -> impl CryptoRng + Send + use<> {
        self.stream()
    }

    /// `N` fresh bytes: nonces, challenges, names of sessions.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream().fill_bytes(&mut bytes);
        bytes
    }

    fn stream(&self) -> ChaCha20Rng {
        let mut generator = ChaCha20Rng::from_seed(*self.seed);
        // Relaxed suffices: the addition is one step, so no two callers see the
        // same number, and nothing else is ordered by it.
        generator.set_stream(self.next.fetch_add(1, Relaxed));
        generator
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn seven() -> Randomness {
        Randomness::new(Zeroizing::new([7; 32]))
    }

    #[test]
    fn nothing_repeats_between_threads_or_while_a_generator_lives() {
        let randomness = seven();
        let mut held = randomness.generator();
        let draw = || (0..500).map(|_| randomness.bytes()).collect::<Vec<_>>();
        let mut seen: Vec<[u8; 16]> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        for _ in 0..500 {
            let mut bytes = [0; 16];
            held.fill_bytes(&mut bytes);
            seen.push(bytes);
        }
        assert_eq!(seen.len(), 2_500);
        assert_eq!(seen.into_iter().collect::<HashSet<_>>().len(), 2_500);
    }

    #[test]
    fn streams_are_those_of_the_cipher_in_order() {
        let randomness = seven();
        for stream in 0..3 {
            let mut cipher = ChaCha20Rng::from_seed([7; 32]);
            cipher.set_stream(stream);
            let mut expected = [0; 100];
            cipher.fill_bytes(&mut expected);
            assert_eq!(randomness.bytes::<100>(), expected);
        }
    }
}
