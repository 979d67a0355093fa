//! What a build can be told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use oboro_index::{EncodingChoice, Rotation};
use oboro_quant::Metric;

use crate::OwnerError;

/// A step of a build, in order, or of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// First pass: checks, range, sample. Unit: vectors.
    Read,
    /// The learned matrix of OPQ. Unit: turns.
    Turn,
    /// The centres of lists. Unit: rounds.
    Lists,
    /// k-means of the sub-quantizers. Unit: rounds.
    Train,
    /// Second pass: codes, sealed originals, exact answers of the trial
    /// queries. Unit: vectors.
    Encode,
    /// Encrypting the codebook and writing the files. Unit: none.
    Write,
    /// Trial queries through the encrypted path. Unit: queries.
    Trial,
    /// Rows of an insert that are committed. Unit: rows.
    Insert,
}

impl Stage {
    /// One word for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "reading",
            Self::Turn => "learning the matrix",
            Self::Lists => "learning the lists",
            Self::Train => "training",
            Self::Encode => "encoding and sealing",
            Self::Write => "writing",
            Self::Trial => "trial queries",
            Self::Insert => "inserting",
        }
    }
}

/// Called with the stage, the units done and the units in all (0: unknown).
pub type ProgressFn = Arc<dyn Fn(Stage, u64, u64) + Send + Sync>;

/// What a build can be told; [`BuildOptions::default`] suits most data.
#[derive(Clone)]
pub struct BuildOptions {
    /// How vectors are compared.
    pub metric: Metric,
    /// M; see [`default_subquantizers`] where `None`.
    pub subquantizers: Option<usize>,
    /// K, 256 or 16.
    pub centroids: usize,
    /// d1, the ciphertexts of a query; raised where the packing needs more.
    /// [`Packing::balanced`](oboro_ckks::Packing::balanced) chooses where `None`.
    pub split: Option<usize>,
    /// Vectors to train on; 256 K, and 32 a list, where `None`.
    pub sample: Option<usize>,
    /// Most rounds of k-means.
    pub iterations: usize,
    /// Seed of sample, training and trial. Everything secret comes from the
    /// generator that [`crate::Owner::build`] is given, not from here.
    pub seed: [u8; 32],
    /// Threads; all cores where `None`. The codebook is the same for any number.
    pub threads: Option<usize>,
    /// Secret rotation before anything else.
    pub rotation: Rotation,
    /// Turns of the vectors for a learned matrix after which codes are better (OPQ);
    /// `None` for none. Not under the Lorentz metric.
    pub opq: Option<usize>,
    /// Lists that vectors are put into, of which a search looks at some only; 0 for
    /// none. Not under the Lorentz metric.
    ///
    /// The searcher is told which lists each query looks at, and its host can see it
    /// from the addresses: they learn the query's neighbourhood.
    pub lists: usize,
    /// Most lists that one search looks at, at most 1,024; one of 16 where `None`.
    pub probes_max: Option<usize>,
    /// How originals are stored; by [`EncodingChoice::Auto`] in single precision under the
    /// Lorentz metric.
    pub originals: EncodingChoice,
    /// Names of the tags that vectors may have, at most 64; those that the
    /// source names where `None`.
    pub tags: Option<Vec<String>>,
    /// Bytes of each record for text id and payload; as many as the longest
    /// need where `None`. Every record has that size, so that none tells by its
    /// length what it carries.
    pub extra_bytes: Option<u32>,
    /// The most candidates a search may ask for. Every reply has the size of
    /// the largest, so it costs bytes on the wire of every search.
    pub candidates_max: usize,
    /// Whether the index opens only with the share that the keeper releases;
    /// off for indexes whose clients hold the decryption key, which have no
    /// keeper.
    pub released: bool,
    /// Trial queries, answered through the encrypted path at the end.
    pub trials: usize,
    /// Replace an existing index once the new one is complete.
    pub force: bool,
    /// Set it from another thread to stop the build.
    pub cancel: Arc<AtomicBool>,
    /// Told how far the build is.
    pub progress: Option<ProgressFn>,
}

impl Default for BuildOptions {
    fn default() -> Self {
        Self {
            metric: Metric::L2,
            subquantizers: None,
            centroids: 256,
            split: None,
            sample: None,
            iterations: 25,
            seed: [0; 32],
            threads: None,
            rotation: Rotation::Subspace,
            opq: None,
            lists: 0,
            probes_max: None,
            originals: EncodingChoice::Auto,
            tags: None,
            extra_bytes: None,
            candidates_max: 256,
            released: true,
            trials: 64,
            force: false,
            cancel: Arc::default(),
            progress: None,
        }
    }
}

impl BuildOptions {
    pub(crate) fn report(&self, stage: Stage, done: u64, total: u64) {
        if let Some(progress) = &self.progress {
            progress(stage, done, total);
        }
    }

    pub(crate) fn check_cancelled(&self) -> Result<(), OwnerError> {
        if self.cancel.load(Ordering::Relaxed) {
            Err(OwnerError::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// The number of sub-quantizers where none is given: one for each eight
/// dimensions, at least eight where the dimension allows it, at most 64.
///
/// Small dimensions get finer sub-spaces because eight bytes of code cost
/// little there and a search needs about 8 bytes to find its way at all.
#[must_use]
pub fn default_subquantizers(dimension: usize) -> usize {
    let eighth = (dimension + 4) / 8;
    eighth.clamp(8.min(dimension).max(1), 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_subquantizers_follow_the_dimension() {
        for (dimension, expected) in [
            (1, 1),
            (2, 2),
            (7, 7),
            (8, 8),
            (50, 8),
            (97, 12),
            (100, 13),
            (128, 16),
            (384, 48),
            (960, 64),
        ] {
            assert_eq!(default_subquantizers(dimension), expected, "{dimension}");
        }
    }
}
