//! A plain HTTP answer with the text, for a scraper on this machine.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::TelemetryError;

/// Longest request head that is read; a scraper's is a few hundred bytes.
const REQUEST_LIMIT: usize = 4_096;

/// Longest time one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(2);

/// Requests answered at the same time; more wait to be accepted.
const REQUESTS: usize = 16;

/// Binds the metrics address.
///
/// # Errors
/// [`TelemetryError::NotLoopback`] for an address that other machines can reach,
/// [`TelemetryError::Listen`] when the system refuses it.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, TelemetryError> {
    if !address.ip().is_loopback() {
        return Err(TelemetryError::NotLoopback(address));
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| TelemetryError::Listen { address, source })
}

/// Answers `GET /metrics` with what `text` returns, until the future is dropped;
/// requests in flight end with it.
pub async fn serve(listener: TcpListener, text: impl Fn() -> String + Send + Sync + 'static) {
    let text = Arc::new(text);
    let mut answering = JoinSet::new();
    loop {
        while answering.try_join_next().is_some() {}
        if answering.len() >= REQUESTS {
            answering.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                let text = Arc::clone(&text);
                answering.spawn(async move {
                    // A scraper that goes away or is slow loses its answer only.
                    let _ = tokio::time::timeout(REQUEST_TIME, answer(stream, &*text)).await;
                });
            }
            // Out of descriptors, most likely: give others time to close some.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, text: &(impl Fn() -> String + Sync)) -> io::Result<()> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let mut chunk = [0; 512];
        let read = stream.read(&mut chunk).await?;
        if read == 0 || head.len() + read > REQUEST_LIMIT {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..read]);
    }
    let (status, body) = if head.starts_with(b"GET /metrics ") {
        ("200 OK", text())
    } else {
        ("404 Not Found", "only GET /metrics is here\n".to_owned())
    };
    let reply = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn start() -> SocketAddr {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, || "oboro_test_total 0\n".to_owned()));
        address
    }

    /// The reply to `request`; empty when there is none.
    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // A listener that has read enough may close before all is written.
        let _ = stream.write_all(request).await;
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply).await;
        String::from_utf8(reply).unwrap()
    }

    #[tokio::test]
    async fn answers_metrics_and_nothing_else() {
        let address = start().await;
        let text = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("\r\nContent-Length: 19\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\noboro_test_total 0\n"), "{text}");
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "POST /metrics HTTP/1.1\r\n\r\n",
            "GET /metricsx HTTP/1.1\r\n\r\n",
        ] {
            let text = ask(address, request.as_bytes()).await;
            assert!(text.starts_with("HTTP/1.1 404"), "{text}");
        }
    }

    #[tokio::test]
    async fn silent_connections_do_not_keep_others_waiting() {
        let address = start().await;
        let mut silent = Vec::new();
        for _ in 0..REQUESTS - 1 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let text = ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }

    #[tokio::test]
    async fn fail_request_without_an_end() {
        let address = start().await;
        assert_eq!(ask(address, &[b'a'; 2 * REQUEST_LIMIT]).await, "");
        let text = ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }

    #[tokio::test]
    async fn fail_address_that_others_can_reach() {
        for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let error = bind(open.parse().unwrap()).await.unwrap_err();
            assert!(error.is_bad_address(), "{error}");
            assert!(error.to_string().contains("not loopback"), "{error}");
        }
    }

    #[tokio::test]
    async fn fail_address_in_use() {
        let address = start().await;
        let error = bind(address).await.unwrap_err();
        assert!(!error.is_bad_address());
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
