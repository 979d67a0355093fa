//! Tables from a real keeper over real TLS, and requests that it refuses.
#![allow(clippy::unwrap_used)]

mod common;

use bytes::Bytes;
use common::{
    Home, Index, Keeper, config, prepared, refusal, register, release, rng, state, table, values,
};
use oboro_channel::{Authority, Role};
use oboro_ckks::{MaskedProducts, ParameterSet};
use oboro_keeper::{KeeperError, KeeperServer, RateLimit};
use oboro_protocol::{Reason, limits, v1};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_right() {
    for set in ParameterSet::ALL {
        let keeper = Keeper::start(set, |config| config.record_view = true).await;
        let index = Index::new(set, &keeper.public_key, 9);
        let mut client = keeper.client(Role::Searcher).await;
        let handle = prepared(&mut client, &index).await;
        for seed in 20..24 {
            index.check(&mut client, &handle, seed).await;
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

    client.register(register(state(1, 1, 1))).await.unwrap();
    let changes: [fn(&mut v1::PrepareRequest); 11] = [
        |r| r.index_id = Bytes::new(),
        |r| r.packing = None,
        |r| r.packing.as_mut().unwrap().parameter_set = "N4096_Q100".into(),
        |r| r.packing.as_mut().unwrap().parameter_set = "N1".into(),
        |r| r.packing.as_mut().unwrap().centroids = 0,
        |r| r.packing.as_mut().unwrap().width = 9,
        |r| r.scale = r.scale.slice(1..),
        |r| r.scale = f64::NAN.to_le_bytes().repeat(3).into(),
        |r| r.masks = r.masks.slice(1..),
        |r| r.key_fingerprint = r.key_fingerprint.slice(1..),
        |r| r.key_fingerprint = vec![0; 32].into(),
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
    prepared(&mut other, &index).await;
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

#[tokio::test]
async fn fail_wrong_identity() {
    let authority = Authority::generate(SystemTime::now()).unwrap();
    let home = Home::new(ParameterSet::N2048Q50);
    let wrong = KeeperServer::new(
        home.state(None).unwrap(),
        config(&authority, Role::Searcher),
    );
    assert!(matches!(wrong, Err(KeeperError::Role("searcher"))));
}

#[tokio::test]
async fn fail_malformed_states() {
    let keeper = Keeper::start(ParameterSet::N2048Q50, |_| ()).await;
    let mut client = keeper.client(Role::Searcher).await;
    let none = v1::RegisterRequest::default();
    assert_eq!(refusal(client.register(none)).await, Reason::BadRequest);
    let none = v1::ReleaseRequest { state: None };
    assert_eq!(refusal(client.release(none)).await, Reason::BadRequest);
    let changes: [fn(&mut v1::IndexState); 7] = [
        |s| s.index_id = s.index_id.slice(1..),
        |s| s.index_id = Bytes::new(),
        |s| s.index_id = vec![0; 16].into(),
        |s| s.epoch = 0,
        |s| s.generation = 0,
        |s| s.manifest_digest = vec![1; 33].into(),
        |s| s.manifest_digest = Bytes::new(),
    ];
    for change in changes {
        let mut bad = state(1, 1, 1);
        change(&mut bad);
        let reason = refusal(client.register(register(bad.clone()))).await;
        assert_eq!(reason, Reason::BadRequest);
        assert_eq!(
            refusal(client.release(release(bad))).await,
            Reason::BadRequest
        );
    }
    assert_eq!(keeper.server.newest(&common::INDEX), None);
}
