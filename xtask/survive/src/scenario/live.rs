//! An index that is changed: inserts, deletes, replacements, a compaction during which
//! vectors are deleted, a rotation, and changes after it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use oboro_index::{
    Change, CompactionPolicy, Index, LiveIndex, NewSegment, OnExisting, SegmentSealer, Staged,
    Throttle,
};
use rand_core::Rng;

use super::fixture::{self, Content, INDEX, Rows};
use super::{Durable, Scenario, rotate};
use crate::Outcome;

/// The life of one index.
pub(super) struct Live;

const NUMBER: u8 = 5;
const STEPS: usize = 9;
/// The step after which the index is at epoch 2.
const ROTATED: usize = 8;

/// What an index holds after a step.
fn content(step: usize) -> Content {
    let mut content = fixture::fresh(0..90);
    for step in 1..=step {
        let (inserted, deleted) = change(step);
        for id in deleted {
            content.remove(&id);
        }
        content.extend(inserted.into_iter().flatten());
    }
    content
}

/// Segments that a step brings, and what it deletes.
fn change(step: usize) -> (Vec<Vec<(u64, u32)>>, Vec<u64>) {
    let version = |ids: std::ops::Range<u64>, version| ids.map(|id| (id, version)).collect();
    match step {
        1 => (vec![version(100..150, 0)], vec![]),
        // Of the first segment, of the second, and of the one that came.
        2 => (vec![], vec![3, 50, 51, 52, 149]),
        // Replaces old ones and brings new ones, in two segments.
        3 => (vec![version(20..40, 1), version(130..170, 1)], vec![]),
        // The same id is deleted and comes again.
        4 => (vec![version(60..70, 2)], vec![60, 61, 169]),
        // While segments are merged, from which it is.
        5 => (vec![version(300..310, 0)], vec![62, 101]),
        // 6: the merged segment comes into force.
        7 => (vec![], vec![305, 0]),
        // 8: the rotation.
        9 => (vec![version(400..420, 0), version(1..4, 3)], vec![4]),
        _ => (vec![], vec![]),
    }
}

fn key(step: usize) -> oboro_index::EpochKey {
    fixture::epoch_key(NUMBER, if step < ROTATED { 1 } else { 2 })
}

fn open(folder: &Path) -> Outcome<(usize, Index)> {
    let head = Index::peek(folder.join(INDEX)).map_err(fixture::words)?;
    let step = head.generation as usize - 1;
    if step > STEPS {
        return Err(format!("it is at generation {}", head.generation));
    }
    Ok((step, fixture::whole(folder, &key(step), &content(step))?))
}

fn stage(live: &LiveIndex, content: &[(u64, u32)], seed: u8) -> Outcome<Staged> {
    let mut rng = fixture::rng(seed);
    let mut segment_id = [0; 16];
    rng.fill_bytes(&mut segment_id);
    let rows = Rows::new(content, &mut rng)?;
    let sealer = SegmentSealer::new(
        &fixture::owner().record_key(),
        live.index().descriptor(),
        segment_id,
    );
    let records = sealer
        .seal(&rows.places, &rows.ids, &rows.vectors, &rows.extras)
        .map_err(fixture::words)?;
    let mut ids = rows.ids.clone();
    for (&place, &id) in rows.places.iter().zip(&rows.ids) {
        ids[place as usize] = id;
    }
    live.stage(&NewSegment {
        segment_id,
        ids: &ids,
        codes: &rows.codes,
        tags: &rows.tags,
        lists: &[],
        records: &records,
    })
    .map_err(fixture::words)
}

/// The change of one step, committed.
fn commit(live: &mut LiveIndex, step: usize) -> Outcome<()> {
    let (inserted, deletes) = change(step);
    let stages = (0..)
        .zip(&inserted)
        .map(|(nth, content)| stage(live, content, 60 + 10 * step as u8 + nth))
        .collect::<Outcome<_>>()?;
    let change = Change {
        stages,
        deletes,
        on_existing: OnExisting::Replace,
        strict: true,
    };
    live.commit(change, &mut fixture::rng(step as u8))
        .map(|_| ())
        .map_err(fixture::words)
}

fn compacted(live: &LiveIndex) -> Outcome<oboro_index::Compacted> {
    live.compaction(&CompactionPolicy::FULL)
        .ok_or("there is nothing to merge")?
        .run(
            &Throttle::NONE,
            &AtomicBool::new(false),
            &mut fixture::rng(40),
        )
        .map_err(fixture::words)
}

impl Scenario for Live {
    fn name(&self) -> String {
        "live".to_owned()
    }

    fn prepare(&self, folder: &Path) -> Outcome<()> {
        fixture::build(folder, NUMBER, &content(0), false)
    }

    fn steps(&self) -> usize {
        STEPS
    }

    fn run(&self, folder: &Path, durable: Durable<'_>) -> Outcome<()> {
        // Under the lock before anything is looked at, as every writer.
        let head = Index::peek(folder.join(INDEX)).map_err(fixture::words)?;
        let key = fixture::epoch_key(NUMBER, head.epoch);
        let mut live = LiveIndex::open(folder.join(INDEX), key).map_err(fixture::words)?;
        let mut step = open(folder)?.0;
        let mut merged = None;
        while step < STEPS {
            step += 1;
            let mut rng = fixture::rng(step as u8);
            match step {
                5 => {
                    merged = Some(compacted(&live)?);
                    commit(&mut live, step)?;
                }
                6 => {
                    let merged = match merged.take() {
                        Some(merged) => merged,
                        // It was interrupted, and has to be done again.
                        None => compacted(&live)?,
                    };
                    live.commit_compaction(merged, &mut rng)
                        .map_err(fixture::words)?;
                }
                ROTATED => {
                    let next = rotate::next_epoch(live.index(), NUMBER)?;
                    let written = live
                        .begin_epoch(&next.key, &next.descriptor, &next.codebook, &mut rng)
                        .map_err(fixture::words)?;
                    live.commit_epoch(written, next.key)
                        .map_err(fixture::words)?;
                }
                _ => commit(&mut live, step)?,
            }
            durable(step)?;
        }
        Ok(())
    }

    fn state(&self, folder: &Path) -> Outcome<usize> {
        Ok(open(folder)?.0)
    }

    fn settle(&self, folder: &Path) -> Outcome<()> {
        LiveIndex::open(folder.join(INDEX), key(STEPS))
            .map(drop)
            .map_err(fixture::words)
    }

    fn is_turned_away(&self, said: &str, other: u32) -> Option<bool> {
        Some(super::names_the_holder(said, other))
    }

    fn belongs(&self, folder: &Path) -> Outcome<BTreeSet<PathBuf>> {
        Ok(fixture::files(&open(folder)?.1))
    }
}
