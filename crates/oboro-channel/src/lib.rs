//! Mutually authenticated TLS 1.3 channels between the roles.
//!
//! The owner runs a small certificate [`Authority`]. It issues every party an
//! [`Identity`]: a key and a certificate whose only name says the party's [`Role`], such
//! as `keeper.oboro.internal`. Everyone holds the authority's certificate as [`Trust`].
//! Names of machines play no part: where a role runs may change, who it is may not.
//!
//! [`serve_incoming`] gives a server a stream of authenticated connections,
//! [`connect`] gives a client a gRPC channel. Both sides learn the other's role and the
//! SHA-256 of its public key ([`PeerInfo`]), to which attestation evidence is bound.
//!
//! # Security
//! TLS 1.3 only, both sides with certificates, key exchange X25519MLKEM768 first and
//! X25519 second. Session resumption and early data are off, so that every connection
//! checks both certificates anew and nothing can be replayed.

mod accept;
mod authority;
mod call;
mod connect;
mod error;
mod explain;
mod identity;
mod pem_file;
mod role;
mod tls;

pub use accept::{AcceptLimits, Conn, Incoming, serve_incoming, tuned_server};
pub use authority::Authority;
pub use call::within;
pub use connect::{ConnectOptions, Connection, connect};
pub use error::ChannelError;
pub use explain::explain;
pub use identity::{Identity, Trust};
pub use role::Role;
pub use tls::{PeerInfo, peer};
