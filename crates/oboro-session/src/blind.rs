//! Blind builds.

use oboro_ckks::GenerationPlan;
use oboro_client::generation::{GenerationConfig, GenerationSession, SegmentParts};
use oboro_owner::{
    BlindCommitted, BlindRoles, BlindSegment, BlindStanding, BlindTrained, OwnerError,
};
use tokio::runtime::Handle;

use crate::SessionError;

/// A searcher that was started to make an index, and its keeper.
///
/// ```no_run
/// use oboro_client::generation::GenerationConfig;
/// use oboro_owner::{BlindStart, BuildOptions, Owner, Rows};
/// use oboro_session::BlindSession;
///
/// # fn build(
/// #     owner: &Owner,
/// #     values: &[f32],
/// #     config: &GenerationConfig,
/// #     mut rng: chacha20::ChaCha20Rng,
/// # ) -> Result<(), Box<dyn std::error::Error>> {
/// // In `config` are addresses, the owner's certificate, and who is trusted.
/// let runtime = tokio::runtime::Runtime::new()?;
/// let mut roles = BlindSession::connect(config, runtime.handle().clone())?;
/// let mut source = Rows::new(values, 128)?;
/// // Is given what an interrupted build goes on from; here nobody keeps it.
/// let mut keep = |_: &oboro_index::BuildState| Ok(());
/// let start = BlindStart::new(&mut rng, &mut keep);
/// let options = BuildOptions::default();
/// match owner.build_blind(&mut source, &mut roles, &options, start) {
///     Ok(report) => println!("{} vectors", report.vectors),
///     // The servers hold what is done.
///     Err(error) if roles.is_passing(&error) => println!("{error}; go on later"),
///     Err(error) => {
///         roles.abort();
///         return Err(error.into());
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct BlindSession {
    session: GenerationSession,
    runtime: Handle,
    /// Segments that were complete when the generation was begun.
    segments: Option<u32>,
}

impl BlindSession {
    /// Connects to both and appraises their evidence.
    ///
    /// # Errors
    /// When one cannot be reached or does not prove what it must.
    pub fn connect(config: &GenerationConfig, runtime: Handle) -> Result<Self, SessionError> {
        let session = runtime.block_on(GenerationSession::connect(config))?;
        Ok(Self::new(session, runtime))
    }

    /// With connections that are made, in `runtime`.
    #[must_use]
    pub const fn new(session: GenerationSession, runtime: Handle) -> Self {
        Self {
            session,
            runtime,
            segments: None,
        }
    }

    /// The connections.
    #[must_use]
    pub const fn session(&self) -> &GenerationSession {
        &self.session
    }

    /// The connections, for requests of one's own.
    pub const fn session_mut(&mut self) -> &mut GenerationSession {
        &mut self.session
    }

    /// How many segments were complete when the generation was begun; `None` while it is not.
    #[must_use]
    pub const fn segments(&self) -> Option<u32> {
        self.segments
    }

    /// Whether the same build may succeed later: what went wrong is of a connection, of time,
    /// or of a disk, and not of the build. Then its state is worth to be kept.
    #[must_use]
    pub fn is_passing(&self, error: &SessionError) -> bool {
        error.is_passing(self.segments.is_some())
    }

    /// Gives the generation up, as far as that can still be told.
    pub fn abort(&mut self) {
        self.runtime.block_on(self.session.abort());
    }
}

impl BlindRoles for BlindSession {
    type Error = SessionError;

    fn begin(&mut self, plan: &GenerationPlan) -> Result<BlindStanding, SessionError> {
        let standing = self.runtime.block_on(self.session.begin(plan))?;
        self.segments = Some(standing.segments);
        Ok(BlindStanding {
            training: standing.training,
            trained: standing.trained,
            segments: standing.segments,
        })
    }

    fn shares(&mut self, shares: &[u8]) -> Result<(), SessionError> {
        Ok(self.runtime.block_on(self.session.shares(shares))?)
    }

    fn sample(&mut self, first: usize, batches: Vec<Vec<u8>>) -> Result<(), SessionError> {
        Ok(self.runtime.block_on(self.session.sample(first, batches))?)
    }

    fn train(
        &mut self,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), OwnerError>,
    ) -> Result<BlindTrained, SessionError> {
        loop {
            let state = self.runtime.block_on(self.session.train())?;
            progress(state.done.into(), state.steps.into())?;
            if let Some(trained) = state.trained {
                return Ok(BlindTrained {
                    batch_scale: trained.batch_scale,
                    table_scale: trained.table_scale,
                    codebook_digest: trained.codebook_digest,
                    gains: trained.gains,
                });
            }
        }
    }

    fn describe(&mut self, descriptor: &[u8]) -> Result<(), SessionError> {
        Ok(self.runtime.block_on(self.session.describe(descriptor))?)
    }

    fn encode(
        &mut self,
        segment: u32,
        first: usize,
        batches: Vec<Vec<u8>>,
    ) -> Result<(), SessionError> {
        let encode = self.session.encode(segment, first, batches);
        Ok(self.runtime.block_on(encode)?)
    }

    fn segment(&mut self, number: u32, segment: BlindSegment) -> Result<(), SessionError> {
        let parts = SegmentParts {
            segment_id: segment.segment_id,
            ids: segment.ids,
            tags: segment.tags,
            records: segment.records,
        };
        Ok(self.runtime.block_on(self.session.segment(number, parts))?)
    }

    fn commit(&mut self) -> Result<BlindCommitted, SessionError> {
        let report = self.runtime.block_on(self.session.commit())?;
        Ok(BlindCommitted {
            generation: report.generation,
            manifest_digest: report.manifest_digest,
            vectors: report.vectors,
            files: report.files,
            unrecorded: report.unrecorded,
        })
    }
}
