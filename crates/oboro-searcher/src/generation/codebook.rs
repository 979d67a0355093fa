//! A trained codebook at work: encrypted batches in, codes out.

use std::sync::Arc;

use bytes::Bytes;
use oboro_ckks::{
    BatchEvaluator, BatchScale, BatchSearcherShare, BatchTableShare, DerivedRandomness,
    EncryptedBatch, MaskedBatchCodebook, PublicKey, TrainedCodebook,
};
use oboro_index::{SealedBlind, StorageKey};
use oboro_protocol::Reason;
use tokio::sync::Mutex;

use super::{
    blocking, foreign,
    keeper::{GenerationKeeper, InstallPlan, Installed},
    keepsake::Keepsake,
    malformed,
    pass::{Pass, Workbench},
};
use crate::SearcherError;

/// A codebook at this searcher, encrypted, and where the keeper has it.
///
/// A keeper that was started again knows nothing of it any more; it is then shown its
/// share once more, and goes on with the same bytes.
pub(super) struct Codebook {
    trained: Arc<TrainedCodebook>,
    digest: [u8; 32],
    /// What the keeper is shown.
    plan: InstallPlan,
    /// Where the keeper has it now, and under which number.
    place: Mutex<(GenerationKeeper, u32)>,
}

fn evaluator(codebook: &TrainedCodebook) -> Result<&BatchEvaluator, oboro_ckks::CkksError> {
    Ok(codebook.evaluator())
}

impl Codebook {
    /// One that was just trained; the keeper has it as `number` of its session.
    pub(super) fn new(
        trained: TrainedCodebook,
        plan: InstallPlan,
        keeper: GenerationKeeper,
        number: u32,
    ) -> Self {
        Self {
            digest: DerivedRandomness::codebook_digest(trained.evaluator()),
            trained: Arc::new(trained),
            plan,
            place: Mutex::new((keeper, number)),
        }
    }

    /// One of an earlier training, from what was kept of it.
    pub(super) async fn again(
        sealed: SealedBlind,
        key: &StorageKey,
        public_key: PublicKey,
        keeper: &GenerationKeeper,
    ) -> Result<(Self, Vec<f64>), SearcherError> {
        let plan = InstallPlan {
            index_id: sealed.head().index_id,
            share: Bytes::copy_from_slice(sealed.keeper_share()),
            key_fingerprint: public_key.fingerprint(),
        };
        let Installed {
            keeper,
            number,
            codebook,
            part,
        } = keeper.install(&plan).await?;
        let kept = Keepsake::from_bytes(&sealed.open(key, &part)?).map_err(malformed)?;
        blocking(move || {
            let packing = *kept.scale.packing();
            let masked = MaskedBatchCodebook::from_bytes(&packing, &codebook).map_err(foreign)?;
            let trained =
                TrainedCodebook::again(kept.scale, public_key, masked, kept.means, kept.offsets)
                    .map_err(foreign)?;
            Ok((Self::new(trained, plan, keeper, number), kept.gains))
        })
        .await
    }

    /// The scale that batches are to be encrypted with.
    pub(super) fn scale(&self) -> &BatchScale {
        self.trained.evaluator().scale()
    }

    async fn pass(&self) -> Pass<TrainedCodebook> {
        let place = self.place.lock().await;
        Pass {
            state: Arc::clone(&self.trained),
            evaluator,
            digest: self.digest,
            keeper: place.0.clone(),
            number: place.1,
        }
    }

    /// Shows the keeper its share once more, unless somebody did since `before`.
    async fn install(&self, before: &GenerationKeeper) -> Result<(), SearcherError> {
        let mut place = self.place.lock().await;
        if place.0.is_same(before) {
            let installed = place.0.install(&self.plan).await?;
            tracing::info!("the keeper was shown its share of the codebook again");
            *place = (installed.keeper, installed.number);
        }
        Ok(())
    }

    /// The codes of encrypted batches, M bytes a vector.
    pub(super) async fn encode(
        &self,
        bench: &Arc<Workbench>,
        bytes: Vec<Bytes>,
    ) -> Result<Vec<Vec<u8>>, SearcherError> {
        let packing = bench.packing;
        let batches = blocking(move || {
            bytes
                .iter()
                .map(|bytes| EncryptedBatch::from_bytes(&packing, bytes).map(Arc::new))
                .collect::<Result<Vec<_>, _>>()
                .map_err(malformed)
        })
        .await?;
        let decode = move |trained: &TrainedCodebook,
                           _: usize,
                           share: &BatchSearcherShare,
                           keeper: &BatchTableShare| {
            let nearest = trained
                .evaluator()
                .assign(share, keeper, trained.offsets())?;
            let mut codes = Vec::new();
            nearest.append_codes(packing.batch(), &mut codes);
            Ok(codes)
        };
        let pass = self.pass().await;
        let blocks = 0..packing.blocks();
        match pass
            .run(bench, batches.clone(), blocks.clone(), decode)
            .await
        {
            Err(error) if error.reason() == Reason::UnknownSession => {
                bench.check_cancelled()?;
                self.install(&pass.keeper).await?;
                let pass = self.pass().await;
                pass.run(bench, batches, blocks, decode).await
            }
            result => result,
        }
    }
}
