//! Work in the background that leaves room for the foreground.

use crate::IndexError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest sleep before cancellation is looked at again.
const NAP: Duration = Duration::from_millis(20);

/// How fast a compaction may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Throttle {
    bytes_per_second: Option<u64>,
}

impl Throttle {
    /// As fast as it goes.
    pub const NONE: Self = Self {
        bytes_per_second: None,
    };

    /// At most so many bytes a second, on average; 0 counts as 1.
    #[must_use]
    pub const fn bytes_per_second(rate: u64) -> Self {
        Self {
            bytes_per_second: Some(if rate == 0 { 1 } else { rate }),
        }
    }

    /// Starts counting.
    pub(super) fn start<'a>(&self, cancel: &'a AtomicBool) -> Pace<'a> {
        Pace {
            throttle: *self,
            cancel,
            start: Instant::now(),
            bytes: 0,
        }
    }
}

/// Bytes written so far, and since when.
pub(super) struct Pace<'a> {
    throttle: Throttle,
    cancel: &'a AtomicBool,
    start: Instant,
    bytes: u64,
}

impl Pace<'_> {
    /// Counts `bytes` and waits until they are within the rate.
    pub(super) fn wrote(&mut self, bytes: u64) -> Result<(), IndexError> {
        self.bytes += bytes;
        let until = self
            .throttle
            .bytes_per_second
            .map_or(Duration::ZERO, |rate| {
                Duration::from_secs_f64(self.bytes as f64 / rate as f64)
            });
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(IndexError::Cancelled { kept: 0 });
            }
            match until.checked_sub(self.start.elapsed()) {
                Some(rest) if rest > Duration::ZERO => std::thread::sleep(rest.min(NAP)),
                _ => return Ok(()),
            }
        }
    }
}
