//! Indexes on disk, and the keys that seal them.
//!
//! An index is a folder of immutable files and one `MANIFEST` that lists them:
//!
//! | file | content | sealed under |
//! |---|---|---|
//! | `MANIFEST` | every other file with size and BLAKE3 hash | MAC under the epoch key |
//! | `LOCK` | the number of the process that writes, if one does | |
//! | `descriptor-E.oboro` | [`Descriptor`] of epoch E | epoch key; MAC under the descriptor key |
//! | `codebook-E.oboro` | the CKKS-encrypted codebook | epoch key |
//! | `segment-ID-E.codes` | codes in blocks of 64 vectors | epoch key |
//! | `segment-ID-E.ids` | ids in the same order | epoch key |
//! | `segment-ID-E.tags` | tags in the same order, if the index has any | epoch key |
//! | `segment-ID.records` | originals, each sealed on its own | record key |
//! | `segment-ID-E.lists` | lists that vectors are in, if the index has any | epoch key |
//! | `deleted-ID-E.oboro` | which vectors of a segment are deleted | epoch key |
//! | `merge-ID-E.oboro` | how far a compaction is that was stopped or is under way, if it was long; listed in no manifest, nor are the records that it speaks of | epoch key |
//! | `model.oboro` | the [`Model`] | model key |
//! | `blind.oboro` | of an index made blindly, both roles' shares of the codebook ([`SealedBlind`]); listed in no manifest | storage key and a part of the keeper's |
//! | `query-model.oboro` | the [`QueryModel`], if the index has one | descriptor key |
//!
//! The epoch key is made of the searcher's [`StorageKey`] and a share that the
//! keeper releases ([`keys`]): the searcher can open all but the originals, with
//! the keeper's consent to the state that it found ([`Index::peek`]). CKKS
//! ciphertexts never lie on disk unsealed. The owner builds with [`IndexWriter`];
//! [`Index`] reads; [`LiveIndex`] changes an index while it is searched: inserts
//! and deletes, compaction ([`live`]) and, when the CKKS key is rotated, the next
//! epoch ([`EpochWriter`]). Clients check a [`Descriptor`] and open [`record`]s.
//!
//! All integers are little-endian. Every file begins with a magic number and a
//! format version and is bound to its index, kind and place.

// What the integration tests share names this crate as they do.
#[cfg(test)]
extern crate self as oboro_index;

mod alive;
mod blind;
mod build_state;
mod building;
mod cursor;
mod derive;
pub mod descriptor;
mod draft;
mod encoding;
mod epoch;
mod error;
mod extra;
mod index;
mod index_note;
pub mod keys;
mod layout;
mod listed;
pub mod live;
mod manifest;
mod model;
mod note;
mod query_model;
mod query_shape;
mod receiver;
pub mod record;
pub mod rotation;
mod sealed;
mod segment;
mod segment_sealer;
mod segment_writer;
mod shuffle;
mod summary;
mod trailer;
#[doc(hidden)]
pub mod untrusted;
mod verify;
mod writer;

pub use blind::{BLIND_FILE, BlindHead, SealedBlind};
pub use build_state::BuildState;
pub use descriptor::Descriptor;
pub use encoding::{EncodingChoice, EncodingSurvey, RecordEncoding};
pub use epoch::EpochWriter;
pub use error::IndexError;
pub use extra::{Extra, MAX_EXTRA_BYTES};
pub use index::Index;
pub use keys::{
    BuildKeys, ClientKey, DescriptorKey, EpochKey, ModelKey, OwnerKey, RecordKey, ReleaseKey,
    ReleaseShare, RotationSeed, StorageKey, WriterKey,
};
pub use listed::Listed;
pub use live::{
    Change, Compacted, Compaction, CompactionPolicy, LiveIndex, NewSegment, OnExisting, Outcome,
    Place, Staged, Stager, Throttle,
};
pub use manifest::{IndexHead, MAX_ANCESTORS};
pub use model::Model;
pub use query_model::{MAX_QUERY_MODEL_BYTES, QueryModel};
pub use query_shape::{MAX_PROBES, QueryShape};
pub use receiver::IndexReceiver;
pub use record::{Record, RecordLayout, RecordOpener, RecordSealer};
pub use rotation::{Rotation, RotationMatrix};
pub use segment::Segment;
pub use segment_sealer::SegmentSealer;
pub use segment_writer::SegmentWriter;
pub use shuffle::permutation;
pub use summary::{SegmentSummary, Summary};
pub use verify::{FileStatus, Report, verify};
pub use writer::{Committed, IndexWriter};

/// The format of indexes that this crate writes and reads.
pub const FORMAT_VERSION: u16 = 4;
