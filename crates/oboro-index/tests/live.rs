//! Changes of a live index: what is there afterwards, and what is refused.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use oboro_index::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

const SEED: u8 = 44;
/// Rows of the index that every test begins with.
const BUILT: usize = 70;

/// A copy of an index that was built once.
fn folder() -> (tempfile::TempDir, PathBuf) {
    static BUILT_INDEX: OnceLock<tempfile::TempDir> = OnceLock::new();
    let built = BUILT_INDEX.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        build(&dir.path().join("index"), SEED, BUILT, false).unwrap();
        dir
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    fs::create_dir(&path).unwrap();
    for entry in fs::read_dir(built.path().join("index")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
    }
    (dir, path)
}

fn open() -> (tempfile::TempDir, PathBuf, LiveIndex) {
    let (dir, path) = folder();
    let live = LiveIndex::open(&path, key(SEED)).unwrap();
    (dir, path, live)
}

fn built() -> BTreeMap<u64, usize> {
    (0..BUILT).map(|row| (id(row), row)).collect()
}

fn insert(stages: Vec<Staged>) -> Change {
    Change {
        stages,
        ..Change::default()
    }
}

fn delete(deletes: Vec<u64>) -> Change {
    Change {
        deletes,
        ..Change::default()
    }
}

fn compact(live: &LiveIndex, policy: &CompactionPolicy) -> Option<Compacted> {
    let plan = live.compaction(policy)?;
    Some(
        plan.run(&Throttle::NONE, &AtomicBool::new(false), &mut fresh())
            .unwrap(),
    )
}

/// The folder holds what the index lists, the lock, and nothing else.
fn tidy(path: &Path, index: &Index) {
    let mut found: Vec<String> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    let mut listed: Vec<String> = index.files().iter().map(|file| file.0.clone()).collect();
    listed.push("LOCK".into());
    listed.sort();
    assert_eq!(found, listed);
    for (name, bytes) in index.files() {
        assert_eq!(fs::metadata(path.join(name)).unwrap().len(), *bytes);
    }
}

fn sound(path: &Path, vectors: u64) {
    let client = owner(SEED).client_key();
    let report = verify(path, &key(SEED), Some(&client)).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.vectors, report.records_opened), (vectors, vectors));
    assert!(report.unlisted.is_empty(), "{report:?}");
    assert!(report.model);
}

#[derive(Debug, Clone)]
enum Step {
    Change {
        /// Ids and rows of each new segment.
        segments: Vec<Vec<(u64, usize)>>,
        deletes: Vec<u64>,
        replace: bool,
        strict: bool,
    },
    Compact {
        full: bool,
        /// Deleted and inserted while it runs.
        deletes: Vec<u64>,
        inserts: Vec<(u64, usize)>,
    },
    Reopen,
}

fn ids() -> impl Strategy<Value = u64> {
    // Some of those built, and some that are new.
    prop_oneof![(0..40_usize).prop_map(id), 0..30_u64]
}

fn step() -> impl Strategy<Value = Step> {
    let row = || (ids(), 0..ROWS);
    let rows = || proptest::collection::vec(row(), 1..20);
    let change = (
        proptest::collection::vec(rows(), 0..3),
        proptest::collection::vec(ids(), 0..12),
        any::<bool>(),
        proptest::bool::weighted(0.3),
    )
        .prop_map(|(segments, deletes, replace, strict)| Step::Change {
            segments,
            deletes,
            replace,
            strict,
        });
    let compact = (
        any::<bool>(),
        proptest::collection::vec(ids(), 0..12),
        proptest::collection::vec(row(), 0..5),
    )
        .prop_map(|(full, deletes, inserts)| Step::Compact {
            full,
            deletes,
            inserts,
        });
    prop_oneof![6 => change, 2 => compact, 1 => Just(Step::Reopen)]
}

/// What a change should do to a map, and its counts.
fn apply(
    map: &BTreeMap<u64, usize>,
    segments: &[Vec<(u64, usize)>],
    deletes: &[u64],
    replace: bool,
) -> (BTreeMap<u64, usize>, [u64; 5]) {
    let (mut map, before) = (map.clone(), map);
    let [
        mut inserted,
        mut replaced,
        mut refused,
        mut deleted,
        mut unknown,
    ] = [0; 5];
    let mut gone = before.clone();
    for id in deletes {
        if gone.remove(id).is_some() {
            map.remove(id);
            deleted += 1;
        } else {
            unknown += 1;
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    for segment in segments {
        let mut of_segment = std::collections::BTreeSet::new();
        for &(id, row) in segment {
            if seen.contains(&id) || of_segment.contains(&id) {
                refused += 1;
                continue;
            }
            if gone.contains_key(&id) {
                if replace {
                    replaced += 1;
                } else {
                    refused += 1;
                    continue;
                }
            } else {
                inserted += 1;
            }
            map.insert(id, row);
            of_segment.insert(id);
        }
        seen.extend(of_segment);
    }
    (map, [inserted, replaced, refused, deleted, unknown])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done in whatever order, the index is the map.
    #[test]
    fn random_changes_agree_with_a_map(steps in proptest::collection::vec(step(), 1..9)) {
        let (_dir, path, mut live) = open();
        let mut map = built();
        let mut number = 0;
        let mut random = fresh();
        let mut generation = 1;
        for step in steps {
            match step {
                Step::Change { segments, deletes, replace, strict } => {
                    let stages = segments.iter().map(|rows| {
                        number += 1;
                        stage(&live, SEED, number, rows)
                    }).collect();
                    let (next, counts) = apply(&map, &segments, &deletes, replace);
                    let on_existing = if replace { OnExisting::Replace } else { OnExisting::Refuse };
                    let change = Change { stages, deletes, on_existing, strict };
                    let result = live.commit(change, &mut random);
                    if strict && (counts[2] > 0 || counts[4] > 0) {
                        let refused = matches!(
                            result.err().unwrap(),
                            IndexError::Refused { refused, unknown } if [refused, unknown] == [counts[2], counts[4]]
                        );
                        prop_assert!(refused);
                    } else {
                        let o = result.unwrap();
                        prop_assert_eq!([o.inserted, o.replaced, o.refused, o.deleted, o.unknown], counts);
                        let changes = counts[0] + counts[1] + counts[3] > 0;
                        generation += u64::from(changes);
                        prop_assert_eq!(o.index.head(), live.index().head());
                        map = next;
                    }
                }
                Step::Compact { full, deletes, inserts } => {
                    let policy = if full { CompactionPolicy::FULL } else { CompactionPolicy::default() };
                    let done = compact(&live, &policy);
                    let stages = if inserts.is_empty() { Vec::new() } else {
                        number += 1;
                        vec![stage(&live, SEED, number, &inserts)]
                    };
                    let (next, counts) = apply(&map, &[inserts], &deletes, true);
                    let change = Change { stages, deletes, on_existing: OnExisting::Replace, strict: false };
                    live.commit(change, &mut random).unwrap();
                    map = next;
                    generation += u64::from(counts[0] + counts[1] + counts[3] > 0);
                    if let Some(done) = done {
                        live.commit_compaction(done, &mut random).unwrap();
                        generation += 1;
                        if full {
                            prop_assert!(live.index().segments().len() <= 2);
                        }
                    }
                }
                Step::Reopen => {
                    drop(live);
                    live = LiveIndex::open(&path, key(SEED)).unwrap();
                }
            }
            prop_assert_eq!(&contents(live.index(), SEED), &map);
            prop_assert_eq!(live.index().generation(), generation);
            tidy(&path, live.index());
            for id in (0..30).chain((0..40).map(id)) {
                let found = live.locate(id).map(|place| {
                    let segment = &live.index().segments()[place.segment];
                    assert!(segment.is_alive(place.position));
                    segment.ids()[place.position as usize]
                });
                prop_assert_eq!(found, map.contains_key(&id).then_some(id));
            }
        }
        sound(&path, map.len() as u64);
        prop_assert_eq!(&contents(&Index::open(&path, &key(SEED)).unwrap(), SEED), &map);
    }
}

#[test]
fn fail_a_second_writer_but_readers_come_and_go() {
    let (_dir, path, live) = open();
    let pid = std::process::id();
    for error in [
        LiveIndex::open(&path, key(SEED)).err().unwrap(),
        live.index().remove_leftovers(&path).err().unwrap(),
        start(&path, SEED, true).err().unwrap(),
    ] {
        let holder = matches!(&error, IndexError::Locked { pid: Some(found), .. } if *found == pid);
        assert!(holder, "{error}");
        assert!(error.to_string().contains(&format!("process {pid}")));
    }
    sound(&path, BUILT as u64);
    Index::open(&path, &key(SEED)).unwrap();
    // A staged segment and a plan hold the lock as well.
    let staged = stage(&live, SEED, 1, &[(1, 1)]);
    drop(live);
    assert!(LiveIndex::open(&path, key(SEED)).is_err());
    drop(staged);
    let mut live = LiveIndex::open(&path, key(SEED)).unwrap();
    live.commit(delete(vec![id(3)]), &mut fresh()).unwrap();
    let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
    drop(live);
    assert!(LiveIndex::open(&path, key(SEED)).is_err());
    drop(plan);
    // A build that begins while nobody writes is refused at its end.
    let live = std::cell::RefCell::new(None);
    let error = build_then(&path, SEED, 10, true, || {
        live.replace(Some(LiveIndex::open(&path, key(SEED)).unwrap()));
    });
    assert!(matches!(error.err(), Some(IndexError::Locked { .. })));
    assert_eq!(live.take().unwrap().index().vectors(), BUILT as u64 - 1);
    build(&path, SEED, 10, true).unwrap();
    assert_eq!(
        LiveIndex::open(&path, key(SEED)).unwrap().index().vectors(),
        10
    );
    // Where there is no index, no lock is made.
    let empty = tempfile::tempdir().unwrap();
    assert!(LiveIndex::open(empty.path(), key(SEED)).is_err());
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn snapshots_outlive_changes_and_compactions() {
    let (_dir, path, mut live) = open();
    let mut states = vec![(live.index().clone(), built())];
    for round in 0..4_u32 {
        let rows: Vec<_> = (0..10)
            .map(|i| (u64::from(round) * 10 + i, 100 + i as usize))
            .collect();
        let deletes = vec![id(round as usize), id(20 + round as usize)];
        let change = Change {
            stages: vec![stage(&live, SEED, round, &rows)],
            deletes: deletes.clone(),
            ..Change::default()
        };
        let (map, _) = apply(&states.last().unwrap().1, &[rows], &deletes, false);
        let outcome = live.commit(change, &mut fresh()).unwrap();
        states.push((outcome.index, map));
        if round % 2 == 1 {
            let done = compact(&live, &CompactionPolicy::FULL).unwrap();
            let index = live.commit_compaction(done, &mut fresh()).unwrap();
            assert_eq!((index.segments().len(), index.deleted()), (1, 0));
            let map = states.last().unwrap().1.clone();
            states.push((index, map));
        }
    }
    tidy(&path, live.index());
    for (index, map) in &states {
        assert_eq!(contents(index, SEED), *map);
    }
    // What did not change is the same memory.
    let before = live.index().clone();
    live.commit(delete(vec![id(50)]), &mut fresh()).unwrap();
    let after = live.index();
    assert!(std::ptr::eq(
        before.segments()[0].codes(),
        after.segments()[0].codes()
    ));
}

#[test]
fn fail_strict_changes_change_nothing() {
    let (_dir, path, mut live) = open();
    let before = live.index().head();
    let strict = |change: Change| Change {
        strict: true,
        ..change
    };
    let cases = [
        (vec![(5, 1), (id(2), 2)], vec![], (1, 0)),
        (vec![(5, 1), (5, 2), (5, 3)], vec![], (2, 0)),
        (vec![(5, 1)], vec![id(1), 77, id(1)], (0, 2)),
        (vec![(id(1), 1)], vec![77], (1, 1)),
    ];
    for (number, (rows, deletes, (refused, unknown))) in cases.into_iter().enumerate() {
        let staged = stage(&live, SEED, number as u32, &rows);
        let change = Change {
            deletes,
            ..strict(insert(vec![staged]))
        };
        let error = live.commit(change, &mut fresh()).err().unwrap();
        let counts = matches!(error, IndexError::Refused { refused: r, unknown: u } if (r, u) == (refused, unknown));
        assert!(counts, "{error}");
        assert!(error.to_string().starts_with("nothing was changed"));
        assert_eq!(live.index().head(), before);
        tidy(&path, live.index());
    }
    // An id that is deleted and inserted in one change is there afterwards.
    let staged = stage(&live, SEED, 9, &[(id(1), 5)]);
    let change = Change {
        deletes: vec![id(1)],
        ..strict(insert(vec![staged]))
    };
    let outcome = live.commit(change, &mut fresh()).unwrap();
    assert_eq!((outcome.inserted, outcome.deleted), (1, 1));
    assert_eq!(contents(live.index(), SEED)[&id(1)], 5);
    // Nothing to do is no commit.
    let generation = live.index().generation();
    live.commit(Change::default(), &mut fresh()).unwrap();
    live.commit(delete(vec![77]), &mut fresh()).unwrap();
    assert_eq!(live.index().generation(), generation);
}

#[test]
fn fail_segments_that_do_not_fit() {
    let (_dir, path, mut live) = open();
    let rows = [(1, 1), (2, 2)];
    let parts = Parts::new(live.index(), SEED, 1, &rows);
    let good = parts.new_segment();
    let far = [0, 16, 0, 0, 0, 0, 0, 0];
    for (bad, what) in [
        (NewSegment { ids: &[], ..good }, "0 vectors"),
        (NewSegment { ids: &[1], ..good }, "number of codes"),
        (
            NewSegment {
                codes: &far[1..],
                ..good
            },
            "number of codes",
        ),
        (
            NewSegment {
                codes: &far,
                ..good
            },
            "beyond the 16",
        ),
        (NewSegment { tags: &[], ..good }, "number of tags"),
        (
            NewSegment {
                tags: &[0, 8],
                ..good
            },
            "beyond the 3",
        ),
        (
            NewSegment {
                records: &good.records[1..],
                ..good
            },
            "originals",
        ),
    ] {
        let error = live.stage(&bad).err().unwrap().to_string();
        assert!(error.contains(what), "{error}");
        tidy(&path, live.index());
    }
    // One id for two segments, on disk or already in the index.
    let staged = live.stage(&good).unwrap();
    assert!(live.stage(&good).is_err());
    assert_eq!((staged.len(), staged.is_empty()), (2, false));
    live.commit(insert(vec![staged]), &mut fresh()).unwrap();
    assert!(live.stage(&good).is_err());
    tidy(&path, live.index());
    assert_eq!(contents(live.index(), SEED).len(), BUILT + 2);
    // Staged for another index, or before it was closed and opened.
    let (_other_dir, _, other) = open();
    let staged = stage(&other, SEED, 5, &rows);
    let error = live
        .commit(insert(vec![staged]), &mut fresh())
        .err()
        .unwrap();
    assert!(error.to_string().contains("another index"), "{error}");
    // Somebody replaced the manifest all the same.
    let manifest = fs::read(path.join("MANIFEST")).unwrap();
    fs::write(path.join("MANIFEST"), &manifest[1..]).unwrap();
    let error = live
        .commit(delete(vec![id(1)]), &mut fresh())
        .err()
        .unwrap();
    assert!(error.to_string().contains("another state"), "{error}");
    fs::write(path.join("MANIFEST"), manifest).unwrap();
    live.commit(delete(vec![id(1)]), &mut fresh()).unwrap();
    tidy(&path, live.index());
}

/// A segment of which nothing is taken leaves no files.
#[test]
fn refused_and_dropped_segments_leave_nothing() {
    let (_dir, path, mut live) = open();
    let staged = stage(&live, SEED, 1, &[(id(1), 100), (id(2), 100)]);
    let other = stage(&live, SEED, 2, &[(1, 100), (id(2), 100)]);
    assert!(other.bytes() > 0);
    let outcome = live
        .commit(insert(vec![staged, other]), &mut fresh())
        .unwrap();
    assert_eq!((outcome.inserted, outcome.refused), (1, 3));
    assert_eq!(live.index().segments().len(), 3);
    tidy(&path, live.index());
    drop(stage(&live, SEED, 3, &[(9, 9)]));
    tidy(&path, live.index());
    // Everything can be deleted, merged, and begun anew.
    let all: Vec<u64> = contents(live.index(), SEED).into_keys().collect();
    live.commit(delete(all), &mut fresh()).unwrap();
    assert_eq!(live.index().vectors(), 0);
    let done = compact(&live, &CompactionPolicy::FULL).unwrap();
    assert!(done.is_empty());
    live.commit_compaction(done, &mut fresh()).unwrap();
    assert_eq!(live.index().segments().len(), 1);
    sound(&path, 0);
    let staged = stage(&live, SEED, 4, &[(7, 7)]);
    live.commit(insert(vec![staged]), &mut fresh()).unwrap();
    assert_eq!(contents(live.index(), SEED), BTreeMap::from([(7, 7)]));
    tidy(&path, live.index());
}
