//! Building an index in an enclave: the owner sends its vectors to an attested program,
//! the *generator*, which makes the index and forgets them.
//!
//! The owner reads its vectors twice, as in a local build. The first time it checks them
//! and takes the sample; what it found goes ahead as a [`Job`]. The second time it sends
//! every record, once, as [`Batch`]es; the generator holds codes, ids and a batch, as a
//! local build does. What comes back are the finished files, which are compared with
//! their hashes and opened before anybody sees them.
//!
//! The generator runs the same code as a local build ([`generate`]), and everything
//! random in it follows from a seed in the job: the same generator of random numbers
//! gives the same bytes in either place, and an enclave whose host starves it of
//! randomness does not matter.
//!
//! # Security
//! While it works the generator has vectors and codebook in the clear, and
//! [`BuildKeys`](oboro_index::BuildKeys). It never has the owner's key. Whoever carries
//! the messages ([`Link`]) must have seen evidence of the program before [`Link::begin`].

mod batch;
mod build;
mod generate;
mod job;
mod link;

pub use batch::Batch;
pub use generate::generate;
pub use job::{Form, Job};
pub use link::{Built, Link, Piece, Told};
