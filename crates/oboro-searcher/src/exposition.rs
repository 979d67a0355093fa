//! A plain HTTP answer with the metrics text, for a scraper on this machine.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::metrics::Metrics;

/// Longest request head that is read; a scraper's is a few hundred bytes.
const REQUEST_LIMIT: usize = 4_096;

/// Longest time one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(2);

/// Binds the metrics address.
///
/// # Errors
/// An address that is not loopback is refused: the text is not authenticated,
/// and the number and timing of queries are nobody else's business.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("metrics address {address} is not loopback; use 127.0.0.1 or [::1]"),
        ));
    }
    TcpListener::bind(address).await
}

/// Answers `GET /metrics` until the future is dropped.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let metrics = Arc::clone(&metrics);
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(REQUEST_TIME, answer(stream, &metrics)).await;
                });
            }
            // Out of descriptors, most likely: give others time to close some.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if head.len() >= REQUEST_LIMIT {
            return Ok(());
        }
        let mut chunk = [0; 512];
        match stream.read(&mut chunk).await? {
            0 => return Ok(()),
            read => head.extend_from_slice(&chunk[..read]),
        }
    }
    let found = head.starts_with(b"GET /metrics ");
    let (status, body) = if found {
        ("200 OK", metrics.render())
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

    async fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    #[tokio::test]
    async fn answers_metrics_and_nothing_else() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(Metrics::default())));
        let text = ask(address, "/metrics").await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(text.contains("oboro_searcher_answered_total 0"), "{text}");
        assert!(ask(address, "/other").await.starts_with("HTTP/1.1 404"));
        server.abort();
    }

    #[tokio::test]
    async fn fail_address_that_others_can_reach() {
        let error = bind("0.0.0.0:0".parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains("not loopback"), "{error}");
    }
}
