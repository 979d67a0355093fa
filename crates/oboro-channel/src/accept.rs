//! The server's side: accept, handshake, hand over.

use crate::exchange::{Binding, Side, Terms, exchange};
use crate::explain::root_cause;
use crate::live::{Guarded, Live, Watch};
use crate::tls::{ALPN, ALPN_BROWSER, server_config};
use crate::{ChannelError, Clock, Demand, Identity, Offer, PeerInfo, Role, Trust};
use std::collections::HashMap;
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
    /// Time for one handshake, with the exchange of evidence.
    pub handshake_timeout: Duration,
    /// Also speak HTTP/1.1, which gRPC-web from a browser may use.
    ///
    /// # Security
    /// A browser cannot bind evidence to its TLS session: it neither exports a value from
    /// it nor takes part in the exchange. Such a connection carries no evidence in either
    /// direction. A page that searches through it trusts whoever holds the searcher's TLS
    /// key, so it must run where that trust is given anyway; and a peer of a role of
    /// which evidence is demanded is refused on it.
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

/// How to accept.
#[derive(Clone, Debug)]
pub struct AcceptOptions {
    /// Bounds of the listener.
    pub limits: AcceptLimits,
    /// The roles that are let in; none by default.
    pub allowed: Vec<Role>,
    /// How this side attests itself to peers that demand it; `None` where it cannot.
    pub offer: Option<Offer>,
    /// Which evidence peers of a role must give; peers of other roles need none.
    pub demands: HashMap<Role, Demand>,
    /// The clock for certificates and evidence.
    pub clock: Clock,
    /// How often the revocation list is looked at again, and connections of revoked or
    /// expired certificates are closed.
    pub recheck: Duration,
}

/// How often channels look for a newer revocation list, unless told otherwise.
pub(crate) const RECHECK: Duration = Duration::from_secs(10);

impl Default for AcceptOptions {
    /// The limits' defaults, nobody allowed, no evidence, every 10 seconds.
    fn default() -> Self {
        Self {
            limits: AcceptLimits::default(),
            allowed: Vec::new(),
            offer: None,
            demands: HashMap::new(),
            clock: Clock::default(),
            recheck: RECHECK,
        }
    }
}

/// One authenticated connection.
pub struct Conn {
    stream: Guarded<TlsStream<TcpStream>>,
    peer: PeerInfo,
    _permit: OwnedSemaphorePermit,
}

impl Conn {
    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }
}

impl Connected for Conn {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
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
    _watch: Watch,
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
/// the allowed roles, and that give the evidence demanded of their role.
///
/// Handshakes run concurrently: a slow or hostile peer delays nobody. The stream never
/// yields an error; a failed handshake is logged with its reason and forgotten.
///
/// # Errors
/// [`ChannelError::Tls`] where identity and trust make no TLS configuration,
/// [`ChannelError::Expired`] where the identity's own certificate has expired,
/// [`ChannelError::DemandRole`] where a demand cannot be met by the role it is made of.
///
/// # Panics
/// Outside a tokio runtime.
pub fn serve_incoming(
    listener: TcpListener,
    identity: &Identity,
    trust: &Trust,
    options: AcceptOptions,
) -> Result<Incoming, ChannelError> {
    identity.check_date(&options.clock)?;
    for (role, demand) in &options.demands {
        demand.check_role(*role)?;
    }
    let config = server_config(
        identity,
        trust,
        &options.allowed,
        options.limits.http1,
        &options.clock,
    )?;
    let live = Live::default();
    let watch = live.watch(trust, &options.clock, options.recheck);
    let reception = Arc::new(Reception {
        acceptor: TlsAcceptor::from(config),
        own_key: identity.spki_sha256(),
        options,
        live,
    });
    let (sender, connections) = mpsc::channel(64);
    let accepting = tokio::spawn(accept_loop(listener, reception, sender)).abort_handle();
    Ok(Incoming {
        connections,
        accepting,
        _watch: watch,
    })
}

async fn accept_loop(listener: TcpListener, reception: Arc<Reception>, sender: mpsc::Sender<Conn>) {
    let limits = reception.options.limits;
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
        let reception = reception.clone();
        let sender = sender.clone();
        handshakes.spawn(async move {
            let handshake = reception.handshake(tcp, address, permit);
            match tokio::time::timeout(limits.handshake_timeout, handshake).await {
                Ok(Ok(conn)) => {
                    let _ = sender.send(conn).await;
                }
                Ok(Err(error)) => {
                    tracing::info!(%address, error = root_cause(&error), "handshake refused");
                }
                Err(_) => tracing::info!(%address, "handshake timed out"),
            }
        });
    }
}

/// What every handshake of a listener needs.
struct Reception {
    acceptor: TlsAcceptor,
    own_key: [u8; 32],
    options: AcceptOptions,
    live: Live,
}

impl Reception {
    async fn handshake(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> Result<Conn, ChannelError> {
        tcp.set_nodelay(true).map_err(broken)?;
        let mut stream = self.acceptor.accept(tcp).await.map_err(broken)?;
        let session = stream.get_ref().1;
        let mut peer = PeerInfo::new(session.peer_certificates(), address)?;
        let demand = self.options.demands.get(&peer.role);
        match session.alpn_protocol() {
            Some(ALPN) => {
                let binding = Binding::new(
                    session,
                    Side::Server,
                    self.own_key,
                    peer.spki_sha256,
                    peer.role,
                )?;
                let terms = Terms {
                    offer: self.options.offer.as_ref(),
                    demand,
                    clock: &self.options.clock,
                };
                let appraisal = exchange(&mut stream, &binding, terms).await?;
                peer.appraisal = appraisal.map(Arc::new);
            }
            Some(ALPN_BROWSER) if demand.is_some() => {
                return Err(ChannelError::NoEvidence(peer.role));
            }
            Some(ALPN_BROWSER) => {}
            _ => return Err(ChannelError::Protocol("oboro/2")),
        }
        Ok(Conn {
            stream: self.live.guard(stream, &peer),
            peer,
            _permit: permit,
        })
    }
}

fn broken(error: io::Error) -> ChannelError {
    ChannelError::Handshake(root_cause(&error))
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
