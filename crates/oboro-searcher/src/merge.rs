//! Merging the candidates of several segments without looking at them.
//!
//! Every segment hands over its best candidates in ascending order. Which of
//! them survive depends on the query, so the merge is a fixed network of
//! minimum and maximum over 64-bit keys: what it reads and writes, and in
//! which order, is a function of the lengths alone.

/// A candidate as one sortable key: score, then segment, then position.
///
/// 16 bits of score, 16 of segment, 32 of position, so that the order of keys
/// is the order of (score, segment, position).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub(crate) u64);

/// Sorts after every real candidate; fills lists up to their fixed length.
pub(crate) const FILLER: Key = Key(u64::MAX);

impl Key {
    pub(crate) const fn new(score: u16, segment: u16, position: u32) -> Self {
        Self((score as u64) << 48 | (segment as u64) << 32 | position as u64)
    }

    pub(crate) const fn score(self) -> u16 {
        (self.0 >> 48) as u16
    }

    pub(crate) const fn segment(self) -> usize {
        (self.0 >> 32 & 0xffff) as usize
    }

    pub(crate) const fn position(self) -> u32 {
        self.0 as u32
    }

    /// No candidate: there were fewer than were asked for. No sum of table
    /// entries is that large.
    pub(crate) const fn is_missing(self) -> bool {
        self.score() == u16::MAX
    }
}

/// Folds `other` into `best`: afterwards `best` holds the `best.len()`
/// smallest keys of both, ascending.
///
/// # Panics
/// When the lengths differ or are no power of two (both are public).
pub(crate) fn merge_keep_best(best: &mut [Key], other: &[Key]) {
    let length = best.len();
    assert!(
        length.is_power_of_two() && other.len() == length,
        "lists of one power-of-two length"
    );
    // Ascending against descending: the minima are the smallest half of both
    // lists and form a bitonic sequence (Batcher 1968).
    for (kept, &offered) in best.iter_mut().zip(other.iter().rev()) {
        kept.0 = kept.0.min(offered.0);
    }
    let mut distance = length / 2;
    while distance > 0 {
        for block in best.chunks_exact_mut(2 * distance) {
            let (low, high) = block.split_at_mut(distance);
            for (a, b) in low.iter_mut().zip(high) {
                let (small, large) = (a.0.min(b.0), a.0.max(b.0));
                a.0 = small;
                b.0 = large;
            }
        }
        distance /= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_parts_and_their_order() {
        let key = Key::new(0xfffe, 0x1234, 0xdead_beef);
        assert_eq!(
            (key.score(), key.segment(), key.position()),
            (0xfffe, 0x1234, 0xdead_beef)
        );
        assert!(Key::new(1, 9, 9) < Key::new(2, 0, 0));
        assert!(Key::new(1, 1, 9) < Key::new(1, 2, 0));
        assert!(Key::new(1, 1, 1) < Key::new(1, 1, 2));
    }

    #[test]
    fn equals_sorting_everything() {
        // A small multiplicative generator: no dependency, every run the same.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            state >> 20
        };
        for length in [1_usize, 2, 4, 64, 128, 1_024] {
            let lists: Vec<Vec<Key>> = (0..5)
                .map(|list| {
                    let mut keys: Vec<Key> = (0..length)
                        .map(|i| Key::new((next() % 50) as u16, list, i as u32))
                        .collect();
                    // A list that is not full, as a small segment gives.
                    keys.truncate(length - length / 3);
                    keys.sort();
                    keys.resize(length, FILLER);
                    keys
                })
                .collect();
            let mut all: Vec<Key> = lists.concat();
            all.sort();
            let mut best = lists[0].clone();
            for other in &lists[1..] {
                merge_keep_best(&mut best, other);
            }
            assert_eq!(best, all[..length], "length {length}");
        }
    }
}
