//! A plain HTTP answer with the metrics text, for a scraper on this machine.

use crate::KeeperError;
use crate::metrics::Metrics;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Longest request head that is read; a scraper's is a few hundred bytes.
const REQUEST_LIMIT: usize = 4_096;

/// Longest time one request may take.
const REQUEST_TIME: Duration = Duration::from_secs(2);

/// Binds the metrics address. Only loopback: the text is not authenticated, and number
/// and timing of queries are nobody else's business.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, KeeperError> {
    if !address.ip().is_loopback() {
        return Err(KeeperError::MetricsAddress(address));
    }
    TcpListener::bind(address)
        .await
        .map_err(|source| KeeperError::MetricsListen { address, source })
}

/// Answers `GET /metrics`, one scraper at a time, until dropped.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = tokio::time::timeout(REQUEST_TIME, answer(stream, &metrics)).await;
            }
            // Out of descriptors, most likely: give others time to close some.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn answer(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
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
