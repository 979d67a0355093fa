//! Merging segments while the index changes.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use oboro_index::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SEED: u8 = 46;

fn open() -> (tempfile::TempDir, PathBuf, LiveIndex) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build(&path, SEED, 90, false).unwrap();
    let live = LiveIndex::open(&path, key(SEED)).unwrap();
    (dir, path, live)
}

fn insert(live: &mut LiveIndex, number: u32, rows: std::ops::Range<usize>) {
    let rows: Vec<_> = rows.map(|row| (id(row), row)).collect();
    let change = Change {
        stages: vec![stage(live, SEED, number, &rows)],
        strict: true,
        ..Change::default()
    };
    live.commit(change, &mut fresh()).unwrap();
}

fn delete(live: &mut LiveIndex, rows: impl Iterator<Item = usize>) {
    let change = Change {
        deletes: rows.map(id).collect(),
        strict: true,
        ..Change::default()
    };
    live.commit(change, &mut fresh()).unwrap();
}

fn run(plan: &Compaction) -> Compacted {
    plan.run(&Throttle::NONE, &AtomicBool::new(false), &mut fresh())
        .unwrap()
}

fn names(path: &std::path::Path) -> usize {
    fs::read_dir(path).unwrap().count()
}

#[test]
fn many_small_segments_and_rotten_ones_are_merged() {
    let (_dir, path, mut live) = open();
    let policy = CompactionPolicy::default();
    // Two built, and six more: eight are left alone.
    for number in 0..6_usize {
        insert(&mut live, number as u32, 100 + number..101 + number);
        assert!(live.compaction(&policy).is_none(), "{number}");
    }
    insert(&mut live, 6, 106..107);
    let plan = live.compaction(&policy).unwrap();
    assert_eq!((plan.segments(), plan.dropped()), (9, 0));
    let done = run(&plan);
    assert_eq!(done.len(), 97);
    let index = live.commit_compaction(done, &mut fresh()).unwrap();
    assert_eq!(index.segments().len(), 1);
    assert!(live.compaction(&policy).is_none());
    assert!(live.compaction(&CompactionPolicy::FULL).is_none());
    // 19 of 97 are below a fifth, 20 above.
    delete(&mut live, 0..19);
    assert!(live.compaction(&policy).is_none());
    delete(&mut live, 19..20);
    let plan = live.compaction(&policy).unwrap();
    assert_eq!((plan.segments(), plan.dropped()), (1, 20));
    assert!(plan.bytes() > 0);
    let done = run(&plan);
    live.commit_compaction(done, &mut fresh()).unwrap();
    let map: BTreeMap<u64, usize> = (20..90).chain(100..107).map(|row| (id(row), row)).collect();
    assert_eq!(contents(live.index(), SEED), map);
    assert_eq!(names(&path), live.index().files().len() + 1);
    let summary = Summary::read(&path).unwrap();
    assert_eq!((summary.vectors, summary.deleted), (77, 0));
    assert!(summary.segments[0].compacted && summary.segments[0].tags);
}

/// Merged twice, records still say where they were sealed.
#[test]
fn records_keep_their_origin_through_many_compactions() {
    let (_dir, path, mut live) = open();
    for round in 0..3 {
        insert(
            &mut live,
            round,
            100 + round as usize * 10..110 + round as usize * 10,
        );
        delete(&mut live, round as usize * 5..round as usize * 5 + 5);
        let done = run(&live.compaction(&CompactionPolicy::FULL).unwrap());
        live.commit_compaction(done, &mut fresh()).unwrap();
    }
    let map: BTreeMap<u64, usize> = (15..90).chain(100..130).map(|row| (id(row), row)).collect();
    assert_eq!(contents(live.index(), SEED), map);
    let client = owner(SEED).client_key();
    let report = verify(&path, &key(SEED), Some(&client)).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.records_opened, 105);
    // The order is not that of the ids, nor that before.
    let ids = live.index().segments()[0].ids();
    assert!(!ids.is_sorted());
}

#[test]
fn deletes_during_a_compaction_are_carried_over() {
    let (_dir, path, mut live) = open();
    insert(&mut live, 1, 100..120);
    delete(&mut live, 0..4);
    let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
    assert_eq!((plan.segments(), plan.dropped()), (3, 4));
    // Some before it runs, some after, one replaced, others inserted.
    delete(&mut live, 4..8);
    let done = run(&plan);
    delete(&mut live, (100..103).chain(8..9));
    let change = Change {
        stages: vec![stage(&live, SEED, 2, &[(id(50), 300), (1, 301)])],
        on_existing: OnExisting::Replace,
        ..Change::default()
    };
    live.commit(change, &mut fresh()).unwrap();
    let index = live.commit_compaction(done, &mut fresh()).unwrap();
    assert_eq!((index.segments().len(), index.deleted()), (2, 9));
    let mut map: BTreeMap<u64, usize> = (9..90).chain(103..120).map(|row| (id(row), row)).collect();
    map.insert(id(50), 300);
    map.insert(1, 301);
    assert_eq!(contents(&index, SEED), map);
    assert_eq!(names(&path), index.files().len() + 1);
    drop((live, plan));
    let again = LiveIndex::open(&path, key(SEED)).unwrap();
    assert_eq!(contents(again.index(), SEED), map);
}

#[test]
fn fail_a_cancelled_compaction_leaves_nothing() {
    let (_dir, path, mut live) = open();
    insert(&mut live, 1, 100..120);
    let files = names(&path);
    let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
    let error = plan
        .run(&Throttle::NONE, &AtomicBool::new(true), &mut fresh())
        .err()
        .unwrap();
    assert!(
        matches!(error, IndexError::Cancelled { kept: 0 }),
        "{error}"
    );
    // One that would take hours, cancelled while it waits.
    let cancel = AtomicBool::new(false);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            plan.run(&Throttle::bytes_per_second(1), &cancel, &mut fresh())
                .err()
        });
        while names(&path) == files && begun.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        cancel.store(true, Ordering::Relaxed);
        let error = slow.join().unwrap();
        assert!(matches!(error, Some(IndexError::Cancelled { kept: 0 })));
    });
    assert_eq!(names(&path), files);
    // Two of the same plan: the second comes too late.
    let (first, second) = (
        run(&plan),
        plan.run(&Throttle::NONE, &false.into(), &mut fresh()),
    );
    live.commit_compaction(first, &mut fresh()).unwrap();
    let error = live
        .commit_compaction(second.unwrap(), &mut fresh())
        .err()
        .unwrap();
    assert!(
        error.to_string().contains("plan the compaction again"),
        "{error}"
    );
    assert_eq!(names(&path), live.index().files().len() + 1);
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Somebody who only reads takes no lock, and never meets a state in between.
#[test]
fn readers_without_a_lock_meet_whole_states() {
    let (_dir, path, mut live) = open();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut generations = Vec::new();
            while !done.load(Ordering::Relaxed) {
                let index = Index::open(&path, &key(SEED)).unwrap();
                // Each commit swaps one vector for another.
                assert_eq!(contents(&index, SEED).len(), 90);
                generations.push(index.generation());
                let report = verify(&path, &key(SEED), None).unwrap();
                assert!(report.is_sound(), "{report:?}");
            }
            generations
        });
        // Whatever goes wrong here, the reader must end.
        let end = End(&done);
        for round in 0..30_usize {
            let change = Change {
                stages: vec![stage(
                    &live,
                    SEED,
                    round as u32,
                    &[(id(100 + round), 100 + round)],
                )],
                deletes: vec![id(round)],
                strict: true,
                ..Change::default()
            };
            live.commit(change, &mut fresh()).unwrap();
            if round % 5 == 4 {
                let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
                let merged = plan.run(&Throttle::NONE, &false.into(), &mut fresh());
                live.commit_compaction(merged.unwrap(), &mut fresh())
                    .unwrap();
            }
        }
        drop(end);
        let generations = reader.join().unwrap();
        assert!(generations.is_sorted());
    });
    assert_eq!(live.index().generation(), 37);
}
