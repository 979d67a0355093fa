//! One state of the index as it is searched.

use std::io;

use oboro_index::{Index, IndexHead, Listed, Segment};
use oboro_quant::BlockedCodes;

use crate::{SearcherError, merge::Key};

/// Most segments: a candidate's key has 16 bits for the segment.
const MAX_SEGMENTS: usize = 1 << 16;

/// Places drawn for one that is not deleted.
const SPARE_ATTEMPTS: usize = 64;

/// What a pass reads.
pub(crate) trait Codes: Send + Sync + 'static {
    /// Number of segments.
    fn segments(&self) -> usize;
    /// The codes of segment `index`.
    fn codes(&self, index: usize) -> &BlockedCodes;
    /// Which of its vectors are not deleted, a bit each; `None` when all are there.
    fn alive(&self, index: usize) -> Option<&[u64]>;
    /// Their sets of tags, where the index has tags.
    fn tags(&self, index: usize) -> Option<&[u64]>;
    /// The segment as searches of some lists scan it: positions are places then. `None`
    /// where all of it is scanned.
    fn listed(&self, _index: usize) -> Option<&Listed> {
        None
    }
    /// As [`alive`](Self::alive), by place.
    fn alive_by_place(&self, _index: usize) -> Option<&[u64]> {
        None
    }
}

/// An immutable state of the index: later commits make others.
pub(crate) struct Snapshot {
    index: Index,
    vectors: u64,
    deleted: u64,
}

impl Snapshot {
    /// Takes `index`, if it can be served.
    pub(crate) fn new(index: Index) -> Result<Self, SearcherError> {
        let segments = index.segments();
        if segments.len() > MAX_SEGMENTS {
            return Err(SearcherError::Index(format!(
                "the index has {} segments and at most {MAX_SEGMENTS} can be served; compact it first",
                segments.len()
            )));
        }
        let record_bytes = index.descriptor().record_bytes();
        let tags = !index.descriptor().tags.is_empty();
        if segments
            .iter()
            .any(|segment| segment.wire_len() != record_bytes || segment.tags().is_some() != tags)
        {
            return Err(SearcherError::Index(
                "the records or tags of a segment do not fit the descriptor; build the index again"
                    .to_owned(),
            ));
        }
        // On the thread that makes it, and not in the first search.
        for segment in segments {
            let _ = segment.alive_by_place();
        }
        let vectors = index.vectors();
        let deleted = segments
            .iter()
            .map(|segment| u64::from(segment.deleted()))
            .sum();
        Ok(Self {
            index,
            vectors,
            deleted,
        })
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    /// The state on disk.
    pub(crate) fn head(&self) -> IndexHead {
        self.index.head()
    }

    /// Vectors that can be found.
    pub(crate) fn vectors(&self) -> u64 {
        self.vectors
    }

    /// Vectors that are deleted but still on disk.
    pub(crate) fn deleted(&self) -> u64 {
        self.deleted
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        self.index.segments()
    }

    /// Appends the wire form of a record.
    pub(crate) fn append_record(
        &self,
        segment: usize,
        position: u32,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.segments()[segment].append_record(position, out)
    }

    /// Appends the wire form of a candidate's record.
    pub(crate) fn append_candidate(&self, key: Key, out: &mut Vec<u8>) -> io::Result<()> {
        self.append_record(key.segment(), self.position(key), out)
    }

    /// The id of a candidate.
    pub(crate) fn id_of(&self, key: Key) -> u64 {
        self.segments()[key.segment()].ids()[self.position(key) as usize]
    }

    /// Where a candidate lies in its segment: where only some lists are scanned, a key
    /// names the place there.
    fn position(&self, key: Key) -> u32 {
        match self.segments()[key.segment()].listed() {
            Some(listed) => listed.position(key.position()),
            None => key.position(),
        }
    }

    /// A place whose record can be read in place of a candidate's; `None` when
    /// there is none at all. `random` goes on to the next one.
    ///
    /// Like a candidate it is not deleted, or a host that learns later what was
    /// deleted could tell one from the other. Only where hardly any vector is
    /// left it may be.
    pub(crate) fn spare(&self, random: &mut u64) -> Option<(usize, u32)> {
        let mut place = None;
        for _ in 0..SPARE_ATTEMPTS {
            // Steele and Vigna's multiplier: a new place each time.
            *random = random.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
            place = self.place(*random >> 16);
            let (segment, position) = place?;
            if self.segments()[segment].is_alive(position) {
                break;
            }
        }
        place
    }

    /// A place in the snapshot, uniform over all if `random` is; `None` when
    /// there is none. Deleted vectors count: their records are still there.
    fn place(&self, random: u64) -> Option<(usize, u32)> {
        let places = self.vectors + self.deleted;
        let mut left = random.checked_rem(places)?;
        for (segment, part) in self.segments().iter().enumerate() {
            match left.checked_sub(part.len() as u64) {
                Some(rest) => left = rest,
                None => return Some((segment, left as u32)),
            }
        }
        None
    }
}

impl Codes for Snapshot {
    fn segments(&self) -> usize {
        self.index.segments().len()
    }

    fn codes(&self, index: usize) -> &BlockedCodes {
        self.index.segments()[index].codes()
    }

    fn alive(&self, index: usize) -> Option<&[u64]> {
        self.index.segments()[index].alive()
    }

    fn tags(&self, index: usize) -> Option<&[u64]> {
        self.index.segments()[index].tags()
    }

    fn listed(&self, index: usize) -> Option<&Listed> {
        self.index.segments()[index].listed()
    }

    fn alive_by_place(&self, index: usize) -> Option<&[u64]> {
        self.index.segments()[index].alive_by_place()
    }
}
