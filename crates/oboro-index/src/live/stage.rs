//! Writing a new segment beside the index.

use super::Workplace;
use crate::draft::Draft;
use crate::index::OfEpoch;
use crate::keys::EpochKey;
use crate::layout::{self, FileKind};
use crate::listed::{self, Assignments};
use crate::manifest::{FileEntry, SegmentEntry};
use crate::segment::Records;
use crate::{Descriptor, IndexError, Segment, segment_writer};
use oboro_quant::{BlockedCodes, code_bits};
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;

/// The vectors of a new segment, as whoever inserts made them.
///
/// # Security
/// `segment_id` must be random and new: originals are sealed for it.
#[derive(Clone, Copy)]
pub struct NewSegment<'a> {
    /// The random id of the segment.
    pub segment_id: [u8; 16],
    /// Ids, by position.
    pub ids: &'a [u64],
    /// Codes, M bytes a vector.
    pub codes: &'a [u8],
    /// Tags, by position; empty if the index has none.
    pub tags: &'a [u64],
    /// The list that each vector is in, by position; empty if the index has none.
    pub lists: &'a [u16],
    /// Sealed originals, by position
    /// ([`SegmentSealer`](crate::SegmentSealer)).
    pub records: &'a [u8],
}

/// A segment on disk that is no part of the index yet. Dropped, its files are
/// removed.
pub struct Staged {
    pub(super) draft: Draft,
    pub(super) epoch: u64,
    pub(super) entry: SegmentEntry,
    pub(super) segment: Segment,
}

impl Staged {
    /// The id of the segment.
    #[must_use]
    pub fn segment_id(&self) -> &[u8; 16] {
        self.segment.id()
    }

    /// Number of vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.segment.len()
    }

    /// Whether there is no vector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segment.is_empty()
    }

    /// Bytes of its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.entry.files().map(|(_, file)| file.bytes).sum()
    }
}

/// Writes segments for a [`LiveIndex`](super::LiveIndex) without borrowing it.
#[derive(Clone)]
pub struct Stager {
    workplace: Arc<Workplace>,
    of_epoch: Arc<OfEpoch>,
}

impl Stager {
    pub(super) fn new(workplace: Arc<Workplace>, of_epoch: Arc<OfEpoch>) -> Self {
        Self {
            workplace,
            of_epoch,
        }
    }

    /// As [`LiveIndex::stage`](super::LiveIndex::stage).
    ///
    /// # Errors
    /// As [`LiveIndex::stage`](super::LiveIndex::stage).
    pub fn stage(&self, segment: &NewSegment<'_>) -> Result<Staged, IndexError> {
        let key = &self.workplace.key;
        let mut draft = self.workplace.draft();
        let (entry, segment) = write_segment(&mut draft, key, &self.of_epoch.descriptor, segment)?;
        layout::sync_folder(draft.folder())?;
        // Whoever commits need not wait for it.
        segment.order();
        Ok(Staged {
            draft,
            epoch: key.epoch(),
            entry,
            segment,
        })
    }
}

/// Checks a segment and writes its files, each durable; their names are not
/// before the folder is synced.
fn write_segment(
    draft: &mut Draft,
    key: &EpochKey,
    descriptor: &Descriptor,
    new: &NewSegment<'_>,
) -> Result<(SegmentEntry, Segment), IndexError> {
    let codes = check(descriptor, new)?;
    let (layout, id) = (descriptor.record_layout(), new.segment_id);
    let vectors = new.ids.len() as u32;
    let (records_entry, records) = write_records(draft, descriptor, new)?;
    let numbers = |numbers: &[u64]| -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    };
    let entry = SegmentEntry {
        vectors,
        subquantizers: codes.subquantizers() as u32,
        bits: codes.bits() as u8,
        codes: draft.seal(key, FileKind::Codes, id, codes.as_bytes())?,
        ids: draft.seal(key, FileKind::Ids, id, &numbers(new.ids))?,
        records: records_entry,
        origins: false,
        tags: match descriptor.has_tags() {
            true => Some(draft.seal(key, FileKind::Tags, id, &numbers(new.tags))?),
            false => None,
        },
        deleted: None,
        lists: match descriptor.lists() {
            0 => None,
            _ => Some(draft.seal(key, FileKind::Lists, id, &listed::to_bytes(new.lists))?),
        },
    };
    let lists = (descriptor.lists() > 0).then(|| Assignments {
        lists: descriptor.lists(),
        of: new.lists.to_vec(),
    });
    let segment = Segment::new(
        id,
        codes,
        new.ids.to_vec(),
        descriptor.has_tags().then(|| new.tags.to_vec()),
        Records::new(records, layout, false),
    )
    .in_lists(lists);
    Ok((entry, segment))
}

/// Whether the parts fit each other and the index; the codes as the scan takes
/// them.
fn check(descriptor: &Descriptor, new: &NewSegment<'_>) -> Result<BlockedCodes, IndexError> {
    let vectors = new.ids.len();
    if vectors == 0 || u32::try_from(vectors).is_err() {
        return Err(IndexError::Invalid(format!(
            "a new segment has {vectors} vectors and must have 1 to {}; bring as many at a time",
            u32::MAX
        )));
    }
    let tags = if descriptor.has_tags() { vectors } else { 0 };
    let lists = if descriptor.lists() > 0 { vectors } else { 0 };
    let record_len = descriptor.record_layout().stored_len();
    for (what, found, expected) in [
        (
            "the number of codes of a new segment",
            new.codes.len(),
            vectors * descriptor.subquantizers(),
        ),
        ("the number of tags of a new segment", new.tags.len(), tags),
        (
            "the number of lists of a new segment",
            new.lists.len(),
            lists,
        ),
        (
            "the bytes of a new segment's originals",
            new.records.len(),
            vectors * record_len,
        ),
    ] {
        if found != expected {
            return Err(IndexError::Mismatch {
                what,
                found: found as u64,
                expected: expected as u64,
            });
        }
    }
    let all_tags = new.tags.iter().fold(0, |all, tags| all | tags);
    if all_tags & !descriptor.tag_bits() != 0 {
        return Err(IndexError::Invalid(format!(
            "a new vector has a tag beyond the {} of the index; use those that the index was built with",
            descriptor.tags.len()
        )));
    }
    if !listed::fit(new.lists, descriptor.lists()) {
        return Err(IndexError::Invalid(format!(
            "a new vector is in a list beyond the {} of the index; encode it with this index's model",
            descriptor.lists()
        )));
    }
    let centroids = descriptor.centroids();
    if new.codes.iter().any(|&code| usize::from(code) >= centroids) {
        return Err(IndexError::Invalid(format!(
            "a code of a new segment names a centroid beyond the {centroids} there are; encode it with this index's model"
        )));
    }
    Ok(BlockedCodes::from_rows(
        new.codes,
        descriptor.subquantizers(),
        code_bits(centroids),
    )?)
}

fn write_records(
    draft: &mut Draft,
    descriptor: &Descriptor,
    new: &NewSegment<'_>,
) -> Result<(FileEntry, std::fs::File), IndexError> {
    let header = segment_writer::header(
        &descriptor.index_id,
        &new.segment_id,
        &descriptor.record_layout(),
        false,
        new.ids.len() as u32,
    );
    let name = FileKind::Records.file_name(0, &new.segment_id);
    let path = draft.folder().join(name);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(IndexError::io(&path))?;
    draft.will_write(path.clone());
    file.write_all(&header)
        .and_then(|()| file.write_all(new.records))
        .and_then(|()| file.sync_all())
        .map_err(IndexError::io(&path))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header).update(new.records);
    let entry = FileEntry {
        id: new.segment_id,
        bytes: (header.len() + new.records.len()) as u64,
        hash: *hasher.finalize().as_bytes(),
    };
    Ok((entry, file))
}
