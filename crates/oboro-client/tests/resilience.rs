//! An index that changes where something is short: room, files, a lock, the keeper.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use chacha20::ChaCha20Rng;
use common::{Shape, World, id_of_row, new_segment, records};
use oboro_client::writer::{Change, StageToken, Writer};
use oboro_index::{Index, LiveIndex};
use oboro_owner::{EncodedSegment, Encoder};
use oboro_protocol::Reason;
use oboro_quant::Metric;
use oboro_searcher::CompactionConfig;
use rand_core::SeedableRng;

const DIMENSION: usize = 8;

/// Ids that nothing else has.
const FIRST_NEW: u64 = 1 << 40;

fn world() -> World {
    World::new(&Shape::new(600, DIMENSION, Metric::L2).labelled())
}

fn encoded(encoder: &Encoder, first: u64, count: usize) -> EncodedSegment {
    let vectors = (0..count * DIMENSION)
        .map(|i| 1.0 + (i * 7 % 11) as f32 / 100.0)
        .collect();
    let ids = (first..first + count as u64).collect();
    encoder
        .segment(
            records(DIMENSION, ids, vectors, b""),
            &[],
            &mut HashSet::new(),
            &mut ChaCha20Rng::from_seed(*common::fresh_seed()),
        )
        .unwrap()
}

async fn stage(writer: &Writer, encoder: &Encoder, first: u64) -> StageToken {
    let segment = encoded(encoder, first, 2);
    writer.stage(&new_segment(&segment)).await.unwrap()
}

fn inserting(stages: Vec<StageToken>) -> Change {
    Change {
        stages,
        ..Change::default()
    }
}

fn deleting(row: u64) -> Change {
    Change {
        deletes: vec![id_of_row(row)],
        ..Change::default()
    }
}

/// Waits until `is` says yes, for a minute at most.
async fn until(mut is: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if is().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it did not come to be");
}

/// Two copies of one state change each on its own. That the one has more changes than the
/// other, which the keeper heard of, makes it no newer one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_a_copy_that_went_its_own_way_however_many_changes_it_has() {
    let world = world();
    let copy = world.folder.path().join("copy");
    common::copy_folder(&world.index_path(), &copy);
    let (server, keeper) = world.keeper("127.0.0.1:0").await;
    let first_place = keeper.address;
    let (_metrics, fork) = world
        .searcher_of(
            copy,
            world.searcher_config(Some(first_place)),
            "127.0.0.1:0",
        )
        .await;
    let of_fork = world.writer(fork.address).await;
    keeper.stop().await;
    drop(server);
    for row in 0..3 {
        let report = of_fork.commit(deleting(row)).await.unwrap();
        assert!(report.unrecorded);
    }
    // Elsewhere the keeper hears of one change of the other copy.
    let (server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let report = writer.commit(deleting(7)).await.unwrap();
    assert_eq!((report.generation, report.unrecorded), (2, false));
    drop(writer);
    searcher.stop().await;
    keeper.stop().await;
    drop(server);

    let (server, keeper) = world.keeper(&first_place.to_string()).await;
    until(async || match of_fork.commit(deleting(9)).await {
        Ok(report) => {
            assert!(report.unrecorded);
            false
        }
        Err(error) => {
            assert_eq!(error.reason(), Some(Reason::Stale), "{error}");
            true
        }
    })
    .await;
    let head = Index::peek(world.index_path()).unwrap();
    let newest = server.newest(&head.index_id).unwrap();
    assert_eq!(newest.generation, 2);
    assert_eq!(newest.manifest_digest, head.manifest_digest);
    keeper.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_more_segments_than_there_are_files_until_they_are_merged() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let mut config = world.searcher_config(Some(keeper.address));
    config.open_files = 64;
    config.compaction.automatic = false;
    let (_metrics, searcher) = world.searcher_with(config, "127.0.0.1:0").await;
    let writer = world.writer(searcher.address).await;
    let encoder = world.encoder(&writer).await;
    let before = writer.status().await.unwrap().segments;
    for number in 0..u64::from(32 - before) {
        let token = stage(&writer, &encoder, FIRST_NEW + 2 * number).await;
        writer.commit(inserting(vec![token])).await.unwrap();
    }
    let one_more = encoded(&encoder, 2 * FIRST_NEW, 2);
    let error = writer.stage(&new_segment(&one_more)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Limit), "{error}");
    assert!(error.to_string().contains("compact"), "{error}");
    // It answers all the same, deletes, and takes more once it is merged.
    writer.commit(deleting(1)).await.unwrap();
    writer.compact().await.unwrap();
    let token = writer.stage(&new_segment(&one_more)).await.unwrap();
    let report = writer.commit(inserting(vec![token])).await.unwrap();
    assert_eq!(report.inserted, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_are_merged_long_before_files_run_out() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let mut config = world.searcher_config(Some(keeper.address));
    // Eight segments of one size are left alone otherwise.
    config.open_files = 32;
    let (_metrics, searcher) = world.searcher_with(config, "127.0.0.1:0").await;
    let writer = world.writer(searcher.address).await;
    let encoder = world.encoder(&writer).await;
    for number in 0..6 {
        let token = stage(&writer, &encoder, FIRST_NEW + 2 * number).await;
        writer.commit(inserting(vec![token])).await.unwrap();
    }
    until(async || writer.status().await.unwrap().segments <= 4).await;
    assert_eq!(writer.status().await.unwrap().vectors, 612);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_change_of_more_segments_than_anybody_holds_in_memory_at_once() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let encoder = world.encoder(&writer).await;
    let mut stages = Vec::new();
    for number in 0..150 {
        stages.push(stage(&writer, &encoder, FIRST_NEW + number).await);
    }
    // Each segment but the last has one id of the next.
    let change = Change {
        strict: true,
        ..inserting(stages)
    };
    let error = writer.commit(change).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Conflict), "{error}");
    let mut stages = Vec::new();
    for number in 0..150 {
        stages.push(stage(&writer, &encoder, FIRST_NEW + 2 * number).await);
    }
    let change = Change {
        strict: true,
        ..inserting(stages)
    };
    let report = writer.commit(change).await.unwrap();
    assert_eq!((report.inserted, report.vectors), (300, 900));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fail_the_id_of_a_segment_that_is_there() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let encoder = world.encoder(&writer).await;
    let segment = encoded(&encoder, FIRST_NEW, 2);
    let token = writer.stage(&new_segment(&segment)).await.unwrap();
    let again = |error: oboro_client::ClientError| {
        assert_eq!(error.reason(), Some(Reason::Conflict), "{error}");
        assert!(error.to_string().contains("random id"), "{error}");
    };
    again(writer.stage(&new_segment(&segment)).await.unwrap_err());
    let report = writer.commit(inserting(vec![token])).await.unwrap();
    assert_eq!(report.inserted, 2);
    again(writer.stage(&new_segment(&segment)).await.unwrap_err());
}

/// A folder that is away for a while is what a full disk is for those who write to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_that_finds_no_room_waits_and_goes_on_by_itself() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let mut config = world.searcher_config(Some(keeper.address));
    config.compaction = CompactionConfig {
        // So slow that the folder can be moved away meanwhile.
        bytes_per_second: 20_000,
        retry_pause: Duration::from_millis(200),
        ..CompactionConfig::default()
    };
    let (metrics, searcher) = world.searcher_with(config, "127.0.0.1:0").await;
    let writer = world.writer(searcher.address).await;
    let client = world.client(searcher.address).await;
    let encoder = world.encoder(&writer).await;
    for number in 0..9 {
        let token = stage(&writer, &encoder, FIRST_NEW + 2 * number).await;
        writer.commit(inserting(vec![token])).await.unwrap();
    }
    let away = world.folder.path().join("away");
    std::fs::rename(world.index_path(), &away).unwrap();
    until(async || metrics.failed_compactions.load(SeqCst) >= 3).await;
    assert!(writer.commit(deleting(1)).await.is_err());
    // Searches go on.
    let options = oboro_client::SearchOptions::default();
    let query = &world.base[..DIMENSION];
    client.search(query, &options).await.unwrap();
    let failed = metrics.failed_compactions.load(SeqCst);
    assert!(failed < 20, "it does not try all the time: {failed}");
    std::fs::rename(&away, world.index_path()).unwrap();
    until(async || metrics.compactions.load(SeqCst) > 0).await;
    assert_eq!(writer.commit(deleting(1)).await.unwrap().deleted, 1);
    let found = client.search(query, &options).await.unwrap();
    assert_eq!(found.neighbours.len(), 10);
}

/// One that nothing else would make a searcher begin: two of 600 vectors are deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_searcher_goes_on_with_a_compaction_that_was_stopped() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let head = Index::peek(world.index_path()).unwrap();
    let key = world
        .owner_key
        .epoch_key(&head.index_id, head.epoch, head.released);
    let mut live = LiveIndex::open(world.index_path(), key).unwrap();
    let change = oboro_index::Change {
        deletes: vec![id_of_row(1), id_of_row(2)],
        ..oboro_index::Change::default()
    };
    let mut rng = ChaCha20Rng::from_seed(*common::fresh_seed());
    live.commit(change, &mut rng).unwrap();
    let plan = live
        .compaction(&oboro_index::CompactionPolicy::FULL)
        .unwrap();
    let (stop, half) = (Arc::new(AtomicBool::new(false)), plan.bytes() / 2);
    let end = Arc::clone(&stop);
    let error = plan
        .checkpoint_every(half / 4)
        .observed(move |written| end.store(written > half, SeqCst))
        .run(&oboro_index::Throttle::NONE, &stop, &mut rng)
        .err();
    assert!(matches!(
        error,
        Some(oboro_index::IndexError::Cancelled { kept }) if kept > 0
    ));
    drop(live);
    let (metrics, searcher) = world.searcher(Some(keeper.address)).await;
    until(async || metrics.compactions.load(SeqCst) > 0).await;
    let status = world.writer(searcher.address).await.status().await.unwrap();
    assert_eq!((status.vectors, status.deleted), (598, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_searcher_that_found_the_folder_locked_changes_it_once_it_is_free() {
    let world = world();
    let (_server, keeper) = world.keeper("127.0.0.1:0").await;
    let head = Index::peek(world.index_path()).unwrap();
    let key = world
        .owner_key
        .epoch_key(&head.index_id, head.epoch, head.released);
    let mut other = LiveIndex::open(world.index_path(), key).unwrap();
    let (_metrics, searcher) = world.searcher(Some(keeper.address)).await;
    let writer = world.writer(searcher.address).await;
    let status = writer.status().await.unwrap();
    assert!(!status.writing && status.vectors == 600);
    let error = writer.commit(deleting(1)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ReadOnly), "{error}");
    // What the other one does before it goes is what the searcher goes on from.
    let change = oboro_index::Change {
        deletes: vec![id_of_row(1), id_of_row(2)],
        ..oboro_index::Change::default()
    };
    let mut rng = ChaCha20Rng::from_seed(*common::fresh_seed());
    other.commit(change, &mut rng).unwrap();
    assert!(!writer.status().await.unwrap().writing);
    drop(other);
    until(async || writer.status().await.unwrap().writing).await;
    let status = writer.status().await.unwrap();
    assert_eq!((status.vectors, status.generation), (598, 2));
    let report = writer.commit(deleting(3)).await.unwrap();
    assert_eq!((report.deleted, report.generation), (1, 3));
    assert!(!report.unrecorded);
}
