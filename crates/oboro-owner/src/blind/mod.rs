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
//! new vectors are encoded by searcher and keeper, too ([`BlindEncoder`]). Of the
//! vectors, what the searcher learns is in [`oboro_ckks::generation`].
//!
//! # Interruptions
//! Everything random follows from one seed, which the owner keeps in a [`BuildState`]
//! while the build goes on. Whoever has it begins the same generation again, is told by
//! the searcher what is there already, and brings the rest: the same bytes as without the
//! interruption. After a rotation of the keeper's key it begins anew instead: what the
//! roles have is for the key before.
//!
//! [`BuildState`]: oboro_index::BuildState

mod build;
mod digest;
mod encoder;
mod report;
mod roles;
mod segment;
mod shape;
mod start;

pub use encoder::{BlindEncoder, BlindEncryptor, Unencoded};
pub use report::BlindReport;
pub use roles::{BlindCommitted, BlindRoles, BlindSegment, BlindStanding, BlindTrained};
pub use start::BlindStart;
