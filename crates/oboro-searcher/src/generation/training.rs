//! Blind k-means, and the codebook in the form for searching.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;
use oboro_ckks::{
    BatchEvaluator, BlindTrainer, CkksError, EncryptedBatch, EncryptedCodebook,
    MaskedBatchCodebook, MaskedCodebook, MaskedOffsets, Step, TableScale, TrainedCodebook,
    TrainingPlan, Work, WorkRows,
};
use rand_core::CryptoRng;
use tokio::task::JoinSet;

use super::{blocking, malformed, open::Generation, pass::Pass};
use crate::SearcherError;

/// What a training gave.
pub(super) struct Trained {
    codebook: TrainedCodebook,
    /// Encodes batches.
    digest: [u8; 32],
    number: u32,
    pub(super) table_scale: TableScale,
    /// In the form for searching.
    pub(super) search: EncryptedCodebook,
    pub(super) gains: Vec<f64>,
}

impl Trained {
    /// Evaluates batches of vectors.
    pub(super) const fn evaluator(&self) -> &BatchEvaluator {
        self.codebook.evaluator()
    }

    /// -|c|²/2, for the nearest centroid.
    pub(super) fn offsets(&self) -> &[f32] {
        self.codebook.offsets()
    }

    /// Batches of vectors against this codebook.
    pub(super) fn pass(self: &Arc<Self>) -> Pass<Self> {
        Pass {
            state: Arc::clone(self),
            evaluator: |trained| Ok(trained.evaluator()),
            digest: self.digest,
            number: self.number,
        }
    }
}

/// Trains from the start.
pub(super) async fn train(
    generation: &Arc<Generation>,
    mut rng: impl CryptoRng + Send + 'static,
) -> Result<Trained, SearcherError> {
    let sample = Arc::new(generation.sample()?);
    let (shape, plan) = (&generation.shape, &generation.plan);
    let training = TrainingPlan {
        rounds: shape.rounds,
        vector_norm: plan.vector_norm,
        seed: plan.training_seed.clone(),
    };
    let mut trainer = BlindTrainer::new(
        &shape.batches,
        shape.bounds,
        training,
        plan.mask_seed.clone(),
        plan.public_key.clone(),
    )
    .map_err(malformed)?;
    let mut number = 0;
    loop {
        let (done, steps) = trainer.progress();
        generation.done.store(done as u32, Relaxed);
        generation.steps.store(steps as u32, Relaxed);
        generation.check_cancelled()?;
        match trainer.step() {
            Step::Centroids => (trainer, number) = centroids(generation, trainer).await?,
            Step::Tables => trainer = tables(generation, trainer, &sample, number).await?,
            Step::Finished => break,
        }
    }
    let shared = Arc::clone(generation);
    let finished = blocking(move || {
        let gains = trainer.gains().to_vec();
        let codebook = trainer.finish().map_err(malformed)?;
        let (shape, plan) = (&shared.shape, &shared.plan);
        let bound = if plan.offsets {
            codebook.offset_bound()
        } else {
            0.0
        };
        let scale = TableScale::new(
            &shape.packing,
            plan.query_norm,
            codebook.codebook_norm(),
            bound,
        )
        .map_err(malformed)?;
        let offsets = plan.offsets.then(|| codebook.offsets());
        let (masked, keep) =
            MaskedOffsets::new(&shape.packing, &scale, offsets, &mut rng).map_err(malformed)?;
        Ok((codebook, gains, scale, masked.to_bytes(), keep))
    });
    let (codebook, gains, table_scale, masked, keep) = finished.await?;
    let reply = generation
        .keeper
        .codebook(table_scale.to_bytes().to_vec().into(), masked.into())
        .await?;
    let shared = Arc::clone(generation);
    blocking(move || {
        let masked = MaskedCodebook::from_bytes(&shared.shape.packing, &reply).map_err(foreign)?;
        let search = keep
            .unmask(masked, codebook.means(), &table_scale)
            .map_err(foreign)?;
        let digest = oboro_ckks::DerivedRandomness::codebook_digest(codebook.evaluator());
        Ok(Trained {
            codebook,
            digest,
            number,
            table_scale,
            search,
            gains,
        })
    })
    .await
}

/// What the keeper sent does not fit.
fn foreign(error: CkksError) -> SearcherError {
    SearcherError::KeeperRefused(error.to_string())
}

/// The keeper encrypts the means of the present labels.
async fn centroids(
    generation: &Arc<Generation>,
    mut trainer: BlindTrainer,
) -> Result<(BlindTrainer, u32), SearcherError> {
    let scale = Bytes::copy_from_slice(&trainer.scale().to_bytes());
    let labels = Bytes::from(trainer.labels().to_bytes());
    let reply = generation.keeper.means(scale, labels).await?;
    let packing = generation.shape.batches;
    blocking(move || {
        let masked = MaskedBatchCodebook::from_bytes(&packing, &reply.codebook).map_err(foreign)?;
        trainer.install(masked).map_err(foreign)?;
        Ok((trainer, reply.number))
    })
    .await
}

fn evaluator(trainer: &BlindTrainer) -> Result<&BatchEvaluator, CkksError> {
    trainer
        .evaluator()
        .ok_or(CkksError::OutOfOrder("the tables"))
}

/// All tables of the present step.
async fn tables(
    generation: &Arc<Generation>,
    trainer: BlindTrainer,
    sample: &Arc<Vec<Arc<EncryptedBatch>>>,
    number: u32,
) -> Result<BlindTrainer, SearcherError> {
    let pass = Pass::new(Arc::new(trainer), evaluator, number).await?;
    let mut tasks = JoinSet::new();
    let work = pass.state.work();
    let alike = work.chunk_by(|a, b| a.blocks() == b.blocks());
    for group in alike.flat_map(|alike| alike.chunks(generation.shape.group())) {
        let (pass, generation) = (pass.clone(), Arc::clone(generation));
        let (group, sample) = (group.to_vec(), Arc::clone(sample));
        tasks.spawn(async move {
            let batches = group
                .iter()
                .map(|work| rows(&pass.state, &sample, work))
                .collect::<Result<Vec<_>, _>>()
                .map_err(malformed)?;
            let blocks = group.first().map(Work::blocks).unwrap_or_default();
            let decode = move |trainer: &BlindTrainer, number: usize, share: &_, keeper: &_| {
                trainer.decode(&group[number], share, keeper)
            };
            pass.run(&generation, batches, blocks, decode).await
        });
    }
    let mut found = Vec::with_capacity(work.len());
    while let Some(done) = tasks.join_next().await {
        found.extend(done.map_err(|_| SearcherError::Stopping)??);
    }
    // All tasks are over, so this is the only one who holds it.
    let mut trainer = Arc::into_inner(pass.state).ok_or(SearcherError::Stopping)?;
    blocking(move || {
        for found in found {
            trainer.absorb(found).map_err(malformed)?;
        }
        Ok(trainer)
    })
    .await
}

fn rows(
    trainer: &BlindTrainer,
    sample: &[Arc<EncryptedBatch>],
    work: &Work,
) -> Result<Arc<EncryptedBatch>, CkksError> {
    let missing = CkksError::OutOfOrder("this item of work");
    match work.rows() {
        WorkRows::Sample(index) => sample.get(index).cloned().ok_or(missing),
        WorkRows::Centroids(index) => {
            let batch = trainer.centroid_batch(index).ok_or(missing)?;
            Ok(Arc::new(batch.clone()))
        }
    }
}
