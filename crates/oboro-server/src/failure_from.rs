//! Which exit code belongs to which library error.

use oboro_attest::AttestError;
use oboro_channel::ChannelError;
use oboro_ckks::CkksError;
use oboro_index::IndexError;

use crate::failure::{Failure, Kind};

impl From<AttestError> for Failure {
    fn from(error: AttestError) -> Self {
        let kind = match &error {
            AttestError::Malformed(_) | AttestError::Version(_) | AttestError::Policy(_) => {
                Kind::BadInput
            }
            _ => Kind::Refused,
        };
        Self::new(kind, error)
    }
}

impl From<CkksError> for Failure {
    fn from(error: CkksError) -> Self {
        Self::input(error)
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        let kind = match &error {
            IndexError::Exists { .. } | IndexError::NotReplaced { .. } => Kind::Refused,
            IndexError::Io { source, .. } if source.kind() != std::io::ErrorKind::NotFound => {
                Kind::Failed
            }
            IndexError::Unsure { .. } => Kind::Failed,
            _ => Kind::BadInput,
        };
        Self::new(kind, error)
    }
}

impl From<ChannelError> for Failure {
    fn from(error: ChannelError) -> Self {
        let kind = match &error {
            ChannelError::Exists(_) => Kind::Refused,
            ChannelError::Unreachable { .. } => Kind::Unreachable,
            ChannelError::PeerKeyChanged(_)
            | ChannelError::SubjectChanged(_)
            | ChannelError::Untrusted(_)
            | ChannelError::NoEvidence(_)
            | ChannelError::EvidenceDemanded(_)
            | ChannelError::AnotherIndex(_)
            | ChannelError::Attester(_)
            | ChannelError::Refused(_)
            | ChannelError::Expired { .. } => Kind::Refused,
            ChannelError::Address(_) | ChannelError::Name => Kind::Usage,
            ChannelError::File { source, .. } if source.kind() != std::io::ErrorKind::NotFound => {
                Kind::Failed
            }
            ChannelError::Issue(_) | ChannelError::Tls(_) => Kind::Failed,
            _ => Kind::BadInput,
        };
        Self::new(kind, error)
    }
}

impl From<oboro_tpm::TpmError> for Failure {
    fn from(error: oboro_tpm::TpmError) -> Self {
        Self::failed(error)
    }
}

impl From<oboro_searcher::SearcherError> for Failure {
    fn from(error: oboro_searcher::SearcherError) -> Self {
        use oboro_searcher::SearcherError as E;
        let kind = match &error {
            E::Index(_) => Kind::BadInput,
            E::Metrics(cause) if cause.is_bad_address() => Kind::Usage,
            E::KeeperUnreachable(_) => Kind::Unreachable,
            E::KeeperUntrusted(_) | E::KeeperRefused(_) | E::Stale(_) => Kind::Refused,
            _ => Kind::Failed,
        };
        Self::new(kind, error)
    }
}

impl From<oboro_keeper::KeeperError> for Failure {
    fn from(error: oboro_keeper::KeeperError) -> Self {
        use oboro_keeper::KeeperError as E;
        match error {
            E::Channel(error) => error.into(),
            E::Attest(error) => error.into(),
            E::Index(error) => error.into(),
            E::KeyMismatch { .. }
            | E::Role(_)
            | E::StateMissing(_)
            | E::StateFormat(_)
            | E::StateForeign => Self::input(error),
            E::StateExists(_)
            | E::StateLocked(_)
            | E::RolledBack { .. }
            | E::AnotherCounter { .. }
            | E::Superseded { .. } => Self::refused(error),
            E::Metrics(ref cause) if cause.is_bad_address() => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}
