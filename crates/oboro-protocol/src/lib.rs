//! Messages between client, searcher and keeper.
//!
//! The messages are defined in `proto/oboro/v1/oboro.proto`, those of blind generation in
//! `proto/oboro/generation/v1/generation.proto`, those of builds in an enclave in
//! `proto/oboro/build/v1/build.proto`; the Rust code made from them is checked
//! in, so that building this crate needs no generator, and a test compares the two.
//! Cryptographic objects travel as opaque bytes: this crate knows neither how to encrypt
//! nor how to open a socket. Beside the messages it holds
//!
//! - [`limits`]: how large a message, how many candidates, how long a request may be;
//! - [`sizes`]: the one size that all requests, and all replies, of an index have;
//! - [`Reason`] and [`Failure`]: the stable reason an error carries;
//! - [`validate`]: the checks every receiver makes before it touches the contents.
//!
//! # Security
//! Message types have a [`Debug`](std::fmt::Debug) that shows their size only, so that a
//! log line cannot hold a ciphertext by accident.

pub mod build;
mod debug;
mod failure;
pub mod generation;
pub mod limits;
pub mod sizes;
pub mod validate;

pub use failure::{Failure, REASON_METADATA_KEY, Reason, reason_of};

/// Version of the protocol; a peer with another one is refused.
pub const PROTOCOL_VERSION: u32 = 4;

/// The generated messages, clients and servers of package `oboro.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    include!("generated/oboro.v1.rs");
}
