//! Blind generation end to end: owner, searcher and keeper in one process over real
//! connections, on real word vectors.
#![allow(clippy::unwrap_used)]

mod common;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use common::{Shape, World, id_of_row, overlap, verifier};
use oboro_channel::{ConnectOptions, Identity, Role, connect};
use oboro_client::{
    Client, ClientError, Rerank, SearchOptions,
    generation::{Generation, GenerationConfig, GenerationSession, SegmentParts},
};
use oboro_index::{Index, OwnerKey, Rotation};
use oboro_owner::{
    BlindBegin, BlindCommitted, BlindReport, BlindRoles, BlindSegment, BlindTrained, BuildOptions,
    Ids, Owner, OwnerError, Rows,
};
use oboro_protocol::generation::v1::{self, generator_client::GeneratorClient};
use oboro_protocol::{Reason, reason_of};
use oboro_quant::Metric;
use oboro_searcher::{Generated, GeneratorServer, SearcherConfig, SearcherError, SearcherServer};

use rand_core::SeedableRng;
use tokio::{net::TcpListener, runtime::Handle, sync::oneshot, task::JoinHandle};

/// Word vectors of 50 dimensions, half precision, most frequent first.
static WORDS: &[u8] = include_bytes!("../../oboro/data/glove-50d-20k.f16");
const DIMENSION: usize = 50;

fn words(count: usize) -> Vec<f32> {
    let values = &WORDS.as_chunks::<2>().0[..count * DIMENSION];
    values
        .iter()
        .map(|bytes| half::f16::from_le_bytes(*bytes).to_f32())
        .collect()
}

/// A searcher that makes an index.
struct Maker {
    address: SocketAddr,
    folder: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<Option<Generated>, SearcherError>>,
}

impl Maker {
    async fn start(world: &World, name: &str, keeper: SocketAddr) -> Self {
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
    async fn kill(self) -> PathBuf {
        self.task.abort();
        let _ = self.task.await;
        self.folder
    }

    async fn stop(mut self) -> Option<Generated> {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap().unwrap()
    }
}

fn config(
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
struct Roles {
    session: GenerationSession,
    runtime: Handle,
    stop_at: Option<&'static str>,
    aborted: bool,
}

#[derive(Debug)]
#[expect(dead_code, reason = "what is inside is shown when a test fails")]
enum Failed {
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
    async fn connect(world: &World, maker: &Maker, keeper: SocketAddr) -> Self {
        Self::connect_as(world, &world.owner_identity(), maker, keeper).await
    }

    async fn connect_as(
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
            aborted: false,
        }
    }

    fn before(&self, step: &str) -> Result<(), Failed> {
        match self.stop_at {
            Some(stop) if stop == step => Err(Failed::Stopped),
            _ => Ok(()),
        }
    }
}

impl BlindRoles for Roles {
    type Error = Failed;

    fn begin(&mut self, begin: &BlindBegin) -> Result<(), Failed> {
        self.before("begin")?;
        let generation = Generation {
            index_id: begin.index_id,
            batch_packing: begin.batch_packing.clone(),
            split: begin.split,
            bounds: begin.bounds.clone(),
            rounds: begin.rounds,
            vectors: begin.vectors,
            segments: begin.segments,
            public_key: begin.public_key.clone(),
            mask_seed: begin.mask_seed.clone(),
            training_seed: begin.training_seed.clone(),
            vector_norm: begin.vector_norm,
            query_norm: begin.query_norm,
            offsets: begin.offsets,
        };
        Ok(self.runtime.block_on(self.session.begin(&generation))?)
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

    fn abort(&mut self) {
        self.aborted = true;
        // One that stops by itself is as one that was killed.
        if self.stop_at.is_none() {
            self.runtime.block_on(self.session.abort());
        }
    }
}

fn owner(world: &World) -> Owner {
    let key = OwnerKey::from_text(&world.owner_key.to_text()).unwrap();
    Owner::new(key, world.public.clone())
}

fn options(rows: usize, iterations: usize) -> BuildOptions {
    BuildOptions {
        centroids: if rows < 256 { 16 } else { 256 },
        sample: Some(rows),
        iterations,
        trials: 0,
        rotation: Rotation::None,
        ..BuildOptions::default()
    }
}

fn rows(world: &World) -> Rows<'_> {
    let count = world.base.len() / world.dimension;
    let ids = (0..count as u64).map(id_of_row).collect();
    Rows::new(&world.base, world.dimension)
        .unwrap()
        .with_ids(Ids::Numbers(ids))
        .unwrap()
}

/// Builds blindly, on a thread of its own as a program does.
async fn build(
    world: &World,
    roles: &mut Roles,
    options: &BuildOptions,
) -> Result<BlindReport, Failed> {
    let mut rng = chacha20::ChaCha20Rng::from_rng(&mut common::rng(9));
    tokio::task::block_in_place(|| {
        owner(world).build_blind(&mut rows(world), roles, options, &mut rng)
    })
}

async fn serve(world: &World, folder: &PathBuf, config: SearcherConfig) -> SocketAddr {
    let key = world.owner_key.storage_key();
    let server = SearcherServer::new(folder, key, config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(server.serve(listener, std::future::pending()));
    address
}

/// 10-recall@10 by the tables alone.
async fn recall(client: &Client, world: &World, queries: usize) -> f64 {
    let unranked = SearchOptions {
        rerank: Rerank::Off,
        deadline: Duration::from_secs(60),
        ..SearchOptions::default()
    };
    let step = world.base.len() / world.dimension / queries;
    let mut sum = 0.0;
    for query in world
        .base
        .chunks_exact(world.dimension * step)
        .take(queries)
    {
        // Between two words, so that no query is in the index.
        let query: Vec<f32> = query[..world.dimension]
            .iter()
            .zip(&query[world.dimension..])
            .map(|(a, b)| 0.6 * a + 0.4 * b)
            .collect();
        let found = client.search(&query, &unranked).await.unwrap();
        let found: Vec<u64> = found.neighbours.iter().map(|near| near.id).collect();
        sum += overlap(&found, &world.exact(&query, 10));
    }
    sum / queries as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_blind_index_is_as_good_as_a_local_one() {
    const WORDS: usize = 6_000;
    let shape = Shape::new(WORDS, DIMENSION, Metric::L2);
    let world = World::with_base(&shape, words(WORDS));
    let (keeper_server, keeper) = world.keeper("127.0.0.1:0").await;
    let maker = Maker::start(&world, "blind", keeper.address).await;
    let mut roles = Roles::connect(&world, &maker, keeper.address).await;
    let options = options(WORDS, 10);
    let report = build(&world, &mut roles, &options).await.unwrap();
    assert_eq!((report.vectors, report.unrecorded), (WORDS, false));

    // The searcher that made it has ended by itself, and another one serves it.
    let folder = maker.folder.clone();
    let made = maker.task.await.unwrap().unwrap().unwrap();
    assert_eq!(made.head, report.state);
    assert_eq!(
        keeper_server
            .newest(&made.head.index_id)
            .unwrap()
            .manifest_digest,
        made.head.manifest_digest
    );
    let blind = serve(&world, &folder, world.searcher_config(Some(keeper.address))).await;
    let blind = world.client(blind).await;

    // The same vectors, sample and rounds where the owner trains.
    let local = world.folder.path().join("local");
    let mut local_options = options.clone();
    local_options.iterations = 25;
    owner(&world)
        .build(
            &mut rows(&world),
            &local,
            &local_options,
            &mut common::rng(7),
        )
        .unwrap();
    let head = Index::peek(&local).unwrap();
    let key = world.owner_key.epoch_key(&head.index_id, 1, true);
    let index = Index::open(&local, &key).unwrap();
    let model = world
        .owner_key
        .model_key()
        .open(&head.index_id, index.model_bytes().unwrap())
        .unwrap();
    let best = model.codebook.distortion(&world.base).unwrap();
    let reached = *report.distortions.last().unwrap();
    assert!(
        reached < 1.02 * best,
        "distortion {reached} blindly, {best} locally"
    );
    let local = serve(&world, &local, world.searcher_config(Some(keeper.address))).await;
    let local = world.client(local).await;
    let (blind, local) = (
        recall(&blind, &world, 250).await,
        recall(&local, &world, 250).await,
    );
    println!(
        "10-recall@10 {blind:.3} blindly, {local:.3} locally; distortion {reached:.4}, {best:.4}"
    );
    assert!(blind > local - 0.01, "{blind} blindly, {local} locally");
}

fn names(world: &World) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(world.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".lock"))
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_stops_in_the_middle_leaves_nothing_visible() {
    const WORDS: usize = 600;
    let shape = Shape::new(200, DIMENSION, Metric::Cosine);
    let mut world = World::with_base(&shape, words(200));
    world.base = words(WORDS);
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let before = names(&world);
    // One owner, who leaves more generations behind than a keeper holds.
    let owner = world.owner_identity();
    let mut options = options(WORDS, 2);
    options.metric = Metric::Cosine;
    options.centroids = 16;

    for step in [
        "shares", "train", "training", "describe", "segment", "commit",
    ] {
        // The owner stops, then the searcher is killed.
        let maker = Maker::start(&world, "blind", keeper.address).await;
        let mut roles = Roles::connect_as(&world, &owner, &maker, keeper.address).await;
        roles.stop_at = Some(step);
        let error = build(&world, &mut roles, &options).await.unwrap_err();
        assert!(matches!(error, Failed::Stopped), "{step}: {error:?}");
        assert!(roles.aborted);
        assert!(Index::peek(maker.folder.join("index")).is_err());
        let folder = maker.kill().await;
        assert!(Index::peek(&folder).is_err(), "{step}");
    }
    // What they left is removed, and one that is not stopped works.
    let maker = Maker::start(&world, "blind", keeper.address).await;
    assert_eq!(names(&world), before);
    let mut roles = Roles::connect_as(&world, &owner, &maker, keeper.address).await;
    let report = build(&world, &mut roles, &options).await.unwrap();
    assert_eq!(report.vectors, WORDS);
    let folder = maker.folder.clone();
    assert!(maker.task.await.unwrap().unwrap().is_some());
    let searcher = serve(&world, &folder, world.searcher_config(Some(keeper.address))).await;
    let client = world.client(searcher).await;
    let found = client
        .search(&world.base[..DIMENSION], &SearchOptions::default())
        .await
        .unwrap();
    assert_eq!(found.neighbours[0].id, id_of_row(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_owner_may_give_up_and_begin_anew() {
    let shape = Shape::new(200, DIMENSION, Metric::L2);
    let world = World::with_base(&shape, words(200));
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let maker = Maker::start(&world, "blind", keeper.address).await;
    let options = options(200, 2);
    // Two that vanish, without a word.
    for step in ["train", "commit"] {
        let mut roles = Roles::connect(&world, &maker, keeper.address).await;
        roles.stop_at = Some(step);
        build(&world, &mut roles, &options).await.unwrap_err();
    }
    let mut roles = Roles::connect(&world, &maker, keeper.address).await;
    build(&world, &mut roles, &options).await.unwrap();
    assert!(maker.stop().await.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fail_when_the_keeper_forgets_the_generation() {
    let shape = Shape::new(200, DIMENSION, Metric::L2);
    let world = World::with_base(&shape, words(200));
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let address = keeper.address;
    let maker = Maker::start(&world, "blind", address).await;
    let mut roles = Roles::connect(&world, &maker, address).await;
    roles.stop_at = Some("train");
    build(&world, &mut roles, &options(200, 2))
        .await
        .unwrap_err();
    keeper.stop().await;
    let (_, keeper) = world.keeper(&address.to_string()).await;
    // The training begins, and the keeper that was started again knows nothing of it.
    let error = loop {
        match roles.session.train().await {
            Ok(progress) => assert!(progress.trained.is_none()),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("unknown"), "{error}");
    assert!(Index::peek(&maker.folder).is_err());
    assert!(maker.stop().await.is_none());
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fail_messages_out_of_order_and_of_others() {
    let shape = Shape::new(200, DIMENSION, Metric::L2);
    let world = World::with_base(&shape, words(200));
    let (_, keeper) = world.keeper("127.0.0.1:0").await;
    let maker = Maker::start(&world, "blind", keeper.address).await;
    let mut roles = Roles::connect(&world, &maker, keeper.address).await;
    let reason = |error: ClientError| error.reason().unwrap();
    // Before there is a generation.
    let session = &mut roles.session;
    let error = session.train().await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    roles.stop_at = Some("shares");
    build(&world, &mut roles, &options(200, 2))
        .await
        .unwrap_err();
    let session = &mut roles.session;
    // Nothing of the sample is there.
    let error = session.train().await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    let error = session.sample(0, vec![vec![0; 99]]).await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    let error = session.describe(b"descriptor").await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    let parts = SegmentParts {
        segment_id: [1; 16],
        ids: vec![1],
        tags: Vec::new(),
        records: vec![0; 100],
    };
    let error = session.segment(0, parts).await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    let error = session.commit().await.unwrap_err();
    assert_eq!(reason(error), Reason::BadRequest);
    // A session that nobody opened.
    let (identity, trust) = (world.owner_identity(), world.authority.trust());
    let address = maker.address.to_string();
    let options = ConnectOptions::default();
    let connection = connect(&address, &identity, &trust, Role::Searcher, options)
        .await
        .unwrap();
    let mut raw = GeneratorClient::new(connection.channel);
    let request = v1::TrainRequest {
        session: vec![7; 16].into(),
    };
    let status = raw.train(request).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::UnknownSession));
    // A client does not even get a connection.
    let client = config(&world, &world.client_identity, &maker, keeper.address);
    assert!(GenerationSession::connect(&client).await.is_err());
    // Nor does a second searcher get the folder.
    let key = world.owner_key.storage_key();
    let config = world.searcher_config(Some(keeper.address));
    assert!(GeneratorServer::new(&maker.folder, key, config).is_err());
    assert!(maker.stop().await.is_none());
}
