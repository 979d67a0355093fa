//! Blind k-means, and the codebook in the form for searching.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;
use oboro_ckks::{
    BatchEvaluator, BlindTrainer, CkksError, EncryptedBatch, EncryptedCodebook,
    MaskedBatchCodebook, MaskedCodebook, MaskedOffsets, Step, TableScale, TrainingPlan, Work,
    WorkRows,
};
use oboro_index::{BlindHead, SealedBlind, StorageKey};
use tokio::task::JoinSet;

use super::{
    blocking,
    codebook::Codebook,
    foreign,
    keeper::{GenerationKeeper, InstallPlan},
    keepsake, malformed,
    open::Generation,
    pass::Pass,
};
use crate::SearcherError;

/// What a training gave.
pub(super) struct Trained {
    /// Encodes batches.
    pub(super) codebook: Codebook,
    pub(super) table_scale: TableScale,
    /// Digest of the masks of the codebook for searching.
    pub(super) search_digest: [u8; 32],
    pub(super) gains: Vec<f64>,
    /// What becomes the draft of the index; it has it once it is there.
    pub(super) fresh: Option<Fresh>,
}

/// Parts of an index that is not on disk yet.
pub(super) struct Fresh {
    /// The codebook in the form for searching.
    pub(super) search: EncryptedCodebook,
    /// What is kept of the training.
    pub(super) sealed: SealedBlind,
}

/// Trains from the start.
pub(super) async fn train(
    generation: &Arc<Generation>,
    key: Arc<StorageKey>,
) -> Result<Trained, SearcherError> {
    let keeper = generation.keeper();
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
        generation.bench.check_cancelled()?;
        match trainer.step() {
            Step::Centroids => (trainer, number) = centroids(generation, &keeper, trainer).await?,
            Step::Tables => {
                trainer = tables(generation, trainer, &sample, (&keeper, number)).await?
            }
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
        let mut rng = shared.bench.randomness.offsets(&scale, offsets);
        let (masked, keep) =
            MaskedOffsets::new(&shape.packing, &scale, offsets, &mut rng).map_err(malformed)?;
        Ok((codebook, gains, scale, masked.to_bytes(), keep))
    });
    let (codebook, gains, table_scale, masked, keep) = finished.await?;
    let (reply, share, part) = keeper
        .codebook(table_scale.to_bytes().to_vec().into(), masked.into())
        .await?;
    let shared = Arc::clone(generation);
    blocking(move || {
        let masked = MaskedCodebook::from_bytes(&shared.shape.packing, &reply).map_err(foreign)?;
        let search = keep
            .unmask(masked, codebook.means(), &table_scale)
            .map_err(foreign)?;
        let head = BlindHead {
            index_id: shared.shape.index_id,
            owner: shared.session().owner,
            plan: shared.plan.digest,
        };
        let kept = keepsake::to_bytes(
            codebook.evaluator().scale(),
            &gains,
            codebook.offsets(),
            codebook.means(),
        );
        let sealed = SealedBlind::seal(&key, &part, head, &share, &kept);
        let plan = InstallPlan {
            index_id: shared.shape.index_id,
            share,
            key_fingerprint: shared.plan.public_key.fingerprint(),
        };
        Ok(Trained {
            codebook: Codebook::new(codebook, plan, keeper, number),
            search_digest: search.masks().digest(),
            table_scale,
            gains,
            fresh: Some(Fresh { search, sealed }),
        })
    })
    .await
}

/// The keeper encrypts the means of the present labels.
async fn centroids(
    generation: &Arc<Generation>,
    keeper: &GenerationKeeper,
    mut trainer: BlindTrainer,
) -> Result<(BlindTrainer, u32), SearcherError> {
    let scale = Bytes::copy_from_slice(&trainer.scale().to_bytes());
    let labels = Bytes::from(trainer.labels().to_bytes());
    let reply = keeper.means(scale, labels).await?;
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
    (keeper, number): (&GenerationKeeper, u32),
) -> Result<BlindTrainer, SearcherError> {
    let pass = Pass::new(Arc::new(trainer), evaluator, keeper.clone(), number).await?;
    let bench = &generation.bench;
    let mut tasks = JoinSet::new();
    let work = pass.state.work();
    let alike = work.chunk_by(|a, b| a.blocks() == b.blocks());
    for group in alike.flat_map(|alike| alike.chunks(bench.group())) {
        let (pass, bench) = (pass.clone(), Arc::clone(bench));
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
            pass.run(&bench, batches, blocks, decode).await
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
