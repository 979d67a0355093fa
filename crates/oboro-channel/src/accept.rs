//! The server's side: accept, handshake, hand over.

use crate::tls::{PeerInfo, server_config};
use crate::{ChannelError, Identity, Role, Trust};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::transport::server::Connected;

/// Upper bounds of one listener.
#[derive(Clone, Copy, Debug)]
pub struct AcceptLimits {
    /// Authenticated connections at the same time; more are closed at once.
    pub connections: usize,
    /// Unfinished handshakes at the same time; more are closed at once.
    pub handshakes: usize,
    /// Time for one handshake.
    pub handshake_timeout: Duration,
    /// Also speak HTTP/1.1, which gRPC-web from a browser may use.
    pub http1: bool,
}

impl Default for AcceptLimits {
    /// 1,024 connections, 256 handshakes of 5 seconds, HTTP/2 only.
    fn default() -> Self {
        Self {
            connections: 1_024,
            handshakes: 256,
            handshake_timeout: Duration::from_secs(5),
            http1: false,
        }
    }
}

/// One authenticated connection.
pub struct Conn {
    stream: TlsStream<TcpStream>,
    peer: PeerInfo,
    _permit: OwnedSemaphorePermit,
}

impl Conn {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> PeerInfo {
        self.peer
    }
}

impl Connected for Conn {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The stream of authenticated connections; dropping it closes the listener.
pub struct Incoming {
    connections: mpsc::Receiver<Conn>,
    accepting: AbortHandle,
}

impl Stream for Incoming {
    type Item = io::Result<Conn>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context).map(|conn| conn.map(Ok))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Accepts connections from peers whose certificate `trust` vouches for and names one of
/// the `allowed` roles.
///
/// Handshakes run concurrently: a slow or hostile peer delays nobody. The stream never
/// yields an error; a failed handshake is logged and forgotten.
///
/// # Errors
/// [`ChannelError::Tls`] where identity and trust make no TLS configuration.
///
/// # Panics
/// Outside a tokio runtime.
pub fn serve_incoming(
    listener: TcpListener,
    identity: &Identity,
    trust: &Trust,
    allowed: &[Role],
    limits: AcceptLimits,
) -> Result<Incoming, ChannelError> {
    let config = server_config(identity, trust, allowed, limits.http1)?;
    let acceptor = TlsAcceptor::from(config);
    let (sender, connections) = mpsc::channel(64);
    let accepting = tokio::spawn(accept_loop(listener, acceptor, limits, sender)).abort_handle();
    Ok(Incoming {
        connections,
        accepting,
    })
}

async fn accept_loop(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    limits: AcceptLimits,
    sender: mpsc::Sender<Conn>,
) {
    let connections = Arc::new(Semaphore::new(limits.connections));
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = handshakes.join_next() => continue,
        };
        let (tcp, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Most likely out of descriptors: wait until some are closed again.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if handshakes.len() >= limits.handshakes {
            tracing::warn!(%address, "too many unfinished handshakes; connection closed");
            continue;
        }
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            tracing::warn!(%address, "too many connections; connection closed");
            continue;
        };
        let acceptor = acceptor.clone();
        let sender = sender.clone();
        handshakes.spawn(async move {
            let handshake = handshake(tcp, address, acceptor, permit);
            match tokio::time::timeout(limits.handshake_timeout, handshake).await {
                Ok(Ok(conn)) => {
                    let _ = sender.send(conn).await;
                }
                Ok(Err(error)) => tracing::info!(%address, %error, "handshake refused"),
                Err(_) => tracing::info!(%address, "handshake timed out"),
            }
        });
    }
}

async fn handshake(
    tcp: TcpStream,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    permit: OwnedSemaphorePermit,
) -> io::Result<Conn> {
    tcp.set_nodelay(true)?;
    let stream = acceptor.accept(tcp).await?;
    let peer =
        PeerInfo::new(stream.get_ref().1.peer_certificates(), address).map_err(io::Error::other)?;
    Ok(Conn {
        stream,
        peer,
        _permit: permit,
    })
}

/// A gRPC server builder with the windows, frames and keepalive that suit messages of
/// some hundred kilobytes.
#[must_use]
pub fn tuned_server() -> Server {
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_frame_size(FRAME)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// HTTP/2 stream window in bytes: a whole message goes in one flight.
pub(crate) const WINDOW: u32 = 8 << 20;

/// HTTP/2 frame in bytes: fewer frames, fewer wake-ups.
pub(crate) const FRAME: u32 = 256 << 10;

pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
