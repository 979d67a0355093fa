//! An index that changes while it is searched.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use chacha20::ChaCha20Rng;
use common::{Shape, World, id_of_row, new_segment, records};
use oboro_client::{
    Client, ClientError, Filter, Rerank, SearchOptions,
    rotation::rotate,
    writer::{Change, StageToken, Writer},
};
use oboro_index::{LiveIndex, OnExisting};
use oboro_owner::Encoder;
use oboro_protocol::{Reason, limits, reason_of, v1};
use oboro_quant::Metric;
use rand_core::SeedableRng;

const DIMENSION: usize = 8;

/// Ids that nothing else has.
const FIRST_NEW: u64 = 1 << 40;

fn world() -> World {
    World::new(&Shape::new(600, DIMENSION, Metric::L2).labelled())
}

/// Vectors around a point far from all others.
fn around(point: f32, count: usize) -> Vec<f32> {
    (0..count * DIMENSION)
        .map(|i| point + (i * 7 % 11) as f32 / 100.0)
        .collect()
}

/// Stages vectors around a point under ids from `first`.
async fn stage(
    writer: &Writer,
    encoder: &Encoder,
    first: u64,
    vectors: Vec<f32>,
    payload: &[u8],
) -> StageToken {
    let ids = (first..first + (vectors.len() / DIMENSION) as u64).collect();
    let segment = encoder
        .segment(
            records(DIMENSION, ids, vectors, payload),
            &[],
            &mut HashSet::new(),
            &mut ChaCha20Rng::from_seed(*common::fresh_seed()),
        )
        .unwrap();
    writer.stage(&new_segment(&segment)).await.unwrap()
}

fn inserting(stages: Vec<StageToken>) -> Change {
    Change {
        stages,
        ..Change::default()
    }
}

fn deleting(deletes: Vec<u64>) -> Change {
    Change {
        deletes,
        ..Change::default()
    }
}

async fn ids(client: &Client, query: &[f32], k: usize) -> Vec<u64> {
    let options = SearchOptions {
        k,
        ..SearchOptions::default()
    };
    let found = client.search(query, &options).await.unwrap();
    found.neighbours.iter().map(|n| n.id).collect()
}

/// Ten ids are replaced again and again, all in one commit, each time with another
/// payload; others come and go. Whoever searches meanwhile sees all ten of one commit,
/// and never of one before the last that was answered when the search began.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn searches_while_commits_go_on_see_one_state_each() {
    const COMMITS: u64 = 40;
    let world = Arc::new(world());
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let encoder = world.encoder(&writer).await;
    let first = stage(&writer, &encoder, FIRST_NEW, around(50.0, 10), b"0").await;
    let report = writer.commit(inserting(vec![first])).await.unwrap();
    assert_eq!((report.inserted, report.vectors), (10, 610));
    assert!(!report.unrecorded);

    let (stop, committed, searches) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let client = world.client(searcher.address).await;
        let (stop, committed, searches) = (
            Arc::clone(&stop),
            Arc::clone(&committed),
            Arc::clone(&searches),
        );
        tasks.push(tokio::spawn(async move {
            let query = around(50.0, 1);
            let options = SearchOptions {
                k: 12,
                ..SearchOptions::default()
            };
            while !stop.load(SeqCst) {
                let before = committed.load(SeqCst);
                let found = client.search(&query, &options).await.unwrap();
                searches.fetch_add(1, SeqCst);
                let near: Vec<_> = found
                    .neighbours
                    .iter()
                    .filter(|n| (FIRST_NEW..FIRST_NEW + 10).contains(&n.id))
                    .collect();
                assert_eq!(near.len(), 10, "all ten, and each once");
                let payload = &near[0].extra.as_ref().unwrap().payload;
                assert!(
                    near.iter()
                        .all(|n| n.extra.as_ref().unwrap().payload == *payload),
                    "of one commit"
                );
                let number: u64 = std::str::from_utf8(payload).unwrap().parse().unwrap();
                assert!(number >= before, "{number} {before}");
                // Of those that come and go, at most what the last commits brought.
                for n in &found.neighbours {
                    let other = n.id.checked_sub(2 * FIRST_NEW);
                    assert!(
                        other.is_none_or(|commit| commit >= before),
                        "deleted before"
                    );
                }
            }
        }));
    }
    for number in 1..=COMMITS {
        let payload = number.to_string().into_bytes();
        let tens = stage(&writer, &encoder, FIRST_NEW, around(50.0, 10), &payload).await;
        let one = stage(
            &writer,
            &encoder,
            2 * FIRST_NEW + number,
            around(50.2, 1),
            b"",
        )
        .await;
        let change = Change {
            stages: vec![tens, one],
            deletes: vec![2 * FIRST_NEW + number - 1],
            on_existing: OnExisting::Replace,
            ..Change::default()
        };
        let report = writer.commit(change).await.unwrap();
        assert_eq!((report.replaced, report.inserted), (10, 1));
        let first = u64::from(number == 1);
        assert_eq!((report.deleted, report.unknown), (1 - first, first));
        assert_eq!(report.vectors, 611);
        committed.store(number, SeqCst);
        if number == COMMITS / 2 {
            let report = writer.compact().await.unwrap();
            assert_eq!(report.segments_after, 1, "{report:?}");
        }
    }
    stop.store(true, SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    assert!(searches.load(SeqCst) > 50, "{searches:?}");
    assert_eq!(metrics.commits.load(SeqCst), COMMITS + 1);
    assert!(metrics.compactions.load(SeqCst) > 0);
    let status = writer.status().await.unwrap();
    assert_eq!(status.vectors, 611);
    assert!(status.generation > COMMITS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_is_gone_at_once_and_after_compaction_and_restart() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let client = world.client(searcher.address).await;
    let gone: Vec<u64> = (0..200).map(id_of_row).collect();
    let query = &world.base[..DIMENSION];
    assert_eq!(ids(&client, query, 1).await, [id_of_row(0)]);
    let report = writer.commit(deleting(gone.clone())).await.unwrap();
    assert_eq!((report.deleted, report.vectors), (200, 400));
    let rest: Vec<u64> = world
        .exact(query, 600)
        .into_iter()
        .filter(|id| !gone.contains(id))
        .collect();
    let near = ids(&client, query, 10).await;
    assert!(near.iter().all(|id| !gone.contains(id)));
    assert!(common::overlap(&near, &rest[..10]) >= 0.9);

    let report = writer.compact().await.unwrap();
    assert_eq!(report.segments_after, 1);
    let status = writer.status().await.unwrap();
    assert_eq!(
        (status.vectors, status.deleted, status.segments),
        (400, 0, 1)
    );
    assert_eq!(ids(&client, query, 10).await, near);
    // Once more there is nothing to do.
    let report = writer.compact().await.unwrap();
    assert_eq!((report.segments_before, report.dropped), (1, 0));

    // Everything deleted: the index answers with nothing.
    let all = deleting((200..600).map(id_of_row).collect());
    assert_eq!(writer.commit(all).await.unwrap().vectors, 0);
    assert!(ids(&client, query, 10).await.is_empty());
    writer.compact().await.unwrap();
    assert!(ids(&client, query, 10).await.is_empty());
    drop((client, writer));
    searcher.stop().await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let client = world.client(searcher.address).await;
    assert!(ids(&client, query, 10).await.is_empty());
    let encoder = world.encoder(&writer).await;
    let token = stage(&writer, &encoder, 7, around(1.0, 3), b"back").await;
    writer.commit(inserting(vec![token])).await.unwrap();
    let options = SearchOptions::default();
    let found = client.search(query, &options).await.unwrap().neighbours;
    assert_eq!(found.len(), 3);
    assert!(
        found
            .iter()
            .all(|n| n.extra.as_ref().unwrap().payload == b"back")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_find_what_has_the_tags_and_nothing_else() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    assert_eq!(client.index().tags, 3);
    let query = &world.base[80..88];
    let exact = world.exact(query, 600);
    let row_of = |id: u64| (id - id_of_row(0)) / 3;
    type Tags = &'static [&'static str];
    type Rule = fn(u64) -> bool;
    let cases: [(Tags, Tags, Tags, Rule); 4] = [
        (&["even"], &[], &[], |row| row % 2 == 0),
        (&["odd", "third"], &[], &[], |row| {
            row % 2 == 1 || row % 3 == 0
        }),
        (&[], &["odd", "third"], &[], |row| {
            row % 2 == 1 && row % 3 == 0
        }),
        (&["even"], &[], &["third"], |row| {
            row % 2 == 0 && row % 3 != 0
        }),
    ];
    for (any, all, none, passes) in cases {
        let options = SearchOptions {
            filter: client.filter(any, all, none).unwrap(),
            ..SearchOptions::default()
        };
        let found = client.search(query, &options).await.unwrap().neighbours;
        let truth: Vec<u64> = exact
            .iter()
            .copied()
            .filter(|&id| passes(row_of(id)))
            .take(10)
            .collect();
        let ids: Vec<u64> = found.iter().map(|n| n.id).collect();
        assert!(
            common::overlap(&ids, &truth) >= 0.9,
            "{any:?} {all:?} {none:?}"
        );
        for n in &found {
            assert!(passes(row_of(n.id)));
            let payload = &n.extra.as_ref().unwrap().payload;
            assert_eq!(*payload, common::payload_of_row(row_of(n.id)));
        }
    }
    // Nothing passes, with records and without.
    for rerank in [Rerank::default(), Rerank::Off] {
        let options = SearchOptions {
            rerank,
            filter: client.filter(&[], &["even", "odd"], &[]).unwrap(),
            ..SearchOptions::default()
        };
        let found = client.search(query, &options).await.unwrap();
        assert!(found.neighbours.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_filters_that_the_index_does_not_know() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    let error = client.filter(&["even", "Even"], &[], &[]).unwrap_err();
    assert_eq!(error, ClientError::UnknownTag("Even".to_owned()));
    assert!(error.is_bad_input());

    let world = World::new(&Shape::new(300, DIMENSION, Metric::L2));
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    assert_eq!(client.filter(&["even"], &[], &[]), Err(ClientError::NoTags));
    let options = SearchOptions {
        filter: Filter {
            any: 1,
            ..Filter::default()
        },
        ..SearchOptions::default()
    };
    let error = client.search(&world.base[..DIMENSION], &options).await;
    assert_eq!(error.unwrap_err(), ClientError::NoTags);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_strict_changes_change_nothing() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let encoder = world.encoder(&writer).await;
    let before = writer.status().await.unwrap();
    let stages = vec![stage(&writer, &encoder, id_of_row(0), around(50.0, 4), b"").await];
    let change = Change {
        stages: stages.clone(),
        deletes: vec![3],
        strict: true,
        ..Change::default()
    };
    let error = writer.commit(change).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Conflict), "{error}");
    assert!(error.is_bad_input());
    assert_eq!(writer.status().await.unwrap(), before);
    // Its stages are used up.
    let error = writer.commit(inserting(stages)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::UnknownSession), "{error}");
    // Not strict, what cannot be done is counted. Ids are every third number.
    let token = stage(&writer, &encoder, id_of_row(0), around(50.0, 4), b"").await;
    let change = Change {
        stages: vec![token],
        deletes: vec![3],
        ..Change::default()
    };
    let report = writer.commit(change).await.unwrap();
    assert_eq!((report.inserted, report.refused, report.unknown), (2, 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_an_older_copy_than_the_last_commit() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let copy = world.folder.path().join("copy");
    common::copy_folder(&world.index_path(), &copy);
    writer.commit(deleting(vec![id_of_row(1)])).await.unwrap();
    drop(writer);
    searcher.stop().await;
    std::fs::rename(world.index_path(), world.folder.path().join("newest")).unwrap();
    std::fs::rename(&copy, world.index_path()).unwrap();
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let error = searcher.ended().await;
    assert!(
        matches!(error, oboro_searcher::SearcherError::Stale(_)),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_changes_of_a_copy_after_another_copy_changed() {
    let world = world();
    let (server, keeper) = world.keeper("127.0.0.1:0").await;
    let address = keeper.address;
    let (_metrics, searcher) = world.searcher(Some(address)).await;
    let copy = world.folder.path().join("copy");
    // Before anything is written, so that both are of one state.
    let writer = world.writer(searcher.address).await;
    common::copy_folder(&world.index_path(), &copy);
    let (_metrics, other) = world
        .searcher_of(copy, world.searcher_config(Some(address)), "127.0.0.1:0")
        .await;
    let left_behind = world.writer(other.address).await;
    let report = writer.commit(deleting(vec![id_of_row(1)])).await.unwrap();
    assert!(!report.unrecorded);
    let stale = |error: ClientError| assert_eq!(error.reason(), Some(Reason::Stale), "{error}");
    stale(
        left_behind
            .commit(deleting(vec![id_of_row(2)]))
            .await
            .unwrap_err(),
    );
    // One more would pass for a newer state than the one that was recorded.
    stale(
        left_behind
            .commit(deleting(vec![id_of_row(3)]))
            .await
            .unwrap_err(),
    );
    stale(left_behind.compact().await.unwrap_err());
    keeper.stop().await;
    drop(server);
    stale(
        left_behind
            .commit(deleting(vec![id_of_row(4)]))
            .await
            .unwrap_err(),
    );
    let (server, _keeper) = world.keeper(&address.to_string()).await;
    let report = writer.commit(deleting(vec![id_of_row(5)])).await.unwrap();
    let newest = server.newest(&writer.descriptor().index_id).unwrap();
    assert_eq!(
        (report.vectors, newest.generation),
        (598, report.generation)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_that_was_away_is_told_of_commits_later() {
    let world = world();
    let (server, keeper) = world.keeper("127.0.0.1:0").await;
    let address = keeper.address;
    let (_metrics, searcher) = world.searcher(Some(address)).await;
    let writer = world.writer(searcher.address).await;
    keeper.stop().await;
    drop(server);
    let report = writer.commit(deleting(vec![id_of_row(1)])).await.unwrap();
    assert!(report.unrecorded, "{report:?}");
    let (server, _keeper) = world.keeper(&address.to_string()).await;
    // Nobody searches meanwhile, nor changes anything.
    let id = writer.descriptor().index_id;
    for _ in 0..200 {
        let newest = server.newest(&id).unwrap().generation;
        if newest == report.generation {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("generation {} was not recorded", report.generation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_the_keeper_never_heard_of_opens_after_a_restart() {
    let world = world();
    let (server, keeper) = world.keeper("127.0.0.1:0").await;
    let address = keeper.address;
    let (_metrics, searcher) = world.searcher(Some(address)).await;
    let writer = world.writer(searcher.address).await;
    keeper.stop().await;
    drop(server);
    let report = writer.commit(deleting(vec![id_of_row(1)])).await.unwrap();
    assert!(report.unrecorded);
    drop(writer);
    searcher.kill().await;
    let (server, keeper) = world.keeper(&address.to_string()).await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    assert_eq!(client.index().vectors, 599);
    let newest = server.newest(&client.index().index_id).unwrap();
    assert_eq!(newest.generation, report.generation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_changes_that_no_writer_makes() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let encoder = world.encoder(&writer).await;
    let before = writer.status().await.unwrap();
    let segment = encoder
        .segment(
            records(DIMENSION, vec![5, 6], around(9.0, 2), b""),
            &[],
            &mut HashSet::new(),
            &mut common::rng(9),
        )
        .unwrap();
    let index_id: bytes::Bytes = writer.descriptor().index_id.to_vec().into();
    let good = v1::StageRequest {
        index_id: index_id.clone(),
        segment_id: segment.segment_id.to_vec().into(),
        ids: segment.ids.clone(),
        codes: segment.codes.clone().into(),
        tags: segment.tags.clone(),
        records: segment.records.clone().into(),
        lists: bytes::Bytes::new(),
    };
    let mut raw = common::raw(
        searcher.address,
        &world.owner_identity(),
        &world.authority.trust(),
    )
    .await;
    for change in [
        |r: &mut v1::StageRequest| r.index_id = vec![1; 16].into(),
        |r: &mut v1::StageRequest| r.segment_id = bytes::Bytes::new(),
        |r: &mut v1::StageRequest| r.ids.clear(),
        |r: &mut v1::StageRequest| r.ids.push(7),
        |r: &mut v1::StageRequest| r.codes = r.codes.slice(1..),
        |r: &mut v1::StageRequest| r.tags.clear(),
        |r: &mut v1::StageRequest| r.tags[1] = u64::MAX,
        |r: &mut v1::StageRequest| r.records = r.records.slice(1..),
        |r: &mut v1::StageRequest| r.lists = vec![0; 4].into(),
    ] {
        let mut bad = good.clone();
        change(&mut bad);
        let status = raw.stage(bad).await.unwrap_err();
        let reason = reason_of(&status);
        assert!(
            matches!(reason, Some(Reason::BadRequest | Reason::WrongEpoch)),
            "{status}"
        );
    }
    // Larger than any segment: refused before it is read.
    let large = v1::StageRequest {
        records: vec![0; limits::MAX_STAGE_MESSAGE_BYTES + 1].into(),
        ..good.clone()
    };
    assert!(raw.stage(large).await.is_err());
    let commit = |stages: Vec<bytes::Bytes>, deletes: Vec<u64>| v1::CommitRequest {
        index_id: index_id.clone(),
        stages,
        deletes,
        ..Default::default()
    };
    for (request, reason) in [
        (commit(Vec::new(), Vec::new()), Reason::BadRequest),
        (
            commit(vec![vec![1; 15].into()], vec![1]),
            Reason::BadRequest,
        ),
        (
            commit(vec![vec![1; 16].into()], vec![1]),
            Reason::UnknownSession,
        ),
        (
            commit(Vec::new(), vec![1; limits::MAX_COMMIT_DELETES + 1]),
            Reason::Limit,
        ),
    ] {
        let status = raw.commit(request).await.unwrap_err();
        // The largest is refused by its bytes already.
        let found = reason_of(&status).unwrap_or(Reason::Limit);
        assert_eq!(found, reason, "{status}");
    }
    // A segment id is used once.
    let token = raw.stage(good.clone()).await.unwrap().into_inner().stage;
    assert!(raw.stage(good).await.is_err());
    let reply = raw.commit(commit(vec![token], Vec::new())).await.unwrap();
    assert_eq!(reply.into_inner().inserted, 2);
    let after = writer.status().await.unwrap();
    assert_eq!(after.generation, before.generation + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_changes_by_those_who_may_only_search() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let owner = world.writer(searcher.address).await;
    let encoder = world.encoder(&owner).await;
    let config = world.writer_config(searcher.address, world.client_identity.clone());
    let reader = Writer::connect(&config).await.unwrap();
    let segment = encoder
        .segment(
            records(DIMENSION, vec![5], around(9.0, 1), b""),
            &[],
            &mut HashSet::new(),
            &mut common::rng(9),
        )
        .unwrap();
    let refused = [
        reader.model().await.map(drop),
        reader.stage(&new_segment(&segment)).await.map(drop),
        reader.commit(deleting(vec![id_of_row(0)])).await.map(drop),
        reader.compact().await.map(drop),
    ];
    for result in refused {
        let error = result.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::Forbidden), "{error}");
        assert!(error.to_string().contains("writer access"), "{error}");
    }
    // What the owner staged nobody else commits.
    let token = owner.stage(&new_segment(&segment)).await.unwrap();
    let writers = world.writer_config(searcher.address, world.grant_writer());
    let other = Writer::connect(&writers).await.unwrap();
    let error = other
        .commit(inserting(vec![token.clone()]))
        .await
        .unwrap_err();
    assert_eq!(error.reason(), Some(Reason::UnknownSession), "{error}");
    // A client with write access stages and commits its own.
    let segment_of_other = encoder
        .segment(
            records(DIMENSION, vec![6], around(9.0, 1), b""),
            &[],
            &mut HashSet::new(),
            &mut common::rng(8),
        )
        .unwrap();
    let own = other.stage(&new_segment(&segment_of_other)).await.unwrap();
    assert_eq!(
        other.commit(inserting(vec![own])).await.unwrap().inserted,
        1
    );
    assert_eq!(
        owner.commit(inserting(vec![token])).await.unwrap().inserted,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_somebody_else_writes_is_searched_and_not_changed() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let head = oboro_index::Index::peek(world.index_path()).unwrap();
    let key = world
        .owner_key
        .epoch_key(&head.index_id, head.epoch, head.released);
    let holder = LiveIndex::open(world.index_path(), key).unwrap();
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let client = world.client(searcher.address).await;
    assert_eq!(
        ids(&client, &world.base[..DIMENSION], 1).await,
        [id_of_row(0)]
    );
    for error in [
        writer.commit(deleting(vec![1])).await.unwrap_err(),
        writer.compact().await.unwrap_err(),
        rotate(
            world.owner_config(searcher.address, keeper.address),
            Duration::ZERO,
            false,
        )
        .await
        .unwrap_err(),
    ] {
        assert_eq!(error.reason(), Some(Reason::ReadOnly), "{error}");
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
    }
    drop(holder);
    // And the other way round.
    drop((writer, client));
    searcher.stop().await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    drop(world.writer(searcher.address).await);
    let key = world
        .owner_key
        .epoch_key(&head.index_id, head.epoch, head.released);
    assert!(LiveIndex::open(world.index_path(), key).is_err());
    searcher.stop().await;
    let key = world
        .owner_key
        .epoch_key(&head.index_id, head.epoch, head.released);
    LiveIndex::open(world.index_path(), key).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_before_during_and_after_a_rotation() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let encoder = world.encoder(&writer).await;
    let client = world.client(searcher.address).await;
    let token = stage(&writer, &encoder, FIRST_NEW, around(50.0, 5), b"").await;
    writer.commit(inserting(vec![token])).await.unwrap();
    let early = stage(&writer, &encoder, FIRST_NEW + 100, around(50.0, 5), b"").await;
    let overlap = Duration::from_secs(30);
    rotate(
        world.owner_config(searcher.address, keeper.address),
        overlap,
        false,
    )
    .await
    .unwrap();
    // Sealed under the epoch that ended.
    let error = writer.commit(inserting(vec![early])).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::UnknownSession), "{error}");
    let late = stage(&writer, &encoder, FIRST_NEW + 200, around(50.0, 5), b"").await;
    let change = Change {
        stages: vec![late],
        deletes: (FIRST_NEW..FIRST_NEW + 5).collect(),
        ..Change::default()
    };
    let report = writer.commit(change).await.unwrap();
    assert_eq!((report.inserted, report.deleted), (5, 5));
    // Clients of both epochs see it.
    let query = around(50.0, 1);
    let new = world.client(searcher.address).await;
    assert_eq!((client.index().epoch, new.index().epoch), (1, 2));
    for client in [&client, &new] {
        let mut near = ids(client, &query, 5).await;
        near.sort_unstable();
        assert_eq!(near, (FIRST_NEW + 200..FIRST_NEW + 205).collect::<Vec<_>>());
    }
    assert_eq!(client.index().epoch, 1, "it was not sent on");
    writer.compact().await.unwrap();
    drop((client, new, writer));
    searcher.stop().await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let client = world.client(searcher.address).await;
    assert_eq!(ids(&client, &query, 5).await.len(), 5);
    assert_eq!(client.index().vectors, 605);
}
