//! Errors on the wire: a gRPC status with a stable reason.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Metadata key of the reason.
pub const REASON_METADATA_KEY: &str = "oboro-reason";

/// Why a request failed, as a stable name programs may compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The searcher cannot reach the keeper; the same request may succeed later.
    KeeperUnreachable,
    /// The request names another index or another epoch than the one served.
    WrongEpoch,
    /// The keeper does not hold this codebook (any more); prepare it again.
    UnknownHandle,
    /// The session or staged segment does not exist, has ended, or belongs to another peer.
    UnknownSession,
    /// A size or count lies above a limit.
    Limit,
    /// Too much work is waiting; try again after a short pause.
    Busy,
    /// The peer has used up its rate of requests; try again after a pause.
    RateLimited,
    /// The peer's role may not make this request.
    Forbidden,
    /// The state of the index is older than, or a fork of, one the keeper has recorded.
    Stale,
    /// A change that was to be made whole or not at all contradicts what is in the index.
    Conflict,
    /// The index cannot be changed here; its log says why.
    ReadOnly,
    /// The request is malformed.
    BadRequest,
    /// The time allowed for the request is over.
    Deadline,
    /// The server failed; its log says why.
    Internal,
}

impl Reason {
    /// All reasons.
    pub const ALL: [Self; 14] = [
        Self::KeeperUnreachable,
        Self::WrongEpoch,
        Self::UnknownHandle,
        Self::UnknownSession,
        Self::Limit,
        Self::Busy,
        Self::RateLimited,
        Self::Forbidden,
        Self::Stale,
        Self::Conflict,
        Self::ReadOnly,
        Self::BadRequest,
        Self::Deadline,
        Self::Internal,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::KeeperUnreachable => "KEEPER_UNREACHABLE",
            Self::WrongEpoch => "WRONG_EPOCH",
            Self::UnknownHandle => "UNKNOWN_HANDLE",
            Self::UnknownSession => "UNKNOWN_SESSION",
            Self::Limit => "LIMIT",
            Self::Busy => "BUSY",
            Self::RateLimited => "RATE_LIMITED",
            Self::Forbidden => "FORBIDDEN",
            Self::Stale => "STALE",
            Self::Conflict => "CONFLICT",
            Self::ReadOnly => "READ_ONLY",
            Self::BadRequest => "BAD_REQUEST",
            Self::Deadline => "DEADLINE",
            Self::Internal => "INTERNAL",
        }
    }

    /// The reason of a name on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// The gRPC code that goes with the reason.
    #[must_use]
    pub const fn code(self) -> Code {
        match self {
            Self::KeeperUnreachable => Code::Unavailable,
            Self::WrongEpoch | Self::Stale | Self::ReadOnly => Code::FailedPrecondition,
            Self::Conflict => Code::AlreadyExists,
            Self::UnknownHandle | Self::UnknownSession => Code::NotFound,
            Self::Limit => Code::OutOfRange,
            Self::Busy | Self::RateLimited => Code::ResourceExhausted,
            Self::Forbidden => Code::PermissionDenied,
            Self::BadRequest => Code::InvalidArgument,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Internal => Code::Internal,
        }
    }

    /// The same request may succeed later without a change.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::KeeperUnreachable | Self::Busy | Self::RateLimited | Self::Deadline
        )
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A reason with one plain sentence; becomes a [`Status`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The stable reason.
    pub reason: Reason,
    /// One sentence for people. It never holds vectors, ids or key bytes.
    pub message: String,
}

impl Failure {
    /// A failure of the given reason.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// Reads reason and sentence back from a status, if it carries a reason.
    #[must_use]
    pub fn from_status(status: &Status) -> Option<Self> {
        reason_of(status).map(|reason| Self::new(reason, status.message()))
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut status = Self::new(failure.reason.code(), failure.message);
        status.metadata_mut().insert(
            REASON_METADATA_KEY,
            MetadataValue::from_static(failure.reason.name()),
        );
        status
    }
}

/// The stable reason a status carries; `None` for a status that the transport made.
#[must_use]
pub fn reason_of(status: &Status) -> Option<Reason> {
    let value = status.metadata().get(REASON_METADATA_KEY)?;
    Reason::from_name(value.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
            let failure = Failure::new(reason, "one sentence");
            let status = Status::from(failure.clone());
            assert_eq!(status.code(), reason.code());
            assert_eq!(Failure::from_status(&status), Some(failure));
        }
    }

    #[test]
    fn fail_reason_absent_or_unknown() {
        assert_eq!(reason_of(&Status::unavailable("no peer")), None);
        let mut status = Status::internal("x");
        status
            .metadata_mut()
            .insert(REASON_METADATA_KEY, MetadataValue::from_static("NO_SUCH"));
        assert_eq!(reason_of(&status), None);
    }
}
