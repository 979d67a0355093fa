//! Writing a merged segment: from its beginning, or from where one was stopped.

use super::journal::{self, Journal, Merged};
use super::merge::{self, Source};
use super::originals::Originals;
use super::throttle::Pace;
use super::{Checkpoint, Compaction};
use crate::draft::Draft;
use crate::layout::{self, FileKind};
use crate::listed::{self, Assignments};
use crate::manifest::SegmentEntry;
use crate::segment::Records;
use crate::{IndexError, Segment, segment_writer};
use chacha20::ChaCha20Rng;
use oboro_quant::code_bits;
use rand_core::{CryptoRng, SeedableRng};
use std::path::PathBuf;

/// Records that are read and written at a time, and most bytes of them.
const BATCH: usize = 4096;
const PIECE: u64 = 4 << 20;

/// A compaction that has begun to write.
struct Begun {
    journal: Journal,
    sources: Vec<Source>,
    originals: Originals,
    /// Bytes that were there before.
    resumed: u64,
}

/// What came of it.
pub(super) struct Made {
    pub(super) sources: Vec<Source>,
    pub(super) entry: SegmentEntry,
    pub(super) segment: Segment,
    /// Bytes of originals that were there before.
    pub(super) resumed: u64,
}

impl Compaction {
    /// Everything from the first byte to the last. `checkpoint` is what can be gone on
    /// with, should this fail.
    pub(super) fn merge(
        &self,
        draft: &mut Draft,
        checkpoint: &mut Option<Checkpoint>,
        pace: &mut Pace<'_>,
        rng: &mut impl CryptoRng,
    ) -> Result<Made, IndexError> {
        let key = &self.workplace.key;
        let descriptor = self.index.descriptor();
        let begun = match self.go_on(draft, checkpoint, pace)? {
            Some(begun) => begun,
            None => self.begin(draft, rng)?,
        };
        let (id, resumed) = (begun.journal.segment_id, begun.resumed);
        let (sources, originals) = self.write_originals(draft, checkpoint, begun, pace)?;
        let (records_entry, file) = originals.finish(id)?;

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
        Ok(Made {
            sources,
            entry,
            segment,
            resumed,
        })
    }

    /// Goes on with what was stopped; `None` if there is nothing to go on with. What is
    /// of no use any more is removed.
    fn go_on(
        &self,
        draft: &mut Draft,
        checkpoint: &mut Option<Checkpoint>,
        pace: &mut Pace<'_>,
    ) -> Result<Option<Begun>, IndexError> {
        let Some(stopped) = self.workplace.stopped().take() else {
            return Ok(None);
        };
        let journal = stopped.journal.clone();
        if self.resumes.map(|(id, _)| id) != Some(journal.segment_id) {
            stopped.remove(draft.folder());
            return Ok(None);
        }
        draft.will_write(stopped.path().to_owned());
        draft.will_write(stopped.records(draft.folder()));
        let stopped = checkpoint.insert(stopped);
        let sources = self.order(&journal.seed);
        let same = journal::digest_of(&sources) == journal.order;
        let originals = match same {
            true => Originals::go_on(draft.folder(), stopped, pace)?,
            false => None,
        };
        let Some(originals) = originals else {
            if let Some(stopped) = checkpoint.take() {
                stopped.remove(draft.folder());
            }
            return Ok(None);
        };
        Ok(Some(Begun {
            resumed: originals.written(),
            journal,
            sources,
            originals,
        }))
    }

    /// Begins a new segment.
    fn begin(&self, draft: &mut Draft, rng: &mut impl CryptoRng) -> Result<Begun, IndexError> {
        let descriptor = self.index.descriptor();
        let (mut segment_id, mut seed) = ([0; 16], [0; 32]);
        rng.fill_bytes(&mut segment_id);
        rng.fill_bytes(&mut seed);
        let sources = self.order(&seed);
        let path = draft
            .folder()
            .join(FileKind::Records.file_name(0, &segment_id));
        let mut originals = Originals::create(path.clone())?;
        draft.will_write(path);
        originals.append(&segment_writer::header(
            &descriptor.index_id,
            &segment_id,
            &descriptor.record_layout(),
            true,
            sources.len() as u32,
        ))?;
        let entries = &self.index.manifest().segments;
        let of_index = self.index.segments();
        let merged = self.segments.iter().filter_map(|segment| {
            let number = of_index.iter().position(|other| other.id() == segment.id());
            number.map(|number| Merged::of(segment, entries[number].records.hash))
        });
        Ok(Begun {
            resumed: 0,
            journal: Journal {
                segment_id,
                seed,
                order: journal::digest_of(&sources),
                written: 0,
                hash: [0; 32],
                merged: merged.collect(),
            },
            sources,
            originals,
        })
    }

    /// The vectors that are merged, in the order that `seed` gives.
    fn order(&self, seed: &[u8; 32]) -> Vec<Source> {
        merge::shuffled(&self.segments, &mut ChaCha20Rng::from_seed(*seed))
    }

    fn write_originals(
        &self,
        draft: &mut Draft,
        checkpoint: &mut Option<Checkpoint>,
        begun: Begun,
        pace: &mut Pace<'_>,
    ) -> Result<(Vec<Source>, Originals), IndexError> {
        let Begun {
            mut journal,
            sources,
            mut originals,
            ..
        } = begun;
        let slot = segment_writer::slot_len(&self.index.descriptor().record_layout(), true);
        let there = (originals.written() - segment_writer::HEADER as u64) as usize / slot;
        let batch = BATCH.min(self.every.min(PIECE).div_ceil(slot as u64) as usize);
        let mut durable = originals.written();
        let mut left = sources.len() - there;
        let mut buffer = Vec::with_capacity(batch * slot);
        self.tell(&originals);
        for batch in sources[there..].chunks(batch) {
            buffer.clear();
            for &(number, position) in batch {
                let segment = &self.segments[number as usize];
                segment
                    .append_record(position, &mut buffer)
                    .map_err(IndexError::io(&self.path_of(segment)))?;
            }
            originals.append(&buffer)?;
            left -= batch.len();
            let mut bytes = buffer.len() as u64;
            if left > 0 && originals.written() - durable >= self.every {
                journal.hash = originals.sync()?;
                journal.written = originals.written();
                durable = originals.written();
                let (written, length) =
                    Checkpoint::write(draft, &self.workplace.key, &journal, checkpoint.take())?;
                *checkpoint = Some(written);
                bytes += length;
            }
            self.tell(&originals);
            pace.wrote(bytes)?;
        }
        Ok((sources, originals))
    }

    fn tell(&self, originals: &Originals) {
        if let Some(progress) = &self.progress {
            progress(originals.written());
        }
    }

    /// The file of a segment's originals, for errors.
    fn path_of(&self, segment: &Segment) -> PathBuf {
        let name = FileKind::Records.file_name(0, segment.id());
        self.workplace.folder.join(name)
    }
}

fn to_bytes(numbers: &[u64]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}
