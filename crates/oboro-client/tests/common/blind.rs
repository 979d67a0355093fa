//! Blind builds and inserts on real word vectors: owner, searcher and keeper in one process.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use oboro_channel::Identity;
use oboro_ckks::GenerationPlan;
use oboro_client::{
    ClientError,
    blind::BlindWriter,
    generation::{GenerationConfig, GenerationSession, SegmentParts},
    writer::{Change, Writer},
};
use oboro_index::{BuildState, NewSegment, OnExisting, OwnerKey, Rotation};
use oboro_owner::{
    BlindCommitted, BlindEncryptor, BlindReport, BlindRoles, BlindSegment, BlindStanding,
    BlindStart, BlindTrained, BuildOptions, EncodedSegment, Ids, Owner, OwnerError, Rows,
};
use oboro_searcher::{Generated, GeneratorServer, SearcherConfig, SearcherError, SearcherServer};
use rand_core::SeedableRng;
use tokio::{net::TcpListener, runtime::Handle, sync::oneshot, task::JoinHandle};

use crate::common::{self, World, id_of_row, verifier};

/// Word vectors of 50 dimensions, half precision, most frequent first.
pub static WORDS: &[u8] = include_bytes!("../../../oboro/data/glove-50d-20k.f16");
pub const DIMENSION: usize = 50;

pub fn words(count: usize) -> Vec<f32> {
    let values = &WORDS.as_chunks::<2>().0[..count * DIMENSION];
    values
        .iter()
        .map(|bytes| half::f16::from_le_bytes(*bytes).to_f32())
        .collect()
}

/// A searcher that makes an index.
pub struct Maker {
    pub address: SocketAddr,
    pub folder: PathBuf,
    pub stop: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<Result<Option<Generated>, SearcherError>>,
}

impl Maker {
    pub async fn start(world: &World, name: &str, keeper: SocketAddr) -> Self {
        let folder = world.folder.path().join(name);
        let key = world.owner_key.storage_key();
        let config = world.searcher_config(Some(keeper));
        let server = GeneratorServer::new(&folder, key, config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.serve(listener, async {
            let _ = stopped.await;
        }));
        Self {
            address,
            folder,
            stop: Some(stop),
            task,
        }
    }

    /// Stops in the middle of whatever it is doing.
    pub async fn kill(self) -> PathBuf {
        self.task.abort();
        let _ = self.task.await;
        self.folder
    }

    pub async fn stop(mut self) -> Option<Generated> {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap().unwrap()
    }
}

pub fn config(
    world: &World,
    identity: &Identity,
    maker: &Maker,
    keeper: SocketAddr,
) -> GenerationConfig {
    GenerationConfig {
        searcher: maker.address.to_string(),
        keeper: keeper.to_string(),
        identity: identity.clone(),
        trust: world.authority.trust(),
        verifier: verifier(),
        connect_timeout: Duration::from_secs(5),
    }
}

/// Carries the messages of a build; `stop_at` ends it before the step of that name.
pub struct Roles {
    pub session: GenerationSession,
    pub runtime: Handle,
    pub stop_at: Option<&'static str>,
    /// Segments that were there when it began.
    pub standing: Option<u32>,
    /// Segments brought.
    pub brought: u32,
}

#[derive(Debug)]
pub enum Failed {
    Owner(OwnerError),
    Client(ClientError),
    Stopped,
}

impl From<OwnerError> for Failed {
    fn from(error: OwnerError) -> Self {
        Self::Owner(error)
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl Roles {
    pub async fn connect(world: &World, maker: &Maker, keeper: SocketAddr) -> Self {
        Self::connect_as(world, &world.owner_identity(), maker, keeper).await
    }

    pub async fn connect_as(
        world: &World,
        identity: &Identity,
        maker: &Maker,
        keeper: SocketAddr,
    ) -> Self {
        let config = config(world, identity, maker, keeper);
        Self {
            session: GenerationSession::connect(&config).await.unwrap(),
            runtime: Handle::current(),
            stop_at: None,
            standing: None,
            brought: 0,
        }
    }

    pub fn before(&self, step: &str) -> Result<(), Failed> {
        match self.stop_at {
            Some(stop) if stop == step => Err(Failed::Stopped),
            _ => Ok(()),
        }
    }
}

impl BlindRoles for Roles {
    type Error = Failed;

    fn begin(&mut self, plan: &GenerationPlan) -> Result<BlindStanding, Failed> {
        self.before("begin")?;
        let standing = self.runtime.block_on(self.session.begin(plan))?;
        self.standing = Some(standing.segments);
        Ok(BlindStanding {
            training: standing.training,
            trained: standing.trained,
            segments: standing.segments,
        })
    }

    fn shares(&mut self, shares: &[u8]) -> Result<(), Failed> {
        self.before("shares")?;
        Ok(self.runtime.block_on(self.session.shares(shares))?)
    }

    fn sample(&mut self, first: usize, batches: Vec<Vec<u8>>) -> Result<(), Failed> {
        Ok(self.runtime.block_on(self.session.sample(first, batches))?)
    }

    fn train(
        &mut self,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), OwnerError>,
    ) -> Result<BlindTrained, Failed> {
        self.before("train")?;
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
            // In the middle of the training.
            self.before("training")?;
        }
    }

    fn describe(&mut self, descriptor: &[u8]) -> Result<(), Failed> {
        self.before("describe")?;
        Ok(self.runtime.block_on(self.session.describe(descriptor))?)
    }

    fn encode(&mut self, segment: u32, first: usize, batches: Vec<Vec<u8>>) -> Result<(), Failed> {
        let encode = self.session.encode(segment, first, batches);
        Ok(self.runtime.block_on(encode)?)
    }

    fn segment(&mut self, number: u32, segment: BlindSegment) -> Result<(), Failed> {
        self.before("segment")?;
        if self.brought == 1 {
            self.before("second segment")?;
        }
        self.brought += 1;
        let parts = SegmentParts {
            segment_id: segment.segment_id,
            ids: segment.ids,
            tags: segment.tags,
            records: segment.records,
        };
        Ok(self.runtime.block_on(self.session.segment(number, parts))?)
    }

    fn commit(&mut self) -> Result<BlindCommitted, Failed> {
        self.before("commit")?;
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

pub fn owner(world: &World) -> Owner {
    let key = OwnerKey::from_text(&world.owner_key.to_text()).unwrap();
    Owner::new(key, world.public.clone())
}

pub fn options(rows: usize, iterations: usize) -> BuildOptions {
    BuildOptions {
        centroids: if rows < 256 { 16 } else { 256 },
        sample: Some(rows),
        iterations,
        trials: 0,
        rotation: Rotation::None,
        ..BuildOptions::default()
    }
}

pub fn rows(world: &World) -> Rows<'_> {
    let count = world.base.len() / world.dimension;
    let ids = (0..count as u64).map(id_of_row).collect();
    Rows::new(&world.base, world.dimension)
        .unwrap()
        .with_ids(Ids::Numbers(ids))
        .unwrap()
}

/// Builds blindly, on a thread of its own as a program does.
pub async fn build(
    world: &World,
    roles: &mut Roles,
    options: &BuildOptions,
) -> Result<BlindReport, Failed> {
    let mut rng = chacha20::ChaCha20Rng::from_rng(&mut common::rng(9));
    let mut keep = |_: &BuildState| Ok(());
    let start = BlindStart::new(&mut rng, &mut keep);
    let result = tokio::task::block_in_place(|| {
        owner(world).build_blind(&mut rows(world), roles, options, start)
    });
    // One that stops by itself is as one that was killed.
    if result.is_err() && roles.stop_at.is_none() {
        roles.session.abort().await;
    }
    result
}

/// Changes at a searcher whose index was made blindly.
pub struct BlindTarget {
    pub writer: Writer,
    pub blind: BlindWriter,
    pub encryptor: BlindEncryptor,
    pub rng: chacha20::ChaCha20Rng,
    pub runtime: Handle,
}

impl oboro_owner::Target for BlindTarget {
    type Stage = oboro_client::writer::StageToken;
    type Error = Failed;

    fn stage(&mut self, segment: &EncodedSegment) -> Result<Self::Stage, Failed> {
        assert!(segment.codes.is_empty());
        let width = self.writer.descriptor().subquantizers();
        let vectors = segment.unencoded.as_ref().unwrap();
        let batches = self.encryptor.encrypt(vectors, &mut self.rng)?;
        self.runtime.block_on(async {
            let codes = self
                .blind
                .encode(self.encryptor.epoch(), &batches, segment.ids.len(), width)
                .await?;
            let segment = NewSegment {
                segment_id: segment.segment_id,
                ids: &segment.ids,
                codes: &codes,
                tags: &segment.tags,
                lists: &[],
                records: &segment.records,
            };
            Ok(self.writer.stage(&segment).await?)
        })
    }

    fn commit(
        &mut self,
        stages: Vec<Self::Stage>,
        deletes: Vec<u64>,
        on_existing: OnExisting,
        strict: bool,
    ) -> Result<oboro_owner::Changed, Failed> {
        let change = Change {
            stages,
            deletes,
            on_existing,
            strict,
        };
        let report = self.runtime.block_on(self.writer.commit(change))?;
        Ok(oboro_owner::Changed {
            inserted: report.inserted,
            replaced: report.replaced,
            refused: report.refused,
            deleted: report.deleted,
            unknown: report.unknown,
            vectors: report.vectors,
            generation: report.generation,
        })
    }
}

pub async fn serve(world: &World, folder: &PathBuf, config: SearcherConfig) -> SocketAddr {
    let key = world.owner_key.storage_key();
    let server = SearcherServer::new(folder, key, config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.serve(listener, std::future::pending()));
    address
}
