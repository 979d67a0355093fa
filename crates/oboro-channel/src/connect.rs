//! The client's side: one gRPC channel to one role.

use crate::accept::{FRAME, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, RECHECK, WINDOW};
use crate::exchange::{Binding, Side, Terms, exchange};
use crate::explain::root_cause;
use crate::live::{Guarded, Live, Watch};
use crate::tls::{ALPN, client_config};
use crate::{ChannelError, Clock, Demand, Identity, Offer, PeerInfo, Role, Trust};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Time for TCP connection, handshake and exchange of evidence together.
    pub timeout: Duration,
    /// How this side attests itself where the peer demands it; `None` where it cannot.
    pub offer: Option<Offer>,
    /// Which evidence the peer must give on every connection; `None` for none.
    pub demand: Option<Demand>,
    /// The clock for certificates and evidence.
    pub clock: Clock,
    /// How often the revocation list is looked at again, and a connection to a revoked or
    /// expired certificate is closed.
    pub recheck: Duration,
}

impl Default for ConnectOptions {
    /// 5 seconds, no evidence either way, every 10 seconds.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            offer: None,
            demand: None,
            clock: Clock::default(),
            recheck: RECHECK,
        }
    }
}

/// A channel to a peer whose key is known.
///
/// The channel reconnects by itself, but only to the key of the first connection, and
/// demands evidence anew each time: of the same index and configuration as the first. A
/// peer with another key is [`ChannelError::PeerKeyChanged`] to the requests on this
/// channel, another subject [`ChannelError::SubjectChanged`]; connect anew to accept
/// them.
#[derive(Clone)]
pub struct Connection {
    /// The gRPC channel.
    pub channel: Channel,
    peers: watch::Receiver<PeerState>,
}

#[derive(Clone)]
struct PeerState {
    peer: PeerInfo,
    connections: u64,
}

impl Connection {
    /// The peer, with the evidence of the latest connection; its key is the same for the
    /// channel's whole life.
    #[must_use]
    pub fn peer(&self) -> PeerInfo {
        self.peers.borrow().peer.clone()
    }

    /// How often the channel has connected.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.peers.borrow().connections
    }
}

/// Connects to `address` (`host:port`) and checks that a peer of the `expected` role,
/// vouched for by `trust`, answers there and gives the evidence demanded.
///
/// # Errors
/// [`ChannelError::Address`]; [`ChannelError::Expired`] where this side's certificate has
/// expired; [`ChannelError::Unreachable`] with the reason: refused, timed out, another
/// authority, another role, an expired or revoked certificate;
/// [`ChannelError::Untrusted`], [`ChannelError::NoEvidence`] and
/// [`ChannelError::AnotherIndex`] where the peer's evidence is not what is demanded;
/// [`ChannelError::Refused`] and [`ChannelError::EvidenceDemanded`] where the peer does
/// not accept this side's; [`ChannelError::DemandRole`].
pub async fn connect(
    address: &str,
    identity: &Identity,
    trust: &Trust,
    expected: Role,
    options: ConnectOptions,
) -> Result<Connection, ChannelError> {
    let valid = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !valid {
        return Err(ChannelError::Address(address.to_owned()));
    }
    if let Some(demand) = &options.demand {
        demand.check_role(expected)?;
    }
    let live = Live::default();
    let line = Line {
        address: address.to_owned(),
        connector: TlsConnector::from(client_config(identity, trust, expected, &options.clock)?),
        expected,
        identity: identity.clone(),
        _watch: live.watch(trust, &options.clock, options.recheck),
        options,
        live,
    };
    let uri = Uri::builder()
        .scheme("https")
        .authority(expected.dns_name())
        .path_and_query("/")
        .build()
        .map_err(|_| ChannelError::Address(address.to_owned()))?;
    let endpoint = Endpoint::from(uri)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_frame_size(FRAME)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    // The first connection is made here and handed over, so that its error reaches the
    // caller as it is and not as text.
    let (first, peer) = line.dial().await?;
    let (seen, peers) = watch::channel(PeerState {
        peer,
        connections: 1,
    });
    let dialer = Arc::new(Dialer {
        line,
        first: Mutex::new(Some(first)),
        seen,
    });
    let service = tower::service_fn({
        let dialer = dialer.clone();
        move |_: Uri| {
            let dialer = dialer.clone();
            async move { dialer.next().await.map(TokioIo::new) }
        }
    });
    let channel = endpoint
        .connect_with_connector(service)
        .await
        .map_err(|error| dialer.line.unreachable(root_cause(&error)))?;
    Ok(Connection { channel, peers })
}

type Stream = Guarded<TlsStream<TcpStream>>;

/// Makes the connections of one channel, one after the other.
struct Dialer {
    line: Line,
    /// Made already, not yet handed over.
    first: Mutex<Option<Stream>>,
    seen: watch::Sender<PeerState>,
}

impl Dialer {
    async fn next(&self) -> Result<Stream, ChannelError> {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(stream) = first {
            return Ok(stream);
        }
        let (stream, peer) = self.line.dial().await?;
        same_party(&self.seen.borrow().peer, &peer)?;
        self.seen.send_modify(|state| {
            state.peer = peer;
            state.connections += 1;
        });
        Ok(stream)
    }
}

/// How to reach a peer.
struct Line {
    address: String,
    connector: TlsConnector,
    expected: Role,
    identity: Identity,
    options: ConnectOptions,
    live: Live,
    _watch: Watch,
}

impl Line {
    fn unreachable(&self, reason: String) -> ChannelError {
        ChannelError::Unreachable {
            role: self.expected,
            address: self.address.clone(),
            reason,
        }
    }

    async fn dial(&self) -> Result<(Stream, PeerInfo), ChannelError> {
        self.identity.check_date(&self.options.clock)?;
        let timeout = self.options.timeout;
        let (stream, peer) = tokio::time::timeout(timeout, self.handshake())
            .await
            .map_err(|_| self.unreachable(format!("no answer within {timeout:?}")))??;
        Ok((self.live.guard(stream, &peer), peer))
    }

    async fn handshake(&self) -> Result<(TlsStream<TcpStream>, PeerInfo), ChannelError> {
        let connecting = async {
            let tcp = TcpStream::connect(&self.address).await?;
            tcp.set_nodelay(true)?;
            let address = tcp.peer_addr()?;
            let name =
                ServerName::try_from(self.expected.dns_name()).map_err(std::io::Error::other)?;
            let stream = self.connector.connect(name, tcp).await?;
            Ok::<_, std::io::Error>((stream, address))
        };
        let (mut stream, address) = connecting
            .await
            .map_err(|error| self.unreachable(root_cause(&error)))?;
        let session = stream.get_ref().1;
        let mut peer = PeerInfo::new(session.peer_certificates(), address)?;
        if peer.role != self.expected {
            return Err(ChannelError::NoRole);
        }
        if session.alpn_protocol() != Some(ALPN) {
            return Err(ChannelError::Protocol("oboro/2"));
        }
        let binding = Binding::new(
            session,
            Side::Client,
            self.identity.spki_sha256(),
            peer.spki_sha256,
            peer.role,
        )?;
        let terms = Terms {
            offer: self.options.offer.as_ref(),
            demand: self.options.demand.as_ref(),
            clock: &self.options.clock,
        };
        let appraisal =
            exchange(&mut stream, &binding, terms)
                .await
                .map_err(|error| match error {
                    ChannelError::Handshake(reason) => self.unreachable(reason),
                    error => error,
                })?;
        peer.appraisal = appraisal.map(Arc::new);
        Ok((stream, peer))
    }
}

/// Whether a later connection is to the party of the first one. Epoch and CKKS keys may
/// have changed: they do when the owner rotates keys.
fn same_party(before: &PeerInfo, now: &PeerInfo) -> Result<(), ChannelError> {
    if before.spki_sha256 != now.spki_sha256 {
        return Err(ChannelError::PeerKeyChanged(now.role));
    }
    let subject = |peer: &PeerInfo| {
        peer.appraisal
            .as_ref()
            .map(|appraisal| appraisal.claims.subject)
            .map(|subject| (subject.index_id, subject.configuration))
    };
    if subject(before) != subject(now) {
        return Err(ChannelError::SubjectChanged(now.role));
    }
    Ok(())
}
