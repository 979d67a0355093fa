//! Secrets, and the region in which they are used.

use std::convert::Infallible;
use std::hint::black_box;
use std::io::Write;

use chacha20::ChaCha20Rng;
use oboro_simd::taint;
use rand_core::{Rng, SeedableRng, TryCryptoRng, TryRng};

/// How this process is being checked.
pub(crate) struct Run {
    /// Which secret, when traced; `None` under valgrind.
    secret: Option<u64>,
}

impl Run {
    /// Under valgrind: one secret, marked.
    pub(crate) fn taint() -> Self {
        Self { secret: None }
    }

    /// Under the tracer: 0 is all zeros, 1 all ones, others are random.
    pub(crate) fn trace(secret: u64) -> Self {
        Self {
            secret: Some(secret),
        }
    }

    /// Runs the region under test and lets its result be seen.
    pub(crate) fn region<R>(&self, work: impl FnOnce() -> R) -> R {
        if self.secret.is_none() {
            return black_box(work());
        }
        // The tracer attaches between these two lines.
        println!("ready");
        let _ = std::io::stdout().flush();
        let _ = std::io::stdin().read_line(&mut String::with_capacity(16));
        black_box(taint::traced(work))
    }

    /// A secret of `count` values, each made from 64 secret bits.
    pub(crate) fn secret<T: Copy>(&self, count: usize, make: impl Fn(u64) -> T) -> Vec<T> {
        let mut rng = ChaCha20Rng::seed_from_u64(self.number());
        let values: Vec<T> = (0..count)
            .map(|_| {
                make(match self.secret {
                    Some(0) => 0,
                    Some(1) => u64::MAX,
                    _ => rng.next_u64(),
                })
            })
            .collect();
        self.mark(&values);
        values
    }

    /// Marks values made otherwise as secret.
    pub(crate) fn mark<T: Copy>(&self, values: &[T]) {
        if self.secret.is_none() {
            taint::secret(values);
        }
    }

    /// Makes sure that the marks reached a result: a region that never used
    /// its secrets would pass every check.
    pub(crate) fn expect_secret<T: Copy>(&self, result: &[T]) {
        assert!(
            self.secret.is_some() || taint::is_secret(result),
            "the secret never reached the result"
        );
    }

    /// A number that differs from secret to secret.
    pub(crate) fn number(&self) -> u64 {
        self.secret.unwrap_or(7)
    }

    /// A generator whose output is not secret, the same for every secret.
    pub(crate) fn plain_rng(seed: u64) -> SecretRng {
        SecretRng {
            inner: ChaCha20Rng::seed_from_u64(1_000 + seed),
            marked: false,
            steady: false,
        }
    }

    /// A generator whose every output is secret.
    pub(crate) fn rng(&self) -> SecretRng {
        SecretRng {
            inner: ChaCha20Rng::seed_from_u64(self.number()),
            marked: self.secret.is_none(),
            steady: self.secret.is_some(),
        }
    }
}

/// A seeded generator whose output may count as secret.
pub(crate) struct SecretRng {
    inner: ChaCha20Rng,
    marked: bool,
    steady: bool,
}

impl TryRng for SecretRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let value = self.inner.next_u32();
        Ok(if self.marked {
            taint::classify(value)
        } else {
            value
        })
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let value = self.inner.next_u64();
        Ok(if self.marked {
            taint::classify(value)
        } else {
            value
        })
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.inner.fill_bytes(bytes);
        if self.steady {
            // Ternary sampling skips bytes from 243 on. How many says nothing
            // about those it keeps, but would make two traces differ.
            for byte in bytes.iter_mut() {
                *byte = (*byte).min(242);
            }
        }
        if self.marked {
            taint::secret(bytes);
        }
        Ok(())
    }
}

impl TryCryptoRng for SecretRng {}
