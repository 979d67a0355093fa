//! Batches on their way: multiplied here, decrypted in shares there, decoded here.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use oboro_ckks::{
    BatchEvaluator, BatchPacking, BatchSearcherShare, BatchTableShare, CkksError,
    DerivedRandomness, EncryptedBatch, MaskedBatch,
};
use oboro_protocol::{Reason, generation::USUAL_PAYLOAD_BYTES};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zeroize::Zeroizing;

use super::{blocking, keeper::GenerationKeeper, malformed, refused};
use crate::SearcherError;

/// Batches that pass through the codebook together.
const MAX_GROUP: usize = 8;

/// What all batches of one generation, or one index, share.
pub(super) struct Workbench {
    pub(super) packing: BatchPacking,
    pub(super) randomness: DerivedRandomness,
    slots: Arc<Semaphore>,
    cancelled: AtomicBool,
}

impl Workbench {
    pub(super) fn new(packing: BatchPacking, seed: Zeroizing<[u8; 32]>, threads: usize) -> Self {
        Self {
            packing,
            randomness: DerivedRandomness::new(seed),
            // One more than there are threads, so that none waits for the keeper.
            slots: Arc::new(Semaphore::new(threads.max(1) + 1)),
            cancelled: AtomicBool::new(false),
        }
    }

    /// Batches that are evaluated together and travel in one message.
    pub(super) fn group(&self) -> usize {
        let each = MaskedBatch::encoded_len(&self.packing, self.packing.blocks());
        (USUAL_PAYLOAD_BYTES / each).clamp(1, MAX_GROUP)
    }

    pub(super) fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    pub(super) fn check_cancelled(&self) -> Result<(), SearcherError> {
        if self.cancelled.load(Relaxed) {
            return Err(refused(
                Reason::UnknownSession,
                "the generation was given up",
            ));
        }
        Ok(())
    }

    /// A turn in the pipeline.
    async fn slot(&self) -> Result<OwnedSemaphorePermit, SearcherError> {
        self.check_cancelled()?;
        let slots = Arc::clone(&self.slots);
        slots
            .acquire_owned()
            .await
            .map_err(|_| SearcherError::Stopping)
    }
}

/// One codebook, whose evaluator is a part of `S`.
pub(super) struct Pass<S> {
    pub(super) state: Arc<S>,
    pub(super) evaluator: fn(&S) -> Result<&BatchEvaluator, CkksError>,
    /// Names the codebook in derived randomness.
    pub(super) digest: [u8; 32],
    /// Where the keeper has it, and under which number.
    pub(super) keeper: GenerationKeeper,
    pub(super) number: u32,
}

impl<S> Clone for Pass<S> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            keeper: self.keeper.clone(),
            ..*self
        }
    }
}

impl<S: Send + Sync + 'static> Pass<S> {
    /// The codebook of `state`, which the keeper calls `number`.
    pub(super) async fn new(
        state: Arc<S>,
        evaluator: fn(&S) -> Result<&BatchEvaluator, CkksError>,
        keeper: GenerationKeeper,
        number: u32,
    ) -> Result<Self, SearcherError> {
        blocking(move || {
            let digest = DerivedRandomness::codebook_digest(evaluator(&state).map_err(malformed)?);
            Ok(Self {
                state,
                evaluator,
                digest,
                keeper,
                number,
            })
        })
        .await
    }

    /// Takes some batches through; `decode` gets the number of each and its two shares.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        bench: &Arc<Workbench>,
        batches: Vec<Arc<EncryptedBatch>>,
        blocks: Range<usize>,
        decode: impl Fn(&S, usize, &BatchSearcherShare, &BatchTableShare) -> Result<T, CkksError>
        + Send
        + 'static,
    ) -> Result<Vec<T>, SearcherError> {
        // Bounds what is in memory and at the keeper.
        let _slot = bench.slot().await?;
        let (pass, shared, range) = (self.clone(), Arc::clone(bench), blocks.clone());
        let (shares, masked) =
            blocking(move || pass.evaluate(&shared, &batches, range).map_err(malformed)).await?;
        bench.check_cancelled()?;
        let keeper = self.keeper.tables(self.number, &blocks, masked).await?;
        bench.check_cancelled()?;
        let (state, packing) = (Arc::clone(&self.state), bench.packing);
        blocking(move || {
            shares
                .iter()
                .zip(&keeper)
                .enumerate()
                .map(|(number, (share, bytes))| {
                    let keeper = BatchTableShare::from_bytes(&packing, blocks.clone(), bytes)?;
                    decode(&state, number, share, &keeper)
                })
                .collect::<Result<Vec<T>, CkksError>>()
                .map_err(|error| SearcherError::KeeperRefused(error.to_string()))
        })
        .await
    }

    fn evaluate(
        &self,
        bench: &Workbench,
        batches: &[Arc<EncryptedBatch>],
        blocks: Range<usize>,
    ) -> Result<(Vec<BatchSearcherShare>, Vec<Bytes>), CkksError> {
        let mut rngs: Vec<_> = batches
            .iter()
            .map(|batch| bench.randomness.evaluation(&self.digest, batch, &blocks))
            .collect();
        let batches: Vec<&EncryptedBatch> = batches.iter().map(AsRef::as_ref).collect();
        let split = |(share, masked): (BatchSearcherShare, MaskedBatch)| {
            (share, Bytes::from(masked.to_bytes()))
        };
        let evaluated = (self.evaluator)(&self.state)?.evaluate(&batches, blocks, &mut rngs)?;
        Ok(evaluated.into_iter().map(split).unzip())
    }
}
