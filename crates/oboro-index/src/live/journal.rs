//! What a compaction notes of itself, so that it can be gone on with after a stop.
//!
//! | bytes | content |
//! |---|---|
//! | 2 | format version |
//! | 16 | id of the new segment |
//! | 32 | seed of its random order |
//! | 32 | BLAKE3 of that order |
//! | 8 | bytes of its file of originals that are durable |
//! | 32 | BLAKE3 of these |
//! | 4 | number of segments that are merged |
//! | 56 each | id, BLAKE3 of the file of originals, vectors, how many of them were deleted |
//! | 8 a 64 vectors | after a segment of which some were: which |
//!
//! It lies sealed under the epoch's key.
//!
//! # Security
//! The seal is there for authenticity, and because of the lists of deleted vectors. The
//! seed is no secret beside it: records keep their origins, so whoever reads the merged
//! file sees the order that was drawn from it.

use super::merge::Source;
use crate::cursor::Cursor;
use crate::{Index, IndexError, Segment, alive, segment_writer};
use std::sync::Arc;

const VERSION: u16 = 1;
const NAME: &str = "the journal of a compaction";
const HEAD: usize = 2 + 16 + 32 + 32 + 8 + 32 + 4;
const SEGMENT: usize = 16 + 32 + 4 + 4;

/// A compaction under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Journal {
    pub(super) segment_id: [u8; 16],
    pub(super) seed: [u8; 32],
    /// So that no program goes on that would draw another order from the seed.
    pub(super) order: [u8; 32],
    /// Bytes of the file of originals that are durable.
    pub(super) written: u64,
    pub(super) hash: [u8; 32],
    pub(super) merged: Vec<Merged>,
}

/// One segment that is merged, as it was when that was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Merged {
    id: [u8; 16],
    /// Of its file of originals.
    hash: [u8; 32],
    vectors: u32,
    alive: Option<Arc<[u64]>>,
}

impl Merged {
    /// The present state of a segment; `hash` is that of its file of originals.
    pub(super) fn of(segment: &Segment, hash: [u8; 32]) -> Self {
        Self {
            id: *segment.id(),
            hash,
            vectors: segment.len() as u32,
            alive: segment.alive().map(Into::into),
        }
    }

    fn deleted(&self) -> u32 {
        let alive = self.alive.as_ref();
        alive.map_or(0, |alive| self.vectors - alive::count(alive) as u32)
    }

    /// The segment as it was then; `None` unless `now` is what it came to be. No vector
    /// that is deleted comes back: if one has, this is of another life of the index, and
    /// going on would lose the vector.
    fn segment(&self, now: &Segment, hash: &[u8; 32]) -> Option<Segment> {
        if self.hash != *hash || self.vectors as usize != now.len() {
            return None;
        }
        let Some(then) = &self.alive else {
            return Some(now.with_alive(alive::all(now.len()).into()));
        };
        let fits = match now.alive() {
            Some(now) => now.iter().zip(&**then).all(|(now, then)| now & !then == 0),
            None => false,
        };
        fits.then(|| now.with_alive(Arc::clone(then)))
    }
}

/// Names an order of vectors.
pub(super) fn digest_of(sources: &[Source]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = Vec::new();
    for sources in sources.chunks(4096) {
        buffer.clear();
        for (number, position) in sources {
            buffer.extend_from_slice(&number.to_le_bytes());
            buffer.extend_from_slice(&position.to_le_bytes());
        }
        hasher.update(&buffer);
    }
    *hasher.finalize().as_bytes()
}

impl Journal {
    /// Nothing honest about this index is longer.
    pub(super) fn max_bytes(index: &Index) -> usize {
        let segments = index.segments().iter();
        let lists = segments.map(|segment| SEGMENT + alive::words(segment.len()) * 8);
        HEAD + lists.sum::<usize>()
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.merged.len() * SEGMENT);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&self.segment_id);
        out.extend_from_slice(&self.seed);
        out.extend_from_slice(&self.order);
        out.extend_from_slice(&self.written.to_le_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&(self.merged.len() as u32).to_le_bytes());
        for merged in &self.merged {
            out.extend_from_slice(&merged.id);
            out.extend_from_slice(&merged.hash);
            out.extend_from_slice(&merged.vectors.to_le_bytes());
            out.extend_from_slice(&merged.deleted().to_le_bytes());
            if let Some(alive) = &merged.alive {
                out.extend(alive::to_bytes(alive, merged.vectors as usize));
            }
        }
        out
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut cursor = Cursor::new(NAME, bytes);
        let version = cursor.u16()?;
        if version != VERSION {
            return Err(IndexError::Version {
                file: NAME.to_owned(),
                found: version,
                supported: VERSION,
            });
        }
        let mut journal = Self {
            segment_id: cursor.array()?,
            seed: cursor.array()?,
            order: cursor.array()?,
            written: cursor.u64()?,
            hash: cursor.array()?,
            merged: Vec::new(),
        };
        // Not allocated before it is there: each is longer than nothing.
        for _ in 0..cursor.u32()? {
            journal.merged.push(merged(&mut cursor)?);
        }
        cursor.end()?;
        Ok(journal)
    }

    /// The segments that are merged, as they were when that was planned; `None` if this
    /// is no compaction of what the index holds now.
    pub(super) fn segments(&self, index: &Index) -> Option<Vec<Segment>> {
        let all = index.segments();
        // Its file would be written to.
        if all.iter().any(|segment| *segment.id() == self.segment_id) {
            return None;
        }
        let mut segments: Vec<Segment> = Vec::with_capacity(self.merged.len());
        for merged in &self.merged {
            let number = all.iter().position(|segment| *segment.id() == merged.id)?;
            let entry = &index.manifest().segments[number];
            let segment = merged.segment(&all[number], &entry.records.hash)?;
            if segments.iter().any(|other| other.id() == segment.id()) {
                return None;
            }
            segments.push(segment);
        }
        let layout = index.descriptor().record_layout();
        let alive: usize = segments.iter().map(Segment::alive_len).sum();
        let most = segment_writer::file_len(&layout, true, u32::try_from(alive).ok()?);
        let slot = segment_writer::slot_len(&layout, true) as u64;
        let records = self.written.checked_sub(segment_writer::HEADER as u64)?;
        (!segments.is_empty() && self.written <= most && records.is_multiple_of(slot))
            .then_some(segments)
    }
}

fn merged(cursor: &mut Cursor<'_>) -> Result<Merged, IndexError> {
    let (id, hash) = (cursor.array()?, cursor.array()?);
    let (vectors, deleted) = (cursor.u32()?, cursor.u32()?);
    let alive = match deleted {
        0 => None,
        _ => {
            let bytes = cursor.take(alive::words(vectors as usize) * 8)?;
            let alive = alive::from_bytes(bytes, vectors as usize, deleted);
            Some(alive.ok_or_else(|| IndexError::damaged(NAME, "its content is wrong"))?)
        }
    };
    Ok(Merged {
        id,
        hash,
        vectors,
        alive,
    })
}

/// Reads a journal, for the fuzz targets.
pub(crate) fn parse(bytes: &[u8]) {
    if let Ok(journal) = Journal::from_bytes(bytes) {
        assert!(journal.to_bytes() == bytes, "two forms of one journal");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Journal {
        let mut bits = alive::all(100);
        [3, 64, 99]
            .iter()
            .for_each(|&at| alive::clear(&mut bits, at));
        let merged = |byte: u8, alive| Merged {
            id: [byte; 16],
            hash: [byte + 1; 32],
            vectors: 100,
            alive,
        };
        Journal {
            segment_id: [1; 16],
            seed: [2; 32],
            order: [3; 32],
            written: 1 << 40,
            hash: [4; 32],
            merged: vec![
                merged(5, None),
                merged(7, Some(bits.into())),
                merged(9, None),
            ],
        }
    }

    #[test]
    fn fail_every_cut_and_what_comes_after_the_end() {
        let bytes = sample().to_bytes();
        assert_eq!(bytes.len(), HEAD + 3 * SEGMENT + 2 * 8);
        assert_eq!(Journal::from_bytes(&bytes).unwrap(), sample());
        for cut in 0..bytes.len() {
            assert!(Journal::from_bytes(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(Journal::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        for bit in 0..bytes.len() * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            // Another journal, or none.
            parse(&other);
            if let Ok(journal) = Journal::from_bytes(&other) {
                assert_ne!(journal, sample(), "bit {bit}");
            }
        }
    }

    #[test]
    fn fail_counts_that_are_not_there() {
        let bytes = sample().to_bytes();
        let refused = |at: usize, to: &[u8]| {
            let mut bad = bytes.clone();
            bad[at..at + to.len()].copy_from_slice(to);
            assert!(Journal::from_bytes(&bad).is_err(), "{at}");
        };
        refused(0, &[2]);
        refused(HEAD - 4, &u32::MAX.to_le_bytes());
        refused(HEAD - 4, &2_u32.to_le_bytes());
        // Vectors and deleted ones of the second segment.
        let second = HEAD + SEGMENT;
        refused(second + 48, &u32::MAX.to_le_bytes());
        refused(second + 48, &99_u32.to_le_bytes());
        refused(second + 52, &u32::MAX.to_le_bytes());
        refused(second + 52, &0_u32.to_le_bytes());
        refused(second + 52, &2_u32.to_le_bytes());
    }

    proptest! {
        #[test]
        fn fail_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse(&bytes);
            parse(&[&VERSION.to_le_bytes()[..], &bytes].concat());
        }
    }
}
