//! What a blind build asks of searcher and keeper.

use oboro_ckks::GenerationPlan;

use crate::OwnerError;

/// Searcher and keeper of a blind build, whoever carries the messages.
///
/// The methods are called in their order here; [`encode`](Self::encode) and
/// [`segment`](Self::segment) once for every part that is not there yet.
pub trait BlindRoles {
    /// What can go wrong.
    type Error: From<OwnerError>;

    /// Opens the generation at both, or finds it where it was interrupted.
    ///
    /// # Errors
    /// If one refuses or cannot be reached; so for all that follow.
    fn begin(&mut self, plan: &GenerationPlan) -> Result<BlindStanding, Self::Error>;

    /// Brings the keeper all its shares of the sample.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn shares(&mut self, shares: &[u8]) -> Result<(), Self::Error>;

    /// Brings the searcher batches of the sample, the first of which has the number
    /// `first`.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn sample(&mut self, first: usize, batches: Vec<Vec<u8>>) -> Result<(), Self::Error>;

    /// Has them train; tells `progress` of steps done and steps in all.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), or when `progress` gives an error.
    fn train(
        &mut self,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), OwnerError>,
    ) -> Result<BlindTrained, Self::Error>;

    /// Brings the descriptor.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn describe(&mut self, descriptor: &[u8]) -> Result<(), Self::Error>;

    /// Has batches of a segment encoded. It may return before they are.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), also for batches brought before.
    fn encode(
        &mut self,
        segment: u32,
        first: usize,
        batches: Vec<Vec<u8>>,
    ) -> Result<(), Self::Error>;

    /// Completes a segment once all its batches are encoded.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn segment(&mut self, number: u32, segment: BlindSegment) -> Result<(), Self::Error>;

    /// Makes the index visible.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn commit(&mut self) -> Result<BlindCommitted, Self::Error>;
}

/// How far a generation is when it is begun: what an interrupted one has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlindStanding {
    /// The roles have the whole sample, and train.
    pub training: bool,
    /// The training is over.
    pub trained: bool,
    /// Segments that are complete, the first ones.
    pub segments: u32,
}

/// What the training gave.
pub struct BlindTrained {
    /// The scale to encrypt vectors with.
    pub batch_scale: Vec<u8>,
    /// The scale of tables.
    pub table_scale: Vec<u8>,
    /// Digest of the encrypted codebook's masks.
    pub codebook_digest: [u8; 32],
    /// Mean score of the sample after each round.
    pub gains: Vec<f64>,
}

/// All of a segment but its codes, by position.
pub struct BlindSegment {
    /// Its random id, which the records are bound to.
    pub segment_id: [u8; 16],
    /// Ids.
    pub ids: Vec<u64>,
    /// Tags; empty where the index has none.
    pub tags: Vec<u64>,
    /// Sealed originals.
    pub records: Vec<u8>,
}

/// What a commit made visible.
#[derive(Clone, Debug)]
pub struct BlindCommitted {
    /// The index's generation.
    pub generation: u64,
    /// Digest of its manifest.
    pub manifest_digest: [u8; 32],
    /// Vectors in it.
    pub vectors: u64,
    /// Files and their bytes.
    pub files: Vec<(String, u64)>,
    /// The keeper could not be told yet.
    pub unrecorded: bool,
}
