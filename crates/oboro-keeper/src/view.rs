//! What the keeper saw, for people who want to check that it saw nothing.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts and one statistic of everything that arrived to be decrypted; no content.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct KeeperView {
    /// Tables decrypted.
    pub tables: u64,
    /// Bytes of masked products received.
    pub bytes_received: u64,
    /// Bytes of shares sent.
    pub bytes_sent: u64,
    /// How far the received bytes' value counts lie from uniform, in standard deviations
    /// of the chi-square statistic with 255 degrees of freedom: within about ±3 for
    /// random bytes, thousands for anything else. `None` where not recorded.
    pub uniformity: Option<f64>,
}

pub(crate) struct ByteCounts([AtomicU64; 256]);

impl ByteCounts {
    pub(crate) fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 256])
    }

    pub(crate) fn record(&self, bytes: &[u8]) {
        // Four local tables: neighbours with equal values do not wait for each other.
        let mut counts = [[0_u32; 256]; 4];
        for group in bytes.chunks(4) {
            for (table, byte) in counts.iter_mut().zip(group) {
                table[usize::from(*byte)] += 1;
            }
        }
        for (value, total) in self.0.iter().enumerate() {
            let count: u64 = counts.iter().map(|table| u64::from(table[value])).sum();
            total.fetch_add(count, Relaxed);
        }
    }

    /// (chi² - 255) / sqrt(2 · 255), 0 before the first byte.
    pub(crate) fn uniformity(&self) -> f64 {
        let counts = self.0.each_ref().map(|count| count.load(Relaxed) as f64);
        let expected = counts.iter().sum::<f64>() / 256.0;
        if expected == 0.0 {
            return 0.0;
        }
        let chi_square: f64 = counts
            .iter()
            .map(|count| (count - expected).powi(2) / expected)
            .sum();
        (chi_square - 255.0) / (2.0 * 255.0_f64).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng as _, SeedableRng as _};

    #[test]
    fn random_bytes_pass_and_text_fails() {
        let mut bytes = vec![0; 1 << 20];
        ChaCha20Rng::from_seed([3; 32]).fill_bytes(&mut bytes);
        let random = ByteCounts::new();
        random.record(&bytes);
        assert!(random.uniformity().abs() < 4.0, "{}", random.uniformity());
        // One byte in a hundred biased is seen.
        for byte in bytes.iter_mut().step_by(100) {
            *byte = 0;
        }
        let biased = ByteCounts::new();
        biased.record(&bytes);
        assert!(biased.uniformity() > 100.0, "{}", biased.uniformity());
        assert_eq!(ByteCounts::new().uniformity(), 0.0);
    }
}
