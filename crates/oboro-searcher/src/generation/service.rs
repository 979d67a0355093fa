//! The owner's requests.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use oboro_channel::{PeerInfo, Role, peer};
use oboro_index::{Descriptor, IndexHead, StorageKey};
use oboro_protocol::{
    Failure, Reason,
    generation::{
        IDLE_LIFETIME,
        v1::{self, generator_server::Generator},
    },
    validate,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{
    blocking,
    codebook::Codebook,
    draft::{Made, Place},
    encoding,
    keeper::GenerationKeeper,
    open::{Generation, Phase, Session},
    refused,
    server::Generated,
    shape::{Plan, Shape},
    training::{self, Trained},
};
use crate::{
    SearcherError,
    keeper::{Keeper, KeeperAccess},
};

/// The epoch of a new index.
const FIRST_EPOCH: u64 = 1;

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
    fn open(&self) -> std::sync::MutexGuard<'_, Option<Arc<Generation>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of whatever is open; a draft stays on disk.
    pub(super) fn close(&self) {
        if let Some(generation) = self.open().take() {
            generation.bench.cancel();
        }
    }

    /// The generation that a request names, of the owner that makes it.
    fn generation(&self, session: &[u8], owner: &PeerInfo) -> Result<Arc<Generation>, Failure> {
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

    async fn begin(
        &self,
        request: v1::GeneratorBeginRequest,
        owner: &PeerInfo,
    ) -> Result<v1::GeneratorBeginReply, SearcherError> {
        let token = validate::session(&request.session)?;
        let _one = self.writing.lock().await;
        if self.finished.borrow().is_some() {
            return Err(refused(
                Reason::Busy,
                "the index is made; it is about to be served",
            ));
        }
        let shape = Shape::parse(request.shape.as_ref())?;
        let plan = Plan::parse(&request, &shape)?;
        let present = self.open().clone();
        let again = present
            .as_ref()
            .filter(|open| open.plan.digest == plan.digest);
        if again.is_none() {
            self.refuse_beside(present.as_ref(), &plan, owner)?;
        }
        let keeper = Keeper::connect(&self.access).await?;
        if !keeper.holds(&plan.public_key.fingerprint()) {
            return Err(SearcherError::KeeperUntrusted(
                "it does not hold the key that the index is to be encrypted for".to_owned(),
            ));
        }
        let session = Session {
            token,
            owner: owner.spki_sha256,
            keeper: GenerationKeeper::new(&keeper, Bytes::copy_from_slice(&token)),
        };
        if let Some(open) = again {
            let same = open.session().token == token;
            // A keeper that was started again has no sample: the training begins anew.
            if same || matches!(*open.phase(), Phase::Trained(_)) {
                *open.session() = session;
                open.touch(Instant::now());
                return Ok(open.standing());
            }
        }
        let seed = self.key.generation_seed(&shape.index_id);
        let now = Instant::now();
        let generation = Generation::new(session, shape, plan, seed, self.threads, now);
        if let Some(open) = present {
            // Its lock on the draft goes with it.
            open.bench.cancel();
            *self.open() = None;
            drop(open);
        }
        self.find_draft(&generation, &keeper).await?;
        let standing = generation.standing();
        *self.open() = Some(Arc::new(generation));
        tracing::info!(
            owner = owner.short_key(),
            segments = standing.segments,
            "generation opened"
        );
        Ok(standing)
    }

    /// Another generation is not begun beside one that another owner's certificate began
    /// and may come back to. One's own is given up for it.
    fn refuse_beside(
        &self,
        present: Option<&Arc<Generation>>,
        plan: &Plan,
        owner: &PeerInfo,
    ) -> Result<(), SearcherError> {
        let other = |key: &[u8; 32]| *key != owner.spki_sha256;
        let open = present.is_some_and(|open| {
            other(&open.session().owner) && open.idle(Instant::now()) < IDLE_LIFETIME
        });
        let draft = self.place.draft(SystemTime::now());
        let waiting = draft.is_some_and(|draft| {
            let head = draft.head();
            head.plan != plan.digest && other(&head.owner)
        });
        if !open && !waiting {
            return Ok(());
        }
        Err(refused(
            Reason::Busy,
            "another owner's certificate has a generation open here; let it end or give it up, or wait until it expires",
        ))
    }

    /// Goes on with the draft on disk, if it is of this generation.
    async fn find_draft(
        &self,
        generation: &Generation,
        keeper: &Keeper,
    ) -> Result<(), SearcherError> {
        let Some(sealed) = self.place.draft(SystemTime::now()) else {
            return Ok(());
        };
        if sealed.head().plan != generation.plan.digest {
            return Ok(());
        }
        let index_id = generation.shape.index_id;
        let share = keeper.release(&new_index(index_id)).await?;
        let key = self.key.for_epoch(Some(&share), &index_id, FIRST_EPOCH);
        let draft = match self.place.open(key) {
            Ok(draft) => draft,
            Err(error) => {
                // It is made again from the sample.
                tracing::warn!(%error, "the draft of an interrupted generation does not open");
                return Ok(());
            }
        };
        let public_key = generation.plan.public_key.clone();
        let (codebook, gains) =
            Codebook::again(sealed, &self.key, public_key, &generation.keeper()).await?;
        let index = draft.index();
        let trained = Trained {
            codebook,
            gains,
            table_scale: index.descriptor().scale,
            search_digest: index.descriptor().codebook_digest,
            fresh: None,
        };
        generation.resume(Arc::new(trained), draft);
        Ok(())
    }

    /// Starts the training unless it is at work or done; says how far it is.
    fn train(&self, generation: &Arc<Generation>) -> Result<v1::TrainReply, SearcherError> {
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

    async fn describe(
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

    async fn commit(
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

/// An index that begins to be.
const fn new_index(index_id: [u8; 16]) -> IndexHead {
    IndexHead {
        index_id,
        epoch: FIRST_EPOCH,
        generation: 1,
        manifest_digest: [0; 32],
        released: true,
    }
}

impl Generation {
    /// How far it is; a training that failed may be started again.
    fn standing(&self) -> v1::GeneratorBeginReply {
        let (training, trained) = {
            let mut phase = self.phase();
            if matches!(*phase, Phase::Failed(_)) {
                *phase = Phase::Sampling;
            }
            (
                matches!(*phase, Phase::Training),
                matches!(*phase, Phase::Trained(_)),
            )
        };
        v1::GeneratorBeginReply {
            training,
            trained,
            segments: self.staged(),
        }
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

/// Implements the generated trait.
pub(super) struct GeneratorService(pub(super) Arc<Shared>);

/// Only owners get through the listener; this holds even if it let others in.
// A tonic status is large; so is every error of every service method.
#[allow(clippy::result_large_err)]
fn owner<T>(request: &Request<T>) -> Result<PeerInfo, Status> {
    let peer = peer(request)?;
    if peer.role == Role::Owner {
        return Ok(peer);
    }
    Err(Failure::new(
        Reason::Forbidden,
        "only the owner may have an index made; use the owner's identity",
    )
    .into())
}

#[allow(clippy::result_large_err)]
fn answer<T>(what: &str, result: Result<T, SearcherError>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| {
        tracing::warn!(%error, "{what}");
        error.into()
    })
}

#[tonic::async_trait]
impl Generator for GeneratorService {
    async fn begin(
        &self,
        request: Request<v1::GeneratorBeginRequest>,
    ) -> Result<Response<v1::GeneratorBeginReply>, Status> {
        let owner = owner(&request)?;
        let result = self.0.begin(request.into_inner(), &owner).await;
        answer("a generation was not opened", result)
    }

    async fn sample(
        &self,
        request: Request<v1::SampleRequest>,
    ) -> Result<Response<v1::SampleReply>, Status> {
        let owner = owner(&request)?;
        let request = request.into_inner();
        let generation = self.0.generation(&request.session, &owner)?;
        let result =
            blocking(move || generation.add_sample(request.first as usize, &request.batches)).await;
        let reply = |received| v1::SampleReply {
            received: received as u32,
        };
        answer("a part of the sample was refused", result.map(reply))
    }

    async fn train(
        &self,
        request: Request<v1::TrainRequest>,
    ) -> Result<Response<v1::TrainReply>, Status> {
        let owner = owner(&request)?;
        let generation = self.0.generation(&request.get_ref().session, &owner)?;
        answer("no training", self.0.train(&generation))
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeReply>, Status> {
        let owner = owner(&request)?;
        let request = request.into_inner();
        let generation = self.0.generation(&request.session, &owner)?;
        let result = self.0.describe(&generation, request.descriptor).await;
        answer(
            "the index was not begun",
            result.map(|()| v1::DescribeReply {}),
        )
    }

    async fn encode(
        &self,
        request: Request<v1::EncodeRequest>,
    ) -> Result<Response<v1::EncodeReply>, Status> {
        let owner = owner(&request)?;
        let request = request.into_inner();
        let generation = self.0.generation(&request.session, &owner)?;
        let result = encoding::encode(&generation, request).await;
        answer(
            "batches were not encoded",
            result.map(|()| v1::EncodeReply {}),
        )
    }

    async fn segment(
        &self,
        request: Request<v1::SegmentRequest>,
    ) -> Result<Response<v1::SegmentReply>, Status> {
        let owner = owner(&request)?;
        let request = request.into_inner();
        let generation = self.0.generation(&request.session, &owner)?;
        let result = encoding::complete(&generation, request).await;
        answer(
            "a segment was not completed",
            result.map(|()| v1::SegmentReply {}),
        )
    }

    async fn commit(
        &self,
        request: Request<v1::CommitRequest>,
    ) -> Result<Response<v1::CommitReply>, Status> {
        let owner = owner(&request)?;
        let generation = self.0.generation(&request.get_ref().session, &owner)?;
        // A task of its own: an owner that goes away does not stop it in the middle.
        let commit = Arc::clone(&self.0).commit(generation);
        let result = tokio::spawn(commit)
            .await
            .unwrap_or(Err(SearcherError::Stopping));
        answer("the index was not made", result)
    }

    async fn abort(
        &self,
        request: Request<v1::AbortRequest>,
    ) -> Result<Response<v1::AbortReply>, Status> {
        let owner = owner(&request)?;
        self.0.generation(&request.get_ref().session, &owner)?;
        self.0.close();
        self.0.place.discard();
        tracing::info!(owner = owner.short_key(), "generation given up");
        Ok(Response::new(v1::AbortReply {}))
    }
}
