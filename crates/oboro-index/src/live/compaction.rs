//! Merging segments, without the vectors that were deleted, while the index is
//! searched and changed.
//!
//! Originals were sealed by their owner for a segment and a position, which
//! only the owner could do anew. So a merged segment keeps with each record
//! the header that the wire has: clients see no difference. Whoever reads the
//! disk sees from it which record of an earlier segment is which of the new
//! one.

use super::{CompactionPolicy, LiveIndex, Throttle, Workplace, merge};
use crate::draft::Draft;
use crate::layout::{self, FileKind};
use crate::listed::{self, Assignments};
use crate::manifest::{FileEntry, SegmentEntry};
use crate::segment::Records;
use crate::{Index, IndexError, Segment, alive, segment_writer};
use merge::Source;
use oboro_quant::code_bits;
use rand_core::CryptoRng;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Records that are read and written at a time.
const BATCH: usize = 4096;

/// Segments that are to be merged, in the state they had when this was made.
pub struct Compaction {
    workplace: Arc<Workplace>,
    index: Index,
    segments: Vec<Segment>,
}

/// A merged segment on disk that is no part of the index yet. Dropped, its
/// files are removed.
pub struct Compacted {
    draft: Draft,
    epoch: u64,
    merged: Vec<Segment>,
    sources: Vec<Source>,
    entry: SegmentEntry,
    segment: Segment,
}

impl LiveIndex {
    /// What `policy` would merge next; `None` if all is well.
    #[must_use]
    pub fn compaction(&self, policy: &CompactionPolicy) -> Option<Compaction> {
        let all = self.index.segments();
        let segments: Vec<Segment> = policy
            .choose(all)
            .into_iter()
            .map(|number| all[number].clone())
            .collect();
        (!segments.is_empty()).then(|| Compaction {
            workplace: Arc::clone(&self.workplace),
            index: self.index.clone(),
            segments,
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
        let (mut entry, mut segment) = (done.entry, done.segment);
        let now: Vec<&Segment> = numbers.iter().map(|&n| &before.segments()[n]).collect();
        if let Some(bits) = deleted_meanwhile(&done.merged, &now, &done.sources) {
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

    /// Writes the merged segment beside the index, in random order, durably.
    /// Searches and commits go on meanwhile: this reads a snapshot. Codes, ids
    /// and tags are in memory, originals are copied in pieces.
    ///
    /// # Errors
    /// [`IndexError::Cancelled`] soon after `cancel` is set, or if a file
    /// cannot be read or written. Nothing is left behind then.
    pub fn run(
        &self,
        throttle: &Throttle,
        cancel: &AtomicBool,
        rng: &mut impl CryptoRng,
    ) -> Result<Compacted, IndexError> {
        let mut pace = throttle.start(cancel);
        pace.wrote(0)?;
        let key = &self.workplace.key;
        let descriptor = self.index.descriptor();
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let sources = merge::shuffled(&self.segments, rng);
        let mut draft = self.workplace.draft();

        let (records_entry, file) =
            self.write_records(&mut draft, id, &sources, |bytes| pace.wrote(bytes))?;
        let bits = self
            .segments
            .iter()
            .map(|segment| segment.codes().bits())
            .max()
            .unwrap_or_else(|| code_bits(descriptor.centroids()));
        let codes = merge::codes(&self.segments, &sources, descriptor.subquantizers(), bits)?;
        let ids = merge::numbers(&self.segments, &sources, Segment::ids);
        let tags = descriptor.has_tags().then(|| {
            merge::numbers(&self.segments, &sources, |segment| {
                segment.tags().unwrap_or_default()
            })
        });
        let lists = (descriptor.lists() > 0).then(|| Assignments {
            lists: descriptor.lists(),
            of: merge::numbers(&self.segments, &sources, |segment| {
                segment.lists().unwrap_or_default()
            }),
        });
        let mut seal = |kind, payload: &[u8]| {
            let entry = draft.seal(key, kind, id, payload)?;
            pace.wrote(entry.bytes)?;
            Ok::<_, IndexError>(entry)
        };
        let entry = SegmentEntry {
            vectors: sources.len() as u32,
            subquantizers: codes.subquantizers() as u32,
            bits: codes.bits() as u8,
            codes: seal(FileKind::Codes, codes.as_bytes())?,
            ids: seal(FileKind::Ids, &to_bytes(&ids))?,
            records: records_entry,
            origins: true,
            tags: match &tags {
                Some(tags) => Some(seal(FileKind::Tags, &to_bytes(tags))?),
                None => None,
            },
            deleted: None,
            lists: match &lists {
                Some(lists) => Some(seal(FileKind::Lists, &listed::to_bytes(&lists.of))?),
                None => None,
            },
        };
        layout::sync_folder(draft.folder())?;
        let records = Records::new(file, descriptor.record_layout(), true);
        let segment = Segment::new(id, codes, ids, tags, records).in_lists(lists);
        // Whoever commits need not wait for them.
        segment.order();
        let _ = segment.listed();
        Ok(Compacted {
            draft,
            epoch: key.epoch(),
            merged: self.segments.clone(),
            sources,
            entry,
            segment,
        })
    }

    fn write_records(
        &self,
        draft: &mut Draft,
        id: [u8; 16],
        sources: &[Source],
        mut wrote: impl FnMut(u64) -> Result<(), IndexError>,
    ) -> Result<(FileEntry, File), IndexError> {
        let descriptor = self.index.descriptor();
        let layout = descriptor.record_layout();
        let header = segment_writer::header(
            &descriptor.index_id,
            &id,
            &layout,
            true,
            sources.len() as u32,
        );
        let path = draft.folder().join(FileKind::Records.file_name(0, &id));
        let io = |source| IndexError::io(&path)(source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(io)?;
        draft.will_write(path.clone());
        let mut hasher = blake3::Hasher::new();
        let mut total = 0;
        let mut buffer = header.to_vec();
        let slot = segment_writer::slot_len(&layout, true);
        buffer.reserve(BATCH * slot);
        for batch in std::iter::once(&[][..]).chain(sources.chunks(BATCH)) {
            for &(number, position) in batch {
                let segment = &self.segments[number as usize];
                segment
                    .append_record(position, &mut buffer)
                    .map_err(IndexError::io(&self.path_of(segment)))?;
            }
            file.write_all(&buffer).map_err(io)?;
            hasher.update(&buffer);
            total += buffer.len() as u64;
            wrote(buffer.len() as u64)?;
            buffer.clear();
        }
        file.sync_all().map_err(io)?;
        let entry = FileEntry {
            id,
            bytes: total,
            hash: *hasher.finalize().as_bytes(),
        };
        Ok((entry, file))
    }

    /// The file of a segment's originals, for errors.
    fn path_of(&self, segment: &Segment) -> std::path::PathBuf {
        let folder: &Path = &self.workplace.folder;
        folder.join(FileKind::Records.file_name(0, segment.id()))
    }
}

impl Compacted {
    /// Number of vectors in the merged segment.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segment.len()
    }

    /// Whether there is no vector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segment.is_empty()
    }
}

fn to_bytes(numbers: &[u64]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
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
    Some(bits)
}
