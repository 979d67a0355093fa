//! The owner's work at running servers: blind builds, and changes of an index that is
//! served.
//!
//! `oboro-owner` knows what has to be done and asks whoever carries its messages, by the
//! traits [`BlindRoles`](oboro_owner::BlindRoles) and [`Target`](oboro_owner::Target).
//! `oboro-client` carries messages over attested channels. Neither role's code is in the
//! other's crate; a program that is both joins them here:
//!
//! - [`BlindSession`]: a searcher and a keeper that make an index of vectors neither sees, for
//!   [`Owner::build_blind`](oboro_owner::Owner::build_blind);
//! - [`ServedIndex`]: a searcher that serves an index and takes changes, for
//!   [`insert`](oboro_owner::insert) and [`delete`](oboro_owner::delete), whether new vectors
//!   are encoded with the owner's model or by searcher and keeper.
//!
//! Their calls wait. Each has the handle of a Tokio runtime with worker threads, and is called
//! from a thread that runs none of that runtime's tasks: one of its own, or one that
//! [`block_in_place`](tokio::task::block_in_place) has taken out.
//!
//! # Security
//! This is code of the owner, and of clients that may write. Vectors leave it encrypted or
//! sealed only; what each server learns is on the pages of `oboro-owner` and in SECURITY.md.

mod blind;
mod error;
mod served;

pub use blind::BlindSession;
pub use error::SessionError;
pub use served::ServedIndex;
