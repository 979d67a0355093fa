//! What a build in an enclave asks of whoever carries its messages.

use super::{Batch, Job};
use crate::{ListsReport, OpqReport, OwnerError, Stage, StageSeconds, TrialReport};

/// Is told how far the generator is, and may stop the build.
pub type Told<'a> = &'a mut dyn FnMut(Stage, u64, u64) -> Result<(), OwnerError>;

/// A generator that has proved what it is, and the way to it.
///
/// The methods are called in their order here; [`early`](Self::early),
/// [`records`](Self::records) and [`piece`](Self::piece) as often as needed. Each may wait
/// until the generator has room.
pub trait Link {
    /// What can go wrong.
    type Error: From<OwnerError>;

    /// Brings the job.
    ///
    /// # Errors
    /// If the generator refuses or goes away, or `told` gives an error; so for all that
    /// follow.
    fn begin(&mut self, job: &Job, told: Told<'_>) -> Result<(), Self::Error>;

    /// Brings vectors to train on and to try, packed.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn early(&mut self, vectors: Vec<u8>, told: Told<'_>) -> Result<(), Self::Error>;

    /// Brings records.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn records(&mut self, batch: Batch<Vec<u8>>, told: Told<'_>) -> Result<(), Self::Error>;

    /// Waits until the index is made.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn built(&mut self, told: Told<'_>) -> Result<Built, Self::Error>;

    /// The next bytes of the files; `None` when all have come.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn piece(&mut self) -> Result<Option<Piece>, Self::Error>;

    /// Tells the generator that the index is safe.
    fn done(&mut self);

    /// Gives the build up.
    fn abort(&mut self);
}

/// Bytes of the files of an index, in the order of its manifest.
pub type Piece = Vec<u8>;

/// What a generator says of an index that it made.
#[derive(Clone, Debug)]
pub struct Built {
    /// Its manifest, which names everything else.
    pub manifest: Vec<u8>,
    /// What the full rotation costs, where it was asked for.
    pub rotation_cost: Option<f64>,
    /// What a learned matrix gains, where it was asked for.
    pub opq: Option<OpqReport>,
    /// The lists, where they were asked for.
    pub lists: Option<ListsReport>,
    /// Trial queries.
    pub trial: TrialReport,
    /// Seconds of each stage there.
    pub seconds: StageSeconds,
}
