//! A segment as searches of some lists scan it.
//!
//! On disk, and for everything but the scan, the vectors of a segment lie in one random
//! order, and a file of its own says which list each is in. For the scan their codes are
//! laid out by list, all lists of equal length: what a search costs does not depend on
//! which lists it looks at. Within a list the order stays random.

use crate::Segment;
use oboro_quant::BlockedCodes;
use oboro_quant::ivf::IvfLists;

/// Vectors of a block of codes.
const BLOCK: usize = 64;

/// Places for each vector above which a segment is not laid out: with lists of very
/// different length the fillers would cost more than the lists save.
const MAX_PADDING: usize = 4;

/// Which list each vector of a segment is in.
#[derive(Clone)]
pub(crate) struct Assignments {
    /// Number of lists.
    pub(crate) lists: usize,
    /// By position.
    pub(crate) of: Vec<u16>,
}

/// Codes, tags and positions of a segment by place: list after list, each with fillers
/// up to the length of the longest.
pub struct Listed {
    layout: IvfLists,
    codes: BlockedCodes,
    tags: Option<Vec<u64>>,
}

impl Listed {
    /// The layout of a segment, or `None` where searching all of it is better: it has
    /// fewer vectors than all lists have places in a block each, or its lists are of
    /// very different length.
    pub(crate) fn of(
        assignments: &Assignments,
        codes: &BlockedCodes,
        tags: Option<&[u64]>,
    ) -> Option<Self> {
        let Assignments { lists, of } = assignments;
        if of.len() < lists * BLOCK {
            return None;
        }
        let mut counts = vec![0_usize; *lists];
        for &list in of {
            *counts.get_mut(usize::from(list))? += 1;
        }
        let longest = counts.iter().max().copied()?.next_multiple_of(BLOCK);
        if longest * lists > MAX_PADDING * of.len() {
            return None;
        }
        let wide: Vec<u32> = of.iter().map(|&list| list.into()).collect();
        // Neither fails: lists and places were counted.
        let layout = IvfLists::from_assignments(&wide, *lists).ok()?;
        let codes = layout.arrange_blocks(codes).ok()?;
        let tags = tags.map(|tags| {
            let at = |place| {
                layout
                    .vector(place)
                    .map_or(0, |vector| tags[vector as usize])
            };
            (0..layout.places() as u32).map(at).collect()
        });
        Some(Self {
            layout,
            codes,
            tags,
        })
    }

    /// Where which vector lies.
    #[must_use]
    pub const fn layout(&self) -> &IvfLists {
        &self.layout
    }

    /// Codes by place.
    #[must_use]
    pub const fn codes(&self) -> &BlockedCodes {
        &self.codes
    }

    /// Tags by place, if the index has any; fillers have none.
    #[must_use]
    pub fn tags(&self) -> Option<&[u64]> {
        self.tags.as_deref()
    }

    /// The position in the segment of a place; of a filler it is the place.
    #[must_use]
    pub fn position(&self, place: u32) -> u32 {
        self.layout.vector(place).unwrap_or(place)
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let places = self.layout.places() as u64;
        let tags = self.tags.as_ref().map_or(0, |tags| 8 * tags.len() as u64);
        self.codes.as_bytes().len() as u64 + tags + 4 * places + 8 * self.layout.mask().len() as u64
    }

    /// Which vectors of `segment`, which has this layout, are not deleted, a bit a place.
    pub(crate) fn alive(&self, segment: &Segment) -> Vec<u64> {
        let mask = self.layout.mask();
        let mut bits = vec![0; mask.len()];
        for (block, (bits, &used)) in bits.iter_mut().zip(mask).enumerate() {
            let mut left = used;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let place = (block * BLOCK) as u32 + bit;
                if segment.is_alive(self.position(place)) {
                    *bits |= 1 << bit;
                }
            }
        }
        bits
    }
}

/// The payload of the file that says which lists vectors are in.
pub(crate) fn to_bytes(lists: &[u16]) -> Vec<u8> {
    lists.iter().flat_map(|list| list.to_le_bytes()).collect()
}

/// Reads what [`to_bytes`] wrote; `None` where a list is not there.
pub(crate) fn from_bytes(bytes: &[u8], lists: usize) -> Option<Assignments> {
    let (words, rest) = bytes.as_chunks::<2>();
    let of: Vec<u16> = words.iter().map(|&word| u16::from_le_bytes(word)).collect();
    (rest.is_empty() && fit(&of, lists)).then_some(Assignments { lists, of })
}

/// Whether all lists are there.
pub(crate) fn fit(of: &[u16], lists: usize) -> bool {
    of.iter().all(|&list| usize::from(list) < lists)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::segment::Records;
    use crate::{RecordEncoding, RecordLayout};

    fn segment(count: usize, lists: usize, of: impl Fn(usize) -> u16) -> Segment {
        let rows: Vec<u8> = (0..3 * count).map(|v| (v * 7) as u8).collect();
        let records = Records::new(
            tempfile::tempfile().unwrap(),
            RecordLayout::plain(RecordEncoding::F32, 3),
            false,
        );
        Segment::new(
            [1; 16],
            BlockedCodes::from_rows(&rows, 3, 8).unwrap(),
            (0..count as u64).collect(),
            Some((0..count as u64).map(|id| id * 3).collect()),
            records,
        )
        .in_lists(Some(Assignments {
            lists,
            of: (0..count).map(of).collect(),
        }))
    }

    #[test]
    fn every_vector_has_one_place_in_its_list() {
        let segment = segment(1000, 7, |row| (row * row % 7) as u16);
        let listed = segment.listed().unwrap();
        let each = listed.layout().blocks_per_list() * BLOCK;
        let mut seen = vec![false; 1000];
        for place in 0..listed.layout().places() as u32 {
            let Some(vector) = listed.layout().vector(place) else {
                assert_eq!(listed.tags().unwrap()[place as usize], 0);
                continue;
            };
            let row = vector as usize;
            assert!(!std::mem::replace(&mut seen[row], true));
            assert_eq!(place as usize / each, row * row % 7);
            assert_eq!(listed.position(place), vector);
            assert_eq!(listed.codes().row(place as usize), segment.codes().row(row));
            assert_eq!(listed.tags().unwrap()[place as usize], row as u64 * 3);
        }
        assert!(seen.into_iter().all(|seen| seen));
        assert!(segment.alive_by_place().is_none());
        let mut alive = crate::alive::all(1000);
        (0..1000)
            .step_by(3)
            .for_each(|row| crate::alive::clear(&mut alive, row));
        let fewer = segment.with_alive(alive.into());
        let bits = fewer.alive_by_place().unwrap();
        for place in 0..listed.layout().places() as u32 {
            let there = listed
                .layout()
                .vector(place)
                .is_some_and(|row| row % 3 != 0);
            assert_eq!(crate::alive::is_set(bits, place), there);
        }
    }

    #[test]
    fn memory_counts_codes_and_tags_of_both_orders() {
        // 1,000 vectors of 3 bytes of codes, in whole blocks of 64; id, order of ids, tag, list.
        let order = 1024 * 3 + 1000 * (8 + 4 + 8 + 2);
        let whole = segment(1000, 20, |row| (row % 20) as u16);
        assert!(whole.listed().is_none());
        assert_eq!(whole.resident_bytes(), order);
        let even = segment(1000, 7, |row| (row % 7) as u16);
        // 143 in the longest list: three blocks each.
        let places = 7 * 192;
        assert_eq!(even.listed().unwrap().layout().places(), places as usize);
        let by_list = places * (3 + 8 + 4) + 7 * 3 * 8;
        assert_eq!(even.resident_bytes(), order + by_list);
    }

    #[test]
    fn segments_that_are_small_or_uneven_are_searched_whole() {
        assert!(
            segment(7 * 64, 7, |row| (row % 7) as u16)
                .listed()
                .is_some()
        );
        assert!(
            segment(7 * 64 - 1, 7, |row| (row % 7) as u16)
                .listed()
                .is_none()
        );
        // All but a few in one list: seven times as many places as vectors.
        let uneven = segment(1000, 7, |row| (row % 7 * usize::from(row < 70)) as u16);
        assert!(uneven.listed().is_none());
        // A list that is not there is nowhere laid out.
        assert!(segment(1000, 7, |row| (row % 8) as u16).listed().is_none());
    }

    #[test]
    fn fail_lists_that_are_not_there() {
        let bytes = to_bytes(&[0, 6, 3]);
        assert_eq!(from_bytes(&bytes, 7).unwrap().of, [0, 6, 3]);
        assert!(from_bytes(&bytes, 6).is_none());
        assert!(from_bytes(&bytes[..5], 7).is_none());
    }
}
