//! What a change comes to: which vectors are there afterwards.
//!
//! New vectors are looked at in the order of their ids, whatever segments they
//! are in, some at a time, and each present segment is gone through once for
//! these. So the work grows with what is brought and with the number of present
//! segments, not with the number of new ones.

use super::OnExisting;
use super::locate::find_all;
use crate::{Segment, alive};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// New vectors that are looked at together.
const TOGETHER: usize = 1 << 16;

/// What a change comes to.
pub(super) struct Plan {
    pub(super) present: Vec<Bits>,
    pub(super) new: Vec<Bits>,
    pub(super) counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) inserted: u64,
    pub(super) replaced: u64,
    pub(super) refused: u64,
    pub(super) deleted: u64,
    pub(super) unknown: u64,
}

/// Which vectors of a segment are there, while a change is worked out.
pub(super) struct Bits {
    segment: Segment,
    /// Present once one of them is deleted.
    pub(super) changed: Option<Vec<u64>>,
    left: usize,
}

impl Bits {
    fn new(segment: &Segment) -> Self {
        Self {
            segment: segment.clone(),
            changed: None,
            left: segment.alive_len(),
        }
    }

    fn is_alive(&self, position: u32) -> bool {
        match &self.changed {
            Some(bits) => alive::is_set(bits, position),
            None => self.segment.is_alive(position),
        }
    }

    fn delete(&mut self, position: u32) {
        let bits = self.changed.get_or_insert_with(|| {
            let len = self.segment.len();
            self.segment
                .alive()
                .map_or_else(|| alive::all(len), <[u64]>::to_vec)
        });
        alive::clear(bits, position);
        self.left -= 1;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.left == 0
    }
}

/// A new vector, ordered as it counts: by id, then by segment, then by position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct New {
    id: u64,
    segment: usize,
    /// Its place in the segment's order of ids.
    at: usize,
}

/// The new vectors of all segments in the order in which they count.
struct InOrder<'a> {
    segments: &'a [&'a Segment],
    /// The next of each segment.
    heads: BinaryHeap<Reverse<New>>,
}

impl<'a> InOrder<'a> {
    fn new(segments: &'a [&'a Segment]) -> Self {
        let mut all = Self {
            segments,
            heads: BinaryHeap::with_capacity(segments.len()),
        };
        (0..segments.len()).for_each(|segment| all.push(segment, 0));
        all
    }

    fn push(&mut self, segment: usize, at: usize) {
        let of = self.segments[segment];
        if let Some(&position) = of.order().get(at) {
            let id = of.ids()[position as usize];
            self.heads.push(Reverse(New { id, segment, at }));
        }
    }
}

impl Iterator for InOrder<'_> {
    /// Id, segment and position.
    type Item = (u64, usize, u32);

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse(New { id, segment, at }) = self.heads.pop()?;
        self.push(segment, at + 1);
        Some((id, segment, self.segments[segment].order()[at]))
    }
}

impl Plan {
    /// `new` are the new segments, in the order in which they count.
    pub(super) fn new(
        segments: &[Segment],
        new: &[&Segment],
        deletes: Vec<u64>,
        on_existing: OnExisting,
    ) -> Self {
        let mut plan = Self {
            present: segments.iter().map(Bits::new).collect(),
            new: new.iter().map(|segment| Bits::new(segment)).collect(),
            counts: Counts::default(),
        };
        plan.delete(deletes);
        plan.add(new, on_existing);
        plan
    }

    /// Deletes ids from the present state. One that is named twice is not there
    /// the second time.
    fn delete(&mut self, mut ids: Vec<u64>) {
        let named = ids.len() as u64;
        ids.sort_unstable();
        ids.dedup();
        let deleted = self.take(&ids).into_iter().filter(|there| *there).count();
        self.counts.deleted = deleted as u64;
        self.counts.unknown = named - self.counts.deleted;
    }

    fn add(&mut self, new: &[&Segment], on_existing: OnExisting) {
        let mut coming = InOrder::new(new);
        let mut previous = None;
        loop {
            let (mut ids, mut places) = (Vec::new(), Vec::new());
            for (id, segment, position) in coming.by_ref().take(TOGETHER) {
                if previous.replace(id) == Some(id) {
                    self.refuse(segment, position);
                } else {
                    ids.push(id);
                    places.push((segment, position));
                }
            }
            if ids.is_empty() && coming.heads.is_empty() {
                return;
            }
            match on_existing {
                OnExisting::Refuse => {
                    let there = self.there(&ids);
                    for (there, (segment, position)) in there.into_iter().zip(places) {
                        if there {
                            self.refuse(segment, position);
                        } else {
                            self.counts.inserted += 1;
                        }
                    }
                }
                OnExisting::Replace => {
                    for there in self.take(&ids) {
                        if there {
                            self.counts.replaced += 1;
                        } else {
                            self.counts.inserted += 1;
                        }
                    }
                }
            }
        }
    }

    fn refuse(&mut self, segment: usize, position: u32) {
        self.new[segment].delete(position);
        self.counts.refused += 1;
    }

    /// Which of these ids, which ascend, are in the present state.
    fn there(&self, ids: &[u64]) -> Vec<bool> {
        let mut there = vec![false; ids.len()];
        for bits in &self.present {
            find_all(
                &bits.segment,
                ids,
                |position| bits.is_alive(position),
                |number, _| there[number] = true,
            );
        }
        there
    }

    /// Deletes these ids, which ascend, from the present state; which of them
    /// were there.
    fn take(&mut self, ids: &[u64]) -> Vec<bool> {
        let mut there = vec![false; ids.len()];
        let mut found = Vec::new();
        for bits in &mut self.present {
            find_all(
                &bits.segment,
                ids,
                |position| bits.is_alive(position),
                |number, position| found.push((number, position)),
            );
            for (number, position) in found.drain(..) {
                bits.delete(position);
                there[number] = true;
            }
        }
        there
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::segment::Records;
    use crate::{RecordEncoding, RecordLayout};
    use oboro_quant::BlockedCodes;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

    fn segment(ids: Vec<u64>) -> Segment {
        let codes = BlockedCodes::from_rows(&vec![0; ids.len()], 1, 8).unwrap();
        let layout = RecordLayout::plain(RecordEncoding::F32, 1);
        let records = Records::new(tempfile::tempfile().unwrap(), layout, false);
        Segment::new([0; 16], codes, ids, None, records)
    }

    /// The ids that are left in each segment, by position.
    fn left(bits: &[Bits]) -> Vec<Vec<u64>> {
        let of = |bits: &Bits| {
            let ids = bits.segment.ids();
            (0..ids.len() as u32)
                .filter(|&position| bits.is_alive(position))
                .map(|position| ids[position as usize])
                .collect()
        };
        bits.iter().map(of).collect()
    }

    /// The rule, vector by vector.
    fn by_the_rule(
        present: &[Vec<u64>],
        new: &[Vec<u64>],
        deletes: &[u64],
        on_existing: OnExisting,
    ) -> (Counts, Vec<Vec<u64>>, Vec<Vec<u64>>) {
        let mut counts = Counts::default();
        let mut there: HashMap<u64, usize> = HashMap::new();
        for (segment, ids) in present.iter().enumerate() {
            there.extend(ids.iter().map(|&id| (id, segment)));
        }
        for id in deletes {
            match there.remove(id) {
                Some(_) => counts.deleted += 1,
                None => counts.unknown += 1,
            }
        }
        let (mut seen, mut kept) = (HashSet::new(), Vec::new());
        for ids in new {
            let mut of_segment = Vec::new();
            for &id in ids {
                let old = there.contains_key(&id);
                if !seen.insert(id) || (old && on_existing == OnExisting::Refuse) {
                    counts.refused += 1;
                    continue;
                }
                if old {
                    there.remove(&id);
                    counts.replaced += 1;
                } else {
                    counts.inserted += 1;
                }
                of_segment.push(id);
            }
            kept.push(of_segment);
        }
        let still = present
            .iter()
            .enumerate()
            .map(|(segment, ids)| {
                let still = |id: &&u64| there.get(id) == Some(&segment);
                ids.iter().filter(still).copied().collect()
            })
            .collect();
        (counts, still, kept)
    }

    fn ids() -> impl Strategy<Value = Vec<Vec<u64>>> {
        proptest::collection::vec(proptest::collection::vec(0_u64..60, 1..20), 0..8)
    }

    proptest! {
        #[test]
        fn plans_are_what_the_rule_says_vector_by_vector(
            present in ids(),
            new in ids(),
            deletes in proptest::collection::vec(0_u64..60, 0..20),
            replace in any::<bool>(),
        ) {
            // No id is present twice.
            let mut seen = HashSet::new();
            let present: Vec<Vec<u64>> = present
                .into_iter()
                .map(|ids| ids.into_iter().filter(|&id| seen.insert(id)).collect())
                .collect();
            let on_existing = if replace { OnExisting::Replace } else { OnExisting::Refuse };
            let (counts, still, kept) = by_the_rule(&present, &new, &deletes, on_existing);
            let segments: Vec<Segment> = present.into_iter().map(segment).collect();
            let staged: Vec<Segment> = new.into_iter().map(segment).collect();
            let staged: Vec<&Segment> = staged.iter().collect();
            let plan = Plan::new(&segments, &staged, deletes, on_existing);
            prop_assert_eq!(plan.counts, counts);
            prop_assert_eq!(left(&plan.present), still);
            prop_assert_eq!(left(&plan.new), kept);
        }
    }

    /// Four hundred new segments of 250 vectors each, which cover one another: more than are looked at together, and with a look into every
    /// segment for every vector this would take minutes.
    #[test]
    fn many_segments_that_cover_one_another() {
        let of = |number: u64| {
            (0..250)
                .map(|i| (i * 7_919 + number * 613) % 80_000)
                .collect()
        };
        let new: Vec<Vec<u64>> = (0..400).map(of).collect();
        let present: Vec<Vec<u64>> = (0..40)
            .map(|n| (n * 1_000..(n + 1) * 1_000).collect())
            .collect();
        let segments: Vec<Segment> = present.iter().cloned().map(segment).collect();
        let staged: Vec<Segment> = new.iter().cloned().map(segment).collect();
        let staged: Vec<&Segment> = staged.iter().collect();
        for on_existing in [OnExisting::Refuse, OnExisting::Replace] {
            let plan = Plan::new(&segments, &staged, vec![1, 1, 90_000], on_existing);
            let (counts, still, kept) = by_the_rule(&present, &new, &[1, 1, 90_000], on_existing);
            assert_eq!(plan.counts, counts);
            assert_eq!((left(&plan.present), left(&plan.new)), (still, kept));
        }
    }
}
