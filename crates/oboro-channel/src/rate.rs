//! Token buckets, one per peer key. Time is an argument.

use std::collections::HashMap;
use std::sync::Mutex;

/// More keys than this and the fullest buckets are forgotten: a full bucket forgotten is
/// a full bucket made anew.
const MAX_KEYS: usize = 4_096;

/// How often one key may do something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateLimit {
    /// Times per second in the long run.
    pub per_second: f64,
    /// Times at once.
    pub burst: f64,
}

impl RateLimit {
    /// So many a second, and as many at once.
    #[must_use]
    pub fn per_second(times: u32) -> Self {
        Self {
            per_second: f64::from(times),
            burst: f64::from(times),
        }
    }
}

impl Default for RateLimit {
    /// 20,000 per second, which no two cores reach: a bound on an oracle, not a brake on
    /// service.
    fn default() -> Self {
        Self {
            per_second: 20_000.0,
            burst: 40_000.0,
        }
    }
}

/// Holds every key to a [`RateLimit`].
#[derive(Debug)]
pub struct RateLimiter {
    limit: RateLimit,
    buckets: Mutex<HashMap<[u8; 32], Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    /// Seconds on the caller's monotonic clock.
    updated: f64,
}

impl RateLimiter {
    /// A limiter that has seen no key yet: every bucket is full.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            buckets: Mutex::new(HashMap::new()),
        }
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes one token of `key` at `now` seconds on any clock that does not step back;
    /// false when there is none, and for a new key while 4,096 others are not full again.
    #[must_use]
    pub fn admit(&self, key: &[u8; 32], now: f64) -> bool {
        let mut buckets = self
            .buckets
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if buckets.len() >= MAX_KEYS && !buckets.contains_key(key) {
            let limit = self.limit;
            buckets.retain(|_, bucket| bucket.refilled(limit, now).tokens < limit.burst);
            if buckets.len() >= MAX_KEYS {
                return false;
            }
        }
        let bucket = buckets.entry(*key).or_insert(Bucket {
            tokens: self.limit.burst,
            updated: now,
        });
        *bucket = bucket.refilled(self.limit, now);
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }
}

impl Bucket {
    fn refilled(self, limit: RateLimit, now: f64) -> Self {
        let elapsed = (now - self.updated).max(0.0);
        Self {
            tokens: (self.tokens + elapsed * limit.per_second).min(limit.burst),
            updated: now.max(self.updated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit {
        per_second: 10.0,
        burst: 3.0,
    };

    fn admitted(limiter: &RateLimiter, key: u8, now: f64, tries: usize) -> usize {
        (0..tries)
            .filter(|_| limiter.admit(&[key; 32], now))
            .count()
    }

    #[test]
    fn burst_then_rate() {
        let limiter = RateLimiter::new(LIMIT);
        assert_eq!(admitted(&limiter, 1, 0.0, 10), 3);
        assert_eq!(admitted(&limiter, 1, 0.1001, 10), 1);
        assert_eq!(admitted(&limiter, 1, 0.3002, 10), 2);
        assert_eq!(admitted(&limiter, 1, 100.0, 10), 3);
    }

    #[test]
    fn keys_do_not_share() {
        let limiter = RateLimiter::new(LIMIT);
        assert_eq!(admitted(&limiter, 1, 0.0, 10), 3);
        assert_eq!(admitted(&limiter, 2, 0.0, 10), 3);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let limiter = RateLimiter::new(LIMIT);
        assert_eq!(admitted(&limiter, 1, 10.0, 10), 3);
        assert_eq!(admitted(&limiter, 1, 5.0, 10), 0);
        assert_eq!(admitted(&limiter, 1, 10.0, 10), 0);
    }

    #[test]
    fn fail_more_keys_than_are_kept() {
        let limiter = RateLimiter::new(LIMIT);
        let key = |i: usize| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&i.to_le_bytes());
            key
        };
        for i in 0..MAX_KEYS {
            assert!(limiter.admit(&key(i), 0.0));
        }
        assert!(!limiter.admit(&key(MAX_KEYS), 0.0));
        // Once the others are full again they may be forgotten.
        assert!(limiter.admit(&key(MAX_KEYS), 1.0));
    }
}
