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
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

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

/// The folder after each piece of a compaction that often makes durable what it wrote.
fn pieces(path: &Path, live: &LiveIndex) -> (Vec<Files>, Compacted) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (watched, folder) = (Arc::clone(&seen), path.to_owned());
    let done = live
        .compaction(&CompactionPolicy::FULL)
        .unwrap()
        .checkpoint_every(1500)
        .observed(move |_| watched.lock().unwrap().push(files(&folder)))
        .run(&Throttle::NONE, &AtomicBool::new(false), &mut rng(3))
        .unwrap();
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    (seen, done)
}

/// The name of a file that `files` has and `without` has not.
fn new_file<'a>(files: &'a Files, without: &Files, of: &str) -> Option<&'a String> {
    let mut names = files.keys().filter(|name| name.starts_with(of));
    names.find(|name| !without.contains_key(*name))
}

/// Journals come and go while the file of originals grows: of what was not made durable
/// anything may be there, and nothing wrong comes of it.
#[test]
fn a_loss_of_power_during_a_long_compaction_never_gives_wrong_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    build_lived(&path, SEED);
    let mut live = LiveIndex::open(&path, key(SEED)).unwrap();
    let (before, expected) = (files(&path), contents(live.index(), SEED));
    let (pieces, done) = pieces(&path, &live);
    live.commit_compaction(done, &mut rng(4)).unwrap();
    let after = files(&path);
    drop(live);

    let records = new_file(&pieces[0], &before, "segment-").unwrap().clone();
    let mut states: Vec<(Files, Option<bool>)> = Vec::new();
    let mut add = |state: &Files, resumes| states.push((state.clone(), resumes));
    let mut journals = 0;
    for (earlier, later) in pieces.iter().zip(&pieces[1..]) {
        let old = new_file(earlier, &before, "merge-");
        let new = new_file(later, earlier, "merge-");
        let (had, has) = (&earlier[&records], &later[&records]);
        // The originals: what the journal before speaks of is durable.
        for unsure in [
            has.clone(),
            [&had[..], &vec![0; has.len() - had.len()]].concat(),
            had.clone(),
        ] {
            let mut state = earlier.clone();
            state.insert(records.clone(), unsure);
            add(&state, old.map(|_| true));
        }
        let Some(new) = new else { continue };
        journals += 1;
        // Now they are durable, and the next journal is written.
        let whole = &later[new];
        let mut state = later.clone();
        if let Some(old) = old {
            state.insert(old.clone(), earlier[old].clone());
        }
        for part in [
            Vec::new(),
            whole[..whole.len() / 2].to_vec(),
            vec![0; whole.len()],
        ] {
            state.insert(new.clone(), part);
            add(&state, old.map(|_| true));
        }
        // Both, and the new one alone.
        state.insert(new.clone(), whole.clone());
        add(&state, Some(true));
        add(later, Some(true));
        // Its name is there, and the other one's is not.
        let mut state = later.clone();
        state.remove(&records);
        add(&state, Some(false));
    }
    assert!(journals > 5, "{journals}");
    // A journal that came back after the commit.
    let mut state = after.clone();
    let last = pieces.last().unwrap();
    let journal = new_file(last, &before, "merge-").unwrap();
    state.insert(journal.clone(), last[journal].clone());
    add(&state, None);

    for (number, (state, resumes)) in states.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        for (name, content) in &state {
            fs::write(folder.join(name), content).unwrap();
        }
        let client = owner(SEED).client_key();
        let sound = || {
            verify(folder, &key(SEED), Some(&client))
                .unwrap()
                .is_sound()
        };
        assert!(sound(), "{number}");
        let mut live = LiveIndex::open(folder, key(SEED)).unwrap();
        assert_eq!(contents(live.index(), SEED), expected, "{number}");
        let Some(plan) = live.compaction(&CompactionPolicy::FULL) else {
            assert_eq!(files(folder).len(), live.index().files().len() + 1);
            continue;
        };
        let done = plan
            .run(&Throttle::NONE, &AtomicBool::new(false), &mut rng(3))
            .unwrap();
        let resumed = done.resumed_bytes() > 0;
        assert_eq!(resumed, resumes.unwrap_or_default(), "{number}");
        live.commit_compaction(done, &mut rng(4)).unwrap();
        // From the same seed, begun anew or not.
        let now = files(folder);
        let of_segment = |(name, _): &(&String, &Vec<u8>)| name.starts_with("segment-");
        assert!(
            now.iter()
                .filter(of_segment)
                .eq(after.iter().filter(of_segment)),
            "{number}"
        );
        assert_eq!(contents(live.index(), SEED), expected, "{number}");
        assert_eq!(now.len(), live.index().files().len() + 1, "{number}");
        assert!(sound(), "{number}");
    }
}
