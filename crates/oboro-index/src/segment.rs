//! One segment of an open index.

use crate::index::open_sealed;
use crate::keys::EpochKey;
use crate::layout::{FileKind, MANIFEST};
use crate::listed::{self, Assignments, Listed};
use crate::manifest::{Manifest, SegmentEntry};
use crate::record::{self, RecordLayout, WIRE_HEADER};
use crate::{Descriptor, IndexError, alive, segment_writer};
use aligned_vec::{AVec, ConstAlign};
use oboro_quant::{BlockedCodes, code_bits};
use rayon::prelude::*;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// An immutable run of vectors, some of them perhaps deleted. A clone is the
/// same one: it takes no memory, and later states of an index share what did
/// not change.
#[derive(Clone)]
pub struct Segment {
    parts: Arc<Parts>,
    alive: Option<Arc<[u64]>>,
    /// The same by place, made when first needed.
    alive_by_place: Arc<OnceLock<Vec<u64>>>,
    deleted: u32,
}

/// What does not change in the life of a segment.
struct Parts {
    id: [u8; 16],
    codes: BlockedCodes,
    ids: Vec<u64>,
    tags: Option<Vec<u64>>,
    records: Records,
    lists: Option<Assignments>,
    /// Positions in the order of their ids, made when first needed.
    order: OnceLock<Vec<u32>>,
    /// As searches of some lists scan it, made when first needed.
    listed: OnceLock<Option<Listed>>,
}

/// An open file of records.
pub(crate) struct Records {
    file: File,
    layout: RecordLayout,
    origins: bool,
}

impl Segment {
    pub(crate) fn new(
        id: [u8; 16],
        codes: BlockedCodes,
        ids: Vec<u64>,
        tags: Option<Vec<u64>>,
        records: Records,
    ) -> Self {
        Self {
            parts: Arc::new(Parts {
                id,
                codes,
                ids,
                tags,
                records,
                lists: None,
                order: OnceLock::new(),
                listed: OnceLock::new(),
            }),
            alive: None,
            alive_by_place: Arc::default(),
            deleted: 0,
        }
    }

    /// A new segment whose vectors are in lists.
    pub(crate) fn in_lists(mut self, lists: Option<Assignments>) -> Self {
        if let Some(parts) = Arc::get_mut(&mut self.parts) {
            parts.lists = lists;
        }
        self
    }

    /// The same vectors, of which only `alive` are there still.
    pub(crate) fn with_alive(&self, alive: Arc<[u64]>) -> Self {
        let deleted = (self.len() - alive::count(&alive)) as u32;
        Self {
            parts: Arc::clone(&self.parts),
            alive: (deleted > 0).then_some(alive),
            alive_by_place: Arc::default(),
            deleted,
        }
    }

    pub(crate) fn open(
        folder: &Path,
        manifest: &Manifest,
        descriptor: &Descriptor,
        entry: &SegmentEntry,
        key: &EpochKey,
    ) -> Result<Self, IndexError> {
        let vectors = entry.vectors as usize;
        let (subquantizers, bits) = (entry.subquantizers as usize, usize::from(entry.bits));
        if subquantizers != descriptor.subquantizers()
            || (bits != 8 && bits != code_bits(descriptor.centroids()))
        {
            return Err(IndexError::damaged(
                MANIFEST,
                "a segment's codes do not fit the descriptor",
            ));
        }
        // A segment without vectors needs none.
        if vectors > 0 && entry.tags.is_some() != descriptor.has_tags() {
            return Err(IndexError::damaged(
                MANIFEST,
                "a segment's tags do not fit the descriptor",
            ));
        }
        if vectors > 0 && entry.lists.is_some() != (descriptor.lists() > 0) {
            return Err(IndexError::damaged(
                MANIFEST,
                "a segment's lists do not fit the descriptor",
            ));
        }
        // Before anything is allocated, lengths must be what they should.
        let open = |kind, file, length: usize| {
            let opened = open_sealed(folder, manifest, kind, file)?;
            if opened.payload_len() == length {
                Ok(opened)
            } else {
                let name = manifest.file_name(kind, file);
                Err(IndexError::damaged(name, "its length is wrong"))
            }
        };
        let length = BlockedCodes::byte_len(vectors, subquantizers, bits);
        let codes = open(FileKind::Codes, &entry.codes, length)?;
        let mut bytes = AVec::<u8, ConstAlign<64>>::with_capacity(64, length);
        bytes.resize(length, 0);
        codes.read_into(key, &mut bytes)?;
        let codes = BlockedCodes::from_aligned(bytes, vectors, subquantizers, bits)?;

        let numbers = |kind, file| {
            let bytes = open(kind, file, vectors * 8)?.read(key)?;
            let numbers = bytes.as_chunks::<8>().0.iter();
            Ok::<Vec<u64>, IndexError>(numbers.map(|&n| u64::from_le_bytes(n)).collect())
        };
        let ids = numbers(FileKind::Ids, &entry.ids)?;
        let tags = match &entry.tags {
            Some(file) => Some(numbers(FileKind::Tags, file)?),
            None => descriptor.has_tags().then(Vec::new),
        };
        let lists = match &entry.lists {
            Some(file) => {
                let kind = FileKind::Lists;
                let bytes = open(kind, file, vectors * 2)?.read(key)?;
                let lists = listed::from_bytes(&bytes, descriptor.lists()).ok_or_else(|| {
                    IndexError::damaged(manifest.file_name(kind, file), "its content is wrong")
                })?;
                Some(lists)
            }
            None => None,
        };
        let alive = match &entry.deleted {
            Some((count, file)) => {
                let kind = FileKind::Deleted;
                let bytes = open(kind, file, alive::words(vectors) * 8)?.read(key)?;
                let alive = alive::from_bytes(&bytes, vectors, *count).ok_or_else(|| {
                    IndexError::damaged(manifest.file_name(kind, file), "its content is wrong")
                })?;
                Some(alive)
            }
            None => None,
        };
        let records = Records::open(folder, manifest, descriptor, entry)?;
        let segment = Self::new(entry.codes.id, codes, ids, tags, records).in_lists(lists);
        Ok(match alive {
            Some(alive) => segment.with_alive(alive),
            None => segment,
        })
    }

    /// The random id of the segment.
    #[must_use]
    pub fn id(&self) -> &[u8; 16] {
        &self.parts.id
    }

    /// Number of vectors, deleted ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.ids.len()
    }

    /// Whether there is no vector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.ids.is_empty()
    }

    /// The codes.
    #[must_use]
    pub fn codes(&self) -> &BlockedCodes {
        &self.parts.codes
    }

    /// The ids, by position.
    #[must_use]
    pub fn ids(&self) -> &[u64] {
        &self.parts.ids
    }

    /// The tags, by position, if the index has any.
    #[must_use]
    pub fn tags(&self) -> Option<&[u64]> {
        self.parts.tags.as_deref()
    }

    /// Which list each vector is in, by position, if the index has lists.
    #[must_use]
    pub fn lists(&self) -> Option<&[u16]> {
        self.parts.lists.as_ref().map(|lists| lists.of.as_slice())
    }

    /// The segment as searches of some lists scan it; `None` where they scan all of it.
    /// Made when first asked for (0.1 s for a million vectors), it has the codes once
    /// more.
    #[must_use]
    pub fn listed(&self) -> Option<&Listed> {
        let make = || {
            let lists = self.parts.lists.as_ref()?;
            Listed::of(lists, &self.parts.codes, self.tags())
        };
        self.parts.listed.get_or_init(make).as_ref()
    }

    /// Bytes of memory that a searcher keeps for it: codes, ids and tags, the order of the ids
    /// for changes, and, in an index with lists, which list each vector is in, and what
    /// [`listed`](Self::listed) has.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let tags = self.tags().map_or(0, <[u64]>::len) * 8;
        let lists = self.lists().map_or(0, <[u16]>::len) * 2;
        let order = self.codes().as_bytes().len() + self.len() * (8 + 4) + tags + lists;
        order as u64 + self.listed().map_or(0, Listed::resident_bytes)
    }

    /// Which vectors are not deleted, by place of [`listed`](Self::listed): made when
    /// first asked for. `None` if all are there, or nothing is laid out.
    #[must_use]
    pub fn alive_by_place(&self) -> Option<&[u64]> {
        let listed = self.listed()?;
        self.alive.as_ref()?;
        Some(self.alive_by_place.get_or_init(|| listed.alive(self)))
    }

    /// Which vectors are not deleted: bit `i % 64` of word `i / 64`. `None` if
    /// all are there. Bits beyond the last vector are not set.
    #[must_use]
    pub fn alive(&self) -> Option<&[u64]> {
        self.alive.as_deref()
    }

    /// Whether the vector at `position` is not deleted.
    ///
    /// # Panics
    /// If `position` is far beyond [`len`](Self::len).
    #[must_use]
    pub fn is_alive(&self, position: u32) -> bool {
        self.alive
            .as_ref()
            .is_none_or(|alive| alive::is_set(alive, position))
    }

    /// Number of deleted vectors.
    #[must_use]
    pub const fn deleted(&self) -> u32 {
        self.deleted
    }

    /// Number of vectors that are not deleted.
    #[must_use]
    pub fn alive_len(&self) -> usize {
        self.len() - self.deleted as usize
    }

    /// Whether both are the same vectors with the same ones deleted.
    pub(crate) fn is_same_state(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
            && match (&self.alive, &other.alive) {
                (None, None) => true,
                (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                _ => false,
            }
    }

    /// Positions in the order of their ids. Made once in the life of a segment
    /// (0.1 s for a million), 4 bytes a vector.
    pub(crate) fn order(&self) -> &[u32] {
        self.parts.order.get_or_init(|| {
            let ids = &self.parts.ids;
            let mut order: Vec<u32> = (0..ids.len() as u32).collect();
            // By position where ids are the same, so that the first is first.
            order.par_sort_unstable_by_key(|&position| (ids[position as usize], position));
            order
        })
    }

    /// Bytes of one record on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.parts.records.layout.wire_len()
    }

    /// Appends the sealed record at `position`, in its wire form, to `out`:
    /// one read of the file (0.4 us when it is cached), no allocation when
    /// `out` has room.
    ///
    /// Reading and not mapping: a file that the host cuts short is then an
    /// error and does not kill the process, and this crate stays free of
    /// `unsafe`.
    ///
    /// # Errors
    /// If the file cannot be read.
    ///
    /// # Panics
    /// If `position` is not below [`len`](Self::len).
    pub fn append_record(&self, position: u32, out: &mut Vec<u8>) -> io::Result<()> {
        assert!(
            (position as usize) < self.len(),
            "position {position} of {}",
            self.len()
        );
        let records = &self.parts.records;
        if !records.origins {
            record::append_wire_header(&self.parts.id, position, out);
        }
        let start = out.len();
        out.resize(start + records.slot_len(), 0);
        records.read(position, &mut out[start..])
    }

    /// Whether records lie in the file in their wire form.
    pub(crate) fn origins(&self) -> bool {
        self.parts.records.origins
    }

    /// Bytes of a record in the file.
    pub(crate) fn slot_len(&self) -> usize {
        self.parts.records.slot_len()
    }

    /// `count` records from `first` as they lie in the file.
    pub(crate) fn slots(&self, first: u32, count: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; count * self.slot_len()];
        self.parts.records.read(first, &mut out)?;
        Ok(out)
    }
}

impl Records {
    pub(crate) const fn new(file: File, layout: RecordLayout, origins: bool) -> Self {
        Self {
            file,
            layout,
            origins,
        }
    }

    /// Opens the originals and checks header and length.
    fn open(
        folder: &Path,
        manifest: &Manifest,
        descriptor: &Descriptor,
        entry: &SegmentEntry,
    ) -> Result<Self, IndexError> {
        let name = manifest.file_name(FileKind::Records, &entry.records);
        let path = folder.join(&name);
        let file = File::open(&path).map_err(IndexError::io(&path))?;
        let length = file.metadata().map_err(IndexError::io(&path))?.len();
        let layout = descriptor.record_layout();
        if length != segment_writer::file_len(&layout, entry.origins, entry.vectors) {
            return Err(IndexError::damaged(name, "its length is wrong"));
        }
        let mut found = [0; segment_writer::HEADER];
        file.read_exact_at(&mut found, 0)
            .map_err(IndexError::io(&path))?;
        let expected = segment_writer::header(
            &manifest.index_id,
            &entry.records.id,
            &layout,
            entry.origins,
            entry.vectors,
        );
        if found != expected {
            return Err(IndexError::damaged(name, "its header is wrong"));
        }
        Ok(Self::new(file, layout, entry.origins))
    }

    fn slot_len(&self) -> usize {
        segment_writer::slot_len(&self.layout, self.origins)
    }

    /// Reads records from `first` on until `out` is full.
    fn read(&self, first: u32, out: &mut [u8]) -> io::Result<()> {
        let offset = segment_writer::HEADER as u64 + u64::from(first) * self.slot_len() as u64;
        self.file.read_exact_at(out, offset)
    }
}

/// Bytes of the header that a record has in its wire form only.
pub(crate) const fn origin_len(origins: bool) -> usize {
    if origins { WIRE_HEADER } else { 0 }
}
