//! Mutually authenticated TLS 1.3 channels between the roles.
//!
//! The owner runs a small certificate [`Authority`]. It issues every party an
//! [`Identity`]: a key and a certificate whose only name says the party's [`Role`], such
//! as `keeper.oboro.internal`. Everyone holds the authority's certificate as [`Trust`].
//! Names of machines play no part: where a role runs may change, who it is may not.
//!
//! [`serve_incoming`] gives a server a stream of authenticated connections,
//! [`connect`] gives a client a gRPC channel. Both sides learn the other's role, the
//! SHA-256 of its public key, what its certificate grants it and, where they demand it
//! ([`Demand`]), the evidence of the program it runs ([`PeerInfo`]).
//!
//! # Evidence
//! Directly after the TLS handshake, before HTTP/2, each side may demand evidence of the
//! other. Evidence is bound to this TLS session by a value exported from it, to the
//! attester's TLS key, and to a fresh nonce: it cannot be relayed from another session,
//! replayed, or reflected. Every reconnection demands it anew.
//!
//! # Security
//! TLS 1.3 only, both sides with certificates, key exchange X25519MLKEM768 first and
//! X25519 second. Session resumption and early data are off, so that every connection
//! checks both certificates anew and nothing can be replayed. TLS keys and the nonces of
//! the exchange come from the TLS library's generator, which takes none from outside.
//!
//! Certificates say who a party is and what it may ask for; evidence says which program
//! it runs. A TLS key that leaks from a party's disk does not help to relay its evidence.
//! Browsers cannot take part in the exchange ([`AcceptLimits::http1`]).

mod accept;
mod authority;
mod call;
mod certificate;
mod clock;
mod connect;
mod error;
mod exchange;
mod explain;
mod grant;
mod identity;
mod live;
mod offer;
mod peer;
mod pem_file;
mod rate;
mod revocations;
mod role;
mod tls;
mod trust;
#[doc(hidden)]
pub mod untrusted;

pub use accept::{AcceptLimits, AcceptOptions, Conn, Incoming, serve_incoming, tuned_server};
pub use authority::Authority;
pub use call::within;
pub use certificate::Serial;
pub use clock::Clock;
pub use connect::{ConnectOptions, Connection, connect};
pub use error::{ChannelError, Refusal};
pub use explain::explain;
pub use grant::{Access, Grant};
pub use identity::Identity;
pub use offer::{Demand, Offer};
pub use peer::{PeerInfo, peer};
pub use rate::{RateLimit, RateLimiter};
pub use role::Role;
pub use trust::{Revocations, Trust};
