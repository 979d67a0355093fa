#![allow(clippy::unwrap_used)]

use super::*;
use crate::{merge::FILLER, pass::Similarities};
use oboro_quant::{BlockedCodes, Filter};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use zeroize::Zeroizing;

const M: usize = 4;
const K: usize = 256;

/// Segments of made-up codes; a pass waits while they are held.
#[derive(Default)]
struct Made {
    segments: Vec<BlockedCodes>,
    alive: Vec<Option<Vec<u64>>>,
    tags: Vec<Vec<u64>>,
    held: AtomicBool,
}

impl Codes for Made {
    fn segments(&self) -> usize {
        self.segments.len()
    }

    fn codes(&self, index: usize) -> &BlockedCodes {
        while self.held.load(Relaxed) {
            std::thread::yield_now();
        }
        &self.segments[index]
    }

    fn alive(&self, index: usize) -> Option<&[u64]> {
        self.alive.get(index)?.as_deref()
    }

    fn tags(&self, index: usize) -> Option<&[u64]> {
        self.tags.get(index).map(Vec::as_slice)
    }
}

fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    }
}

fn made(sizes: &[usize]) -> Arc<Made> {
    let mut next = numbers(1);
    let segments = sizes
        .iter()
        .map(|&n| {
            let rows: Vec<u8> = (0..n * M).map(|_| (next() % K as u64) as u8).collect();
            BlockedCodes::from_rows(&rows, M, 8).unwrap()
        })
        .collect();
    Arc::new(Made {
        segments,
        ..Made::default()
    })
}

fn similarities(seed: u64) -> Similarities {
    let mut next = numbers(seed);
    Similarities {
        entries: Zeroizing::new((0..M * K).map(|_| (next() % 1_000) as f32).collect()),
        subquantizers: M,
        centroids: K,
    }
}

fn expected(made: &Made, seed: u64, candidates: usize, filter: Filter) -> Vec<Key> {
    let tables = Pass::new(1)
        .tables(made, &[similarities(seed)], &[filter], candidates)
        .unwrap();
    let table = &tables[0];
    let mut keys: Vec<Key> = Vec::new();
    for (segment, codes) in made.segments.iter().enumerate() {
        let alive = |position: usize| {
            made.alive(segment)
                .is_none_or(|alive| alive[position / 64] >> (position % 64) & 1 == 1)
        };
        let passes = |position: usize| {
            made.tags(segment)
                .is_none_or(|tags| filter.passes(tags[position]))
        };
        let there = (0..codes.len()).filter(|&position| alive(position) && passes(position));
        keys.extend(there.map(|position| {
            Key::new(
                table.score(&codes.row(position)),
                segment as u16,
                position as u32,
            )
        }));
    }
    keys.sort();
    keys.resize(candidates, FILLER);
    keys
}

fn ask(seed: u64, candidates: usize) -> Asked {
    filtered(seed, candidates, Filter::default())
}

fn filtered(seed: u64, candidates: usize, filter: Filter) -> Asked {
    Asked {
        similarities: similarities(seed),
        candidates,
        filter,
        lists: Vec::new(),
    }
}

/// The keys, all that stand for nothing alike.
fn there(ranked: &Ranked<Made>) -> Vec<Key> {
    let alike = |key: &Key| if key.is_missing() { FILLER } else { *key };
    ranked.keys.iter().map(alike).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

#[tokio::test]
async fn finds_the_best_of_all_segments() {
    // The last has more small segments than are searched side by side.
    for sizes in [&[5_000_usize][..], &[700, 3, 64, 1_000], &[3; 600]] {
        let made = made(sizes);
        let metrics = Arc::new(Metrics::default());
        let engine = ScanEngine::start(Arc::clone(&made), 2, 10, metrics).unwrap();
        for (seed, candidates) in [(1, 1), (2, 100), (3, 37), (4, 600)] {
            let found = engine.scan(ask(seed, candidates), soon()).await.unwrap();
            let expected = expected(&made, seed, candidates, Filter::default());
            assert_eq!(there(&found), expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_queries_share_passes_and_a_full_queue_refuses() {
    let made = made(&[2_000]);
    let metrics = Arc::new(Metrics::default());
    let engine =
        Arc::new(ScanEngine::start(Arc::clone(&made), 1, 12, Arc::clone(&metrics)).unwrap());
    made.held.store(true, Relaxed);
    let send = |seed: u64, candidates: usize| {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.scan(ask(seed, candidates), soon()).await })
    };
    let first = send(0, 10);
    // The first is taken and held; then twelve may wait.
    while !engine.shared.lock().busy {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let waiting: Vec<_> = (1..=12)
        .map(|seed| send(seed, if seed == 6 { 20 } else { 10 }))
        .collect();
    while engine.shared.lock().jobs.len() < 12 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let refused = engine.scan(ask(13, 10), soon()).await;
    assert!(matches!(
        refused,
        Err(SearcherError::QueueFull { waiting: 12 })
    ));
    made.held.store(false, Relaxed);
    assert_eq!(first.await.unwrap().unwrap().batch, 1);
    let mut batches = Vec::new();
    for (seed, job) in (1..=12).zip(waiting) {
        let ranked = job.await.unwrap().unwrap();
        let candidates = if seed == 6 { 20 } else { 10 };
        let expected = expected(&made, seed, candidates, Filter::default());
        assert_eq!(there(&ranked), expected);
        batches.push(ranked.batch);
    }
    // Twelve waiting: eight of the eleven that ask for ten, the one that
    // asks for twenty alone, and the three left.
    assert_eq!(
        batches.iter().filter(|&&b| b == 8).count(),
        8,
        "{batches:?}"
    );
    assert_eq!(batches[5], 1, "{batches:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_and_abandoned_queries_are_not_scanned() {
    let made = made(&[2_000]);
    let metrics = Arc::new(Metrics::default());
    let engine =
        Arc::new(ScanEngine::start(Arc::clone(&made), 1, 12, Arc::clone(&metrics)).unwrap());
    let late = engine.scan(ask(1, 10), Instant::now()).await;
    assert!(matches!(late, Err(SearcherError::Deadline)));
    made.held.store(true, Relaxed);
    let first = {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.scan(ask(0, 10), soon()).await })
    };
    while !engine.shared.lock().busy {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let abandoned = {
        let engine = Arc::clone(&engine);
        tokio::spawn(async move { engine.scan(ask(2, 10), soon()).await })
    };
    while engine.shared.lock().jobs.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    abandoned.abort();
    let _ = abandoned.await;
    made.held.store(false, Relaxed);
    first.await.unwrap().unwrap();
    engine.scan(ask(3, 10), soon()).await.unwrap();
    assert_eq!(metrics.tables.load(Relaxed), 2);
}

#[tokio::test]
async fn stops_when_dropped() {
    let engine = ScanEngine::start(made(&[100]), 2, 12, Arc::default()).unwrap();
    engine.scan(ask(1, 10), soon()).await.unwrap();
    drop(engine);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_vectors_and_those_without_the_tags_are_never_found() {
    let mut next = numbers(7);
    let mut bits = || next() << 33 ^ next();
    let sizes = [70_000, 900, 64, 1];
    let mut made = Arc::into_inner(made(&sizes)).unwrap();
    made.alive = sizes
        .iter()
        .map(|n| (*n != 900).then(|| (0..n.div_ceil(64)).map(|_| bits()).collect()))
        .collect();
    for tags in [false, true] {
        if tags {
            made.tags = sizes
                .iter()
                .map(|&n| (0..n).map(|_| bits()).collect())
                .collect();
        }
        let shared = Arc::new(made);
        let engine = ScanEngine::start(Arc::clone(&shared), 2, 10, Arc::default()).unwrap();
        let filters = [
            Filter::default(),
            Filter {
                any: 0b1100,
                ..Filter::default()
            },
            Filter {
                all: 0b1,
                none: 0b10,
                ..Filter::default()
            },
            // About one vector in 2^17 passes.
            Filter {
                all: 0x1_ffff,
                ..Filter::default()
            },
            Filter {
                all: 1,
                none: 1,
                ..Filter::default()
            },
        ];
        // Together, so that searches with different filters share passes.
        let searches = filters.map(|filter| {
            let scan = engine.scan(filtered(5, 300, filter), soon());
            async move { (filter, scan.await.unwrap()) }
        });
        let mut running = Box::pin(async {
            let [a, b, c, d, e] = searches;
            let all = tokio::join!(a, b, c, d, e);
            [all.0, all.1, all.2, all.3, all.4]
        });
        for (filter, found) in running.as_mut().await {
            assert_eq!(found.keys.len(), 300);
            assert_eq!(there(&found), expected(&shared, 5, 300, filter));
        }
        drop(running);
        drop(engine);
        made = Arc::into_inner(shared).unwrap();
    }
}

#[tokio::test]
async fn an_index_without_vectors_answers_with_nothing() {
    for sizes in [&[][..], &[0], &[100]] {
        let mut made = Arc::into_inner(made(sizes)).unwrap();
        made.alive = sizes.iter().map(|n| Some(vec![0; n / 64 + 1])).collect();
        let engine = ScanEngine::start(Arc::new(made), 2, 10, Arc::default()).unwrap();
        let found = engine.scan(ask(1, 10), soon()).await.unwrap();
        assert_eq!(there(&found), [FILLER; 10]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_finds_what_was_newest_when_it_came_and_of_one_snapshot_only() {
    // Snapshot `n` has `n` vectors more, in a segment more.
    let states: Vec<Arc<Made>> = (1..40).map(|n| made(&vec![200 + n; n])).collect();
    let engine = ScanEngine::start(Arc::clone(&states[0]), 2, 64, Arc::default()).unwrap();
    let engine = Arc::new(engine);
    let searching = Arc::clone(&engine);
    let replaced = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let done = Arc::clone(&replaced);
    let newest = states.clone();
    let searches = tokio::spawn(async move {
        loop {
            let before = done.load(Relaxed);
            let found = searching.scan(ask(3, 50), soon()).await.unwrap();
            let state = newest
                .iter()
                .position(|state| Arc::ptr_eq(state, &found.snapshot))
                .unwrap();
            assert!(state >= before, "{state} {before}");
            let expected = expected(&newest[state], 3, 50, Filter::default());
            assert_eq!(there(&found), expected);
            if state + 1 == newest.len() {
                return;
            }
        }
    });
    for (number, state) in states.iter().enumerate() {
        engine.replace(Arc::clone(state));
        replaced.store(number, Relaxed);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    searches.await.unwrap();
}
