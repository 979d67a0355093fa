//! From ids to places.
//!
//! Each segment has its positions in the order of its ids, made once, and a
//! look-up searches one segment after the other. So a commit costs what it
//! brings, not what is there.

use crate::Segment;

/// Where a vector is, in one state of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The number of the segment in [`Index::segments`](crate::Index::segments).
    pub segment: usize,
    /// The position within it.
    pub position: u32,
}

/// The place of the one vector with this id that is not deleted.
pub(super) fn find(segments: &[Segment], id: u64) -> Option<Place> {
    segments.iter().enumerate().find_map(|(number, segment)| {
        find_in(segment, id, |position| segment.is_alive(position)).map(|position| Place {
            segment: number,
            position,
        })
    })
}

/// The position in `segment` of the vector with this id that `is_alive`.
fn find_in(segment: &Segment, id: u64, is_alive: impl Fn(u32) -> bool) -> Option<u32> {
    let (order, ids) = (segment.order(), segment.ids());
    let id_at = |at: usize| ids[order[at] as usize];
    // New ids are often above or below all that are there.
    let last = order.len().checked_sub(1)?;
    if id < id_at(0) || id > id_at(last) {
        return None;
    }
    let first = order.partition_point(|&position| ids[position as usize] < id);
    order[first..]
        .iter()
        .copied()
        .take_while(|&position| ids[position as usize] == id)
        .find(|&position| is_alive(position))
}

/// Calls `found` with the number of each of the `ids`, which ascend strictly, that a
/// vector in `segment` has that `is_alive`, and with its position. Costs about
/// the logarithm of the distance from one to the next, or less.
pub(super) fn find_all(
    segment: &Segment,
    ids: &[u64],
    is_alive: impl Fn(u32) -> bool,
    mut found: impl FnMut(usize, u32),
) {
    let (order, all) = (segment.order(), segment.ids());
    let id_at = |at: usize| all[order[at] as usize];
    let Some(last) = order.len().checked_sub(1) else {
        return;
    };
    // New ids are often above or below all that are there.
    let begin = ids.partition_point(|&id| id < id_at(0));
    let end = ids.partition_point(|&id| id <= id_at(last));
    let mut from = 0;
    for (number, &id) in ids.iter().enumerate().take(end).skip(begin) {
        // Twice as far each time, then between the last two.
        let mut step = 1;
        while from + step <= order.len() && id_at(from + step - 1) < id {
            from += step;
            step *= 2;
        }
        let to = order.len().min(from + step - 1);
        from += order[from..to].partition_point(|&position| all[position as usize] < id);
        let position = order[from..]
            .iter()
            .copied()
            .take_while(|&position| all[position as usize] == id)
            .find(|&position| is_alive(position));
        if let Some(position) = position {
            found(number, position);
        }
    }
}
