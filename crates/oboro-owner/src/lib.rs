//! The owner of the vectors: makes an index that servers can search without
//! ever seeing a vector, a centroid or a query.
//!
//! [`Owner::build`] reads the vectors twice and keeps none of them: memory is
//! bounded by the codes and a chunk. The steps are: look at every vector and
//! take a sample; train a product quantizer; encode, seal the originals under
//! the owner's key, in secret random order; search trial queries through the
//! encrypted path; encrypt the codebook under the keeper's public key; write
//! everything and make it visible at once.
//!
//! An index that exists is changed by [`insert`] and [`delete`], in a folder that nobody
//! serves or, with a [`Target`] that talks to it, at its searcher while it is searched.
//! An [`Encoder`] makes segments with the codebook that the build left sealed.
//! [`Owner::build_enclave`] has an attested program make the index ([`enclave`]);
//! [`Owner::build_blind`] has searcher and keeper make the index, who see no vector either.
//!
//! # Security
//! The only crate besides the client's that holds vectors in the clear, at the owner or, for a
//! build in an enclave, in the generator. What
//! leaves it are codes (sealed for the searcher), the encrypted codebook and
//! sealed originals. The order of the vectors, the keys and all encryption
//! randomness come from the generator given to [`Owner::build`]; the seed in
//! [`BuildOptions`] only decides about sample and training.

mod blind;
mod build;
pub mod enclave;
mod encoder;
mod error;
mod estimate;
mod ids;
mod insert;
mod lists;
mod nearest;
mod opq;
mod options;
mod prepare;
mod refusals;
mod report;
mod second_pass;
mod shape;
mod source;
mod survey;
mod tags;
mod trial;

pub use blind::{
    BlindCommitted, BlindEncoder, BlindEncryptor, BlindReport, BlindRoles, BlindSegment,
    BlindStanding, BlindStart, BlindTrained, Unencoded,
};
pub use build::Owner;
pub use encoder::{EncodedSegment, Encoder, Encodes, Skip};
pub use error::OwnerError;
pub use estimate::Estimate;
pub use insert::{Changed, FolderTarget, InsertOptions, InsertReport, Target, delete, insert};
pub use lists::ListsReport;
pub use nearest::as_near;
pub use opq::{DEFAULT_OPQ_TURNS, OpqReport};
pub use options::{BuildOptions, ProgressFn, Stage, default_subquantizers};
pub use refusals::{Reason, Refusals};
pub use report::{BuildReport, EncryptionReport, Lengths, StageSeconds, displacement};
pub use source::{Rows, VectorSource};
pub use trial::TrialReport;

// What a source gives.
pub use oboro_vectors::{Ids, Records};
