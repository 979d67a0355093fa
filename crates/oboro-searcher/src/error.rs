//! What can go wrong in a searcher.

use std::io;

use oboro_protocol::{Failure, Reason};
use oboro_telemetry::TelemetryError;
use tonic::Status;

/// Why a searcher could not start or a search could not be answered.
///
/// Messages hold counts and names, never content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearcherError {
    /// The system refused a thread.
    #[error(
        "the system refused another thread: {0}; lower the number of threads or raise the limit"
    )]
    Thread(#[source] io::Error),
    /// Listening, accepting or serving failed.
    #[error("serving failed: {0}")]
    Serve(String),
    /// The metrics cannot be served.
    #[error(transparent)]
    Metrics(#[from] TelemetryError),
    /// The index does not fit the roles.
    #[error("{0}")]
    Index(String),
    /// A file of the index cannot be read or written.
    #[error("{0}")]
    Disk(String),
    /// Records cannot be read from the index.
    #[error("the records of the index cannot be read: {0}; verify the index")]
    Records(#[source] io::Error),
    /// The keeper cannot be reached now.
    #[error("keeper unreachable: {0}")]
    KeeperUnreachable(String),
    /// The keeper was reached and refused.
    #[error("the keeper refused: {0}")]
    KeeperRefused(String),
    /// The keeper is not who it must be.
    #[error("the keeper is not trusted: {0}")]
    KeeperUntrusted(String),
    /// The keeper knows a newer state of the index than the one on disk.
    #[error("an older or forked copy of the index lies here: {0}; put the newest copy back")]
    Stale(String),
    /// The index is not open yet.
    #[error("the index is being opened; try again in a moment")]
    Opening,
    /// The clients of the index hold its key themselves.
    #[error(
        "the clients of this index hold its key themselves, so nobody can re-encrypt it here; build the index again for a new key"
    )]
    NoRotation,
    /// The new epoch is on disk, but not yet recorded.
    #[error(
        "epoch {epoch} is on disk and served, but the keeper has not recorded it yet: {cause}; that is done as soon as the keeper can be reached"
    )]
    Unrecorded {
        /// The new epoch.
        epoch: u64,
        /// What the keeper or the transport said.
        cause: String,
    },
    /// The searcher was started without a keeper.
    #[error(
        "this searcher has no keeper; search with --keyholder client or start it with a keeper's address"
    )]
    NoKeeper,
    /// Too many queries wait.
    #[error("{waiting} queries wait already; try again later")]
    QueueFull {
        /// Queries in the queue.
        waiting: usize,
    },
    /// Too many searches are unfinished.
    #[error("{open} searches are begun and unfinished; finish them or try again later")]
    SessionsFull {
        /// Sessions open.
        open: usize,
    },
    /// The session is unknown, used up, expired, or another peer's.
    #[error("the session is unknown, used, or expired; begin the search again")]
    UnknownSession,
    /// The answer would have come too late.
    #[error("the deadline passed before the search was done; allow more time or ask later")]
    Deadline,
    /// The searcher is shutting down.
    #[error("the searcher is shutting down; connect again in a moment")]
    Stopping,
    /// The request breaks a rule of the protocol.
    #[error("{0}")]
    Request(Failure),
    /// The scan could not be planned.
    #[error("the scan could not be planned: {0}")]
    Scan(String),
}

impl SearcherError {
    /// The stable reason a client learns.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::KeeperUnreachable(_)
            | Self::KeeperUntrusted(_)
            | Self::NoKeeper
            | Self::Unrecorded { .. } => Reason::KeeperUnreachable,
            Self::Stale(_) => Reason::Stale,
            Self::NoRotation => Reason::BadRequest,
            Self::QueueFull { .. } | Self::SessionsFull { .. } | Self::Opening | Self::Stopping => {
                Reason::Busy
            }
            Self::UnknownSession => Reason::UnknownSession,
            Self::Deadline => Reason::Deadline,
            Self::Request(failure) => failure.reason,
            Self::Thread(_)
            | Self::Serve(_)
            | Self::Metrics(_)
            | Self::Index(_)
            | Self::Disk(_)
            | Self::Records(_)
            | Self::KeeperRefused(_)
            | Self::Scan(_) => Reason::Internal,
        }
    }
}

impl From<Failure> for SearcherError {
    fn from(failure: Failure) -> Self {
        Self::Request(failure)
    }
}

impl From<SearcherError> for Status {
    fn from(error: SearcherError) -> Self {
        match error {
            SearcherError::Request(failure) => failure.into(),
            other => Failure::new(other.reason(), other.to_string()).into(),
        }
    }
}
