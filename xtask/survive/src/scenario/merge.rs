//! A compaction that is stopped, gone on with after the index changed, and stopped by
//! every kill and loss of power in between: journals of it are written often.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use oboro_index::{
    Change, Compaction, CompactionPolicy, EpochKey, Index, IndexError, LiveIndex, Throttle,
};

use super::fixture::{self, Content, INDEX};
use super::{Durable, Scenario};
use crate::Outcome;

/// One compaction in many pieces.
pub(super) struct Merge;

const NUMBER: u8 = 6;
const STEPS: usize = 3;
const BUILT: u64 = 90;
/// Bytes of originals between two journals: some ten records.
const EVERY: u64 = 1000;

/// Of the small segments, also where some vectors of them are deleted.
const POLICY: CompactionPolicy = CompactionPolicy {
    similar: 1,
    deleted_percent: 100,
    full: false,
};

/// What each step deletes: before the compaction, while it is stopped, after it.
fn deleted(step: usize) -> Vec<u64> {
    match step {
        1 => vec![2, 31, 32, 60],
        2 => vec![5, 33, 89],
        _ => vec![],
    }
}

fn content(step: usize) -> Content {
    let mut content = fixture::fresh(0..BUILT);
    for id in (1..=step).flat_map(deleted) {
        content.remove(&id);
    }
    content
}

fn key() -> EpochKey {
    fixture::epoch_key(NUMBER, 1)
}

fn open(folder: &Path) -> Outcome<(usize, Index)> {
    let head = Index::peek(folder.join(INDEX)).map_err(fixture::words)?;
    let step = head.generation as usize - 1;
    if step > STEPS {
        return Err(format!("it is at generation {}", head.generation));
    }
    let index = fixture::whole(folder, &key(), &content(step))?;
    let merged = index.segments().len() == 1;
    if merged != (step == STEPS) {
        return Err("segments are merged at another step".to_owned());
    }
    Ok((step, index))
}

fn live(folder: &Path) -> Outcome<LiveIndex> {
    LiveIndex::open(folder.join(INDEX), key()).map_err(fixture::words)
}

fn delete(live: &mut LiveIndex, step: usize) -> Outcome<()> {
    let change = Change {
        deletes: deleted(step),
        strict: true,
        ..Change::default()
    };
    live.commit(change, &mut fixture::rng(step as u8))
        .map(drop)
        .map_err(fixture::words)
}

fn planned(live: &LiveIndex) -> Outcome<Compaction> {
    let plan = live.compaction(&POLICY);
    let plan = plan.ok_or("there is nothing to merge")?;
    Ok(plan.checkpoint_every(EVERY))
}

/// Runs it half way.
fn stopped(live: &LiveIndex) -> Outcome<()> {
    let cancel = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&cancel);
    let plan = planned(live)?;
    let half = plan.bytes() / 2;
    let plan = plan.observed(move |written| end.store(written >= half, Ordering::Relaxed));
    match plan.run(&Throttle::NONE, &cancel, &mut fixture::rng(40)) {
        Err(IndexError::Cancelled { kept }) if kept > 0 => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(_) => Err("the compaction was not stopped".to_owned()),
    }
}

impl Scenario for Merge {
    fn name(&self) -> String {
        "merge".to_owned()
    }

    fn prepare(&self, folder: &Path) -> Outcome<()> {
        fixture::build(folder, NUMBER, &content(0), false)
    }

    fn steps(&self) -> usize {
        STEPS
    }

    fn run(&self, folder: &Path, durable: Durable<'_>) -> Outcome<()> {
        let mut index = live(folder)?;
        let mut step = open(folder)?.0;
        if step == 0 {
            delete(&mut index, 1)?;
            step = 1;
            durable(step)?;
        }
        let mut was_stopped = false;
        if step == 1 {
            stopped(&index)?;
            delete(&mut index, 2)?;
            step = 2;
            durable(step)?;
            was_stopped = true;
            // As a process that ended, and the next.
            drop(index);
            index = live(folder)?;
        }
        if step == 2 {
            let done = planned(&index)?
                .run(
                    &Throttle::NONE,
                    &AtomicBool::new(false),
                    &mut fixture::rng(41),
                )
                .map_err(fixture::words)?;
            if was_stopped && done.resumed_bytes() == 0 {
                return Err("the compaction began anew".to_owned());
            }
            index
                .commit_compaction(done, &mut fixture::rng(3))
                .map_err(fixture::words)?;
            durable(3)?;
        }
        Ok(())
    }

    fn state(&self, folder: &Path) -> Outcome<usize> {
        Ok(open(folder)?.0)
    }

    fn settle(&self, folder: &Path) -> Outcome<()> {
        live(folder).map(drop)
    }

    fn is_turned_away(&self, said: &str, other: u32) -> Option<bool> {
        Some(super::names_the_holder(said, other))
    }

    fn belongs(&self, folder: &Path) -> Outcome<BTreeSet<PathBuf>> {
        Ok(fixture::files(&open(folder)?.1))
    }
}
