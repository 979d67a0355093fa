//! One table decryption: the arithmetic alone, and through the keeper over TLS.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use chacha20::ChaCha20Rng;
use criterion::{Criterion, criterion_group, criterion_main};
use oboro_attest::{AttestedRole, Policy, PolicyVerifier, Subject};
use oboro_channel::{Authority, ConnectOptions, Offer, Role, connect};
use oboro_ckks::{
    EncryptedCodebook, MaskedDecryptor, MaskedProducts, Packing, ParameterSet, QueryEncryptor,
    SecretKey, TableEvaluator, TableScale,
};
use oboro_index::OwnerKey;
use oboro_keeper::{KeeperConfig, KeeperSecrets, KeeperServer, KeeperState, StateKey};
use oboro_protocol::v1;
use oboro_protocol::v1::keeper_client::KeeperClient;
use oboro_simulated::{SimulatedAttester, SimulatedVerifier, measure};
use rand_core::SeedableRng;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use zeroize::Zeroizing;

fn decrypt(criterion: &mut Criterion) {
    let set = ParameterSet::N2048Q50;
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let secret = SecretKey::generate(set, &mut rng);
    let key = secret.public_key(&mut rng);
    let packing = Packing::compact_query(set, 16, 8, 256).unwrap();
    let scale = TableScale::new(&packing, 1.0, 2.0, 0.0).unwrap();
    let centroids = vec![0.125; packing.table_len() * packing.width()];
    let codebook =
        EncryptedCodebook::encrypt(packing, &scale, &key, &centroids, None, &mut rng).unwrap();
    let evaluator = TableEvaluator::new(packing, scale, key.clone(), codebook).unwrap();
    let query = QueryEncryptor::new(packing, scale, key.clone())
        .unwrap()
        .encrypt(&vec![0.05; packing.query_len()], &mut rng)
        .unwrap();
    let zero = evaluator.zero(&mut rng);
    let (_, products) = evaluator.evaluate(&query, zero).unwrap();
    let products = Bytes::from(products.to_bytes());

    let mut group = criterion.benchmark_group("table of 16 x 256, N2048_Q50");
    let decryptor = MaskedDecryptor::new(SecretKey::from_bytes(&secret.to_bytes()).unwrap());
    let prepared = decryptor
        .prepare(packing, scale, &evaluator.masks())
        .unwrap();
    group.bench_function("decode and decrypt", |bencher| {
        bencher.iter(|| {
            let products = MaskedProducts::from_bytes(&packing, &products).unwrap();
            let share = decryptor.decrypt(&prepared, &products, &mut rng).unwrap();
            share.to_bytes()
        });
    });

    let authority = Authority::generate(SystemTime::now()).unwrap();
    let day = Duration::from_secs(24 * 3600);
    let issue = |role| authority.issue(role, SystemTime::now(), day).unwrap();
    let mut config = KeeperConfig::new(
        issue(Role::Keeper),
        authority.trust(),
        Arc::new(SimulatedAttester::new(measure(b"bench"))),
        Arc::new(PolicyVerifier::new(
            Policy::default().allowing_simulated(),
            vec![Arc::new(SimulatedVerifier)],
        )),
        [0; 32],
        Zeroizing::new([2; 32]),
    );
    config.rate.per_second = f64::INFINITY;
    config.rate.burst = f64::INFINITY;
    let fingerprint = key.fingerprint();
    let folder = tempfile::tempdir().unwrap();
    let release_key = OwnerKey::generate(&mut rng).release_key();
    let state_key = StateKey::derived(&secret, &release_key);
    let secrets = KeeperSecrets {
        secret_key: secret,
        public_key: key,
        release_key,
    };
    let state = KeeperState::create(folder.path(), &state_key, None, secrets, &mut rng).unwrap();
    let keeper = KeeperServer::new(state, config).unwrap();
    let far = Runtime::new().unwrap();
    let listener = far.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = keeper.clone();
    far.spawn(async move { serving.serve(listener, std::future::pending()).await });
    let near = Runtime::new().unwrap();
    let searcher = issue(Role::Searcher);
    let attester = Arc::new(SimulatedAttester::new(measure(b"bench")));
    let subject = Subject::new([0; 32]);
    let options = ConnectOptions {
        offer: Some(Offer::new(attester, AttestedRole::Searcher, subject)),
        ..ConnectOptions::default()
    };
    let trust = authority.trust();
    let connection = near
        .block_on(connect(&address, &searcher, &trust, Role::Keeper, options))
        .unwrap();
    let mut client = KeeperClient::new(connection.channel);
    let state = v1::IndexState {
        index_id: vec![1; 16].into(),
        epoch: 1,
        generation: 1,
        manifest_digest: vec![1; 32].into(),
    };
    near.block_on(client.register(v1::RegisterRequest {
        state: Some(state),
        ..Default::default()
    }))
    .unwrap();
    let registration = v1::PrepareRequest {
        index_id: vec![1; 16].into(),
        epoch: 1,
        packing: Some(v1::PackingParameters {
            parameter_set: set.name().to_owned(),
            subquantizers: 16,
            width: 8,
            centroids: 256,
            split: packing.split() as u32,
        }),
        scale: scale.to_bytes().to_vec().into(),
        masks: evaluator.masks().to_bytes().into(),
        key_fingerprint: fingerprint.to_vec().into(),
    };
    let handle = near
        .block_on(client.prepare(registration))
        .unwrap()
        .into_inner()
        .handle;
    group.bench_function("through the keeper over TLS", |bencher| {
        bencher.iter(|| {
            let request = v1::DecryptRequest {
                handle: handle.clone(),
                products: products.clone(),
            };
            near.block_on(client.clone().decrypt(request)).unwrap()
        });
    });
    group.finish();
    for (stage, figures) in oboro_keeper::Stage::ALL.iter().zip(keeper.metrics().stages) {
        println!("{}: mean {:.1} us", stage.name(), figures.mean_us());
    }
    println!("bytes up {}", products.len());
}

criterion_group!(benches, decrypt);
criterion_main!(benches);
