//! A whole system in one process: keys, index, keeper, searcher, on loopback.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use chacha20::ChaCha20Rng;
use oboro_attest::{Policy, PolicyVerifier};
use oboro_channel::{Access, Authority, ConnectOptions, Grant, Identity, Role, Trust, connect};
use oboro_ckks::{EncryptedQuery, ParameterSet, PublicKey, SecretKey, TableShare};
use oboro_client::{
    Client, ClientConfig, ClientError,
    rotation::OwnerConfig,
    writer::{Writer, WriterConfig},
};
use oboro_index::{Index, NewSegment, OwnerKey};
use oboro_keeper::{KeeperConfig, KeeperSecrets, KeeperServer, KeeperState, StateKey};
use oboro_owner::{BuildOptions, EncodedSegment, Encoder, Ids, Owner, Records, Rows};
use oboro_protocol::{
    Reason, limits,
    sizes::{IndexShape, Sizes},
    v1::searcher_client::SearcherClient,
};
use oboro_quant::Metric;
use oboro_searcher::{Metrics, SearcherConfig, SearcherError, SearcherServer};
use oboro_simulated::{SimulatedAttester, SimulatedVerifier};
use rand_core::{Rng, SeedableRng};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::transport::Channel;
use zeroize::Zeroizing;

/// A server that runs until told to stop.
pub struct Running {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), SearcherError>>,
}

impl Running {
    pub async fn stop(mut self) {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap().unwrap();
    }

    /// Stops in the middle of whatever it is doing.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Why it ended by itself.
    pub async fn ended(self) -> SearcherError {
        self.task.await.unwrap().unwrap_err()
    }
}

pub struct World {
    pub folder: tempfile::TempDir,
    pub authority: Authority,
    pub owner_key: OwnerKey,
    pub secret: Zeroizing<Vec<u8>>,
    pub public: PublicKey,
    pub keeper_identity: Identity,
    pub searcher_identity: Identity,
    pub client_identity: Identity,
    pub base: Vec<f32>,
    pub dimension: usize,
    pub metric: Metric,
}

pub fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub fn fresh_seed() -> Zeroizing<[u8; 32]> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).unwrap();
    seed
}

/// A policy that accepts nobody.
pub fn refuser() -> Arc<PolicyVerifier> {
    Arc::new(PolicyVerifier::new(
        Policy::default(),
        vec![Arc::new(SimulatedVerifier)],
    ))
}

pub fn verifier() -> Arc<PolicyVerifier> {
    Arc::new(PolicyVerifier::new(
        Policy::default().allowing_simulated(),
        vec![Arc::new(SimulatedVerifier)],
    ))
}

pub fn attester() -> Arc<SimulatedAttester> {
    Arc::new(SimulatedAttester::new([1; 48]))
}

/// `n` vectors around `n / 20` centres, the same for a seed.
pub fn clustered(n: usize, dimension: usize, seed: u8) -> Vec<f32> {
    let mut rng = rng(seed);
    let mut value = move || (rng.next_u64() >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
    let centres: Vec<f32> = (0..(n / 20).max(1) * dimension)
        .map(|_| 4.0 * value())
        .collect();
    let mut out = Vec::with_capacity(n * dimension);
    for row in 0..n {
        let centre = row * 7 % (n / 20).max(1);
        for column in 0..dimension {
            out.push(centres[centre * dimension + column] + value());
        }
    }
    out
}

/// How the index is made.
pub struct Shape {
    pub vectors: usize,
    pub dimension: usize,
    pub metric: Metric,
    pub subquantizers: Option<usize>,
    pub split: usize,
    pub set: ParameterSet,
    /// The keeper releases a share of the storage key.
    pub released: bool,
    /// Vectors have tags ([`tags_of_row`]) and a payload ([`payload_of_row`]).
    pub labelled: bool,
    /// Turns for a learned matrix.
    pub opq: Option<usize>,
    /// Lists, and how many a search may look at.
    pub lists: Option<(usize, usize)>,
}

impl Shape {
    pub fn new(vectors: usize, dimension: usize, metric: Metric) -> Self {
        let set = ParameterSet::N2048Q50;
        Self {
            vectors,
            dimension,
            metric,
            subquantizers: None,
            split: 1,
            set,
            released: true,
            labelled: false,
            opq: None,
            lists: None,
        }
    }

    pub fn labelled(mut self) -> Self {
        self.labelled = true;
        self
    }

    /// With a matrix learned in some turns.
    pub fn turned(mut self, turns: usize) -> Self {
        self.opq = Some(turns);
        self
    }

    /// In lists, of which a search may look at some.
    pub fn in_lists(mut self, lists: usize, probes_max: usize) -> Self {
        self.lists = Some((lists, probes_max));
        self
    }

    /// For clients that hold the key.
    pub fn for_keyholders(mut self) -> Self {
        self.released = false;
        self
    }
}

impl World {
    pub fn new(shape: &Shape) -> Self {
        let base = clustered(shape.vectors, shape.dimension, 3);
        Self::with_base(shape, base)
    }

    pub fn with_base(shape: &Shape, base: Vec<f32>) -> Self {
        let mut rng = rng(1);
        let now = SystemTime::now();
        let authority = Authority::generate(now).unwrap();
        let issue = |role| {
            authority
                .issue(role, now, Duration::from_secs(3_600))
                .unwrap()
        };
        let secret = SecretKey::generate(shape.set, &mut rng);
        let public = secret.public_key(&mut rng);
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
            owner_key: OwnerKey::generate(&mut rng),
            secret: secret.to_bytes(),
            public,
            keeper_identity: issue(Role::Keeper),
            searcher_identity: issue(Role::Searcher),
            client_identity: issue(Role::Client),
            authority,
            base,
            dimension: shape.dimension,
            metric: shape.metric,
        };
        world.build(shape, false);
        world
    }

    pub fn index_path(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    pub fn build(&self, shape: &Shape, force: bool) {
        // The owner's key comes from the same generator again: it has no clone.
        let owner_key = OwnerKey::from_text(&self.owner_key.to_text()).unwrap();
        let owner = Owner::new(owner_key, self.public.clone());
        let options = BuildOptions {
            metric: self.metric,
            subquantizers: shape.subquantizers,
            centroids: if shape.vectors < 256 { 16 } else { 256 },
            split: Some(shape.split),
            iterations: 5,
            trials: 0,
            force,
            released: shape.released,
            opq: shape.opq,
            lists: shape.lists.map_or(0, |(lists, _)| lists),
            probes_max: shape.lists.map(|(_, probes)| probes),
            extra_bytes: shape.labelled.then_some(EXTRA_BYTES),
            ..BuildOptions::default()
        };
        let ids: Vec<u64> = (0..shape.vectors as u64).map(id_of_row).collect();
        let mut rows = Rows::new(&self.base, self.dimension)
            .unwrap()
            .with_ids(Ids::Numbers(ids))
            .unwrap();
        if shape.labelled {
            let all = 0..shape.vectors as u64;
            let names = TAGS.map(str::to_owned).to_vec();
            rows = rows
                .with_tags(names, all.clone().map(tags_of_row).collect())
                .unwrap()
                .with_payloads(all.map(payload_of_row).collect())
                .unwrap();
        }
        // Every build has an index id of its own.
        let mut rng = ChaCha20Rng::from_seed(*fresh_seed());
        owner
            .build(&mut rows, &self.index_path(), &options, &mut rng)
            .unwrap();
    }

    /// The index as its owner opens it.
    pub fn index(&self) -> Index {
        let head = Index::peek(self.index_path()).unwrap();
        let key = self
            .owner_key
            .epoch_key(&head.index_id, head.epoch, head.released);
        Index::open(self.index_path(), &key).unwrap()
    }

    /// The sizes of the messages of the index.
    pub fn sizes(&self) -> Sizes {
        let index = self.index();
        let shape = index.descriptor();
        Sizes::new(&IndexShape {
            query_bytes: EncryptedQuery::encoded_len(&shape.packing),
            seeded_query_bytes: EncryptedQuery::seeded_len(&shape.packing),
            share_bytes: TableShare::encoded_len(&shape.packing),
            record_bytes: shape.record_bytes(),
            candidates_max: shape.candidates_max,
            probes_max: shape.probes_max(),
        })
    }

    pub fn secret_key(&self) -> SecretKey {
        SecretKey::from_bytes(&self.secret).unwrap()
    }

    pub fn keeper_config(&self) -> KeeperConfig {
        let mut config = KeeperConfig::new(
            self.keeper_identity.clone(),
            self.authority.trust(),
            attester(),
            verifier(),
            [0; 32],
            fresh_seed(),
        );
        config.grace = Duration::from_millis(200);
        config
    }

    /// The keeper's state, made at the first start.
    pub fn keeper_state(&self) -> KeeperState {
        let directory = self.folder.path().join("keeper");
        let release_key = self.owner_key.release_key();
        let key = StateKey::derived(&self.secret_key(), &release_key);
        let mut rng = ChaCha20Rng::from_seed(*fresh_seed());
        // A keeper that has just stopped may hold the lock for a moment.
        for _ in 0..100 {
            if !KeeperState::exists(&directory) {
                break;
            }
            if let Ok(state) = KeeperState::open(&directory, &key, None, &mut rng) {
                return state;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let secrets = KeeperSecrets {
            secret_key: self.secret_key(),
            public_key: self.public.clone(),
            release_key,
        };
        KeeperState::create(&directory, &key, None, secrets, &mut rng).unwrap()
    }

    pub async fn keeper(&self, address: &str) -> (KeeperServer, Running) {
        self.keeper_with(self.keeper_config(), address).await
    }

    pub async fn keeper_with(
        &self,
        config: KeeperConfig,
        address: &str,
    ) -> (KeeperServer, Running) {
        let server = KeeperServer::new(self.keeper_state(), config).unwrap();
        let listener = bind(address).await;
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = server.clone();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            serving.serve(listener, shutdown).await.unwrap();
            Ok(())
        });
        (
            server,
            Running {
                address,
                stop: Some(stop),
                task,
            },
        )
    }

    pub fn searcher_config(&self, keeper: Option<SocketAddr>) -> SearcherConfig {
        let keeper = keeper
            .map(|address| oboro_searcher::KeeperConfig::new(address.to_string(), verifier()));
        let mut config = SearcherConfig::new(
            self.searcher_identity.clone(),
            self.authority.trust(),
            attester(),
            keeper,
            fresh_seed(),
        );
        config.grace = Duration::from_millis(200);
        config
    }

    pub async fn searcher(&self, keeper: Option<SocketAddr>) -> (Arc<Metrics>, Running) {
        self.searcher_with(self.searcher_config(keeper), "127.0.0.1:0")
            .await
    }

    pub async fn searcher_with(
        &self,
        config: SearcherConfig,
        address: &str,
    ) -> (Arc<Metrics>, Running) {
        self.searcher_of(self.index_path(), config, address).await
    }

    /// A searcher of a copy of the index.
    pub async fn searcher_of(
        &self,
        index: PathBuf,
        config: SearcherConfig,
        address: &str,
    ) -> (Arc<Metrics>, Running) {
        let key = self.owner_key.storage_key();
        let server = SearcherServer::new(index, key, config).unwrap();
        let metrics = server.metrics();
        let listener = bind(address).await;
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            server.serve(listener, shutdown).await
        });
        (
            metrics,
            Running {
                address,
                stop: Some(stop),
                task,
            },
        )
    }

    pub fn owner_identity(&self) -> Identity {
        let hour = Duration::from_secs(3_600);
        self.authority
            .issue(Role::Owner, SystemTime::now(), hour)
            .unwrap()
    }

    pub fn owner_config(&self, searcher: SocketAddr, keeper: SocketAddr) -> OwnerConfig {
        OwnerConfig {
            searcher: searcher.to_string(),
            keeper: keeper.to_string(),
            identity: self.owner_identity(),
            trust: self.authority.trust(),
            descriptor_key: self.owner_key.descriptor_key(),
            verifier: verifier(),
            connect_timeout: Duration::from_secs(5),
        }
    }

    /// The owner's connection for changes, once the searcher has opened its index.
    pub async fn writer(&self, searcher: SocketAddr) -> Writer {
        drop(self.client(searcher).await);
        let config = self.writer_config(searcher, self.owner_identity());
        Writer::connect(&config).await.unwrap()
    }

    pub fn writer_config(&self, searcher: SocketAddr, identity: Identity) -> WriterConfig {
        WriterConfig {
            address: searcher.to_string(),
            identity,
            trust: self.authority.trust(),
            descriptor_key: self.owner_key.descriptor_key(),
            verifier: verifier(),
            connect_timeout: Duration::from_secs(5),
        }
    }

    /// A client that may change any index of this owner.
    pub fn grant_writer(&self) -> Identity {
        let (now, hour) = (SystemTime::now(), Duration::from_secs(3_600));
        self.authority
            .issue_client(Grant::any(Access::Writer), "writer", now, hour)
            .unwrap()
    }

    /// Encodes new vectors for the index that `writer` is connected to.
    pub async fn encoder(&self, writer: &Writer) -> Encoder {
        let model = writer.model().await.unwrap();
        Encoder::open(self.owner_key.writer_key(), &model, writer.descriptor()).unwrap()
    }

    pub fn client_config(&self, searcher: SocketAddr) -> ClientConfig {
        ClientConfig::new(
            searcher.to_string(),
            self.client_identity.clone(),
            self.authority.trust(),
            self.owner_key.client_key(),
            verifier(),
            fresh_seed(),
        )
    }

    /// A client, once the searcher has opened its index.
    pub async fn client(&self, searcher: SocketAddr) -> Client {
        self.client_with(|| self.client_config(searcher)).await
    }

    pub async fn client_with(&self, config: impl Fn() -> ClientConfig) -> Client {
        let mut result = Client::connect(config()).await;
        for _ in 0..200 {
            let waits = |error: &ClientError| {
                matches!(
                    error.reason(),
                    Some(Reason::Busy | Reason::KeeperUnreachable)
                )
            };
            if !result.as_ref().is_err_and(waits) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            result = Client::connect(config()).await;
        }
        result.unwrap()
    }

    /// Why a client is refused, once the searcher knows why.
    pub async fn refusal(&self, searcher: SocketAddr) -> ClientError {
        loop {
            let error = Client::connect(self.client_config(searcher)).await;
            let error = error.err().unwrap();
            if error.reason() != Some(Reason::Busy) {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ids of the exact nearest, ties by id.
    pub fn exact(&self, query: &[f32], k: usize) -> Vec<u64> {
        let mut all: Vec<(f32, u64)> = self
            .base
            .chunks_exact(self.dimension)
            .enumerate()
            .map(|(row, vector)| (self.metric.distance(query, vector), id_of_row(row as u64)))
            .collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all.into_iter().take(k).map(|(_, id)| id).collect()
    }
}

/// The tags that vectors may have.
pub const TAGS: [&str; 3] = ["even", "odd", "third"];

/// Bytes of each record for payloads.
pub const EXTRA_BYTES: u32 = 40;

pub fn tags_of_row(row: u64) -> Vec<u32> {
    let mut tags = vec![(row % 2) as u32];
    if row.is_multiple_of(3) {
        tags.push(2);
    }
    tags
}

pub fn payload_of_row(row: u64) -> Vec<u8> {
    format!("row {row}").into_bytes()
}

/// Some records with ids, and payloads or none.
pub fn records(dimension: usize, ids: Vec<u64>, vectors: Vec<f32>, payload: &[u8]) -> Records {
    Records {
        dimension,
        rows: (0..ids.len() as u64).collect(),
        tags: Vec::new(),
        payloads: vec![payload.to_vec(); ids.len()],
        ids: Ids::Numbers(ids),
        vectors,
        refused: Vec::new(),
    }
}

/// The segment, as it is staged.
pub fn new_segment(segment: &EncodedSegment) -> NewSegment<'_> {
    NewSegment {
        segment_id: segment.segment_id,
        ids: &segment.ids,
        codes: &segment.codes,
        tags: &segment.tags,
        lists: &segment.lists,
        records: &segment.records,
    }
}

/// Ids that are not row numbers, so that a mix-up shows.
pub fn id_of_row(row: u64) -> u64 {
    row * 3 + 1_000_000_007
}

async fn bind(address: &str) -> TcpListener {
    // The port of a server that has just stopped may take a moment.
    for _ in 0..100 {
        if let Ok(listener) = TcpListener::bind(address).await {
            return listener;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    TcpListener::bind(address).await.unwrap()
}

/// A channel to a searcher without the client's checks.
pub async fn raw(
    address: SocketAddr,
    identity: &Identity,
    trust: &Trust,
) -> SearcherClient<Channel> {
    let options = ConnectOptions::default();
    let connection = connect(
        &address.to_string(),
        identity,
        trust,
        Role::Searcher,
        options,
    )
    .await
    .unwrap();
    SearcherClient::new(connection.channel)
        .max_decoding_message_size(limits::MAX_REPLY_MESSAGE_BYTES)
        .max_encoding_message_size(usize::MAX)
}

/// Copies a folder of files.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Overlap of two lists of ids, between 0 and 1.
pub fn overlap(found: &[u64], truth: &[u64]) -> f64 {
    found.iter().filter(|id| truth.contains(id)).count() as f64 / truth.len() as f64
}
