//! Durations in fixed buckets.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the histogram buckets in microseconds; a last, unbounded bucket
/// follows them. All roles share them, so that their stages can be compared.
pub const BUCKETS_US: [u64; 17] = [
    10, 20, 50, 100, 150, 200, 350, 500, 750, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000,
    250_000, 1_000_000,
];

/// A histogram of durations; recording is two relaxed atomic additions.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Adds one duration.
    pub fn record(&self, elapsed: Duration) {
        let us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.partition_point(|&bound| bound < us);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// How many durations there are and their sum.
    #[must_use]
    pub fn durations(&self) -> Durations {
        Durations {
            count: self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum(),
            sum_us: self.sum_us.load(Relaxed),
        }
    }

    /// How many durations lie at or below each of [`BUCKETS_US`], then how many there
    /// are.
    pub(crate) fn cumulative(&self) -> [u64; BUCKETS_US.len() + 1] {
        let mut running = 0;
        self.buckets.each_ref().map(|bucket| {
            running += bucket.load(Relaxed);
            running
        })
    }
}

/// A histogram's durations at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// How many were recorded.
    pub count: u64,
    /// Their sum in microseconds.
    pub sum_us: u64,
}

impl Durations {
    /// Mean in microseconds; 0 before the first record.
    #[must_use]
    pub fn mean_us(self) -> f64 {
        match self.count {
            0 => 0.0,
            count => self.sum_us as f64 / count as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_at_the_count() {
        let histogram = Histogram::default();
        assert_eq!(histogram.durations().mean_us(), 0.0);
        for us in [5, 10, 11, 999, 5_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        assert_eq!(
            histogram.cumulative(),
            [2, 3, 3, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4, 5]
        );
        let durations = histogram.durations();
        assert_eq!((durations.count, durations.sum_us), (5, 5_001_025));
        assert_eq!(durations.mean_us(), 1_000_205.0);
    }

    #[test]
    fn longest_duration_is_counted() {
        let histogram = Histogram::default();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.durations().count, 1);
    }
}
