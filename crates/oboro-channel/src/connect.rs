//! The client's side: one gRPC channel to one role.

use crate::accept::{FRAME, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, WINDOW};
use crate::explain::{root_cause, unreachable_reason};
use crate::tls::{PeerInfo, client_config};
use crate::{ChannelError, Identity, Role, Trust};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// How to connect.
#[derive(Clone, Copy, Debug)]
pub struct ConnectOptions {
    /// Time for TCP connection and handshake together.
    pub timeout: Duration,
}

impl Default for ConnectOptions {
    /// 5 seconds.
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
        }
    }
}

/// A channel to a peer whose key is known.
///
/// The channel reconnects by itself, but only to the key of the first connection, so
/// that whatever was verified about that key (attestation evidence) stays true for every
/// later request. A peer with another key is [`ChannelError::PeerKeyChanged`] to the
/// requests on this channel; connect anew and verify anew.
#[derive(Clone)]
pub struct Connection {
    /// The gRPC channel.
    pub channel: Channel,
    peers: watch::Receiver<Option<PeerState>>,
    first: PeerInfo,
}

#[derive(Clone, Copy)]
struct PeerState {
    peer: PeerInfo,
    connections: u64,
}

impl Connection {
    /// The peer; its key is the same for the channel's whole life.
    #[must_use]
    pub fn peer(&self) -> PeerInfo {
        self.first
    }

    /// How often the channel has connected. A caller that wants fresh evidence from a
    /// restarted peer compares it with the count at its last verification.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.peers.borrow().map_or(0, |state| state.connections)
    }

    /// Waits for the next reconnection.
    ///
    /// # Errors
    /// [`ChannelError::Unreachable`] when the channel is closed.
    pub async fn reconnected(&mut self) -> Result<PeerInfo, ChannelError> {
        let closed = self.peers.changed().await.is_err();
        match (*self.peers.borrow_and_update(), closed) {
            (Some(state), false) => Ok(state.peer),
            _ => Err(ChannelError::Unreachable {
                role: self.first.role,
                address: self.first.address.to_string(),
                reason: "the channel is closed".into(),
            }),
        }
    }
}

/// Connects to `address` (`host:port`) and checks that a peer of the `expected` role,
/// vouched for by `trust`, answers there.
///
/// # Errors
/// [`ChannelError::Address`], or [`ChannelError::Unreachable`] with the reason: refused,
/// timed out, another authority, another role, an expired certificate.
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
    let (seen, mut peers) = watch::channel(None);
    let dialer = Arc::new(Dialer {
        address: address.to_owned(),
        connector: TlsConnector::from(client_config(identity, trust)?),
        expected,
        timeout: options.timeout,
        seen,
    });
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
    let service = tower::service_fn({
        let dialer = dialer.clone();
        move |_: Uri| {
            let dialer = dialer.clone();
            async move { dialer.dial().await.map(TokioIo::new) }
        }
    });
    let channel = endpoint
        .connect_with_connector(service)
        .await
        .map_err(|error| dialer.unreachable(unreachable_reason(&error)))?;
    let first = peers
        .borrow_and_update()
        .map(|state: PeerState| state.peer)
        .ok_or_else(|| dialer.unreachable("no handshake took place".into()))?;
    Ok(Connection {
        channel,
        peers,
        first,
    })
}

struct Dialer {
    address: String,
    connector: TlsConnector,
    expected: Role,
    timeout: Duration,
    seen: watch::Sender<Option<PeerState>>,
}

impl Dialer {
    fn unreachable(&self, reason: String) -> ChannelError {
        ChannelError::Unreachable {
            role: self.expected,
            address: self.address.clone(),
            reason,
        }
    }

    async fn dial(&self) -> Result<TlsStream<TcpStream>, ChannelError> {
        let handshake = async {
            let tcp = TcpStream::connect(&self.address).await?;
            tcp.set_nodelay(true)?;
            let address = tcp.peer_addr()?;
            let name =
                ServerName::try_from(self.expected.dns_name()).map_err(std::io::Error::other)?;
            let stream = self.connector.connect(name, tcp).await?;
            Ok::<_, std::io::Error>((stream, address))
        };
        let (stream, address) = match tokio::time::timeout(self.timeout, handshake).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => return Err(self.unreachable(root_cause(&error))),
            Err(_) => {
                let reason = format!("no answer within {:?}", self.timeout);
                return Err(self.unreachable(reason));
            }
        };
        let peer = PeerInfo::new(stream.get_ref().1.peer_certificates(), address)?;
        if peer.role != self.expected {
            return Err(ChannelError::NoRole);
        }
        let mut same_key = true;
        self.seen.send_if_modified(|state| {
            let connections = state.map_or(0, |state| {
                same_key = state.peer.spki_sha256 == peer.spki_sha256;
                state.connections
            });
            if same_key {
                *state = Some(PeerState {
                    peer,
                    connections: connections + 1,
                });
            }
            same_key
        });
        if same_key {
            Ok(stream)
        } else {
            Err(ChannelError::PeerKeyChanged(self.expected))
        }
    }
}
