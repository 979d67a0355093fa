//! Who may ask a searcher what.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, SystemTime};

use common::{Shape, World, raw, refuser};
use oboro_channel::{Access, Grant, Identity};
use oboro_client::{Client, SearchOptions};
use oboro_protocol::{Reason, reason_of, v1};
use oboro_quant::Metric;
use oboro_searcher::RateLimit;
use tonic::Status;

fn world() -> World {
    World::new(&Shape::new(300, 8, Metric::L2))
}

fn client_identity(world: &World, grant: Grant) -> Identity {
    let hour = Duration::from_secs(3_600);
    world
        .authority
        .issue_client(grant, "somebody", SystemTime::now(), hour)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_writers_of_this_index_may_search() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    drop(world.client(searcher.address).await);
    let id = world.index().descriptor().index_id;
    for grant in [
        Grant::index(Access::Reader, id),
        Grant::index(Access::Writer, id),
        Grant::any(Access::Reader),
    ] {
        let mut config = world.client_config(searcher.address);
        config.identity = client_identity(&world, grant);
        let client = Client::connect(config).await.unwrap();
        let found = client
            .search(&world.base[..8], &SearchOptions::default())
            .await
            .unwrap();
        assert_eq!(found.neighbours[0].id, common::id_of_row(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_a_client_of_another_tenant() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (metrics, searcher) = world.searcher(Some(keeper.address)).await;
    drop(world.client(searcher.address).await);
    let id = world.index().descriptor().index_id;
    let identity = client_identity(&world, Grant::index(Access::Writer, [9; 16]));
    let mut config = world.client_config(searcher.address);
    config.identity = identity.clone();
    let error = Client::connect(config).await.err().unwrap();
    assert_eq!(error.reason(), Some(Reason::Forbidden), "{error}");
    assert!(error.is_untrusted());

    // Not by any other request either, and before the message is looked at.
    let mut raw = raw(searcher.address, &identity, &world.authority.trust()).await;
    let request = v1::SearchRequest {
        index_id: id.to_vec().into(),
        epoch: 1,
        // More than is ever read.
        query: vec![0; 1 << 20].into(),
        ..Default::default()
    };
    let masks = v1::CodebookMasksRequest {
        index_id: id.to_vec().into(),
        epoch: 1,
    };
    let refused: [Status; 11] = [
        raw.search(request.clone()).await.unwrap_err(),
        raw.begin_search(request).await.unwrap_err(),
        raw.finish_search(v1::FinishSearchRequest::default())
            .await
            .unwrap_err(),
        raw.codebook_masks(masks).await.unwrap_err(),
        raw.describe(v1::DescribeRequest {}).await.unwrap_err(),
        raw.status(v1::StatusRequest {}).await.unwrap_err(),
        raw.model(v1::ModelRequest::default()).await.unwrap_err(),
        raw.query_model(v1::QueryModelRequest::default())
            .await
            .unwrap_err(),
        raw.stage(v1::StageRequest {
            records: vec![0; 1 << 20].into(),
            ..Default::default()
        })
        .await
        .unwrap_err(),
        raw.commit(v1::CommitRequest::default()).await.unwrap_err(),
        raw.compact(v1::CompactRequest::default())
            .await
            .unwrap_err(),
    ];
    for status in refused {
        assert_eq!(reason_of(&status), Some(Reason::Forbidden), "{status:?}");
    }
    assert_eq!(metrics.view().searches, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_clients_that_rotate_keys() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    drop(world.client(searcher.address).await);
    let id = world.index().descriptor().index_id;
    for grant in [
        Grant::any(Access::Reader),
        Grant::any(Access::Writer),
        Grant::index(Access::Writer, id),
    ] {
        let identity = client_identity(&world, grant);
        let mut raw = raw(searcher.address, &identity, &world.authority.trust()).await;
        let begin = v1::BeginRotationRequest {
            index_id: id.to_vec().into(),
            epoch: 1,
            public_key: world.public.to_bytes().into(),
        };
        let status = raw.begin_rotation(begin).await.unwrap_err();
        assert_eq!(reason_of(&status), Some(Reason::Forbidden));
        let commit = v1::CommitRotationRequest::default();
        let status = raw.commit_rotation(commit).await.unwrap_err();
        assert_eq!(reason_of(&status), Some(Reason::Forbidden));
        assert!(status.message().contains("owner"), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_beyond_the_rate_of_a_client() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let mut config = world.searcher_config(Some(keeper.address));
    config.rate = RateLimit {
        per_second: 0.01,
        burst: 6.0,
    };
    let (metrics, searcher) = world.searcher_with(config, "127.0.0.1:0").await;
    // The owner waits until it is open; every key has a rate of its own.
    drop(
        world
            .client_with(|| {
                let mut config = world.client_config(searcher.address);
                config.identity = world.owner_identity();
                config
            })
            .await,
    );
    let client = world.client(searcher.address).await;
    let query = &world.base[..8];
    // One of six was the description.
    for _ in 0..5 {
        client
            .search(query, &SearchOptions::default())
            .await
            .unwrap();
    }
    let error = client
        .search(query, &SearchOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::RateLimited), "{error}");
    let refused = metrics
        .rate_limited
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(refused, 1);

    let mut config = world.client_config(searcher.address);
    config.identity = client_identity(&world, Grant::any(Access::Reader));
    let other = Client::connect(config).await.unwrap();
    other
        .search(query, &SearchOptions::default())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_a_searcher_under_another_policy_opens_nothing() {
    let world = world();
    let mut config = world.keeper_config();
    config.verifier = refuser();
    let (server, keeper) = world.keeper_with(config, "127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let error = world.refusal(searcher.address).await;
    assert_eq!(error.reason(), Some(Reason::KeeperUnreachable), "{error}");
    assert!(error.to_string().contains("evidence"), "{error}");
    let id = world.index().descriptor().index_id;
    assert_eq!(
        server.newest(&id),
        None,
        "nothing released, nothing registered"
    );
}
