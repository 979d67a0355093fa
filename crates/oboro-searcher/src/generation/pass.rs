//! Batches on their way: multiplied here, decrypted in shares there, decoded here.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use oboro_ckks::{
    BatchEvaluator, BatchSearcherShare, BatchTableShare, CkksError, DerivedRandomness,
    EncryptedBatch, MaskedBatch,
};

use super::{blocking, malformed, open::Generation};
use crate::SearcherError;

/// One codebook, whose evaluator is a part of `S`.
pub(super) struct Pass<S> {
    pub(super) state: Arc<S>,
    pub(super) evaluator: fn(&S) -> Result<&BatchEvaluator, CkksError>,
    /// Names the codebook in derived randomness.
    pub(super) digest: [u8; 32],
    /// Names it at the keeper.
    pub(super) number: u32,
}

impl<S> Clone for Pass<S> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
            ..*self
        }
    }
}

impl<S: Send + Sync + 'static> Pass<S> {
    /// The codebook of `state`, which the keeper calls `number`.
    pub(super) async fn new(
        state: Arc<S>,
        evaluator: fn(&S) -> Result<&BatchEvaluator, CkksError>,
        number: u32,
    ) -> Result<Self, SearcherError> {
        blocking(move || {
            let digest = DerivedRandomness::codebook_digest(evaluator(&state).map_err(malformed)?);
            Ok(Self {
                state,
                evaluator,
                digest,
                number,
            })
        })
        .await
    }

    /// Takes some batches through; `decode` gets the number of each and its two shares.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        generation: &Arc<Generation>,
        batches: Vec<Arc<EncryptedBatch>>,
        blocks: Range<usize>,
        decode: impl Fn(&S, usize, &BatchSearcherShare, &BatchTableShare) -> Result<T, CkksError>
        + Send
        + 'static,
    ) -> Result<Vec<T>, SearcherError> {
        // Bounds what is in memory and at the keeper.
        let _slot = generation.slot().await?;
        let (pass, shared, range) = (self.clone(), Arc::clone(generation), blocks.clone());
        let (shares, masked) =
            blocking(move || pass.evaluate(&shared, &batches, range).map_err(malformed)).await?;
        generation.check_cancelled()?;
        let keeper = generation
            .keeper
            .tables(self.number, &blocks, masked)
            .await?;
        generation.check_cancelled()?;
        let (state, packing) = (Arc::clone(&self.state), generation.shape.batches);
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
        generation: &Generation,
        batches: &[Arc<EncryptedBatch>],
        blocks: Range<usize>,
    ) -> Result<(Vec<BatchSearcherShare>, Vec<Bytes>), CkksError> {
        let mut rngs: Vec<_> = batches
            .iter()
            .map(|batch| {
                generation
                    .randomness
                    .evaluation(&self.digest, batch, &blocks)
            })
            .collect();
        let batches: Vec<&EncryptedBatch> = batches.iter().map(AsRef::as_ref).collect();
        let split = |(share, masked): (BatchSearcherShare, MaskedBatch)| {
            (share, Bytes::from(masked.to_bytes()))
        };
        let evaluated = (self.evaluator)(&self.state)?.evaluate(&batches, blocks, &mut rngs)?;
        Ok(evaluated.into_iter().map(split).unzip())
    }
}
