//! Which exit code belongs to errors of libraries that the servers do not have.
//!
//! `Failure` is `oboro-server`'s, and so are its conversions from the errors that a
//! server meets; a conversion from others cannot be written as `From` here.

use oboro_client::ClientError;
use oboro_owner::OwnerError;
use oboro_quant::QuantError;
use oboro_session::SessionError;
use oboro_vectors::VectorsError;

use crate::failure::{Failure, Kind, Outcome};

/// A library's error with its exit code.
pub(crate) trait IntoFailure {
    /// The failure.
    fn into_failure(self) -> Failure;
}

/// Results whose errors are [`IntoFailure`].
pub(crate) trait OrFailure<T> {
    /// The value, or the failure.
    fn or_failure(self) -> Outcome<T>;
}

impl<T, E: IntoFailure> OrFailure<T> for Result<T, E> {
    fn or_failure(self) -> Outcome<T> {
        self.map_err(E::into_failure)
    }
}

impl IntoFailure for VectorsError {
    fn into_failure(self) -> Failure {
        Failure::input(self)
    }
}

impl IntoFailure for QuantError {
    fn into_failure(self) -> Failure {
        Failure::input(self)
    }
}

impl IntoFailure for OwnerError {
    fn into_failure(self) -> Failure {
        match self {
            Self::Index(error) => error.into(),
            Self::Cancelled
            | Self::Unwritable { .. }
            | Self::TrialFailed { .. }
            | Self::Threads { .. } => Failure::failed(self),
            error => Failure::input(error),
        }
    }
}

impl IntoFailure for SessionError {
    fn into_failure(self) -> Failure {
        match self {
            Self::Owner(error) => error.into_failure(),
            Self::Client(error) => error.into_failure(),
        }
    }
}

impl IntoFailure for ClientError {
    fn into_failure(self) -> Failure {
        let kind = if self.is_unreachable() {
            Kind::Unreachable
        } else if self.is_untrusted() {
            Kind::Refused
        } else if self.is_bad_input() {
            Kind::BadInput
        } else {
            Kind::Failed
        };
        Failure::new(kind, self)
    }
}
