//! Which segments to merge, and when.

use crate::Segment;

/// Positions are 32 bits wide, and a compaction stays well below.
const MAX_VECTORS: u64 = 1 << 31;

/// Smaller segments count as of one size.
const SMALL: u64 = 4096;

/// When segments are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPolicy {
    /// Segments of similar size (within a factor of four; all below 4,096
    /// vectors count as similar) that are left alone. One more, and all of
    /// them are merged.
    pub similar: usize,
    /// Percent of deleted vectors that a segment may have before it is
    /// written anew.
    pub deleted_percent: u32,
    /// Merge everything, whatever its size, and drop every deleted vector.
    pub full: bool,
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self {
            similar: 8,
            deleted_percent: 20,
            full: false,
        }
    }
}

impl CompactionPolicy {
    /// Everything into one segment.
    pub const FULL: Self = Self {
        similar: 0,
        deleted_percent: 0,
        full: true,
    };

    /// The segments to merge next, by number; none if all is well.
    pub(super) fn choose(&self, segments: &[Segment]) -> Vec<usize> {
        let alive = |&number: &usize| segments[number].alive_len() as u64;
        let all = 0..segments.len();
        if self.full {
            let chosen = within_limit(all.collect(), alive);
            let worthwhile =
                chosen.len() > 1 || chosen.iter().any(|&number| segments[number].deleted() > 0);
            return if worthwhile { chosen } else { Vec::new() };
        }
        let rotten: Vec<usize> = all
            .clone()
            .filter(|&number| {
                let segment = &segments[number];
                u64::from(segment.deleted()) * 100
                    > segment.len() as u64 * u64::from(self.deleted_percent)
            })
            .collect();
        if !rotten.is_empty() {
            return within_limit(rotten, alive);
        }
        // Small ones first: they are the most, and the cheapest to merge.
        (0..32)
            .map(|tier| {
                let of_tier = all.clone().filter(|number| tier_of(alive(number)) == tier);
                within_limit(of_tier.collect(), alive)
            })
            .find(|of_tier| of_tier.len() > self.similar.max(1))
            .unwrap_or_default()
    }
}

/// Sizes within a factor of four are of one tier.
fn tier_of(alive: u64) -> u32 {
    (alive.max(SMALL) / SMALL).ilog2() / 2
}

/// The first of them, as many as one segment can hold.
fn within_limit(numbers: Vec<usize>, alive: impl Fn(&usize) -> u64) -> Vec<usize> {
    let mut total = 0;
    numbers
        .into_iter()
        .filter(|number| {
            let fits = total + alive(number) <= MAX_VECTORS;
            if fits {
                total += alive(number);
            }
            fits
        })
        .collect()
}
