//! Compactions that were stopped, and those that go on with them.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use oboro_index::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SEED: u8 = 52;

/// Bytes between checkpoints: some ten records.
const EVERY: u64 = 1000;

/// Merges all small segments, without being asked for everything.
const SMALL: CompactionPolicy = CompactionPolicy {
    similar: 1,
    deleted_percent: 100,
    full: false,
};

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

fn folder_with(files: &Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn lived() -> Files {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build_lived(&path, SEED);
    files(&path)
}

fn open(folder: &Path) -> LiveIndex {
    LiveIndex::open(folder, key(SEED)).unwrap()
}

fn delete(live: &mut LiveIndex, ids: Vec<u64>) {
    let change = Change {
        deletes: ids,
        ..Change::default()
    };
    live.commit(change, &mut fresh()).unwrap();
}

fn plan(live: &LiveIndex, policy: &CompactionPolicy) -> Compaction {
    live.compaction(policy).unwrap().checkpoint_every(EVERY)
}

/// Runs it until so many bytes of originals are written; how many are kept.
fn stop(plan: Compaction, at: u64, seed: u8) -> u64 {
    let cancel = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&cancel);
    let plan = plan.observed(move |written| end.store(written >= at, Ordering::Relaxed));
    match plan.run(&Throttle::NONE, &cancel, &mut rng(seed)) {
        Err(IndexError::Cancelled { kept }) => kept,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was not stopped"),
    }
}

fn finish(live: &mut LiveIndex, plan: &Compaction, seed: u8) -> u64 {
    let done = plan
        .run(&Throttle::NONE, &AtomicBool::new(false), &mut rng(seed))
        .unwrap();
    let resumed = done.resumed_bytes();
    live.commit_compaction(done, &mut fresh()).unwrap();
    resumed
}

fn of_merge<'a>(files: &'a Files, kind: &str) -> Vec<&'a str> {
    let names = files.keys().map(String::as_str);
    names.filter(|name| name.starts_with(kind)).collect()
}

/// The files of the one segment, apart from the list of what is deleted.
fn segment_files(folder: &Path) -> Files {
    let mut files = files(folder);
    files.retain(|name, _| name.starts_with("segment-"));
    files
}

/// An index with a compaction that was stopped about half way, and the bytes that are kept.
fn half(policy: &CompactionPolicy) -> (Files, u64) {
    let dir = folder_with(&lived());
    let live = open(dir.path());
    let plan = plan(&live, policy);
    let at = plan.bytes() / 2;
    let kept = stop(plan, at, 9);
    assert!(kept > at / 2 && kept <= at + EVERY);
    let files = files(dir.path());
    assert_eq!(of_merge(&files, "merge-").len(), 1);
    assert_eq!(files.len(), live.index().files().len() + 2);
    (files, kept)
}

/// Nothing is there that the index does not list, but the lock.
fn tidy(folder: &Path, live: &LiveIndex) {
    let found = files(folder);
    let names: Vec<&String> = found.keys().collect();
    assert_eq!(found.len(), live.index().files().len(), "{names:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    /// Whatever is deleted between two stops, and whether the index is opened anew.
    #[test]
    fn stopped_after_every_checkpoint_it_has_the_same_bytes(
        deleted in proptest::collection::vec(proptest::collection::vec(0_usize..190, 0..6), 1..40),
        reopened: u64,
    ) {
        let before = lived();
        let deleted: Vec<Vec<u64>> = deleted
            .into_iter()
            .map(|rows| rows.into_iter().map(id).collect())
            .collect();

        let stopped = folder_with(&before);
        let mut live = open(stopped.path());
        let total = plan(&live, &SMALL).bytes();
        let (mut kept, mut stops) = (0, 0);
        while kept + 2 * EVERY < total {
            let plan = plan(&live, &SMALL);
            assert_eq!((plan.resumed_bytes(), plan.bytes()), (kept, total));
            let now = stop(plan, kept + EVERY, 7);
            prop_assert!(now > kept, "{now} after {kept}");
            kept = now;
            if let Some(ids) = deleted.get(stops) {
                delete(&mut live, ids.clone());
            }
            if reopened >> (stops % 64) & 1 == 1 {
                drop(live);
                live = open(stopped.path());
            }
            stops += 1;
        }
        prop_assert!(stops > 5);
        let plan = plan(&live, &SMALL);
        // No seed is drawn any more.
        prop_assert_eq!(finish(&mut live, &plan, 8), kept);
        drop(plan);

        let straight = folder_with(&before);
        let mut other = open(straight.path());
        let plan = other.compaction(&SMALL).unwrap();
        let done = plan.run(&Throttle::NONE, &AtomicBool::new(false), &mut rng(7)).unwrap();
        prop_assert_eq!(done.resumed_bytes(), 0);
        for ids in deleted.iter().take(stops) {
            delete(&mut other, ids.clone());
        }
        other.commit_compaction(done, &mut fresh()).unwrap();

        prop_assert!(segment_files(stopped.path()) == segment_files(straight.path()));
        prop_assert_eq!(live.index().deleted(), other.index().deleted());
        let mut expected = lived_contents();
        expected.retain(|id, _| !deleted.iter().take(stops).any(|ids| ids.contains(id)));
        prop_assert_eq!(contents(live.index(), SEED), expected.clone());
        prop_assert_eq!(contents(other.index(), SEED), expected.clone());
        tidy(stopped.path(), &live);
        drop(live);
        let again = open(stopped.path());
        prop_assert_eq!(contents(again.index(), SEED), expected);
    }
}

#[test]
fn a_stopped_compaction_is_told_and_disturbs_nobody() {
    let (files_then, kept) = half(&SMALL);
    let dir = folder_with(&files_then);
    let folder = dir.path();
    let client = owner(SEED).client_key();
    let look = || {
        let report = verify(folder, &key(SEED), Some(&client)).unwrap();
        assert!(
            report.is_sound() && report.unlisted.is_empty(),
            "{report:?}"
        );
        assert_eq!(report.compaction, Some(kept));
        let index = Index::open(folder, &key(SEED)).unwrap();
        assert_eq!(contents(&index, SEED), lived_contents());
        let listed = Summary::read(folder).unwrap().files.len();
        assert_eq!(listed + 2, files(folder).len());
    };
    look();
    // Opened to be changed, and closed, it is as it was.
    drop(open(folder));
    assert!(files(folder) == files_then);
    look();
    // Somebody who has no key to it removes it.
    let index = Index::open(folder, &key(SEED)).unwrap();
    assert_eq!(index.remove_leftovers(folder).unwrap(), 2);
    let report = verify(folder, &key(SEED), Some(&client)).unwrap();
    assert!(report.is_sound() && report.compaction.is_none());
}

#[test]
fn only_one_goes_on_with_it() {
    let (files_then, kept) = half(&SMALL);
    let dir = folder_with(&files_then);
    let mut live = open(dir.path());
    assert!(LiveIndex::open(dir.path(), key(SEED)).is_err());
    let (first, second) = (plan(&live, &SMALL), plan(&live, &SMALL));
    assert_eq!(
        (first.resumed_bytes(), second.resumed_bytes()),
        (kept, kept)
    );
    let cancel = AtomicBool::new(false);
    let [first, second] =
        [first, second].map(|plan| plan.run(&Throttle::NONE, &cancel, &mut fresh()).unwrap());
    assert_eq!((first.resumed_bytes(), second.resumed_bytes()), (kept, 0));
    live.commit_compaction(second, &mut fresh()).unwrap();
    assert!(live.commit_compaction(first, &mut fresh()).is_err());
    assert_eq!(contents(live.index(), SEED), lived_contents());
    tidy(dir.path(), &live);
}

/// What goes beyond the journal may be anything; what it speaks of may not.
#[test]
fn fail_originals_that_are_not_what_the_journal_says() {
    let (files_then, kept) = half(&SMALL);
    let name = of_merge(&files_then, "segment-")
        .into_iter()
        .find(|name| {
            name.ends_with(".records")
                && !files_then.contains_key(&name.replace(".records", "-1.codes"))
        })
        .unwrap()
        .to_owned();
    let whole = &files_then[&name];
    let durable = &whole[..kept as usize];
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        Some(bytes)
    };
    let last = durable.len() - 1;
    for (number, (content, resumed)) in [
        (Some(whole.clone()), true),
        (Some(durable.to_vec()), true),
        (Some([durable, &[0xa5; 5000]].concat()), true),
        (flipped(0), false),
        (flipped(70), false),
        (flipped(last), false),
        (Some(durable[..last].to_vec()), false),
        (Some(Vec::new()), false),
        (Some(vec![0; whole.len()]), false),
        (None, false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut files_now = files_then.clone();
        match content {
            Some(content) => files_now.insert(name.clone(), content),
            None => files_now.remove(&name),
        };
        let dir = folder_with(&files_now);
        let mut live = open(dir.path());
        assert_eq!(contents(live.index(), SEED), lived_contents());
        let plan = plan(&live, &SMALL);
        let went_on = finish(&mut live, &plan, 5) > 0;
        assert_eq!(went_on, resumed, "{number}");
        let same = files(dir.path()).contains_key(&name);
        assert_eq!(same, resumed, "{number}");
        assert_eq!(contents(live.index(), SEED), lived_contents());
        tidy(dir.path(), &live);
        let client = owner(SEED).client_key();
        assert!(
            verify(dir.path(), &key(SEED), Some(&client))
                .unwrap()
                .is_sound()
        );
    }
}

#[test]
fn fail_journals_that_are_damaged_or_of_another_index_or_epoch() {
    let (files_then, _) = half(&SMALL);
    let name = of_merge(&files_then, "merge-")[0].to_owned();
    let whole = &files_then[&name];
    let mut bad: Vec<Vec<u8>> = (0..whole.len())
        .step_by(5)
        .map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            bytes
        })
        .collect();
    bad.extend((0..whole.len()).step_by(7).map(|cut| whole[..cut].to_vec()));
    bad.push([&whole[..], &[0]].concat());
    let dir = folder_with(&files_then);
    let listed = open(dir.path()).index().files().len();
    for bytes in bad {
        for (name, content) in &files_then {
            fs::write(dir.path().join(name), content).unwrap();
        }
        fs::write(dir.path().join(&name), bytes).unwrap();
        let live = open(dir.path());
        assert_eq!(files(dir.path()).len(), listed);
        assert_eq!(live.compaction(&SMALL).unwrap().resumed_bytes(), 0);
    }
    // Under the name of another epoch, or with another's id.
    for other in [
        name.replace("-1.oboro", "-2.oboro"),
        name.replace(&name[6..10], "0000"),
    ] {
        let mut files_now = files_then.clone();
        let content = files_now.remove(&name).unwrap();
        files_now.insert(other, content);
        let dir = folder_with(&files_now);
        tidy(dir.path(), &open(dir.path()));
    }
    // Another index under the same name.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build_lived(&path, SEED + 2);
    fs::write(path.join(&name), whole).unwrap();
    let live = LiveIndex::open(&path, key(SEED + 2)).unwrap();
    assert_eq!(files(&path).len(), live.index().files().len());
}

/// A vector that its journal has as deleted and that is there again: of an older copy.
#[test]
fn fail_a_journal_of_another_state_loses_no_vector() {
    let before = lived();
    let dir = folder_with(&before);
    let mut live = open(dir.path());
    delete(&mut live, vec![id(1)]);
    stop(plan(&live, &SMALL), 3000, 6);
    let after = files(dir.path());
    drop(live);
    let stopped: Files = after
        .iter()
        .filter(|(name, _)| !before.contains_key(*name) && !name.starts_with("deleted-"))
        .map(|(name, content)| (name.clone(), content.clone()))
        .collect();
    assert_eq!(stopped.len(), 2);
    let with = |files_now: &Files| {
        let mut files_now = files_now.clone();
        files_now.extend(stopped.clone());
        folder_with(&files_now)
    };
    let older = with(&before);
    let live = open(older.path());
    assert_eq!(contents(live.index(), SEED), lived_contents());
    tidy(older.path(), &live);
    // And one of segments that are merged already.
    let dir = folder_with(&before);
    let mut live = open(dir.path());
    let plan = plan(&live, &SMALL);
    finish(&mut live, &plan, 5);
    let merged = with(&files(dir.path()));
    drop((live, plan));
    let live = open(merged.path());
    assert_eq!(contents(live.index(), SEED), lived_contents());
    tidy(merged.path(), &live);
}

#[test]
fn everything_is_merged_anew_where_going_on_would_not_do() {
    let (files_then, kept) = half(&CompactionPolicy::FULL);
    let insert = |live: &mut LiveIndex| {
        let change = Change {
            stages: vec![stage(live, SEED, 77, &[(7, 700), (9, 701)])],
            ..Change::default()
        };
        live.commit(change, &mut fresh()).unwrap();
    };
    let none = |_: &mut LiveIndex| {};
    let one = |live: &mut LiveIndex| delete(live, vec![id(1)]);
    let changes: [&dyn Fn(&mut LiveIndex); 3] = [&none, &insert, &one];
    for (change, resumed) in changes.into_iter().zip([kept, 0, 0]) {
        let dir = folder_with(&files_then);
        let mut live = open(dir.path());
        change(&mut live);
        let expected = contents(live.index(), SEED);
        let plan = plan(&live, &CompactionPolicy::FULL);
        assert_eq!(finish(&mut live, &plan, 5), resumed);
        assert_eq!(live.index().segments().len(), 1);
        assert_eq!(live.index().deleted(), 0);
        assert_eq!(contents(live.index(), SEED), expected);
        assert!(live.compaction(&CompactionPolicy::FULL).is_none());
        tidy(dir.path(), &live);

        // One that is not asked for everything goes on in each case.
        let dir = folder_with(&files_then);
        let mut live = open(dir.path());
        change(&mut live);
        let plan = live.compaction(&CompactionPolicy::default()).unwrap();
        assert_eq!(finish(&mut live, &plan, 5), kept);
        assert_eq!(contents(live.index(), SEED), expected);
        tidy(dir.path(), &live);
    }
}

/// Nothing is written for what is done in a moment.
#[test]
fn small_compactions_keep_no_journal() {
    let dir = folder_with(&lived());
    let folder = dir.path().to_owned();
    let mut live = open(dir.path());
    let plan = live.compaction(&SMALL).unwrap().observed(move |_| {
        assert!(of_merge(&files(&folder), "merge-").is_empty());
    });
    finish(&mut live, &plan, 5);
    tidy(dir.path(), &live);
}
