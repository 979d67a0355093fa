//! The client role: encrypts queries, re-ranks candidates.
//!
//! A [`Client`] connects to a searcher, makes it prove what it is, checks the
//! owner's authentication of the index, and from then on sends only encrypted
//! queries. What comes back are sealed originals, which the client opens and
//! ranks by exact distance, or, without re-ranking, ids.
//!
//! Programs without an asynchronous runtime use [`blocking::Client`]. The owner changes
//! the decryption key of an index in use with [`rotation::OwnerSession`]; owners and
//! clients with write access change its vectors with [`writer::Writer`], and the owner
//! has an index made blindly over a [`generation::GenerationSession`].
//!
//! # Security
//! The client trusts the owner's authority and keys and nothing else. Evidence
//! of the simulated platform is refused unless the policy allows it, and
//! [`Client::is_simulated`] says when it was.

pub mod blind;
pub mod blocking;
mod client;
mod error;
pub mod generation;
mod ranking;
mod result;
pub mod rotation;
mod session;
mod transport;
pub mod writer;

pub use client::{Client, ClientConfig, Keyholder};
pub use error::ClientError;
pub use oboro_index::Extra;
pub use oboro_quant::Filter;
pub use result::{IndexSummary, Neighbour, Rerank, SearchOptions, SearchResult, Stages};
