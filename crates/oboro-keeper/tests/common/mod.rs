//! A real keeper over real TLS with real keys, and a searcher's arithmetic.
#![allow(clippy::unwrap_used, dead_code)]

use bytes::Bytes;
use chacha20::ChaCha20Rng;
use oboro_attest::{AttestedRole, Policy, PolicyVerifier, Subject};
use oboro_channel::{
    Authority, ChannelError, ConnectOptions, Connection, Demand, Identity, Offer, Role, connect,
};
use oboro_ckks::{
    CkksError, EncryptedCodebook, EncryptedQuery, MaskedProducts, Packing, ParameterSet, PublicKey,
    QueryEncryptor, SearcherShare, SecretKey, TableEvaluator, TableScale, TableShare,
};
use oboro_index::{OwnerKey, ReleaseKey};
use oboro_keeper::{KeeperConfig, KeeperError, KeeperSecrets, KeeperServer, KeeperState, StateKey};
use oboro_protocol::v1::keeper_client::KeeperClient;
use oboro_protocol::{Reason, limits, reason_of, v1};
use oboro_simulated::{SimulatedAttester, SimulatedVerifier, measure};
use oboro_tpm::MonotonicCounter;
use rand_core::{Rng, SeedableRng};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use zeroize::Zeroizing;

pub(crate) const INDEX: [u8; 16] = [5; 16];

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub(crate) fn issue(authority: &Authority, role: Role) -> Identity {
    authority.issue(role, SystemTime::now(), DAY).unwrap()
}

pub(crate) fn verifier(policy: Policy) -> Arc<PolicyVerifier> {
    Arc::new(PolicyVerifier::new(
        policy,
        vec![Arc::new(SimulatedVerifier)],
    ))
}

pub(crate) fn simulated() -> Arc<PolicyVerifier> {
    verifier(Policy::default().allowing_simulated())
}

pub(crate) fn config(authority: &Authority, role: Role) -> KeeperConfig {
    KeeperConfig::new(
        issue(authority, role),
        authority.trust(),
        Arc::new(SimulatedAttester::new(measure(b"keeper"))),
        simulated(),
        [0xc0; 32],
        Zeroizing::new([3; 32]),
    )
}

/// What survives a keeper: its folder, the owner's authority and keys.
pub(crate) struct Home {
    pub(crate) folder: TempDir,
    pub(crate) authority: Authority,
    pub(crate) identity: Identity,
    pub(crate) secrets: fn(ParameterSet) -> KeeperSecrets,
    pub(crate) set: ParameterSet,
}

pub(crate) fn release_key() -> ReleaseKey {
    OwnerKey::generate(&mut rng(8)).release_key()
}

pub(crate) fn secrets(set: ParameterSet) -> KeeperSecrets {
    let secret_key = SecretKey::generate(set, &mut rng(1));
    KeeperSecrets {
        public_key: secret_key.public_key(&mut rng(2)),
        secret_key,
        release_key: release_key(),
    }
}

impl Home {
    pub(crate) fn new(set: ParameterSet) -> Self {
        let authority = Authority::generate(SystemTime::now()).unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            identity: issue(&authority, Role::Keeper),
            authority,
            secrets,
            set,
        }
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn state(
        &self,
        counter: Option<Arc<dyn MonotonicCounter>>,
    ) -> Result<KeeperState, KeeperError> {
        let secrets = (self.secrets)(self.set);
        let key = StateKey::derived(&secrets.secret_key, &secrets.release_key);
        let directory = self.directory();
        if KeeperState::exists(&directory) {
            KeeperState::open(&directory, &key, counter, &mut rng(4))
        } else {
            KeeperState::create(&directory, &key, counter, secrets, &mut rng(4))
        }
    }

    pub(crate) async fn serve(
        self,
        counter: Option<Arc<dyn MonotonicCounter>>,
        change: impl FnOnce(&mut KeeperConfig),
    ) -> Keeper {
        let mut config = config(&self.authority, Role::Keeper);
        config.identity = self.identity.clone();
        change(&mut config);
        let state = self.state(counter).unwrap();
        let server = KeeperServer::new(state, config).unwrap();
        let public_key = server.public_keys().remove(0);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = server.clone();
        let task = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            running.serve(listener, shutdown).await
        });
        Keeper {
            home: self,
            public_key,
            address,
            server,
            stop,
            task,
        }
    }
}

pub(crate) struct Keeper {
    pub(crate) home: Home,
    pub(crate) public_key: PublicKey,
    pub(crate) address: String,
    pub(crate) server: KeeperServer,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) task: JoinHandle<Result<(), KeeperError>>,
}

impl Keeper {
    pub(crate) async fn start(set: ParameterSet, change: impl FnOnce(&mut KeeperConfig)) -> Self {
        Home::new(set).serve(None, change).await
    }

    /// Stops it and waits until it has let go of its state.
    pub(crate) async fn stop(self) -> Home {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
        let waiting = Arc::new(self.server);
        drop(waiting);
        // Connections that close still hold the keeper for a moment.
        let key = {
            let secrets = (self.home.secrets)(self.home.set);
            StateKey::derived(&secrets.secret_key, &secrets.release_key)
        };
        for _ in 0..500 {
            match KeeperState::open(&self.home.directory(), &key, None, &mut rng(4)) {
                Err(KeeperError::StateLocked(_)) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                _ => return self.home,
            }
        }
        panic!("the keeper does not let go of its state");
    }

    pub(crate) async fn connect(
        &self,
        identity: &Identity,
        offer: Option<Offer>,
    ) -> Result<Connection, ChannelError> {
        let options = ConnectOptions {
            offer,
            demand: Some(Demand::new(simulated(), AttestedRole::Keeper)),
            ..ConnectOptions::default()
        };
        let trust = self.home.authority.trust();
        connect(&self.address, identity, &trust, Role::Keeper, options).await
    }

    /// A connection as a genuine party of `role` makes it.
    pub(crate) async fn connect_as(&self, role: Role) -> Connection {
        let offer = (role == Role::Searcher).then(|| searcher(b"searcher", [0; 16]));
        self.connect(&issue(&self.home.authority, role), offer)
            .await
            .unwrap()
    }

    pub(crate) async fn client(&self, role: Role) -> KeeperClient<Channel> {
        client(&self.connect_as(role).await)
    }
}

pub(crate) fn client(connection: &Connection) -> KeeperClient<Channel> {
    KeeperClient::new(connection.channel.clone())
        .max_encoding_message_size(limits::KEEPER_REQUEST_LIMIT)
        .max_decoding_message_size(limits::MAX_MASKS_MESSAGE_BYTES)
}

/// The evidence of a searcher's program that serves an index.
pub(crate) fn searcher(program: &[u8], index_id: [u8; 16]) -> Offer {
    let subject = Subject {
        index_id,
        ..Subject::new([0x5e; 32])
    };
    Offer::new(
        Arc::new(SimulatedAttester::new(measure(program))),
        AttestedRole::Searcher,
        subject,
    )
}

/// A searcher's and a client's side of one index.
pub(crate) struct Index {
    pub(crate) packing: Packing,
    pub(crate) scale: TableScale,
    pub(crate) evaluator: TableEvaluator,
    pub(crate) encryptor: QueryEncryptor,
    pub(crate) key: PublicKey,
    pub(crate) centroids: Vec<f32>,
}

pub(crate) fn values(count: usize, rng: &mut impl Rng) -> Vec<f32> {
    (0..count)
        .map(|_| (rng.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

impl Index {
    pub(crate) fn new(set: ParameterSet, key: &PublicKey, seed: u8) -> Self {
        let (subquantizers, width, count) = (16, 8, 256);
        let packing = Packing::compact_query(set, subquantizers, width, count).unwrap();
        let mut rng = rng(seed);
        let centroids = values(subquantizers * width * count, &mut rng);
        let norm: f32 = centroids
            .chunks(count * width)
            .map(|space| {
                let norms = space.chunks(width).map(|c| c.iter().map(|x| x * x).sum());
                norms.fold(0.0, f32::max)
            })
            .sum();
        let scale = TableScale::new(&packing, 16.0, f64::from(norm).sqrt(), 0.0).unwrap();
        let codebook =
            EncryptedCodebook::encrypt(packing, &scale, key, &centroids, None, &mut rng).unwrap();
        Self::under(packing, scale, key, codebook, centroids)
    }

    pub(crate) fn under(
        packing: Packing,
        scale: TableScale,
        key: &PublicKey,
        codebook: EncryptedCodebook,
        centroids: Vec<f32>,
    ) -> Self {
        Self {
            packing,
            scale,
            evaluator: TableEvaluator::new(packing, scale, key.clone(), codebook).unwrap(),
            encryptor: QueryEncryptor::new(packing, scale, key.clone()).unwrap(),
            key: key.clone(),
            centroids,
        }
    }

    pub(crate) fn parameters(&self) -> v1::PackingParameters {
        v1::PackingParameters {
            parameter_set: self.packing.set().name().to_owned(),
            subquantizers: self.packing.subquantizers() as u32,
            width: self.packing.width() as u32,
            centroids: self.packing.centroids() as u32,
            split: self.packing.split() as u32,
        }
    }

    pub(crate) fn registration(&self) -> v1::PrepareRequest {
        v1::PrepareRequest {
            index_id: INDEX.to_vec().into(),
            epoch: 1,
            packing: Some(self.parameters()),
            scale: self.scale.to_bytes().to_vec().into(),
            masks: self.evaluator.masks().to_bytes().into(),
            key_fingerprint: self.key.fingerprint().to_vec().into(),
        }
    }

    pub(crate) fn products(&self, query: &[f32], seed: u8) -> (SearcherShare, MaskedProducts) {
        let mut rng = rng(seed);
        let query = self.encryptor.encrypt(query, &mut rng).unwrap();
        let query = EncryptedQuery::from_bytes(&self.packing, &query.to_bytes()).unwrap();
        let zero = self.evaluator.zero(&mut rng);
        self.evaluator.evaluate(&query, zero).unwrap()
    }

    pub(crate) fn exact(&self, query: &[f32]) -> Vec<f32> {
        let (width, count) = (self.packing.width(), self.packing.centroids());
        let spaces = self
            .centroids
            .chunks(count * width)
            .zip(query.chunks(width));
        spaces
            .flat_map(|(space, part)| {
                space
                    .chunks(width)
                    .map(move |c| c.iter().zip(part).map(|(x, y)| x * y).sum())
            })
            .collect()
    }

    /// One table is what it should be.
    pub(crate) async fn check(&self, client: &mut KeeperClient<Channel>, handle: &Bytes, seed: u8) {
        let query = values(128, &mut rng(seed));
        let found = table(client, self, handle, &query, seed).await.unwrap();
        let exact = self.exact(&query);
        assert_eq!(found.len(), exact.len());
        let tolerance = 8.0 * self.scale.table_error() as f32;
        for (found, exact) in found.iter().zip(&exact) {
            assert!(
                (found - exact).abs() < tolerance,
                "{found} {exact} {tolerance}"
            );
        }
        assert!(exact.iter().any(|value| value.abs() > 20.0 * tolerance));
    }
}

pub(crate) async fn table(
    client: &mut KeeperClient<Channel>,
    index: &Index,
    handle: &Bytes,
    query: &[f32],
    seed: u8,
) -> Result<Vec<f32>, CkksError> {
    let (own, products) = index.products(query, seed);
    let reply = client
        .decrypt(v1::DecryptRequest {
            handle: handle.clone(),
            products: products.to_bytes().into(),
        })
        .await
        .unwrap()
        .into_inner();
    let share = TableShare::from_bytes(&index.packing, &reply.share).unwrap();
    index.evaluator.unmask(&own, &share)
}

/// A state of the test's index.
pub(crate) fn state(epoch: u64, generation: u64, digest: u8) -> v1::IndexState {
    v1::IndexState {
        index_id: INDEX.to_vec().into(),
        epoch,
        generation,
        manifest_digest: vec![digest; 32].into(),
    }
}

pub(crate) fn register(state: v1::IndexState) -> v1::RegisterRequest {
    v1::RegisterRequest {
        state: Some(state),
        ..Default::default()
    }
}

pub(crate) fn release(state: v1::IndexState) -> v1::ReleaseRequest {
    v1::ReleaseRequest { state: Some(state) }
}

/// Registers the index's first state and prepares its codebook.
pub(crate) async fn prepared(client: &mut KeeperClient<Channel>, index: &Index) -> Bytes {
    client.register(register(state(1, 1, 1))).await.unwrap();
    let reply = client.prepare(index.registration()).await.unwrap();
    reply.into_inner().handle
}

pub(crate) async fn refusal<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Reason {
    let status = call.await.err().unwrap();
    reason_of(&status).unwrap_or_else(|| panic!("{status}"))
}
