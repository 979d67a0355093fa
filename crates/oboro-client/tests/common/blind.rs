//! Blind builds and inserts on real word vectors: owner, searcher and keeper in one process.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use oboro_channel::Identity;
use oboro_ckks::GenerationPlan;
use oboro_client::{
    ClientError,
    generation::{GenerationConfig, GenerationSession},
};
use oboro_index::{BuildState, OwnerKey, Rotation};
use oboro_owner::{
    BlindCommitted, BlindReport, BlindRoles, BlindSegment, BlindStanding, BlindStart, BlindTrained,
    BuildOptions, Ids, Owner, OwnerError, Rows,
};
use oboro_searcher::{Generated, GeneratorServer, SearcherConfig, SearcherError, SearcherServer};
use oboro_session::{BlindSession, SessionError};
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

/// The roles of a build, which `stop_at` ends before the step of that name.
pub struct Roles {
    pub roles: BlindSession,
    pub stop_at: Option<&'static str>,
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

impl From<SessionError> for Failed {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Owner(error) => Self::Owner(error),
            SessionError::Client(error) => Self::Client(error),
        }
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
        let session = GenerationSession::connect(&config).await.unwrap();
        Self {
            roles: BlindSession::new(session, Handle::current()),
            stop_at: None,
            brought: 0,
        }
    }

    pub fn session(&mut self) -> &mut GenerationSession {
        self.roles.session_mut()
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
        Ok(self.roles.begin(plan)?)
    }

    fn shares(&mut self, shares: &[u8]) -> Result<(), Failed> {
        self.before("shares")?;
        Ok(self.roles.shares(shares)?)
    }

    fn sample(&mut self, first: usize, batches: Vec<Vec<u8>>) -> Result<(), Failed> {
        Ok(self.roles.sample(first, batches)?)
    }

    fn train(
        &mut self,
        progress: &mut dyn FnMut(u64, u64) -> Result<(), OwnerError>,
    ) -> Result<BlindTrained, Failed> {
        self.before("train")?;
        // In the middle of the training.
        let stop = self.before("training").is_err();
        let trained = self.roles.train(&mut |done, total| {
            progress(done, total)?;
            match stop {
                true => Err(OwnerError::Cancelled),
                false => Ok(()),
            }
        });
        self.before("training")?;
        Ok(trained?)
    }

    fn describe(&mut self, descriptor: &[u8]) -> Result<(), Failed> {
        self.before("describe")?;
        Ok(self.roles.describe(descriptor)?)
    }

    fn encode(&mut self, segment: u32, first: usize, batches: Vec<Vec<u8>>) -> Result<(), Failed> {
        Ok(self.roles.encode(segment, first, batches)?)
    }

    fn segment(&mut self, number: u32, segment: BlindSegment) -> Result<(), Failed> {
        self.before("segment")?;
        if self.brought == 1 {
            self.before("second segment")?;
        }
        self.brought += 1;
        Ok(self.roles.segment(number, segment)?)
    }

    fn commit(&mut self) -> Result<BlindCommitted, Failed> {
        self.before("commit")?;
        Ok(self.roles.commit()?)
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
        roles.session().abort().await;
    }
    result
}

pub async fn serve(world: &World, folder: &PathBuf, config: SearcherConfig) -> SocketAddr {
    let key = world.owner_key.storage_key();
    let server = SearcherServer::new(folder, key, config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.serve(listener, std::future::pending()));
    address
}
