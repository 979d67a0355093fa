//! From gRPC statuses to errors of this crate.

use std::time::Duration;

use oboro_channel::explain;
use oboro_protocol::{Failure, Reason};
use tonic::{Code, Response, Status};

use crate::ClientError;

/// A call with a bounded time.
pub(crate) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, ClientError> {
    oboro_channel::within(limit, call)
        .await
        .map_err(|status| failure(&status, limit))
}

pub(crate) fn late(limit: Duration) -> ClientError {
    ClientError::Deadline {
        allowed_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
    }
}

/// What a status means; `limit` is the time that the call was allowed.
pub(crate) fn failure(status: &Status, limit: Duration) -> ClientError {
    match Failure::from_status(status) {
        Some(Failure {
            reason: Reason::Deadline,
            ..
        }) => late(limit),
        Some(Failure { reason, message }) => ClientError::Refused { reason, message },
        None => match status.code() {
            Code::DeadlineExceeded => late(limit),
            // The transport's own limits on sizes, on either side.
            Code::OutOfRange => ClientError::Refused {
                reason: Reason::Limit,
                message: status.message().to_owned(),
            },
            _ => ClientError::Broken(explain(status)),
        },
    }
}
