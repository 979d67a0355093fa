//! Building an index blindly: searcher and keeper make codebook and codes, and neither
//! sees a vector or a centroid.
//!
//! The owner reads its vectors twice. The first time it takes a sample, which it
//! shuffles, encrypts for the searcher, and splits into shares for the keeper; the roles
//! train on that. The second time it encrypts every vector under the keeper's public key
//! and seals its original under its own. What it gets back are bounds and a digest, from
//! which it makes the descriptor.
//!
//! # Security
//! Nobody has the codebook in the clear, the owner included, so the index has no model:
//! vectors cannot be inserted the usual way afterwards. Of the vectors, what the searcher
//! learns is in [`oboro_ckks::generation`].

mod build;
mod roles;
mod segment;

pub use build::BlindReport;
pub use roles::{BlindBegin, BlindCommitted, BlindRoles, BlindSegment, BlindTrained};
