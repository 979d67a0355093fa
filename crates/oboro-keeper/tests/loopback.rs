//! A real keeper over real TLS with real keys, asked by a searcher's arithmetic.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use chacha20::ChaCha20Rng;
use oboro_attest::{
    AttestedRole, Attester, Claims, Expected, NO_CKKS_KEY, Policy, PolicyVerifier,
    SimulatedAttester, Verifier, measure, unix_seconds,
};
use oboro_channel::{Authority, ConnectOptions, Connection, Identity, Role, connect};
use oboro_ckks::{
    CkksError, EncryptedCodebook, EncryptedQuery, MaskedProducts, Packing, ParameterSet, PublicKey,
    QueryEncryptor, SecretKey, TableEvaluator, TableScale, TableShare,
};
use oboro_keeper::{KeeperConfig, KeeperError, KeeperServer, RateLimit};
use oboro_protocol::v1::keeper_client::KeeperClient;
use oboro_protocol::{Reason, limits, reason_of, v1};
use rand_core::{Rng, SeedableRng};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use zeroize::Zeroizing;

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Keeper {
    authority: Authority,
    public_key: PublicKey,
    address: String,
    server: KeeperServer,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), KeeperError>>,
}

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn issue(authority: &Authority, role: Role) -> Identity {
    authority.issue(role, SystemTime::now(), DAY).unwrap()
}

impl Keeper {
    async fn start(set: ParameterSet, change: impl FnOnce(&mut KeeperConfig)) -> Self {
        let authority = Authority::generate(SystemTime::now()).unwrap();
        let secret = SecretKey::generate(set, &mut rng(1));
        let public_key = secret.public_key(&mut rng(2));
        let mut config = KeeperConfig::new(
            issue(&authority, Role::Keeper),
            authority.trust(),
            Arc::new(SimulatedAttester::new(measure(b"keeper"))),
            Zeroizing::new([3; 32]),
        );
        change(&mut config);
        let server = KeeperServer::new(secret, &public_key, &config).unwrap();
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
        Self {
            authority,
            public_key,
            address,
            server,
            stop,
            task,
        }
    }

    async fn connect_as(&self, identity: &Identity) -> Connection {
        let options = ConnectOptions::default();
        let trust = self.authority.trust();
        connect(&self.address, identity, &trust, Role::Keeper, options)
            .await
            .unwrap()
    }

    async fn client(&self, role: Role) -> KeeperClient<Channel> {
        let connection = self.connect_as(&issue(&self.authority, role)).await;
        KeeperClient::new(connection.channel)
            .max_encoding_message_size(limits::KEEPER_REQUEST_LIMIT)
            .max_decoding_message_size(limits::MAX_PRODUCTS_MESSAGE_BYTES)
    }
}

/// A searcher's and a client's side of one index.
struct Index {
    packing: Packing,
    scale: TableScale,
    evaluator: TableEvaluator,
    encryptor: QueryEncryptor,
    centroids: Vec<f32>,
}

fn values(count: usize, rng: &mut impl Rng) -> Vec<f32> {
    (0..count)
        .map(|_| (rng.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

impl Index {
    fn new(set: ParameterSet, key: &PublicKey, seed: u8) -> Self {
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
        Self {
            packing,
            scale,
            evaluator: TableEvaluator::new(packing, scale, key.clone(), codebook).unwrap(),
            encryptor: QueryEncryptor::new(packing, scale, key.clone()).unwrap(),
            centroids,
        }
    }

    fn registration(&self) -> v1::PrepareRequest {
        v1::PrepareRequest {
            index_id: vec![5; 16].into(),
            epoch: 1,
            packing: Some(v1::PackingParameters {
                parameter_set: self.packing.set().name().to_owned(),
                subquantizers: self.packing.subquantizers() as u32,
                width: self.packing.width() as u32,
                centroids: self.packing.centroids() as u32,
                split: self.packing.split() as u32,
            }),
            scale: self.scale.to_bytes().to_vec().into(),
            masks: self.evaluator.masks().to_bytes().into(),
            ..Default::default()
        }
    }

    fn products(&self, query: &[f32], seed: u8) -> (oboro_ckks::SearcherShare, MaskedProducts) {
        let mut rng = rng(seed);
        let query = self.encryptor.encrypt(query, &mut rng).unwrap();
        let query = EncryptedQuery::from_bytes(&self.packing, &query.to_bytes()).unwrap();
        let zero = self.evaluator.zero(&mut rng);
        self.evaluator.evaluate(&query, zero).unwrap()
    }

    fn exact(&self, query: &[f32]) -> Vec<f32> {
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
}

async fn table(
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

async fn prepared(client: &mut KeeperClient<Channel>, index: &Index) -> Bytes {
    let reply = client.prepare(index.registration()).await.unwrap();
    reply.into_inner().handle
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_right() {
    for set in ParameterSet::ALL {
        let keeper = Keeper::start(set, |config| config.record_view = true).await;
        let index = Index::new(set, &keeper.public_key, 9);
        let mut client = keeper.client(Role::Searcher).await;
        let handle = prepared(&mut client, &index).await;
        for seed in 20..24 {
            let query = values(128, &mut rng(seed));
            let found = table(&mut client, &index, &handle, &query, seed)
                .await
                .unwrap();
            let exact = index.exact(&query);
            assert_eq!(found.len(), exact.len());
            let tolerance = 8.0 * index.scale.table_error() as f32;
            for (found, exact) in found.iter().zip(&exact) {
                assert!(
                    (found - exact).abs() < tolerance,
                    "{found} {exact} {tolerance}"
                );
            }
            assert!(exact.iter().any(|value| value.abs() > 20.0 * tolerance));
        }
        let metrics = keeper.server.metrics();
        assert_eq!(
            (metrics.tables, metrics.prepared, metrics.refused),
            (4, 1, 0)
        );
        assert_eq!(metrics.peers.len(), 1);
        assert_eq!(metrics.peers[0].tables, 4);
        assert!(metrics.stages.iter().all(|stage| stage.count == 4));
        let view = keeper.server.view();
        assert_eq!(view.tables, 4);
        let per_table = MaskedProducts::encoded_len(&index.packing) as u64;
        assert_eq!(view.bytes_received, 4 * per_table);
        // What arrived looks like noise although queries and codebook do not.
        let uniformity = view.uniformity.unwrap();
        assert!(uniformity.abs() < 6.0, "{uniformity}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_searchers_at_once_get_their_own_tables() {
    let set = ParameterSet::N2048Q50;
    let keeper = Keeper::start(set, |_| ()).await;
    let index = Arc::new(Index::new(set, &keeper.public_key, 9));
    let mut tasks = Vec::new();
    for seed in 30..34 {
        let mut client = keeper.client(Role::Searcher).await;
        let index = index.clone();
        tasks.push(tokio::spawn(async move {
            let handle = prepared(&mut client, &index).await;
            let query = values(128, &mut rng(seed));
            let exact = index.exact(&query);
            for turn in 0..5 {
                let found = table(&mut client, &index, &handle, &query, 100 + turn)
                    .await
                    .unwrap();
                let tolerance = 8.0 * index.scale.table_error() as f32;
                let near = |(found, exact): (&f32, &f32)| (found - exact).abs() < tolerance;
                assert!(found.iter().zip(&exact).all(near));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(keeper.server.metrics().tables, 20);
    assert_eq!(keeper.server.metrics().peers.len(), 4);
}

#[tokio::test]
async fn description_carries_key_and_verifiable_evidence() {
    let keeper = Keeper::start(ParameterSet::N2048Q50, |_| ()).await;
    for role in [Role::Searcher, Role::Client, Role::Owner] {
        let connection = keeper.connect_as(&issue(&keeper.authority, role)).await;
        let channel_key = connection.peer().spki_sha256;
        let description = KeeperClient::new(connection.channel)
            .describe(v1::DescribeRequest {
                nonce: vec![8; 32].into(),
            })
            .await
            .unwrap()
            .into_inner();
        let key = PublicKey::from_bytes(&description.public_key).unwrap();
        let expected = Expected {
            role: AttestedRole::Keeper,
            channel_key,
            ckks_key: key.fingerprint(),
            nonce: [8; 32],
        };
        let verifier = PolicyVerifier::new(Policy::allowing_simulated());
        let now = unix_seconds(SystemTime::now());
        let appraisal = verifier
            .verify(&description.evidence, &expected, now)
            .unwrap();
        assert_eq!(appraisal.measurement, measure(b"keeper"));
        assert!(description.challenge.is_empty());
    }
}

async fn refusal<T>(call: impl Future<Output = Result<T, tonic::Status>>) -> Reason {
    let status = call.await.err().unwrap();
    reason_of(&status).unwrap_or_else(|| panic!("{status}"))
}

#[tokio::test]
async fn fail_roles_that_may_not_decrypt() {
    let set = ParameterSet::N2048Q50;
    let keeper = Keeper::start(set, |_| ()).await;
    let index = Index::new(set, &keeper.public_key, 9);
    let mut searcher = keeper.client(Role::Searcher).await;
    let handle = prepared(&mut searcher, &index).await;
    let (_, products) = index.products(&[0.5; 128], 1);
    let products = Bytes::from(products.to_bytes());
    for role in [Role::Client, Role::Owner] {
        let mut client = keeper.client(role).await;
        let reason = refusal(client.prepare(index.registration())).await;
        assert_eq!(reason, Reason::Forbidden);
        let request = v1::DecryptRequest {
            handle: handle.clone(),
            products: products.clone(),
        };
        assert_eq!(refusal(client.decrypt(request)).await, Reason::Forbidden);
        // Refused before the body is read, so its size is nobody's concern.
        let large = v1::PrepareRequest {
            masks: vec![0; limits::KEEPER_REQUEST_LIMIT - 1_024].into(),
            ..index.registration()
        };
        assert_eq!(refusal(client.prepare(large)).await, Reason::Forbidden);
        client.status(v1::StatusRequest {}).await.unwrap();
    }
    assert_eq!(keeper.server.metrics().tables, 0);
    assert_eq!(keeper.server.metrics().refused, 6);
}

#[tokio::test]
async fn fail_malformed_requests() {
    let set = ParameterSet::N2048Q50;
    let keeper = Keeper::start(set, |_| ()).await;
    let index = Index::new(set, &keeper.public_key, 9);
    let mut client = keeper.client(Role::Searcher).await;

    let short = v1::DescribeRequest {
        nonce: vec![1; 31].into(),
    };
    assert_eq!(refusal(client.describe(short)).await, Reason::BadRequest);

    let changes: [fn(&mut v1::PrepareRequest); 9] = [
        |r| r.index_id = Bytes::new(),
        |r| r.packing = None,
        |r| r.packing.as_mut().unwrap().parameter_set = "N4096_Q100".into(),
        |r| r.packing.as_mut().unwrap().parameter_set = "N1".into(),
        |r| r.packing.as_mut().unwrap().centroids = 0,
        |r| r.packing.as_mut().unwrap().width = 9,
        |r| r.scale = r.scale.slice(1..),
        |r| r.scale = f64::NAN.to_le_bytes().repeat(3).into(),
        |r| r.masks = r.masks.slice(1..),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut request = index.registration();
        change(&mut request);
        let reason = refusal(client.prepare(request)).await;
        assert_eq!(reason, Reason::BadRequest, "change {number}");
    }
    let mut huge = index.registration();
    huge.packing.as_mut().unwrap().subquantizers = 1 << 20;
    assert_eq!(refusal(client.prepare(huge)).await, Reason::Limit);

    let handle = prepared(&mut client, &index).await;
    let products = Bytes::from(index.products(&[0.5; 128], 1).1.to_bytes());
    let ask = |handle: &Bytes, products: Bytes| v1::DecryptRequest {
        handle: handle.clone(),
        products,
    };
    let mut longer = products.to_vec();
    longer.push(0);
    let outside = vec![0xff; products.len()];
    for bad in [
        Bytes::new(),
        products.slice(1..),
        longer.into(),
        outside.into(),
    ] {
        let reason = refusal(client.decrypt(ask(&handle, bad))).await;
        assert_eq!(reason, Reason::BadRequest);
    }
    let short = ask(&handle.slice(..31), products.clone());
    assert_eq!(refusal(client.decrypt(short)).await, Reason::BadRequest);
    let unknown = ask(&vec![0; 32].into(), products.clone());
    assert_eq!(
        refusal(client.decrypt(unknown)).await,
        Reason::UnknownHandle
    );
    client.decrypt(ask(&handle, products)).await.unwrap();
}

#[tokio::test]
async fn fail_oversized_message_is_refused_unread() {
    let keeper = Keeper::start(ParameterSet::N2048Q50, |_| ()).await;
    let mut client = keeper
        .client(Role::Searcher)
        .await
        .max_encoding_message_size(usize::MAX);
    let request = v1::DecryptRequest {
        handle: vec![0; 32].into(),
        products: vec![0; limits::KEEPER_REQUEST_LIMIT + 1].into(),
    };
    let status = client.decrypt(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
    client.status(v1::StatusRequest {}).await.unwrap();
}

#[tokio::test]
async fn fail_beyond_the_rate() {
    let set = ParameterSet::N2048Q50;
    let keeper = Keeper::start(set, |config| {
        config.rate = RateLimit {
            per_second: 1e-6,
            burst: 3.0,
        };
    })
    .await;
    let index = Index::new(set, &keeper.public_key, 9);
    let mut client = keeper.client(Role::Searcher).await;
    let handle = prepared(&mut client, &index).await;
    let request = v1::DecryptRequest {
        handle,
        products: index.products(&[0.5; 128], 1).1.to_bytes().into(),
    };
    for _ in 0..3 {
        client.decrypt(request.clone()).await.unwrap();
    }
    let reason = refusal(client.decrypt(request.clone())).await;
    assert_eq!(reason, Reason::RateLimited);
    // Another searcher has a bucket of its own.
    let mut other = keeper.client(Role::Searcher).await;
    other.decrypt(request).await.unwrap();
    assert_eq!(keeper.server.metrics().rate_limited, 1);
}

#[tokio::test]
async fn fail_more_codebooks_than_are_held() {
    let set = ParameterSet::N2048Q50;
    let keeper = Keeper::start(set, |config| config.prepared_codebooks = 4).await;
    let mut first = keeper.client(Role::Searcher).await;
    let mut second = keeper.client(Role::Searcher).await;
    let indexes: Vec<_> = (0..4)
        .map(|seed| Index::new(set, &keeper.public_key, 40 + seed))
        .collect();
    let kept = prepared(&mut first, &indexes[0]).await;
    let mut handles = Vec::new();
    for index in &indexes[1..] {
        handles.push(prepared(&mut second, index).await);
    }
    // The second searcher has pushed out its own oldest, not the first one's.
    let query = values(128, &mut rng(1));
    table(&mut first, &indexes[0], &kept, &query, 1)
        .await
        .unwrap();
    table(&mut second, &indexes[3], &handles[2], &query, 1)
        .await
        .unwrap();
    let gone = v1::DecryptRequest {
        handle: handles[0].clone(),
        products: indexes[1].products(&query, 1).1.to_bytes().into(),
    };
    assert_eq!(refusal(second.decrypt(gone)).await, Reason::UnknownHandle);
    // Registering again gives the same handle and works.
    let again = prepared(&mut second, &indexes[1]).await;
    assert_eq!(again, handles[0]);
    table(&mut second, &indexes[1], &again, &query, 1)
        .await
        .unwrap();
}

#[tokio::test]
async fn fail_searcher_without_acceptable_evidence() {
    let set = ParameterSet::N2048Q50;
    let policy = Policy {
        measurements: vec![measure(b"searcher")],
        ..Policy::allowing_simulated()
    };
    let keeper = Keeper::start(set, |config| {
        config.searcher_verifier = Some(Arc::new(PolicyVerifier::new(policy)));
    })
    .await;
    let index = Index::new(set, &keeper.public_key, 9);
    let identity = issue(&keeper.authority, Role::Searcher);
    let mut client = KeeperClient::new(keeper.connect_as(&identity).await.channel);
    // Without a challenge, and with none of the evidence.
    let reason = refusal(client.prepare(index.registration())).await;
    assert_eq!(reason, Reason::Forbidden);
    let register = async |client: &mut KeeperClient<Channel>, program: &[u8]| {
        let nonce = vec![8; 32].into();
        let description = client
            .describe(v1::DescribeRequest { nonce })
            .await
            .unwrap();
        let claims = Claims {
            role: AttestedRole::Searcher,
            channel_key: identity.spki_sha256(),
            ckks_key: NO_CKKS_KEY,
            nonce: description
                .into_inner()
                .challenge
                .as_ref()
                .try_into()
                .unwrap(),
            issued_at: unix_seconds(SystemTime::now()),
        };
        let attester = SimulatedAttester::new(measure(program));
        let request = v1::PrepareRequest {
            evidence: attester.attest(&claims).unwrap().into(),
            ..index.registration()
        };
        (client.prepare(request.clone()).await, request)
    };
    let (altered, _) = register(&mut client, b"altered searcher").await;
    assert_eq!(reason_of(&altered.unwrap_err()), Some(Reason::Forbidden));
    let (good, request) = register(&mut client, b"searcher").await;
    let handle = good.unwrap().into_inner().handle;
    let query = values(128, &mut rng(1));
    table(&mut client, &index, &handle, &query, 1)
        .await
        .unwrap();
    // Another searcher knows the handle but has shown nothing; nor can it replay.
    let mut other = keeper.client(Role::Searcher).await;
    let ask = v1::DecryptRequest {
        handle,
        products: index.products(&query, 2).1.to_bytes().into(),
    };
    assert_eq!(refusal(other.decrypt(ask)).await, Reason::UnknownHandle);
    assert_eq!(
        refusal(other.prepare(request.clone())).await,
        Reason::Forbidden
    );
    // The challenge is used up.
    assert_eq!(refusal(client.prepare(request)).await, Reason::Forbidden);
}

#[tokio::test]
async fn metrics_text_on_loopback_only() {
    // A free port, released again for the keeper.
    let probe = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    let keeper = Keeper::start(ParameterSet::N2048Q50, |config| {
        config.metrics_address = Some(address);
    })
    .await;
    keeper
        .client(Role::Owner)
        .await
        .status(v1::StatusRequest {})
        .await
        .unwrap();
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let text = get("/metrics").await;
    assert!(text.contains("oboro_keeper_tables_total 0\n"), "{text}");
    assert!(get("/").await.starts_with("HTTP/1.1 404"));

    let open: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let refused = Keeper::start(ParameterSet::N2048Q50, |config| {
        config.metrics_address = Some(open);
    })
    .await;
    let error = refused.task.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("not loopback"), "{error}");
}

#[tokio::test]
async fn stops_gracefully() {
    let keeper = Keeper::start(ParameterSet::N2048Q50, |config| {
        config.grace = Duration::from_millis(200);
    })
    .await;
    // An idle connection does not hold the keeper up beyond its grace.
    let mut client = keeper.client(Role::Searcher).await;
    client.status(v1::StatusRequest {}).await.unwrap();
    keeper.stop.send(()).unwrap();
    keeper.task.await.unwrap().unwrap();
    client.status(v1::StatusRequest {}).await.unwrap_err();
}

#[test]
fn fail_wrong_identity_or_keys() {
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let config = |role| {
        KeeperConfig::new(
            issue(&authority, role),
            authority.trust(),
            Arc::new(SimulatedAttester::new(measure(b"keeper"))),
            Zeroizing::new([3; 32]),
        )
    };
    let secret = |set| SecretKey::generate(set, &mut rng(1));
    let small = secret(ParameterSet::N2048Q50).public_key(&mut rng(2));
    let wrong_role = KeeperServer::new(
        secret(ParameterSet::N2048Q50),
        &small,
        &config(Role::Searcher),
    );
    assert!(matches!(wrong_role, Err(KeeperError::Role("searcher"))));
    for other in [
        secret(ParameterSet::N4096Q100),
        SecretKey::generate(ParameterSet::N2048Q50, &mut rng(9)),
    ] {
        let mixed = KeeperServer::new(other, &small, &config(Role::Keeper));
        assert!(matches!(mixed, Err(KeeperError::KeyMismatch { .. })));
    }
}
