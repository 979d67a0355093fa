//! Blind generation: a codebook and codes of vectors that nobody sees.
//!
//! The owner opens a [`session`] and brings the keeper's shares of its training sample,
//! each value uniformly random. A searcher that shows the session then sends labels, and
//! gets the means of the shares, encrypted; it sends masked batches, and gets shares of
//! their tables. The arithmetic is that of [`oboro_ckks::generation`].
//!
//! At the end the searcher is given the keeper's share of the codebook, sealed, to keep.
//! Whenever vectors are encoded later, after a restart of either or for an insert, it
//! shows that share, and the keeper encrypts the codebook anew: so the keeper stores
//! nothing of a generation.
//!
//! # Security
//! What passes here is uniform or pseudorandom to the keeper, but for labels: for every
//! sub-space, which samples of an order that the owner drew lie in one cluster, round
//! after round. A session does a bounded number of everything, belongs to one owner and
//! to the first searcher that shows it, and ends by itself. Its answers follow from the
//! keeper's release key and from what is asked, so that asking twice, even after a restart,
//! tells nothing more. Nothing of it is written to disk.

mod service;
mod session;
mod sessions;
mod shape;
mod share;
#[cfg(test)]
mod tests;

pub(crate) use service::GenerationService;
pub(crate) use sessions::Generations;

/// For the fuzz targets.
pub(crate) fn decode_untrusted(bytes: &[u8]) {
    if let Ok(share) = share::Share::from_bytes(bytes) {
        assert!(*share::Share::to_bytes(&share.scale, &share.means) == bytes);
    }
}
