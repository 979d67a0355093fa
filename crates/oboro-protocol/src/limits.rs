//! Upper bounds on messages, counts and times.
//!
//! The byte limits follow from the largest packing served: 4,096 padded dimensions, 256
//! centroids, ring degree 4096 with two 50-bit primes. Such a codebook has `K*D/N` = 256
//! blocks of 51,200 bytes a polynomial, 13.1 MB of masks; its masked products take less.
//! Masked for re-encryption it travels whole: two polynomials a ciphertext, offsets
//! included, at most 65.5 MB in the shapes that fill the ring least. A receiver sets these as the decoding limits of
//! its transport, so that a larger message is refused before it is read.

use std::time::Duration;

/// Most candidates one query may ask for.
pub const MAX_CANDIDATES: u32 = 4_096;

/// Most values of one padded vector.
pub const MAX_DIMENSION: u32 = 4_096;

/// Bytes of an index id.
pub const INDEX_ID_BYTES: usize = 16;

/// Bytes of a prepared codebook's handle.
pub const HANDLE_BYTES: usize = 32;

/// Bytes of a public key's fingerprint, a manifest's digest, a share of a storage key.
pub const DIGEST_BYTES: usize = 32;

/// Bytes of a search session's name.
pub const SESSION_BYTES: usize = 16;

/// Most bytes of a request that carries a query or a table share.
pub const MAX_QUERY_MESSAGE_BYTES: usize = 16 << 20;

/// Most bytes of a message that carries masked products or a table share.
pub const MAX_PRODUCTS_MESSAGE_BYTES: usize = 32 << 20;

/// Most bytes of a message that carries a codebook's masks, or a masked codebook.
pub const MAX_MASKS_MESSAGE_BYTES: usize = 64 << 20;

/// Most bytes of a reply with records: 4,096 records of 4,096 `f32` values each, and
/// their envelopes.
pub const MAX_REPLY_MESSAGE_BYTES: usize = 72 << 20;

/// Bytes of a filter: three sets of 64 tags.
pub const FILTER_BYTES: usize = 24;

/// Bytes of a staged segment's name.
pub const STAGE_BYTES: usize = 16;

/// Most vectors of one staged segment.
pub const MAX_STAGE_VECTORS: usize = 65_536;

/// Most bytes of a message that brings a segment.
pub const MAX_STAGE_MESSAGE_BYTES: usize = 64 << 20;

/// Most staged segments of one commit.
pub const MAX_COMMIT_STAGES: usize = 1_024;

/// Most generations before a state that are named when it is registered.
pub const MAX_ANCESTORS: usize = 256;

/// Most ids that one commit deletes.
pub const MAX_COMMIT_DELETES: usize = 1_000_000;

/// Most bytes of a commit: its deletes, its stages, and what stands around them.
pub const MAX_COMMIT_MESSAGE_BYTES: usize =
    MAX_COMMIT_DELETES * 8 + MAX_COMMIT_STAGES * (STAGE_BYTES + 2) + 256;

/// Most bytes of a message that brings a sealed query model: a matrix of
/// [`MAX_DIMENSION`] squared values in `f32`, and what stands around it.
pub const MAX_QUERY_MODEL_MESSAGE_BYTES: usize = (64 << 20) + (1 << 17);

/// Most lists that one search looks at.
pub const MAX_PROBES: u32 = 1_024;

/// Most bytes of a sealed model: a codebook of [`MAX_DIMENSION`] values for each of 256
/// centroids, in `f32`, a query model, and what stands around them.
pub const MAX_MODEL_MESSAGE_BYTES: usize =
    (MAX_DIMENSION as usize * 256 * 4) + MAX_QUERY_MODEL_MESSAGE_BYTES + (1 << 20);

/// Most bytes of a request to a searcher.
pub const SEARCHER_REQUEST_LIMIT: usize = MAX_STAGE_MESSAGE_BYTES;

/// Most bytes of a request to a keeper.
pub const KEEPER_REQUEST_LIMIT: usize = MAX_MASKS_MESSAGE_BYTES;

/// How long a client waits for a search unless told otherwise.
pub const DEFAULT_SEARCH_DEADLINE: Duration = Duration::from_secs(10);

/// How long a server works on one request at most, whatever the client asks for.
pub const MAX_REQUEST_TIME: Duration = Duration::from_secs(60);

/// How long a compaction that somebody asked for may take before its asker is told to
/// look later; it goes on all the same.
pub const MAX_COMPACTION_TIME: Duration = Duration::from_secs(3_600);

/// How long a staged segment waits for its commit.
pub const STAGE_LIFETIME: Duration = Duration::from_secs(600);

/// How long a searcher waits for the keeper's share of one table.
pub const KEEPER_DEADLINE: Duration = Duration::from_secs(2);

/// How long a searcher waits for the keeper to prepare a codebook.
pub const PREPARE_DEADLINE: Duration = Duration::from_secs(30);

/// How long the searcher keeps a session between its two halves.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(30);
