//! Blind generation: the searcher makes an index of vectors that it never sees.
//!
//! [`GeneratorServer`] is a searcher without an index: it serves one owner until an index
//! lies in its folder, and then ends; a [`SearcherServer`](crate::SearcherServer) serves
//! that. Reading order: `server`, `service` (the owner's requests, in their order),
//! `open` (what one generation holds), `training` (blind k-means with the keeper),
//! `pass` (batches through evaluation, keeper and decoding), `encoding` (codes of
//! segments), `draft` (the index, out of sight until it is whole), `keeper`.
//!
//! # Security
//! The searcher sees what [`oboro_ckks::generation`] says: tables of the sample and of
//! every vector, codes, ids, sealed records; never a vector or a centroid. It holds the
//! sample's encrypted batches and the seed of its masks in memory until the generation
//! ends, and writes nothing of them to disk.

mod draft;
mod encoding;
mod keeper;
mod open;
mod pass;
mod server;
mod service;
mod shape;
mod training;

pub use server::{Generated, GeneratorServer};

use crate::SearcherError;
use oboro_ckks::CkksError;
use oboro_protocol::{Failure, Reason};

fn refused(reason: Reason, sentence: impl Into<String>) -> SearcherError {
    Failure::new(reason, sentence).into()
}

fn malformed(error: CkksError) -> SearcherError {
    refused(Reason::BadRequest, error.to_string())
}

/// Runs arithmetic on a thread for such.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SearcherError> + Send + 'static,
) -> Result<T, SearcherError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(SearcherError::Stopping))
}
