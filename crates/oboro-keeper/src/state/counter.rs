//! A state's write number against a counter that only goes up.

use crate::KeeperError;
use oboro_tpm::MonotonicCounter;
use std::fmt;
use std::sync::Arc;

/// Tells an old copy of the state from the newest.
pub(super) struct Protection(Arc<dyn MonotonicCounter>);

impl Protection {
    pub(super) fn new(counter: Arc<dyn MonotonicCounter>) -> Self {
        Self(counter)
    }

    pub(super) fn value(&self) -> Result<u64, KeeperError> {
        Ok(self.0.read()?)
    }

    /// Accepts the newest state, and one that was written just before a crash; the
    /// counter is then moved to it.
    pub(super) fn admit(&self, written: u64) -> Result<(), KeeperError> {
        let counter = self.value()?;
        if counter == written {
            return Ok(());
        }
        if written.checked_sub(1) == Some(counter) {
            return self.advance(written);
        }
        Err(if written < counter {
            KeeperError::RolledBack { written, counter }
        } else {
            KeeperError::AnotherCounter {
                written,
                counter,
                place: self.0.describe(),
            }
        })
    }

    /// Nobody else has moved the counter.
    pub(super) fn check(&self, written: u64) -> Result<(), KeeperError> {
        match self.value()? {
            counter if counter == written => Ok(()),
            counter => Err(KeeperError::Superseded { written, counter }),
        }
    }

    /// Moves the counter to `written`, by the one step that this takes.
    pub(super) fn advance(&self, written: u64) -> Result<(), KeeperError> {
        match self.0.increment()? {
            counter if counter == written => Ok(()),
            counter => Err(KeeperError::Superseded { written, counter }),
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.describe())
    }
}
