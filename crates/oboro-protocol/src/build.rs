//! Builds in an enclave: their messages and limits.

use std::time::Duration;

/// The generated messages, client and server of package `oboro.build.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    include!("generated/oboro.build.v1.rs");
}

/// Bytes of the keys of a build.
pub const KEYS_BYTES: usize = 177;

/// Bytes of a seed.
pub const SEED_BYTES: usize = 32;

/// Most values of a vector.
pub const MAX_DIMENSION: u32 = 65_536;

/// Most tags of an index.
pub const MAX_TAGS: usize = 64;

/// Most trial queries.
pub const MAX_TRIALS: usize = 4_096;

/// Most vectors to train on, for each centroid.
pub const MAX_SAMPLE_PER_CENTROID: u64 = 65_536;

/// Most rounds of k-means.
pub const MAX_ITERATIONS: u32 = 1_000;

/// Most lists of an index.
pub const MAX_LISTS: u32 = 65_536;

/// Most bytes of any message of a build.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Bytes of files in a message.
pub const PIECE_BYTES: usize = 1 << 20;

/// How long the generator waits for the owner's next message, or for the owner to take
/// one, while nothing else keeps either busy.
pub const IDLE_LIFETIME: Duration = Duration::from_secs(120);

/// How long a build may take in all.
pub const BUILD_LIFETIME: Duration = Duration::from_secs(24 * 3_600);
