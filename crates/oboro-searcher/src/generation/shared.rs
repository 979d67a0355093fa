//! What is done for the owner between the beginning and the end of a generation.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use oboro_channel::PeerInfo;
use oboro_index::{Descriptor, StorageKey};
use oboro_protocol::{
    Failure, Reason,
    generation::{IDLE_LIFETIME, v1},
    validate,
};
use tokio::sync::watch;

use super::{
    begin::{FIRST_EPOCH, new_index},
    blocking,
    draft::{Made, Place},
    encoding,
    open::{Generation, Phase},
    refused,
    server::Generated,
    training::{self, Trained},
};
use crate::{
    SearcherError,
    keeper::{Keeper, KeeperAccess},
};

/// What all requests share.
pub(super) struct Shared {
    pub(super) place: Place,
    pub(super) key: Arc<StorageKey>,
    pub(super) access: KeeperAccess,
    pub(super) threads: usize,
    pub(super) open: Mutex<Option<Arc<Generation>>>,
    pub(super) finished: watch::Sender<Option<Generated>>,
    /// A commit or a description is at work.
    pub(super) writing: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(super) fn open(&self) -> std::sync::MutexGuard<'_, Option<Arc<Generation>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of whatever is open; a draft stays on disk.
    pub(super) fn close(&self) {
        if let Some(generation) = self.open().take() {
            generation.bench.cancel();
        }
    }

    /// The generation that a request names, of the owner that makes it.
    pub(super) fn generation(
        &self,
        session: &[u8],
        owner: &PeerInfo,
    ) -> Result<Arc<Generation>, Failure> {
        let token = validate::session(session)?;
        let generation = self
            .open()
            .as_ref()
            .filter(|open| {
                let session = open.session();
                session.token == token && session.owner == owner.spki_sha256
            })
            .cloned()
            .ok_or_else(|| {
                Failure::new(
                    Reason::UnknownSession,
                    "the generation is unknown, over, or another owner's; begin it again",
                )
            })?;
        generation.touch(Instant::now());
        Ok(generation)
    }

    /// Lets go of a generation whose owner has gone away, and in the end of its draft.
    pub(super) fn expire(&self, now: Instant, date: SystemTime) {
        let idle = |open: &Arc<Generation>| open.idle(now) >= IDLE_LIFETIME;
        if self.open().as_ref().is_some_and(idle) {
            tracing::warn!("the owner has gone away; its generation is no longer in memory");
            self.close();
        }
        if self.open().is_none() {
            self.place.expire(date);
        }
    }

    /// Starts the training unless it is at work or done; says how far it is.
    pub(super) fn train(
        &self,
        generation: &Arc<Generation>,
    ) -> Result<v1::TrainReply, SearcherError> {
        let start = {
            let mut phase = generation.phase();
            match &*phase {
                Phase::Sampling => {
                    *phase = Phase::Training;
                    true
                }
                Phase::Failed(why) => {
                    let why = why.clone();
                    // Told once; whoever asks again starts it again.
                    *phase = Phase::Sampling;
                    return Err(refused(
                        Reason::Internal,
                        format!("the training failed: {why}"),
                    ));
                }
                Phase::Training => false,
                Phase::Trained(trained) => {
                    let trained = Arc::clone(trained);
                    drop(phase);
                    return Ok(progress(generation, Some(&trained)));
                }
            }
        };
        if start {
            if let Err(error) = generation.sample() {
                *generation.phase() = Phase::Sampling;
                return Err(error);
            }
            let key = Arc::clone(&self.key);
            let generation = Arc::clone(generation);
            tokio::spawn(async move {
                let result = training::train(&generation, key).await;
                *generation.phase() = match result {
                    Ok(trained) => {
                        generation.drop_sample();
                        tracing::info!("codebook trained");
                        Phase::Trained(Arc::new(trained))
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the training failed");
                        Phase::Failed(error.to_string())
                    }
                };
            });
        }
        Ok(progress(generation, None))
    }

    pub(super) async fn describe(
        self: &Arc<Self>,
        generation: &Arc<Generation>,
        descriptor: Bytes,
    ) -> Result<(), SearcherError> {
        let _one = self.writing.lock().await;
        if let Ok(draft) = generation.draft() {
            return if draft.index().descriptor_bytes() == &descriptor[..] {
                Ok(())
            } else {
                Err(refused(
                    Reason::BadRequest,
                    "the index was begun with another descriptor; give it up and begin anew",
                ))
            };
        }
        let trained = generation.trained()?;
        check_descriptor(generation, &trained, &descriptor)?;
        let index_id = generation.shape.index_id;
        let keeper = Keeper::connect(&self.access).await?;
        let share = keeper.release(&new_index(index_id)).await?;
        let (shared, generation) = (Arc::clone(self), Arc::clone(generation));
        blocking(move || {
            let keys = || shared.key.for_epoch(Some(&share), &index_id, FIRST_EPOCH);
            let rng = &mut generation.bench.randomness.names(b"draft");
            let fresh = trained.fresh.as_ref().ok_or(SearcherError::Stopping)?;
            let draft = shared.place.begin(keys, &descriptor, fresh, rng)?;
            generation.set_draft(draft);
            Ok(())
        })
        .await
    }

    pub(super) async fn commit(
        self: Arc<Self>,
        generation: Arc<Generation>,
    ) -> Result<v1::CommitReply, SearcherError> {
        let _one = self.writing.lock().await;
        if let Some(done) = &*self.finished.borrow() {
            return Ok(done.reply.clone());
        }
        encoding::check_whole(&generation)?;
        let draft = generation.take_draft()?;
        let shared = Arc::clone(&self);
        let Made {
            head,
            vectors,
            files,
        } = blocking(move || draft.commit(&shared.place)).await?;
        // A keeper that is away hears of it when the index is first served.
        let recorded = async {
            let keeper = Keeper::connect(&self.access).await?;
            keeper.register(&head, &[]).await
        };
        let recorded = recorded.await.inspect_err(|error| {
            tracing::warn!(%error, "the keeper has not recorded the new index yet");
        });
        let reply = v1::CommitReply {
            generation: head.generation,
            manifest_digest: head.manifest_digest.to_vec().into(),
            vectors,
            files: files
                .into_iter()
                .map(|(name, bytes)| v1::File { name, bytes })
                .collect(),
            unrecorded: recorded.is_err(),
        };
        tracing::info!(vectors, "index made");
        self.finished.send_replace(Some(Generated {
            head,
            reply: reply.clone(),
        }));
        Ok(reply)
    }
}

fn progress(generation: &Generation, trained: Option<&Trained>) -> v1::TrainReply {
    v1::TrainReply {
        done: generation.done.load(Relaxed),
        steps: generation.steps.load(Relaxed),
        trained: trained.map(|trained| v1::Trained {
            batch_scale: trained.codebook.scale().to_bytes().to_vec().into(),
            table_scale: trained.table_scale.to_bytes().to_vec().into(),
            codebook_digest: trained.search_digest.to_vec().into(),
            gains: trained.gains.clone(),
        }),
    }
}

/// The descriptor is of what was made here.
fn check_descriptor(
    generation: &Generation,
    trained: &Trained,
    bytes: &[u8],
) -> Result<(), SearcherError> {
    let bad = |what: &str| refused(Reason::BadRequest, what.to_owned());
    let descriptor =
        Descriptor::from_trusted_bytes(bytes).map_err(|error| bad(&error.to_string()))?;
    let shape = &generation.shape;
    let same = [
        ("index", descriptor.index_id == shape.index_id),
        ("epoch", descriptor.epoch == FIRST_EPOCH),
        ("packing", descriptor.packing == shape.packing),
        (
            "scale",
            descriptor.scale.to_bytes() == trained.table_scale.to_bytes(),
        ),
        (
            "codebook",
            descriptor.codebook_digest == trained.search_digest,
        ),
        (
            "key",
            descriptor.public_key_fingerprint() == generation.plan.public_key.fingerprint(),
        ),
    ];
    match same.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((what, _)) => Err(bad(&format!(
            "the descriptor names another {what} than the generation made; make it from what the training gave"
        ))),
    }
}
