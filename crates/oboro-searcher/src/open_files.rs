//! How many segments this process can hold open.
//!
//! Each segment, staged ones included, keeps its file of originals open. The
//! system limits open files, and a process at the limit can neither accept a
//! connection nor write a file: so segments get half of them at most, and from
//! an eighth on whatever can be merged is.

use oboro_protocol::{Failure, Reason};
use rustix::process::{Resource, getrlimit};

/// The limit of open files of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenFiles(u64);

/// What the system allows this process now.
pub(crate) fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

impl OpenFiles {
    pub(crate) const fn new(limit: u64) -> Self {
        Self(limit)
    }

    /// Refuses one more segment beside `segments` where that would be too many.
    pub(crate) fn refuse_segment(self, segments: usize) -> Result<(), Failure> {
        if (segments as u64) < self.0 / 2 {
            return Ok(());
        }
        Err(Failure::new(
            Reason::Limit,
            format!(
                "{segments} segments are open, and of the {} files that the searcher may have open half are for them; compact the index, or raise the limit (ulimit -n) and start the searcher again",
                self.0
            ),
        ))
    }

    /// So many segments are open that all that can be merged should be.
    pub(crate) const fn is_tight(self, segments: usize) -> bool {
        segments as u64 > self.0 / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fail_more_segments_than_half_of_the_files() {
        let files = OpenFiles::new(1_024);
        assert!(files.refuse_segment(511).is_ok());
        let refused = files.refuse_segment(512).err();
        assert_eq!(refused.map(|failure| failure.reason), Some(Reason::Limit));
        // Merging begins long before.
        assert!(!files.is_tight(128));
        assert!(files.is_tight(129));
        assert!(OpenFiles::new(u64::MAX).refuse_segment(1 << 20).is_ok());
        assert!(limit() > 0);
    }
}
