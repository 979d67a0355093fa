//! ChaCha20 as a random number generator, on the wide kernel.

use std::convert::Infallible;

use oboro_simd::{Arch, chacha};
use rand_core::{SeedableRng, TryCryptoRng, TryRng};
use zeroize::{Zeroize, ZeroizeOnDrop};

const WORD: usize = 4;

/// A cryptographic generator with the very stream of `chacha20::ChaCha20Rng`,
/// several times faster where vectors are wide.
///
/// Samplers take any `CryptoRng`; give them this one where speed matters, from
/// a seed of the operating system.
///
/// # Security
/// Key and buffered key stream are zeroized on drop. What was given out stays
/// in the buffer until the next batch overwrites it.
pub struct StreamRng {
    arch: Arch,
    key: [u32; 8],
    stream: u64,
    /// Block that the next batch starts with.
    counter: u64,
    batch: chacha::Batch,
    /// Bytes of `batch` already given out, a multiple of four.
    used: usize,
}

impl StreamRng {
    /// Chooses one of the 2^64 independent streams of a seed, from its start.
    pub fn set_stream(&mut self, stream: u64) {
        self.stream = stream;
        self.counter = 0;
        self.used = self.batch.len();
    }

    fn refill(&mut self) {
        Self::generate(
            self.arch,
            &self.key,
            self.stream,
            &mut self.counter,
            &mut self.batch,
        );
        self.used = 0;
    }

    fn generate(
        arch: Arch,
        key: &[u32; 8],
        stream: u64,
        counter: &mut u64,
        out: &mut chacha::Batch,
    ) {
        chacha::fill(arch, key, stream, *counter, out);
        *counter = counter.wrapping_add(chacha::BATCH_BLOCKS);
    }
}

impl SeedableRng for StreamRng {
    type Seed = [u8; 32];

    fn from_seed(mut seed: Self::Seed) -> Self {
        let mut key = [0; 8];
        for (word, bytes) in key.iter_mut().zip(seed.as_chunks::<WORD>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        seed.zeroize();
        let batch = [0; size_of::<chacha::Batch>()];
        Self {
            arch: Arch::detect(),
            key,
            stream: 0,
            counter: 0,
            used: batch.len(),
            batch,
        }
    }
}

impl TryRng for StreamRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut word = [0; 4];
        self.try_fill_bytes(&mut word)?;
        Ok(u32::from_le_bytes(word))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut word = [0; 8];
        self.try_fill_bytes(&mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// Consumes whole words of four bytes, as `ChaCha20Rng` does.
    fn try_fill_bytes(&mut self, mut out: &mut [u8]) -> Result<(), Infallible> {
        while !out.is_empty() {
            if self.used == self.batch.len() {
                // Whole batches go straight to their place.
                let (batches, rest) = out.as_chunks_mut();
                for batch in batches {
                    Self::generate(self.arch, &self.key, self.stream, &mut self.counter, batch);
                }
                out = rest;
                if out.is_empty() {
                    break;
                }
                self.refill();
            }
            let count = out.len().min(self.batch.len() - self.used);
            let (now, later) = out.split_at_mut(count);
            now.copy_from_slice(&self.batch[self.used..self.used + count]);
            self.used += count.next_multiple_of(WORD);
            out = later;
        }
        Ok(())
    }
}

impl TryCryptoRng for StreamRng {}

impl Drop for StreamRng {
    fn drop(&mut self) {
        self.key.zeroize();
        self.batch.zeroize();
    }
}

impl ZeroizeOnDrop for StreamRng {}

#[cfg(test)]
mod tests {
    use chacha20::ChaCha20Rng;
    use proptest::prelude::*;
    use rand_core::Rng;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_the_independent_generator(
            seed: [u8; 32],
            stream: u64,
            draws in proptest::collection::vec(0usize..3000, 1..12),
        ) {
            let (mut ours, mut theirs) = (StreamRng::from_seed(seed), ChaCha20Rng::from_seed(seed));
            for round in 0..2 {
                for &draw in &draws {
                    prop_assert_eq!(ours.next_u32(), theirs.next_u32());
                    prop_assert_eq!(ours.next_u64(), theirs.next_u64());
                    let (mut a, mut b) = (vec![0; draw], vec![0; draw]);
                    ours.fill_bytes(&mut a);
                    theirs.fill_bytes(&mut b);
                    prop_assert_eq!(a, b);
                }
                if round == 0 {
                    ours.set_stream(stream);
                    theirs = ChaCha20Rng::from_seed(seed);
                    theirs.set_stream(stream);
                }
            }
        }
    }
}
