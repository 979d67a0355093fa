//! What may lie on the disk after the power went.
//!
//! A file system may have made durable, of all that was not synced, any part: the model
//! is that of "All File Systems Are Not Created Equal" (Pillai et al., OSDI 2014), with
//! no promise beyond POSIX:
//!
//! * bytes of a file are sure after a sync of that file;
//! * names are sure after a sync of the folder they stand in, also those of files that
//!   were synced themselves;
//! * of the rest every subset may have reached the disk: so a rename may be there
//!   without the bytes of what was renamed, or a later change without an earlier one;
//! * a write may have reached it in half, or as zeros only;
//! * the names that one call changes change together.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};

use crate::disk::Disk;
use crate::record::{Act, Change, Recording};

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fate {
    Done,
    Lost,
    /// The first half of a write is there.
    Half,
    /// The length is there, the bytes are not.
    Zeros,
}

/// How many states are looked at.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// All subsets where so many operations or fewer are not sure.
    pub(crate) exhaustive: usize,
    /// All pairs of lost operations up to so many that are not sure.
    pub(crate) pairs: usize,
    /// Drawn subsets at each moment.
    pub(crate) drawn: usize,
    /// Different folders that are opened, drawn from those there are.
    pub(crate) opened: usize,
}

/// A moment and the fates of what was not sure then.
pub(crate) struct Crash {
    /// Operations before it.
    pub(crate) at: usize,
    /// Those that did not simply reach the disk.
    pub(crate) fates: Vec<(usize, Fate)>,
}

/// The disk after the first `at` operations, each with its fate.
pub(crate) fn state(recording: &Recording, at: usize, fate: &dyn Fn(usize) -> Fate) -> Disk {
    let mut disk = Disk {
        inodes: recording.inodes.clone(),
        names: recording.before.names.clone(),
    };
    for (i, operation) in recording.operations[..at].iter().enumerate() {
        let fate = fate(i);
        if fate == Fate::Lost {
            continue;
        }
        match &operation.act {
            Act::Data(node, change) => {
                let Some(content) = &mut disk.inodes[*node].content else {
                    continue;
                };
                match (fate, change) {
                    (Fate::Half, Change::Write { offset, bytes }) => Change::Write {
                        offset: *offset,
                        bytes: bytes[..bytes.len() / 2].to_vec(),
                    }
                    .apply(content),
                    (Fate::Zeros, Change::Write { offset, bytes }) => {
                        Change::Reserve(offset + bytes.len() as u64).apply(content);
                    }
                    _ => change.apply(content),
                }
            }
            Act::Names(entries) => {
                for (name, node) in entries {
                    match node {
                        Some(node) => disk.names.insert(name.clone(), *node),
                        None => disk.names.remove(name),
                    };
                }
            }
            Act::Sync(_) | Act::SyncAll | Act::Told(_) => {}
        }
    }
    disk
}

/// The operations before `at` that no sync before `at` covers.
pub(crate) fn unsure(recording: &Recording, at: usize) -> Vec<usize> {
    let operations = &recording.operations[..at];
    (0..at)
        .filter(|&i| {
            let later = &operations[i + 1..];
            let synced = |node: usize| {
                later
                    .iter()
                    .any(|o| o.act == Act::Sync(node) || o.act == Act::SyncAll)
            };
            match &operations[i].act {
                Act::Data(node, _) => !synced(*node),
                Act::Names(entries) => entries.iter().any(|((folder, _), _)| !synced(*folder)),
                Act::Sync(_) | Act::SyncAll | Act::Told(_) => false,
            }
        })
        .collect()
}

/// The crashes to look at, of every moment of the run.
pub(crate) fn crashes(recording: &Recording, effort: Effort, seed: u64) -> Vec<Crash> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut out = Vec::new();
    for at in 0..=recording.operations.len() {
        let unsure = unsure(recording, at);
        let mut add = |fates: Vec<(usize, Fate)>| out.push(Crash { at, fates });
        let lost = |which: &dyn Fn(usize) -> bool| -> Vec<(usize, Fate)> {
            unsure
                .iter()
                .enumerate()
                .filter(|(bit, _)| which(*bit))
                .map(|(_, &i)| (i, Fate::Lost))
                .collect()
        };
        // As a kill leaves it.
        add(Vec::new());
        if unsure.len() <= effort.exhaustive {
            for set in 1_u32..1 << unsure.len() {
                add(lost(&|bit| set >> bit & 1 == 1));
            }
        } else {
            add(lost(&|_| true));
            for one in 0..unsure.len() {
                add(lost(&|bit| bit == one));
                add(lost(&|bit| bit != one));
                // In order up to here, as a journal does it.
                add(lost(&|bit| bit > one));
            }
            if unsure.len() <= effort.pairs {
                for one in 0..unsure.len() {
                    for two in 0..one {
                        add(lost(&|bit| bit == one || bit == two));
                        add(lost(&|bit| bit != one && bit != two));
                    }
                }
            }
            for _ in 0..effort.drawn {
                let draw: Vec<bool> = unsure
                    .iter()
                    .map(|_| rng.next_u32().is_multiple_of(2))
                    .collect();
                add(lost(&|bit| draw[bit]));
            }
        }
        // A write in part: alone, and where nothing else that is not sure got through.
        for &i in &unsure {
            if !matches!(
                recording.operations[i].act,
                Act::Data(_, Change::Write { .. })
            ) {
                continue;
            }
            for fate in [Fate::Half, Fate::Zeros] {
                add(vec![(i, fate)]);
                let mut fates = lost(&|bit| unsure[bit] != i);
                fates.push((i, fate));
                add(fates);
                // Names got through, other bytes did not.
                let mut fates: Vec<(usize, Fate)> = lost(&|bit| unsure[bit] != i)
                    .into_iter()
                    .filter(|(other, _)| matches!(recording.operations[*other].act, Act::Data(..)))
                    .collect();
                fates.push((i, fate));
                add(fates);
            }
        }
    }
    out
}

impl Crash {
    pub(crate) fn fate(&self, operation: usize) -> Fate {
        self.fates
            .iter()
            .find(|(i, _)| *i == operation)
            .map_or(Fate::Done, |(_, fate)| *fate)
    }

    /// The step that the program had last called durable.
    pub(crate) fn told(&self, recording: &Recording) -> usize {
        told(recording, self.at)
    }

    /// For people: where, and what was lost.
    pub(crate) fn words(&self, recording: &Recording) -> String {
        let mut out = match self.at.checked_sub(1) {
            Some(last) => format!(
                "power lost after operation {} ({})",
                self.at, recording.operations[last].words
            ),
            None => "power lost before anything".to_owned(),
        };
        for (i, fate) in &self.fates {
            let fate = match fate {
                Fate::Done => continue,
                Fate::Lost => "lost",
                Fate::Half => "half written",
                Fate::Zeros => "written as zeros",
            };
            out.push_str(&format!(
                "; {fate}: operation {} ({})",
                i + 1,
                recording.operations[*i].words
            ));
        }
        out
    }
}

/// The step that the program had called durable within the first `at` operations.
pub(crate) fn told(recording: &Recording, at: usize) -> usize {
    recording.operations[..at]
        .iter()
        .rev()
        .find_map(|operation| match operation.act {
            Act::Told(step) => Some(step),
            _ => None,
        })
        .unwrap_or(0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::disk::{Inode, ROOT};
    use crate::record::Operation;

    fn recording(acts: Vec<Act>) -> Recording {
        let inode = |content| Inode {
            content,
            mode: 0o644,
        };
        let root = inode(None);
        Recording {
            before: Disk {
                inodes: vec![root.clone()],
                names: Default::default(),
            },
            inodes: vec![root, inode(Some(Vec::new()))],
            operations: acts
                .into_iter()
                .map(|act| Operation {
                    act,
                    call: String::new(),
                    ordinal: 0,
                    words: String::new(),
                })
                .collect(),
        }
    }

    fn name(name: &str, node: Option<usize>) -> Act {
        Act::Names(vec![((ROOT, name.to_owned()), node)])
    }

    fn write(bytes: &[u8]) -> Act {
        Act::Data(
            1,
            Change::Write {
                offset: 0,
                bytes: bytes.to_vec(),
            },
        )
    }

    #[test]
    fn what_is_synced_is_sure_and_nothing_else() {
        let recording = recording(vec![
            name("a", Some(1)),
            write(b"abcd"),
            Act::Sync(1),
            Act::Names(vec![
                ((ROOT, "a".into()), None),
                ((ROOT, "b".into()), Some(1)),
            ]),
            Act::Sync(ROOT),
            Act::Told(1),
        ]);
        let unsure: Vec<Vec<usize>> = (0..=6).map(|at| unsure(&recording, at)).collect();
        let expected: [&[usize]; 7] = [&[], &[0], &[0, 1], &[0], &[0, 3], &[], &[]];
        assert_eq!(unsure, expected);
        assert_eq!(told(&recording, 5), 0);
        assert_eq!(told(&recording, 6), 1);
    }

    #[test]
    fn every_subset_and_part_is_looked_at() {
        let recording = recording(vec![name("a", Some(1)), write(b"abcd"), name("b", Some(1))]);
        let effort = Effort {
            exhaustive: 3,
            pairs: 0,
            drawn: 0,
            opened: 0,
        };
        let mut found = std::collections::BTreeSet::new();
        for crash in crashes(&recording, effort, 1) {
            let disk = state(&recording, crash.at, &|i| crash.fate(i));
            let tree: Vec<(String, Vec<u8>)> = disk
                .tree()
                .iter()
                .map(|(path, (content, _))| (path.display().to_string(), content.unwrap().to_vec()))
                .collect();
            found.insert(tree);
        }
        let contents: [&[u8]; 4] = [b"", b"abcd", b"ab", &[0; 4]];
        for content in contents {
            let a = ("a".to_owned(), content.to_vec());
            let b = ("b".to_owned(), content.to_vec());
            assert!(found.contains(&vec![a.clone()]), "{content:?}");
            assert!(found.contains(&vec![a, b]), "{content:?}");
        }
        assert!(found.contains(&Vec::new()));
        // The name that came later without the one that came earlier.
        assert!(found.contains(&vec![("b".to_owned(), b"abcd".to_vec())]));
    }

    #[test]
    fn large_sets_are_sampled_in_order_and_by_draw() {
        let recording = recording((0..20).map(|i| name(&format!("{i}"), Some(1))).collect());
        let effort = Effort {
            exhaustive: 4,
            pairs: 8,
            drawn: 10,
            opened: 0,
        };
        let last = |crash: &&Crash| crash.at == 20;
        let all = crashes(&recording, effort, 1);
        let many = all.iter().filter(last).count();
        assert_eq!(many, 1 + 1 + 3 * 20 + 10);
        let again = crashes(&recording, effort, 1);
        assert!(all.iter().zip(&again).all(|(a, b)| a.fates == b.fates));
    }
}
