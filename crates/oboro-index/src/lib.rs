//! Indexes on disk, and the keys that seal them.
//!
//! An index is a folder of immutable files and one `MANIFEST` that lists them:
//!
//! | file | content | sealed under |
//! |---|---|---|
//! | `MANIFEST` | every other file with size and BLAKE3 hash | MAC under the epoch key |
//! | `descriptor-E.oboro` | [`Descriptor`] of epoch E | epoch key; MAC under the descriptor key |
//! | `codebook-E.oboro` | the CKKS-encrypted codebook | epoch key |
//! | `segment-ID-E.codes` | codes in blocks of 64 vectors | epoch key |
//! | `segment-ID-E.ids` | ids in the same order | epoch key |
//! | `segment-ID.records` | originals, each sealed on its own | record key |
//!
//! The epoch key is made of the searcher's [`StorageKey`] and a share that the
//! keeper releases ([`keys`]): the searcher can open all but the originals, with
//! the keeper's consent to the state that it found ([`Index::peek`]). CKKS
//! ciphertexts never lie on disk unsealed. The owner writes with [`IndexWriter`],
//! the searcher reads with [`Index`] and, when the CKKS key is rotated, writes
//! the next epoch with [`EpochWriter`]; clients check a [`Descriptor`] and open
//! [`record`]s.
//!
//! All integers are little-endian. Every file begins with a magic number and a
//! format version and is bound to its index, kind and place.

mod cursor;
mod derive;
pub mod descriptor;
mod encoding;
mod epoch;
mod error;
mod index;
pub mod keys;
mod layout;
mod manifest;
pub mod record;
pub mod rotation;
mod sealed;
mod segment_writer;
mod shuffle;
mod trailer;
#[doc(hidden)]
pub mod untrusted;
mod verify;
mod writer;

pub use descriptor::Descriptor;
pub use encoding::{EncodingChoice, EncodingSurvey, RecordEncoding};
pub use epoch::EpochWriter;
pub use error::IndexError;
pub use index::{Index, Segment, Summary};
pub use keys::{
    ClientKey, DescriptorKey, EpochKey, OwnerKey, RecordKey, ReleaseKey, ReleaseShare,
    RotationSeed, StorageKey,
};
pub use manifest::IndexHead;
pub use record::{Record, RecordOpener, RecordSealer};
pub use rotation::{Rotation, RotationMatrix};
pub use segment_writer::SegmentWriter;
pub use shuffle::permutation;
pub use verify::{FileStatus, Report, verify};
pub use writer::{Committed, IndexWriter};

/// The format of indexes that this crate writes and reads.
pub const FORMAT_VERSION: u16 = 2;
