//! Blind generation: its messages and their limits.
//!
//! The byte limits hold a batch of 64 vectors of 128 dimensions about a hundred times,
//! and the codebook of 960 dimensions and 256 centroids with room; a shape whose codebook
//! is larger is refused at the beginning.

use std::time::Duration;

/// The generated messages, clients and servers of package `oboro.generation.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    include!("generated/oboro.generation.v1.rs");
}

/// Bytes of a session's name.
pub const SESSION_BYTES: usize = 16;

/// Most bytes of any message of a generation.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Most bytes of batches, shares or records that a message carries: the limit without
/// what stands around them.
pub const MAX_PAYLOAD_BYTES: usize = MAX_MESSAGE_BYTES - (1 << 20);

/// Bytes of batches in a message, where the sender is free to choose.
pub const USUAL_PAYLOAD_BYTES: usize = 8 << 20;

/// Most vectors of one segment.
pub const MAX_SEGMENT_VECTORS: usize = 65_536;

/// Most segments of one generation.
pub const MAX_SEGMENTS: u32 = 16_384;

/// Most rounds of training.
pub const MAX_ROUNDS: u32 = 100;

/// How long a server keeps a generation that nobody asks for anything.
pub const IDLE_LIFETIME: Duration = Duration::from_secs(600);

/// How long a server keeps a generation at most.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(24 * 3_600);

/// How long a server works on one request of a generation at most.
pub const MAX_REQUEST_TIME: Duration = Duration::from_secs(120);
