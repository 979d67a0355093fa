//! A request with a bounded time.

use std::future::Future;
use std::time::Duration;
use tonic::{Response, Status};

/// Waits for the reply to `call` for at most `limit`.
///
/// # Errors
/// The status of the call, or `DEADLINE_EXCEEDED` when there is no reply in time.
pub async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, call).await {
        Ok(reply) => reply.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!(
            "no answer within {} ms",
            limit.as_millis()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[tokio::test]
    async fn a_reply_a_refusal_or_silence() {
        let limit = Duration::from_secs(60);
        let reply = within(limit, async { Ok(Response::new(7)) }).await;
        assert!(matches!(reply, Ok(7)));
        let refusal = within::<u8>(limit, async { Err(Status::not_found("no")) }).await;
        assert!(matches!(refusal, Err(status) if status.code() == Code::NotFound));
        let silence = within::<u8>(Duration::from_millis(3), std::future::pending()).await;
        assert!(matches!(
            silence,
            Err(status) if status.code() == Code::DeadlineExceeded
                && status.message() == "no answer within 3 ms"
        ));
    }
}
