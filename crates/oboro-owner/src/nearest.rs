//! Exact neighbours of the trial queries, gathered chunk by chunk.

use oboro_quant::{Metric, exact};

use crate::OwnerError;

/// Distances that differ by this part of themselves are equal: eight units in the last place
/// of single precision, which the order of a sum can make of one distance.
const ROUNDING: f32 = 8.0 * f32::EPSILON;

/// Neighbours that a chunk is searched for beyond those that are kept, so that it is seldom
/// searched again for more of one distance.
const SPARE: usize = 21;

/// Most rows that are kept for a query.
const MOST: usize = 65_536;

/// The distance up to which a vector is as near as one at `distance`, but for rounding.
///
/// Recall counts a vector that was found as right up to this distance of the last true
/// neighbour: of several at the same distance one is as right as another, whichever of them
/// exact search happens to name. The trial of a build and `oboro eval` count so.
#[must_use]
pub fn as_near(metric: Metric, distance: f32) -> f32 {
    let size = match metric {
        // The difference of 1 and a cosine is rounded as they are.
        Metric::Cosine => 1.0,
        Metric::L2 | Metric::InnerProduct | Metric::Lorentz => distance.abs(),
    };
    distance + ROUNDING * size
}

/// The nearest rows so far of every query.
pub(crate) struct Nearest {
    queries: Vec<f32>,
    dimension: usize,
    metric: Metric,
    keep: usize,
    best: Vec<Best>,
}

/// The nearest rows so far of one query, nearest first, and with them all that are as near as
/// the last one that must be kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Best {
    rows: Vec<(f32, usize)>,
    /// The distance of the nearest that were left out because there were too many of them.
    crowd: Option<f32>,
}

impl Nearest {
    pub(crate) fn new(queries: Vec<f32>, dimension: usize, metric: Metric, keep: usize) -> Self {
        let count = queries.len() / dimension;
        Self {
            queries,
            dimension,
            metric,
            keep,
            best: vec![Best::default(); count],
        }
    }

    /// Takes in rows of which the first has the number `first`.
    pub(crate) fn add(&mut self, rows: &[f32], first: usize) -> Result<(), OwnerError> {
        let count = rows.len() / self.dimension;
        let mut asked = self.keep + SPARE;
        let mut open: Vec<usize> = (0..self.best.len()).collect();
        while !open.is_empty() {
            let queries: Vec<f32> = open
                .iter()
                .flat_map(|&query| &self.queries[query * self.dimension..][..self.dimension])
                .copied()
                .collect();
            let (distances, ids) =
                exact::search(rows, self.dimension, &queries, asked, self.metric, 0)?;
            let each = ids.len() / open.len();
            let found = distances.chunks(each).zip(ids.chunks(each));
            let mut again = Vec::new();
            for (&query, (distances, ids)) in open.iter().zip(found) {
                let found = distances
                    .iter()
                    .zip(ids)
                    .map(|(&distance, &id)| (distance, first + id as usize));
                let mut best = self.best[query].clone();
                best.add(found, self.keep, self.metric);
                // Where the last one found counts, there may be more of them in this chunk.
                let last = distances.last().is_some_and(|&last| best.counts(last));
                if last && each < count && best.crowd.is_none() {
                    again.push(query);
                } else {
                    self.best[query] = best;
                }
            }
            open = again;
            asked *= 16;
        }
        Ok(())
    }

    /// What every query has.
    pub(crate) fn into_best(self) -> Vec<Best> {
        self.best
    }
}

impl Best {
    fn add(&mut self, found: impl Iterator<Item = (f32, usize)>, keep: usize, metric: Metric) {
        self.rows.extend(found);
        self.rows
            .sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let Some(&(last, _)) = self.rows.get(keep - 1) else {
            return;
        };
        let reach = as_near(metric, last);
        self.rows
            .truncate(self.rows.partition_point(|row| row.0 <= reach));
        // Nearer ones may have come, and those of the crowd count no more.
        self.crowd = self.crowd.filter(|&crowd| crowd <= reach);
        if self.rows.len() > MOST || self.crowd.is_some() {
            let left_out = self.rows.get(keep).map(|row| row.0);
            self.rows.truncate(keep);
            self.crowd = [self.crowd, left_out]
                .into_iter()
                .flatten()
                .min_by(f32::total_cmp);
        }
    }

    /// Whether a row at this distance would be kept.
    fn counts(&self, distance: f32) -> bool {
        self.rows.last().is_some_and(|last| distance <= last.0)
    }

    /// How many of the `neighbours` nearest rows that are not `itself` there are, and all rows
    /// that are as near as the last of them. None where these are too many to tell.
    pub(crate) fn right(
        &self,
        itself: usize,
        neighbours: usize,
        metric: Metric,
    ) -> (usize, Vec<usize>) {
        let others = || self.rows.iter().filter(|row| row.1 != itself);
        let due = others().count().min(neighbours);
        let Some(last) = due.checked_sub(1).and_then(|last| others().nth(last)) else {
            return (0, Vec::new());
        };
        let reach = as_near(metric, last.0);
        if self.crowd.is_some_and(|crowd| crowd <= reach) {
            return (0, Vec::new());
        }
        let right = others().take_while(|row| row.0 <= reach);
        (due, right.map(|row| row.1).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn chunks_give_what_the_whole_gives() {
        let rows: Vec<f32> = (0..200).map(|v| ((v * 37) % 101) as f32).collect();
        let queries: Vec<f32> = (0..10).map(|v| ((v * 13) % 101) as f32).collect();
        let (distances, ids) = exact::search(&rows, 2, &queries, 100, Metric::L2, 0).unwrap();
        let mut nearest = Nearest::new(queries, 2, Metric::L2, 7);
        for (number, part) in rows.chunks(2 * 9).enumerate() {
            nearest.add(part, number * 9).unwrap();
        }
        let whole = distances.chunks(100).zip(ids.chunks(100));
        for (best, (distances, ids)) in nearest.into_best().into_iter().zip(whole) {
            let reach = as_near(Metric::L2, distances[6]);
            let expected: Vec<(f32, usize)> = distances
                .iter()
                .zip(ids)
                .map(|(&distance, &id)| (distance, id as usize))
                .take_while(|row| row.0 <= reach)
                .collect();
            assert_eq!(best.rows, expected);
        }
    }

    #[test]
    fn all_rows_of_one_distance_are_right() {
        // 900 rows at the same place, in chunks in which they fill more than one search.
        let rows: Vec<f32> = (0..1_000)
            .flat_map(|row| match row % 10 {
                0 => [row as f32, 1.0],
                _ => [3.0, 4.0],
            })
            .collect();
        for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct] {
            let mut nearest = Nearest::new(vec![3.0, 4.0], 2, metric, 11);
            for (number, part) in rows.chunks(2 * 400).enumerate() {
                nearest.add(part, number * 400).unwrap();
            }
            let best = nearest.into_best().remove(0);
            let (due, right) = best.right(1, 10, metric);
            assert_eq!(due, 10);
            match metric {
                // Longer ones are nearer.
                Metric::InnerProduct => assert_eq!(right.len(), 10),
                _ => assert_eq!(right.len(), 899),
            }
            assert!(!right.contains(&1));
        }
    }

    #[test]
    fn a_crowd_tells_nothing_until_nearer_ones_come() {
        let crowd = vec![1.0_f32; 40_000];
        let mut nearest = Nearest::new(vec![0.0], 1, Metric::L2, 3);
        nearest.add(&crowd, 0).unwrap();
        assert_eq!(nearest.best[0].right(0, 2, Metric::L2).1.len(), 39_999);
        nearest.add(&crowd, 40_000).unwrap();
        assert_eq!(nearest.best[0].right(0, 2, Metric::L2), (0, Vec::new()));
        assert_eq!(nearest.best[0].rows.len(), 3);
        nearest.add(&[0.5, 0.25], 80_000).unwrap();
        let right = vec![80_001, 80_000];
        assert_eq!(nearest.best[0].right(0, 2, Metric::L2), (2, right));
        assert!(nearest.best[0].crowd.is_some());
        nearest.add(&[0.125], 80_002).unwrap();
        assert_eq!(nearest.best[0].crowd, None);
    }

    #[test]
    fn of_one_row_there_is_nothing_to_find() {
        let mut nearest = Nearest::new(vec![2.0], 1, Metric::L2, 11);
        nearest.add(&[2.0], 0).unwrap();
        let best = nearest.into_best().remove(0);
        assert_eq!(best.right(0, 10, Metric::L2), (0, Vec::new()));
    }
}
