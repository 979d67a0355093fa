//! Merging segments, without the vectors that were deleted, while the index is
//! searched and changed.
//!
//! Originals were sealed by their owner for a segment and a position, which
//! only the owner could do anew. So a merged segment keeps with each record
//! the header that the wire has: clients see no difference. Whoever reads the
//! disk sees from it which record of an earlier segment is which of the new
//! one.

use super::journal::Journal;
use super::merge::Source;
use super::writing::Made;
use super::{Checkpoint, CompactionPolicy, LiveIndex, Throttle, Workplace};
use crate::draft::Draft;
use crate::layout::{self, FileKind};
use crate::{Index, IndexError, Segment, alive, segment_writer};
use rand_core::CryptoRng;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Bytes of originals after which a compaction can be gone on with: a second's
/// work of a disk, so that what a stop costs is little, and the syncs are, too.
const CHECKPOINT: u64 = 64 << 20;

/// Segments that are to be merged, in the state they had when this was made or,
/// with one that was stopped, when that was.
pub struct Compaction {
    pub(super) workplace: Arc<Workplace>,
    pub(super) index: Index,
    pub(super) segments: Vec<Segment>,
    /// The stopped one that this goes on with, and the bytes of it that are durable.
    pub(super) resumes: Option<([u8; 16], u64)>,
    /// Bytes of originals after which they are made durable.
    pub(super) every: u64,
    pub(super) progress: Option<Box<dyn Fn(u64) + Send + Sync>>,
}

/// A merged segment on disk that is no part of the index yet. Dropped, its
/// files are removed.
pub struct Compacted {
    draft: Draft,
    epoch: u64,
    merged: Vec<Segment>,
    checkpoint: Option<Checkpoint>,
    made: Made,
}

impl LiveIndex {
    /// What `policy` would merge next; `None` if all is well.
    ///
    /// A compaction that was stopped comes first, unless everything is to be merged and
    /// it would not do that: because of segments that came since, or vectors deleted
    /// since, which would stay on the disk. Then to begin anew costs less.
    #[must_use]
    pub fn compaction(&self, policy: &CompactionPolicy) -> Option<Compaction> {
        let all = self.index.segments();
        let chosen = || -> Vec<Segment> {
            let numbers = policy.choose(all).into_iter();
            numbers.map(|number| all[number].clone()).collect()
        };
        let stopped = self.workplace.stopped();
        let stopped = stopped.as_ref().and_then(|stopped| {
            let segments = stopped.journal.segments(&self.index)?;
            let useful = !policy.full || are_same(&segments, &chosen());
            let resumes = (stopped.journal.segment_id, stopped.written());
            useful.then_some((segments, Some(resumes)))
        });
        let (segments, resumes) = stopped.unwrap_or_else(|| (chosen(), None));
        (!segments.is_empty()).then(|| Compaction {
            workplace: Arc::clone(&self.workplace),
            index: self.index.clone(),
            segments,
            resumes,
            // Journals of many vectors are long, and no large part of what is written.
            every: CHECKPOINT.max(32 * Journal::max_bytes(&self.index) as u64),
            progress: None,
        })
    }

    /// Puts a merged segment in the place of those it was made of, and removes
    /// their files. Vectors deleted meanwhile are deleted in it, too.
    ///
    /// # Errors
    /// If one of them is no longer there, the key was rotated meanwhile, or a
    /// file cannot be written; as [`commit`](Self::commit).
    pub fn commit_compaction(
        &mut self,
        done: Compacted,
        rng: &mut impl CryptoRng,
    ) -> Result<Index, IndexError> {
        let workplace = Arc::clone(&self.workplace);
        workplace.check(&done.draft, done.epoch)?;
        let before = self.index.clone();
        let numbers = places(&before, &done.merged)?;
        let mut draft = done.draft;
        let Made {
            sources,
            mut entry,
            mut segment,
            ..
        } = done.made;
        let now: Vec<&Segment> = numbers.iter().map(|&n| &before.segments()[n]).collect();
        if let Some(bits) = deleted_meanwhile(&done.merged, &now, &sources) {
            segment = segment.with_alive(bits.into());
            let payload = alive::to_bytes(segment.alive().unwrap_or_default(), segment.len());
            let mut id = [0; 16];
            rng.fill_bytes(&mut id);
            let file = draft.seal(&workplace.key, FileKind::Deleted, id, &payload)?;
            layout::sync_folder(draft.folder())?;
            entry.deleted = Some((segment.deleted(), file));
        }
        let (mut entries, mut segments) = (Vec::new(), Vec::new());
        let mut replaced = Vec::new();
        let present = before.manifest().segments.iter().zip(before.segments());
        for (number, (old_entry, old)) in present.enumerate() {
            if !numbers.contains(&number) {
                entries.push(*old_entry);
                segments.push(old.clone());
                continue;
            }
            replaced.extend(old_entry.files());
            if number == numbers[0] {
                entries.push(entry);
                segments.push(segment.clone());
            }
        }
        let (manifest, bytes) = before.following(&workplace.key, entries)?;
        draft.put_in_force(&before.head(), &bytes)?;
        self.index = Index::new(Arc::clone(before.of_epoch()), manifest, &bytes, segments);
        if let Some(checkpoint) = done.checkpoint {
            let _ = fs::remove_file(checkpoint.path());
        }
        self.remove(before.manifest(), &replaced);
        Ok(self.index.clone())
    }
}

impl Compaction {
    /// Number of segments to merge.
    #[must_use]
    pub const fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Number of deleted vectors that will be gone from the disk.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.segments.iter().map(|s| u64::from(s.deleted())).sum()
    }

    /// Bytes of originals that will be written, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let alive: usize = self.segments.iter().map(Segment::alive_len).sum();
        let layout = self.index.descriptor().record_layout();
        segment_writer::file_len(&layout, true, alive as u32)
    }

    /// Bytes of originals that are written already: of a compaction that was stopped, and
    /// with which this goes on.
    #[must_use]
    pub const fn resumed_bytes(&self) -> u64 {
        match self.resumes {
            Some((_, written)) => written,
            None => 0,
        }
    }

    /// Makes what is written durable every `bytes` bytes of originals in place of every
    /// 64 MiB (or 32 times what is noted of it, if that is more); 0 counts as 1.
    #[must_use]
    pub fn checkpoint_every(mut self, bytes: u64) -> Self {
        self.every = if bytes == 0 { 1 } else { bytes };
        self
    }

    /// Tells `progress` how many bytes of originals are written, of [about](Self::bytes)
    /// how many, after each piece.
    #[must_use]
    pub fn observed(mut self, progress: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Writes the merged segment beside the index, in random order, durably.
    /// Searches and commits go on meanwhile: this reads a snapshot. Codes, ids
    /// and tags are in memory, originals are copied in pieces.
    ///
    /// It goes on with a compaction that was stopped, if that is what was planned and
    /// what is there of it is right; otherwise it begins anew, and removes whatever was
    /// stopped before.
    ///
    /// # Errors
    /// [`IndexError::Cancelled`] soon after `cancel` is set: what was made durable
    /// of a long compaction stays, and the next one goes on with it. If a file cannot be
    /// read or written nothing is left behind, so that a full disk gets its room back.
    pub fn run(
        &self,
        throttle: &Throttle,
        cancel: &AtomicBool,
        rng: &mut impl CryptoRng,
    ) -> Result<Compacted, IndexError> {
        let mut pace = throttle.start(cancel);
        pace.wrote(0)?;
        let mut draft = self.workplace.draft();
        let mut checkpoint = None;
        match self.merge(&mut draft, &mut checkpoint, &mut pace, rng) {
            Ok(made) => Ok(Compacted {
                draft,
                epoch: self.workplace.key.epoch(),
                merged: self.segments.clone(),
                checkpoint,
                made,
            }),
            Err(IndexError::Cancelled { .. }) => {
                let Some(checkpoint) = checkpoint else {
                    return Err(IndexError::Cancelled { kept: 0 });
                };
                draft.release(checkpoint.path());
                draft.release(&checkpoint.records(&self.workplace.folder));
                let kept = checkpoint.written();
                if let Some(other) = self.workplace.stopped().replace(checkpoint) {
                    other.remove(&self.workplace.folder);
                }
                Err(IndexError::Cancelled { kept })
            }
            Err(error) => Err(error),
        }
    }
}

impl Compacted {
    /// Number of vectors in the merged segment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.made.segment.len()
    }

    /// Whether there is no vector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.made.segment.is_empty()
    }

    /// Bytes of originals that a compaction had written which was stopped, and with which
    /// this one went on.
    #[must_use]
    pub const fn resumed_bytes(&self) -> u64 {
        self.made.resumed
    }
}

/// Whether both are the same segments with the same vectors deleted.
fn are_same(some: &[Segment], others: &[Segment]) -> bool {
    let same =
        |one: &Segment, other: &Segment| one.id() == other.id() && one.alive() == other.alive();
    some.len() == others.len()
        && some
            .iter()
            .all(|one| others.iter().any(|other| same(one, other)))
}

/// The numbers that the merged segments have in the present state.
fn places(index: &Index, merged: &[Segment]) -> Result<Vec<usize>, IndexError> {
    merged
        .iter()
        .map(|segment| {
            index
                .segments()
                .iter()
                .position(|other| other.id() == segment.id())
                .ok_or_else(|| {
                    IndexError::Invalid(
                        "a segment was merged by somebody else meanwhile; plan the compaction again"
                            .into(),
                    )
                })
        })
        .collect()
}

/// What is left of the merged vectors, if any was deleted since they were read.
fn deleted_meanwhile(merged: &[Segment], now: &[&Segment], sources: &[Source]) -> Option<Vec<u64>> {
    if merged
        .iter()
        .zip(now)
        .all(|(then, now)| then.is_same_state(now))
    {
        return None;
    }
    let mut bits = alive::all(sources.len());
    for (position, &(number, from)) in (0..).zip(sources) {
        if !now[number as usize].is_alive(from) {
            alive::clear(&mut bits, position);
        }
    }
    (alive::count(&bits) < sources.len()).then_some(bits)
}
