//! Why a process was not locked down.

use crate::Report;

/// An error of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockdownError {
    /// A measure was demanded in full and is not.
    #[error(
        "the process cannot be locked down as demanded: {}; run it where the kernel offers this, or demand less",
        .0.shortcomings()
    )]
    Incomplete(Report),
    /// A path to be written to that does not exist.
    #[error("'{0}' must exist before the process is locked down")]
    Missing(String),
}
