//! A change whose last step fails: that it outlasts a loss of power.

#[path = "../../tests/common/mod.rs"]
mod common;

use crate::layout::faults::fail_syncs_after;
use crate::{Change, CompactionPolicy, IndexError, LiveIndex, Throttle};
use common::{build, build_then, contents, id, key, rng, stage};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const SEED: u8 = 44;

type Files = BTreeMap<String, Vec<u8>>;

fn files(folder: &Path) -> Files {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .filter(|(name, _)| name != "LOCK")
        .collect()
}

fn write(folder: &Path, files: &Files) {
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
}

/// A loss of power may bring back the manifest before: either opens whole.
fn both_states_open(before: &Files, after: &Files) {
    for (state, other) in [(before, after), (after, before)] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), after);
        fs::write(dir.path().join("MANIFEST"), &state["MANIFEST"]).unwrap();
        let live = LiveIndex::open(dir.path(), key(SEED)).unwrap();
        let found = contents(live.index(), SEED);
        let alone = tempfile::tempdir().unwrap();
        write(alone.path(), state);
        let index = LiveIndex::open(alone.path(), key(SEED)).unwrap();
        assert_eq!(found, contents(index.index(), SEED));
        assert_ne!(state["MANIFEST"], other["MANIFEST"]);
    }
}

/// Everything that the state before needs is there still.
fn nothing_is_lost(before: &Files, now: &Files) {
    for (name, content) in before {
        assert!(
            name == "MANIFEST" || now.get(name) == Some(content),
            "{name}"
        );
    }
}

#[test]
fn a_commit_that_may_not_be_durable_says_so_and_keeps_the_files_of_both_states() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build(&path, SEED, 70, false).unwrap();
    let mut live = LiveIndex::open(&path, key(SEED)).unwrap();
    // The state before has a list of deleted vectors that the change replaces.
    let first = Change {
        deletes: vec![id(5)],
        ..Change::default()
    };
    live.commit(first, &mut rng(1)).unwrap();
    let (before, had) = (files(&path), contents(live.index(), SEED));
    let rows: Vec<_> = (100..120).map(|row| (id(row), row)).collect();
    let change = Change {
        stages: vec![stage(&live, SEED, 1, &rows)],
        deletes: vec![id(3)],
        ..Change::default()
    };
    // The lists are made durable, the manifest is not.
    fail_syncs_after(Some(1));
    let error = live.commit(change, &mut rng(2)).err().unwrap();
    fail_syncs_after(None);
    assert!(matches!(error, IndexError::Unsure { .. }), "{error}");
    assert!(error.to_string().contains("may or may not"), "{error}");
    assert_eq!(contents(live.index(), SEED), had);
    let more = Change {
        deletes: vec![id(4)],
        ..Change::default()
    };
    assert!(live.commit(more, &mut rng(3)).is_err());
    drop(live);
    let after = files(&path);
    nothing_is_lost(&before, &after);
    both_states_open(&before, &after);

    // Whoever opens it next removes nothing before the new state is durable.
    fail_syncs_after(Some(0));
    assert!(LiveIndex::open(&path, key(SEED)).is_err());
    fail_syncs_after(None);
    nothing_is_lost(&before, &files(&path));
    let live = LiveIndex::open(&path, key(SEED)).unwrap();
    let found = contents(live.index(), SEED);
    assert_eq!(found.len(), had.len() + 20 - 1);
    assert_eq!(files(&path).len(), live.index().files().len());
}

#[test]
fn a_compaction_that_may_not_be_durable_keeps_the_files_of_both_states() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build(&path, SEED, 70, false).unwrap();
    let mut live = LiveIndex::open(&path, key(SEED)).unwrap();
    let (before, had) = (files(&path), contents(live.index(), SEED));
    let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
    let done = plan
        .run(&Throttle::NONE, &false.into(), &mut rng(4))
        .unwrap();
    drop(plan);
    fail_syncs_after(Some(0));
    let error = live.commit_compaction(done, &mut rng(5)).err().unwrap();
    fail_syncs_after(None);
    assert!(matches!(error, IndexError::Unsure { .. }), "{error}");
    drop(live);
    let after = files(&path);
    nothing_is_lost(&before, &after);
    both_states_open(&before, &after);
    let live = LiveIndex::open(&path, key(SEED)).unwrap();
    assert_eq!(contents(live.index(), SEED), had);
    assert_eq!(live.index().segments().len(), 1);
}

#[test]
fn a_build_that_may_not_be_durable_says_so_and_keeps_what_it_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    for force in [false, true] {
        let failing = || fail_syncs_after(Some(1));
        let error = build_then(&path, SEED, 70, force, failing).err().unwrap();
        fail_syncs_after(None);
        assert!(matches!(error, IndexError::Unsure { .. }), "{error}");
        LiveIndex::open(&path, key(SEED)).unwrap();
    }
    // The one that was replaced lies beside it, under the name of a build.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

/// A disk without room gets back what a compaction took, however far it was.
#[test]
fn a_compaction_that_finds_no_room_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build(&path, SEED, 70, false).unwrap();
    let mut live = LiveIndex::open(&path, key(SEED)).unwrap();
    let (before, had) = (files(&path), contents(live.index(), SEED));
    let plan = || {
        let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
        plan.checkpoint_every(1000)
    };
    let mut failures = 0;
    let done = loop {
        fail_syncs_after(Some(failures));
        let result = plan().run(&Throttle::NONE, &false.into(), &mut rng(4));
        fail_syncs_after(None);
        match result {
            Ok(done) => break done,
            Err(error) => assert!(matches!(error, IndexError::Io { .. }), "{error}"),
        }
        assert!(files(&path) == before, "{failures}");
        assert_eq!(plan().resumed_bytes(), 0);
        failures += 1;
    };
    // Each journal, and the new segment.
    assert!(failures > 4, "{failures}");
    // One that goes on leaves nothing, either.
    drop(done);
    let stopped = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let end = std::sync::Arc::clone(&stopped);
    let observed = plan().observed(move |written| {
        end.store(written > 3000, std::sync::atomic::Ordering::Relaxed);
    });
    let error = observed
        .run(&Throttle::NONE, &stopped, &mut rng(4))
        .err()
        .unwrap();
    assert!(matches!(error, IndexError::Cancelled { kept } if kept > 0));
    assert!(error.to_string().contains("goes on from"), "{error}");
    assert_eq!(files(&path).len(), before.len() + 2);
    assert!(plan().resumed_bytes() > 0);
    fail_syncs_after(Some(1));
    let result = plan().run(&Throttle::NONE, &false.into(), &mut rng(4));
    fail_syncs_after(None);
    assert!(result.is_err());
    assert!(files(&path) == before);
    let done = plan().run(&Throttle::NONE, &false.into(), &mut rng(4));
    live.commit_compaction(done.unwrap(), &mut rng(5)).unwrap();
    assert_eq!(contents(live.index(), SEED), had);
}
