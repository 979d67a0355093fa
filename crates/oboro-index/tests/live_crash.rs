//! Every state of the folder that a kill can leave while a live index changes:
//! each opens at the commit before or at the one after, whole and without what
//! was left behind. `xtask/survive` does the same from outside, call by call.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use oboro_index::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const SEED: u8 = 48;

type Files = BTreeMap<String, Vec<u8>>;

fn files(folder: &Path) -> Files {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// All folders on the way from `before` over `written`, when everything lies
/// there but the manifest, to `after`; and whether the change is in force.
fn states(before: &Files, written: &Files, after: &Files) -> Vec<(Files, bool)> {
    let mut states = Vec::new();
    let added: Vec<_> = written
        .iter()
        .filter(|(name, _)| !before.contains_key(*name))
        .collect();
    // Files are written one after the other, and unsynced ones are anything.
    let mut state = before.clone();
    for (name, content) in added {
        for partial in [
            Vec::new(),
            content[..content.len() / 2].to_vec(),
            vec![0; content.len()],
            content.clone(),
        ] {
            state.insert(name.clone(), partial);
            states.push((state.clone(), false));
        }
    }
    let manifest = &after["MANIFEST"];
    for next in [&[][..], &manifest[..manifest.len() / 2], manifest] {
        let mut state = written.clone();
        state.insert("MANIFEST.next".into(), next.to_vec());
        states.push((state, false));
    }
    // Renamed; old files go in whatever order.
    let removed: Vec<_> = written
        .iter()
        .filter(|(name, _)| !after.contains_key(*name))
        .collect();
    for left in 0..1_u32 << removed.len().min(6) {
        let mut state = after.clone();
        for (i, (name, content)) in removed.iter().enumerate() {
            if left >> i.min(5) & 1 == 1 {
                state.insert((*name).clone(), (*content).clone());
            }
        }
        states.push((state, true));
    }
    states
}

fn check(states: Vec<(Files, bool)>, before: &BTreeMap<u64, usize>, after: &BTreeMap<u64, usize>) {
    for (number, (state, in_force)) in states.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        for (name, content) in &state {
            fs::write(folder.join(name), content).unwrap();
        }
        fs::write(folder.join("note.txt"), "mine").unwrap();
        let want = if in_force { after } else { before };
        let client = owner(SEED).client_key();
        let report = verify(folder, &key(SEED), Some(&client)).unwrap();
        assert!(report.is_sound(), "{number}: {report:?}");
        let mut live = LiveIndex::open(folder, key(SEED)).unwrap();
        assert_eq!(&contents(live.index(), SEED), want, "{number}");
        let left = files(folder).len();
        assert_eq!(left, live.index().files().len() + 2, "{number}");
        // And life goes on.
        let change = Change {
            stages: vec![stage(&live, SEED, 900, &[(7, 70)])],
            deletes: vec![*want.keys().next().unwrap()],
            strict: true,
            ..Change::default()
        };
        live.commit(change, &mut fresh()).unwrap();
        assert_eq!(contents(live.index(), SEED).len(), want.len());
        let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
        let done = plan.run(&Throttle::NONE, &false.into(), &mut fresh());
        live.commit_compaction(done.unwrap(), &mut fresh()).unwrap();
        assert_eq!(files(folder).len(), live.index().files().len() + 2);
    }
}

/// The files that `after` lists and `before` does not, beside those of
/// `before`: what lies there just before the manifest is renamed.
fn written(before: &Files, after: &Files) -> Files {
    let mut all = after.clone();
    all.extend(before.clone());
    all
}

#[test]
fn a_kill_during_a_commit_leaves_the_state_before_or_after() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build_lived(&path, SEED);
    let mut live = LiveIndex::open(&path, key(SEED)).unwrap();
    let before = (files(&path), contents(live.index(), SEED));
    // Inserts, a replacement, a refusal and deletes at once, so that every
    // kind of file is written and lists of deleted vectors are replaced.
    let rows = [(1, 500), (id(8), 501), (id(170), 502), (1, 503)];
    let change = Change {
        stages: vec![stage(&live, SEED, 20, &rows)],
        deletes: vec![id(1), id(165)],
        on_existing: OnExisting::Replace,
        strict: false,
    };
    let outcome = live.commit(change, &mut fresh()).unwrap();
    assert_eq!(
        [
            outcome.inserted,
            outcome.replaced,
            outcome.refused,
            outcome.deleted
        ],
        [1, 2, 1, 2]
    );
    let after = (files(&path), contents(live.index(), SEED));
    let written = written(&before.0, &after.0);
    assert_eq!(written.len(), before.0.len() + 7);
    assert_eq!(after.0.len(), before.0.len() + 5);
    check(states(&before.0, &written, &after.0), &before.1, &after.1);
}

#[test]
fn a_kill_during_a_compaction_leaves_the_state_before_or_after() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build_lived(&path, SEED);
    let mut live = LiveIndex::open(&path, key(SEED)).unwrap();
    let plan = live.compaction(&CompactionPolicy::FULL).unwrap();
    let done = plan
        .run(&Throttle::NONE, &false.into(), &mut fresh())
        .unwrap();
    // Deleted while it ran, so that the merged segment has a list, too.
    let change = Change {
        deletes: vec![id(2)],
        strict: true,
        ..Change::default()
    };
    live.commit(change, &mut fresh()).unwrap();
    let merged: Files = files(&path);
    let before = (
        merged
            .iter()
            .filter(|(name, _)| {
                *name == "LOCK" || live.index().files().iter().any(|file| file.0 == **name)
            })
            .map(|(name, content)| (name.clone(), content.clone()))
            .collect::<Files>(),
        contents(live.index(), SEED),
    );
    live.commit_compaction(done, &mut fresh()).unwrap();
    let after = (files(&path), contents(live.index(), SEED));
    assert_eq!(before.1, after.1);
    let written = written(&before.0, &after.0);
    assert_eq!(written.len(), before.0.len() + 5);
    check(states(&before.0, &written, &after.0), &before.1, &after.1);
}
