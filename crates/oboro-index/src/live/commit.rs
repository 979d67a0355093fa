//! One change, visible in one step.

use super::plan::Plan;
use super::{LiveIndex, Staged};
use crate::layout::{self, FileKind};
use crate::manifest::SegmentEntry;
use crate::{Index, IndexError, Segment, alive};
use rand_core::CryptoRng;
use std::sync::Arc;

/// What becomes of a new vector whose id is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExisting {
    /// It is left out and counted.
    #[default]
    Refuse,
    /// It takes the other one's place.
    Replace,
}

/// One change of an index.
///
/// Deletes come first: an id that is deleted and inserted in one change is
/// there afterwards, with the new vector. Of new vectors with one id, in one
/// segment or in several, the first counts (by the order of `stages`, then by
/// position) and the others are refused, also with [`OnExisting::Replace`].
#[derive(Default)]
pub struct Change {
    /// New segments.
    pub stages: Vec<Staged>,
    /// Ids to delete.
    pub deletes: Vec<u64>,
    /// What becomes of ids that are there already.
    pub on_existing: OnExisting,
    /// Refuse the whole change where a vector would be left out or an id to
    /// delete is not there.
    pub strict: bool,
}

/// What a change did.
#[derive(Clone)]
pub struct Outcome {
    /// Vectors that were added under new ids.
    pub inserted: u64,
    /// Vectors that took another one's place.
    pub replaced: u64,
    /// New vectors that were left out.
    pub refused: u64,
    /// Vectors deleted.
    pub deleted: u64,
    /// Ids to delete that were not there.
    pub unknown: u64,
    /// The state that is in force now.
    pub index: Index,
}

impl LiveIndex {
    /// Makes a change visible, in one step and durably. If nothing is left of
    /// it, the state stays the one it was.
    ///
    /// # Errors
    /// [`IndexError::Refused`] if it is strict and not all of it can be done,
    /// if a segment was staged for another index or epoch, or if a file cannot
    /// be written. Nothing of the change is then visible, and its staged
    /// segments are gone. There is one exception, [`IndexError::Unsure`]: if
    /// only the last step fails, to make the new manifest durable, either
    /// state may be found when the index is opened again, the files of both
    /// are there, and further changes are refused until then.
    pub fn commit(
        &mut self,
        change: Change,
        rng: &mut impl CryptoRng,
    ) -> Result<Outcome, IndexError> {
        for staged in &change.stages {
            self.workplace.check(&staged.draft, staged.epoch)?;
        }
        self.refuse_repeated(&change.stages)?;
        let new: Vec<&Segment> = change.stages.iter().map(|staged| &staged.segment).collect();
        let plan = Plan::new(
            self.index.segments(),
            &new,
            change.deletes,
            change.on_existing,
        );
        let counts = plan.counts;
        if change.strict && (counts.refused > 0 || counts.unknown > 0) {
            return Err(IndexError::Refused {
                refused: counts.refused,
                unknown: counts.unknown,
            });
        }
        if counts.inserted + counts.replaced + counts.deleted > 0 {
            self.write(plan, change.stages, rng)?;
        }
        Ok(Outcome {
            inserted: counts.inserted,
            replaced: counts.replaced,
            refused: counts.refused,
            deleted: counts.deleted,
            unknown: counts.unknown,
            index: self.index.clone(),
        })
    }

    /// A segment's id may be in an index once only.
    fn refuse_repeated(&self, stages: &[Staged]) -> Result<(), IndexError> {
        let of_index = self.index.segments().iter().map(Segment::id);
        let mut all: Vec<&[u8; 16]> = of_index
            .chain(stages.iter().map(Staged::segment_id))
            .collect();
        all.sort_unstable();
        match all.windows(2).any(|pair| pair[0] == pair[1]) {
            false => Ok(()),
            true => Err(IndexError::Invalid(
                "a new segment has the id of another one; stage it again under a random id".into(),
            )),
        }
    }

    fn write(
        &mut self,
        plan: Plan,
        stages: Vec<Staged>,
        rng: &mut impl CryptoRng,
    ) -> Result<(), IndexError> {
        let workplace = Arc::clone(&self.workplace);
        let key = &workplace.key;
        let before = self.index.clone();
        let mut draft = workplace.draft();
        let mut replaced = Vec::new();
        let mut lists = 0;
        let mut list = |entry: SegmentEntry, segment: &Segment, bits: Option<Vec<u64>>| {
            let Some(bits) = bits else {
                return Ok((entry, segment.clone()));
            };
            let mut id = [0; 16];
            rng.fill_bytes(&mut id);
            let segment = segment.with_alive(bits.into());
            let bits = segment.alive().unwrap_or_default();
            let payload = alive::to_bytes(bits, segment.len());
            let file = draft.seal(key, FileKind::Deleted, id, &payload)?;
            lists += 1;
            replaced.extend(entry.deleted.map(|(_, file)| (FileKind::Deleted, file)));
            let entry = SegmentEntry {
                deleted: Some((segment.deleted(), file)),
                ..entry
            };
            Ok::<_, IndexError>((entry, segment))
        };
        let (mut entries, mut segments) = (Vec::new(), Vec::new());
        let present = before.manifest().segments.iter().zip(before.segments());
        for ((entry, segment), bits) in present.zip(plan.present) {
            let (entry, segment) = list(*entry, segment, bits.changed)?;
            entries.push(entry);
            segments.push(segment);
        }
        let mut kept = Vec::new();
        for (staged, bits) in stages.into_iter().zip(plan.new) {
            // One that was refused whole is dropped, and its files with it.
            if bits.is_empty() {
                continue;
            }
            let (entry, segment) = list(staged.entry, &staged.segment, bits.changed)?;
            entries.push(entry);
            segments.push(segment);
            kept.push(staged.draft);
        }
        if lists > 0 {
            layout::sync_folder(draft.folder())?;
        }
        let (manifest, bytes) = before.following(key, entries)?;
        let result = draft.put_in_force(&before.head(), &bytes);
        if draft.is_in_force() {
            kept.iter_mut().for_each(crate::draft::Draft::keep);
        }
        result?;
        self.index = Index::new(Arc::clone(before.of_epoch()), manifest, &bytes, segments);
        self.remove(before.manifest(), &replaced);
        Ok(())
    }
}
