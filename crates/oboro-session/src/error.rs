//! What can go wrong.

use oboro_client::ClientError;
use oboro_owner::OwnerError;
use oboro_protocol::Reason;
use oboro_vectors::VectorsError;

/// The owner's part failed, or the way to the servers and what they answer.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// At the owner.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// At a server, or on the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl SessionError {
    /// Why a server refused, if one did.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Owner(_) => None,
            Self::Client(error) => error.reason(),
        }
    }

    /// Whether a blind build may succeed later; `begun` says that the servers had begun it.
    pub(crate) fn is_passing(&self, begun: bool) -> bool {
        match self {
            // A disk or a network that gives the vectors may be back.
            Self::Owner(error) => matches!(
                error,
                OwnerError::Cancelled | OwnerError::Vectors(VectorsError::Io { .. })
            ),
            // Connections, evidence, time, and what a role that was started again knows no
            // more.
            Self::Client(error) => match error.reason() {
                Some(Reason::BadRequest | Reason::Conflict | Reason::Forbidden) => false,
                // Of the machine then, such as open files; before, of what is asked for.
                Some(Reason::Limit) => begun,
                _ => true,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reason: Reason) -> SessionError {
        let message = "no".to_owned();
        ClientError::Refused { reason, message }.into()
    }

    #[test]
    fn what_passes_and_what_does_not() {
        for begun in [false, true] {
            assert!(SessionError::from(OwnerError::Cancelled).is_passing(begun));
            assert!(!SessionError::from(OwnerError::OtherInput).is_passing(begun));
            assert!(refused(Reason::Busy).is_passing(begun));
            assert!(refused(Reason::UnknownSession).is_passing(begun));
            assert!(!refused(Reason::Conflict).is_passing(begun));
            assert!(!refused(Reason::Forbidden).is_passing(begun));
            assert_eq!(refused(Reason::Limit).is_passing(begun), begun);
            assert!(SessionError::from(ClientError::ForeignKeeper).is_passing(begun));
        }
        assert_eq!(refused(Reason::Limit).reason(), Some(Reason::Limit));
        assert_eq!(SessionError::from(OwnerError::Cancelled).reason(), None);
    }
}
