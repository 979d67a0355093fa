//! Blind generation: the searcher makes an index of vectors that it never sees.
//!
//! [`GeneratorServer`] is a searcher without an index: it serves one owner until an index
//! lies in its folder, and then ends; a [`SearcherServer`](crate::SearcherServer) serves
//! that. Reading order: `server`, `service` (the owner's requests), `begin` and `shared`
//! (what is done for them, in their order), `open` (what one generation holds), `training` (blind k-means with the keeper),
//! `pass` (batches through evaluation, keeper and decoding), `codebook` (a trained one at
//! work), `encoding` (codes of segments), `draft` (the index, out of sight until it is
//! whole), `keepsake` (what is kept of a training), `insert` (new vectors for an index
//! that is served), `keeper`.
//!
//! # Interruptions
//! The training is done from the start again, with the same outcome. From the descriptor
//! on the draft of the index lies in a hidden folder, with every segment that was
//! completed and what was kept of the training; whoever begins the same generation again
//! goes on there, in another process too. A draft that nobody comes back to for a day is
//! removed.
//!
//! # Security
//! The searcher sees what [`oboro_ckks::generation`] says: tables of the sample and of
//! every vector, codes, ids, sealed records; never a vector or a centroid. It holds the
//! sample's encrypted batches and the seed of its masks in memory until the training
//! ends, and writes nothing of them to disk. What it keeps, sealed, are the draft, its
//! share of the codebook and the centroids' lengths. A generation belongs to the owner's
//! certificate that began it, or to whoever shows the same plan, which holds secret seeds.

mod begin;
mod codebook;
mod draft;
mod encoding;
mod insert;
mod keeper;
mod keepsake;
mod open;
mod pass;
mod server;
mod service;
mod shape;
mod shared;
mod training;

pub(crate) use insert::EncoderGate;
pub use server::{Generated, GeneratorServer};

use crate::SearcherError;
use oboro_ckks::CkksError;
use oboro_protocol::{Failure, Reason};

/// For the fuzz targets.
pub(crate) fn decode_untrusted(bytes: &[u8]) {
    if let Ok(kept) = keepsake::Keepsake::from_bytes(bytes) {
        let again = keepsake::to_bytes(&kept.scale, &kept.gains, &kept.offsets, &kept.means);
        assert!(*again == bytes);
    }
}

fn refused(reason: Reason, sentence: impl Into<String>) -> SearcherError {
    Failure::new(reason, sentence).into()
}

fn malformed(error: CkksError) -> SearcherError {
    refused(Reason::BadRequest, error.to_string())
}

/// What the keeper sent does not fit.
fn foreign(error: CkksError) -> SearcherError {
    SearcherError::KeeperRefused(error.to_string())
}

/// Runs arithmetic on a thread for such.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SearcherError> + Send + 'static,
) -> Result<T, SearcherError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or(Err(SearcherError::Stopping))
}
