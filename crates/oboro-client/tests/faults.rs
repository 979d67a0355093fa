//! What goes wrong, and what the parties say then.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant, SystemTime};

use common::{Shape, World, attester, fresh_seed, raw, verifier};
use oboro_channel::{Authority, Role};
use oboro_ckks::{ParameterSet, SecretKey};
use oboro_client::{Client, ClientError, Keyholder, Rerank, SearchOptions};
use oboro_index::OwnerKey;
use oboro_protocol::{Reason, limits, reason_of, v1, validate};
use oboro_quant::Metric;
use tonic::{Code, Status};

fn small() -> World {
    World::new(&Shape::new(300, 8, Metric::L2))
}

/// An index without a keeper.
fn keyholders() -> World {
    World::new(&Shape::new(300, 8, Metric::L2).for_keyholders())
}

fn request(world: &World, client: &Client) -> v1::SearchRequest {
    padded(world, unpadded(client))
}

/// With the one size that whole searches have.
fn padded(world: &World, mut request: v1::SearchRequest) -> v1::SearchRequest {
    world.sizes().pad_search(&mut request);
    request
}

fn unpadded(client: &Client) -> v1::SearchRequest {
    let index = client.index();
    v1::SearchRequest {
        index_id: index.index_id.to_vec().into(),
        epoch: index.epoch,
        // Every residue 0: it encrypts nothing anybody would ask for, but its
        // form is right.
        query: vec![0; index.query_bytes].into(),
        candidates: 10,
        with_records: true,
        with_ids: false,
        with_scores: false,
        filter: validate::pack_filter([0; 3]).to_vec().into(),
        lists: bytes::Bytes::new(),
        padding: Vec::new(),
    }
}

fn reason(result: Result<tonic::Response<v1::SearchReply>, Status>) -> Option<Reason> {
    reason_of(&result.unwrap_err())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keeper_killed_and_restarted() {
    let world = small();
    let (server, keeper) = world.keeper("127.0.0.1:0").await;
    let (metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let query = &world.base[..8];
    let options = SearchOptions::default();
    client.search(query, &options).await.unwrap();

    let address = keeper.address;
    drop(server);
    keeper.stop().await;
    for _ in 0..5 {
        let start = Instant::now();
        let error = client.search(query, &options).await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::KeeperUnreachable), "{error}");
        let text = error.to_string();
        assert!(text.contains("keeper unreachable"), "{text}");
        assert!(text.matches(&address.to_string()).count() <= 1, "{text}");
        assert!(error.is_unreachable());
        // Bounded by the connection's timeout, far below the search's.
        assert!(start.elapsed() < Duration::from_secs(4));
    }

    // A new keeper knows no codebook: the searcher registers it again.
    let (server, keeper) = world.keeper(&address.to_string()).await;
    let mut found = client.search(query, &options).await;
    for _ in 0..50 {
        if found.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        found = client.search(query, &options).await;
    }
    assert_eq!(found.unwrap().neighbours[0].id, world.exact(query, 1)[0]);
    assert_eq!(server.metrics().tables, 1);
    assert_eq!(
        metrics
            .registrations
            .load(std::sync::atomic::Ordering::Relaxed),
        2
    );
    keeper.stop().await;
    searcher.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searcher_starts_before_its_keeper() {
    let world = small();
    // A port that was free a moment ago.
    let (server, keeper) = world.keeper("127.0.0.1:0").await;
    let address = keeper.address;
    drop(server);
    keeper.stop().await;
    let (_metrics, searcher) = world.searcher(Some(address)).await;
    let error = world.refusal(searcher.address).await;
    assert_eq!(error.reason(), Some(Reason::KeeperUnreachable), "{error}");
    let text = error.to_string();
    assert_eq!(text.matches(&address.to_string()).count(), 1, "{text}");
    let trust = world.authority.trust();
    let mut raw = raw(searcher.address, &world.client_identity, &trust).await;
    let status = raw.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert!(!status.ready && !status.keeper_reachable && status.vectors == 0);

    // Nobody has to tell it that the keeper is there.
    let (_server, _keeper) = world.keeper(&address.to_string()).await;
    let client = world.client(searcher.address).await;
    let query = &world.base[..8];
    client
        .search(query, &SearchOptions::default())
        .await
        .unwrap();
    let status = raw.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.ready && status.keeper_reachable && status.vectors == 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn searcher_restarted_with_another_index() {
    let shape = Shape::new(300, 8, Metric::L2);
    let world = World::new(&shape);
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let query = &world.base[..8];
    client
        .search(query, &SearchOptions::default())
        .await
        .unwrap();

    let address = searcher.address.to_string();
    searcher.stop().await;
    let error = client
        .search(query, &SearchOptions::default())
        .await
        .unwrap_err();
    assert!(error.is_unreachable(), "{error}");

    world.build(
        &Shape {
            subquantizers: Some(4),
            ..shape
        },
        true,
    );
    let config = world.searcher_config(Some(keeper.address));
    let (_metrics, searcher) = world.searcher_with(config, &address).await;
    drop(world.client(searcher.address).await);
    let result = client
        .search(query, &SearchOptions::default())
        .await
        .unwrap();
    assert_eq!(result.neighbours[0].id, world.exact(query, 1)[0]);
    assert_eq!(client.index().subquantizers, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_requests_that_no_client_makes() {
    let world = small();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let mut raw = raw(
        searcher.address,
        &world.client_identity,
        &world.authority.trust(),
    )
    .await;
    let good = request(&world, &client);

    let wrong = v1::SearchRequest {
        epoch: good.epoch + 1,
        ..good.clone()
    };
    assert_eq!(reason(raw.search(wrong).await), Some(Reason::WrongEpoch));
    let wrong = v1::SearchRequest {
        index_id: vec![9; 16].into(),
        ..good.clone()
    };
    assert_eq!(reason(raw.search(wrong).await), Some(Reason::WrongEpoch));
    let wrong = v1::SearchRequest {
        index_id: vec![9; 15].into(),
        ..good.clone()
    };
    assert_eq!(reason(raw.search(wrong).await), Some(Reason::BadRequest));

    for (candidates, expected) in [
        (0, Reason::BadRequest),
        (301, Reason::Limit),
        (u32::MAX, Reason::Limit),
    ] {
        let wrong = v1::SearchRequest {
            candidates,
            ..good.clone()
        };
        let wrong = padded(&world, wrong);
        assert_eq!(reason(raw.search(wrong).await), Some(expected));
    }

    // A filter of another length, and one where there are no tags.
    for filter in [vec![], vec![0; 23], vec![0; 25], vec![1; 24]] {
        let wrong = v1::SearchRequest {
            filter: filter.into(),
            ..good.clone()
        };
        let wrong = padded(&world, wrong);
        assert_eq!(reason(raw.search(wrong).await), Some(Reason::BadRequest));
    }

    // Another size than all have tells something: it is refused, with both sizes.
    let wrong = v1::SearchRequest {
        padding: Vec::new(),
        ..good.clone()
    };
    let status = raw.search(wrong).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::BadRequest));
    let due = world.sizes().search().to_string();
    assert!(status.message().contains(&due), "{status:?}");

    let length = good.query.len();
    for query in [
        Vec::new(),
        vec![0; length - 1],
        vec![0; length + 1],
        // Residues of 50 ones, above the prime.
        vec![0xff; length],
    ] {
        let wrong = v1::SearchRequest {
            query: query.into(),
            ..good.clone()
        };
        let wrong = padded(&world, wrong);
        assert_eq!(reason(raw.search(wrong).await), Some(Reason::BadRequest));
    }

    // Larger than any honest request to this index: refused before it is read.
    for length in [2 * length, limits::SEARCHER_REQUEST_LIMIT + 1] {
        let wrong = v1::SearchRequest {
            query: vec![0; length].into(),
            ..good.clone()
        };
        let status = raw.search(wrong).await.unwrap_err();
        assert!(
            matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted),
            "{status:?}"
        );
    }

    let masks = v1::CodebookMasksRequest {
        index_id: good.index_id.clone(),
        epoch: 77,
    };
    let status = raw.codebook_masks(masks).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::WrongEpoch));

    // The searcher is unharmed.
    client
        .search(&world.base[..8], &SearchOptions::default())
        .await
        .unwrap();
    assert_eq!(metrics.view().searches, 1);
    let status = raw.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.ready && status.keeper_reachable);
    assert_eq!((status.vectors, status.queries), (300, 1));
    assert!(status.failures >= 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_flipped_ciphertext_never_breaks_the_searcher() {
    let world = small();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let mut raw = raw(
        searcher.address,
        &world.client_identity,
        &world.authority.trust(),
    )
    .await;
    let good = request(&world, &client);
    for seed in 0..8_u8 {
        use rand_core::Rng as _;
        let mut query = vec![0; good.query.len()];
        common::rng(seed).fill_bytes(&mut query);
        let wrong = v1::SearchRequest {
            query: query.into(),
            ..good.clone()
        };
        // Random bytes hold a residue above the prime, or decode to a table
        // far out of range: an error either way, or else just a bad result.
        let _ = raw.search(wrong).await;
    }
    client
        .search(&world.base[..8], &SearchOptions::default())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_sessions_of_others_and_unknown_ones() {
    let world = keyholders();
    let (_metrics, searcher) = world.searcher(None).await;
    let mut config = world.client_config(searcher.address);
    config.keyholder = Keyholder::client(world.secret_key());
    let client = Client::connect(config).await.unwrap();
    let trust = world.authority.trust();
    let other = world
        .authority
        .issue(Role::Client, SystemTime::now(), Duration::from_secs(60))
        .unwrap();
    let mut first = raw(searcher.address, &world.client_identity, &trust).await;
    let mut second = raw(searcher.address, &other, &trust).await;

    let mut half = unpadded(&client);
    world.sizes().pad_begin(&mut half);
    let begun = first.begin_search(half).await.unwrap().into_inner();
    let finish = |session: bytes::Bytes| v1::FinishSearchRequest {
        session,
        share: vec![0; 10].into(),
    };
    assert_eq!(
        reason(second.finish_search(finish(begun.session.clone())).await),
        Some(Reason::UnknownSession),
        "another peer's"
    );
    assert_eq!(
        reason(first.finish_search(finish(begun.session.clone())).await),
        Some(Reason::BadRequest),
        "a share of ten bytes"
    );
    assert_eq!(
        reason(first.finish_search(finish(begun.session)).await),
        Some(Reason::UnknownSession),
        "used up"
    );
    assert_eq!(
        reason(first.finish_search(finish(vec![1; 16].into())).await),
        Some(Reason::UnknownSession)
    );
    // Without a keeper a whole search is refused with a hint.
    let status = first.search(unpadded(&client)).await.unwrap_err();
    assert!(status.message().contains("no keeper"), "{status:?}");
    client
        .search(&world.base[..8], &SearchOptions::default())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_foreign_certificates_and_roles() {
    let world = keyholders();
    let (_metrics, searcher) = world.searcher(None).await;
    let now = SystemTime::now();
    let hour = Duration::from_secs(3_600);

    let foreign = Authority::generate(now).unwrap();
    let mut config = world.client_config(searcher.address);
    config.identity = foreign.issue(Role::Client, now, hour).unwrap();
    let error = Client::connect(config).await.err().unwrap();
    assert!(error.is_unreachable(), "{error}");

    let mut config = world.client_config(searcher.address);
    config.trust = foreign.trust();
    let error = Client::connect(config).await.err().unwrap();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");

    for role in [Role::Keeper, Role::Searcher] {
        let mut config = world.client_config(searcher.address);
        config.identity = world.authority.issue(role, now, hour).unwrap();
        assert!(
            Client::connect(config).await.is_err(),
            "{role} may not search"
        );
    }
    let mut config = world.client_config(searcher.address);
    config.identity = world.authority.issue(Role::Owner, now, hour).unwrap();
    Client::connect(config).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_policy_and_foreign_keys() {
    let world = keyholders();
    let (_metrics, searcher) = world.searcher(None).await;

    let mut config = world.client_config(searcher.address);
    config.verifier = common::refuser();
    let error = Client::connect(config).await.err().unwrap();
    assert!(matches!(error, ClientError::Untrusted { .. }), "{error}");
    assert!(error.is_untrusted());

    let mut config = world.client_config(searcher.address);
    config.client_key = OwnerKey::generate(&mut common::rng(77)).client_key();
    let error = Client::connect(config).await.err().unwrap();
    assert!(matches!(error, ClientError::Descriptor(_)), "{error}");

    for set in ParameterSet::ALL {
        let mut config = world.client_config(searcher.address);
        let other = SecretKey::generate(set, &mut common::rng(5));
        config.keyholder = Keyholder::client(other);
        let error = Client::connect(config).await.err().unwrap();
        assert_eq!(error, ClientError::ForeignKey);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_keeper_that_the_policy_refuses() {
    let world = small();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let mut config = world.searcher_config(Some(keeper.address));
    config.keeper.as_mut().unwrap().verifier = common::refuser();
    let (_metrics, searcher) = world.searcher_with(config, "127.0.0.1:0").await;
    // A searcher that does not trust its keeper asks it for nothing.
    let error = world.refusal(searcher.address).await;
    assert_eq!(error.reason(), Some(Reason::KeeperUnreachable), "{error}");
    assert!(error.to_string().contains("not trusted"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_keeper_of_another_key() {
    let mut world = small();
    let (_server, keeper) = {
        let other = SecretKey::generate(ParameterSet::N2048Q50, &mut common::rng(5));
        let public = other.public_key(&mut common::rng(6));
        let secret = std::mem::replace(&mut world.secret, other.to_bytes());
        let own = std::mem::replace(&mut world.public, public);
        let keeper = world.keeper("127.0.0.1:0").await;
        (world.secret, world.public) = (secret, own);
        keeper
    };
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let error = client
        .search(&world.base[..8], &SearchOptions::default())
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::KeeperUnreachable), "{error}");
    assert!(error.to_string().contains("not trusted"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_queries_with_one_sentence_each() {
    let world = small();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let query = &world.base[..8];
    let with = |k: usize, rerank: Rerank| SearchOptions {
        k,
        rerank,
        ..SearchOptions::default()
    };
    for (vector, options, sentence) in [
        (
            &world.base[..7],
            SearchOptions::default(),
            "dimension 7 does not match the index's 8; search with vectors of 8 values",
        ),
        (
            &[0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            SearchOptions::default(),
            "value 1 of the query is not finite; search with finite values",
        ),
        (
            query,
            with(0, Rerank::default()),
            "0 neighbours are asked for; ask for at least 1",
        ),
        (
            query,
            with(301, Rerank::Candidates(400)),
            "400 candidates are asked for and the index gives at most 256; ask for fewer",
        ),
        (
            query,
            with(50, Rerank::Candidates(20)),
            "50 neighbours cannot come from 20 candidates; ask for more candidates or fewer neighbours",
        ),
    ] {
        let error = client.search(vector, &options).await.unwrap_err();
        assert_eq!(error.to_string(), sentence);
        assert!(error.is_bad_input());
    }
    assert_eq!(
        metrics.view().ciphertext_bytes,
        0,
        "all were refused before sending"
    );
    let options = SearchOptions {
        deadline: Duration::ZERO,
        ..SearchOptions::default()
    };
    let error = client.search(query, &options).await.unwrap_err();
    assert_eq!(error, ClientError::Deadline { allowed_ms: 0 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_ends_within_the_grace_time() {
    let world = keyholders();
    let mut config = world.searcher_config(None);
    config.metrics_address = Some("127.0.0.1:0".parse().unwrap());
    config.attester = attester();
    config.seed = fresh_seed();
    let (_metrics, searcher) = world.searcher_with(config, "127.0.0.1:0").await;
    let mut client = world.client_config(searcher.address);
    client.verifier = verifier();
    let client = Client::connect(client).await.unwrap();
    let start = Instant::now();
    searcher.stop().await;
    assert!(start.elapsed() < Duration::from_secs(3));
    drop(client);
}

#[tokio::test]
async fn fail_nobody_listens() {
    let world = keyholders();
    let (_metrics, searcher) = world.searcher(None).await;
    let address = searcher.address;
    searcher.stop().await;
    let error = Client::connect(world.client_config(address))
        .await
        .err()
        .unwrap();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(error.is_unreachable());
}
