//! Recall of found neighbours: by distances where the vectors are at hand, else by ids.

use oboro_owner::as_near;
use oboro_quant::{Metric, recall};
use oboro_vectors::Matrix;

use crate::failure::{Failure, Outcome};
use crate::input::Input;

/// A list for each query.
pub(crate) type Lists<T> = Vec<Vec<T>>;

/// Recalls of found neighbours; what too few neighbours or candidates leave
/// undefined is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Recalls {
    pub(crate) ten_at_ten: Option<f64>,
    pub(crate) one_at_1: Option<f64>,
    pub(crate) one_at_10: Option<f64>,
    pub(crate) one_at_100: Option<f64>,
}

impl Recalls {
    /// By ids, where nothing else is known: of several neighbours at one distance only those
    /// count that the truth names. `depth` neighbours were asked for of every query.
    pub(crate) fn by_ids(found: &[Vec<u64>], truth: &[Vec<u64>], depth: usize) -> Self {
        Self::defined(
            truth,
            depth,
            || recall::recall_k_at_k(found, truth, 10),
            |r| recall::recall_1_at(found, truth, r),
        )
    }

    /// By exact distances to the query, for which one of several neighbours at one distance
    /// is as right as another.
    pub(crate) fn by_distances(
        found: &[Vec<f32>],
        truth: &[Vec<f32>],
        metric: Metric,
        depth: usize,
    ) -> Self {
        // How many of the first `r` are as near as the true one of this rank.
        let near = |found: &[f32], truth: &[f32], rank: usize, r: usize| {
            let reach = as_near(metric, truth[rank]);
            let first = found.iter().take(r);
            first.filter(|&&distance| distance <= reach).count()
        };
        let queries = || found.iter().zip(truth);
        let mean = |hits: usize, of: usize| hits as f64 / (found.len() * of).max(1) as f64;
        Self::defined(
            truth,
            depth,
            || mean(queries().map(|(f, t)| near(f, t, 9, 10)).sum(), 10),
            |r| mean(queries().filter(|(f, t)| near(f, t, 0, r) > 0).count(), 1),
        )
    }

    fn defined<T>(
        truth: &[Vec<T>],
        depth: usize,
        ten: impl Fn() -> f64,
        one: impl Fn(usize) -> f64,
    ) -> Self {
        let known = truth.iter().map(Vec::len).min().unwrap_or(0);
        let one = |r: usize| (depth >= r && known >= 1).then(|| one(r));
        Self {
            ten_at_ten: (depth >= 10 && known >= 10).then(ten),
            one_at_1: one(1),
            one_at_10: one(10),
            one_at_100: one(100),
        }
    }
}

/// Distances of listed rows to the queries that the lists are of, while all rows go by. NaN
/// where there is no such row, which is nearer than nothing.
pub(crate) struct Distances<'a> {
    queries: &'a Matrix<f32>,
    metric: Metric,
    /// Row, list and place in it, by rows.
    wanted: Vec<(u64, usize, usize)>,
    /// Wanted ones that have gone by.
    past: usize,
    found: Vec<Vec<f32>>,
}

impl<'a> Distances<'a> {
    /// A list for each query.
    pub(crate) fn new(lists: &[Vec<u64>], queries: &'a Matrix<f32>, metric: Metric) -> Self {
        let mut wanted: Vec<(u64, usize, usize)> = lists
            .iter()
            .enumerate()
            .flat_map(|(list, ids)| {
                let ids = ids.iter().enumerate();
                ids.map(move |(place, &id)| (id, list, place))
            })
            .collect();
        wanted.sort_unstable();
        Self {
            queries,
            metric,
            wanted,
            past: 0,
            found: lists.iter().map(|ids| vec![f32::NAN; ids.len()]).collect(),
        }
    }

    /// Takes in the next rows, the first of which has the number `first`.
    pub(crate) fn rows(&mut self, first: u64, rows: &[f32]) {
        let dimension = self.queries.dimension();
        let end = first + (rows.len() / dimension) as u64;
        while let Some(&(row, list, place)) = self.wanted.get(self.past) {
            if row >= end {
                break;
            }
            let at = (row - first) as usize * dimension;
            self.found[list][place] = self
                .metric
                .distance(self.queries.row(list), &rows[at..][..dimension]);
            self.past += 1;
        }
    }

    /// The distances, list by list.
    pub(crate) fn finish(self) -> Vec<Vec<f32>> {
        self.found
    }
}

/// Distances of several sets of lists, and last of the truth, to rows of the file that the
/// index was built from.
pub(crate) fn distances<const SETS: usize>(
    sets: [&[Vec<u64>]; SETS],
    truth: &[Vec<u64>],
    base: &Input,
    queries: &Matrix<f32>,
    metric: Metric,
) -> Outcome<([Lists<f32>; SETS], Lists<f32>)> {
    let mut sets = sets.map(|lists| Distances::new(lists, queries, metric));
    let mut of_truth = Distances::new(truth, queries, metric);
    let mut count = 0;
    let dimension = base.each(|dimension, rows| {
        if dimension == queries.dimension() {
            sets.iter_mut().for_each(|set| set.rows(count, rows));
            of_truth.rows(count, rows);
        }
        count += (rows.len() / dimension) as u64;
    })?;
    same_dimension(dimension, queries)?;
    check_rows(truth, count)?;
    Ok((sets.map(Distances::finish), of_truth.finish()))
}

/// A ground truth names rows of the base.
pub(crate) fn check_rows(truth: &[Vec<u64>], rows: u64) -> Outcome<()> {
    match truth.iter().flatten().max() {
        Some(&last) if last >= rows => Err(Failure::input(format_args!(
            "the ground truth names row {last} and the base has {rows} rows; give the vectors that it was made of"
        ))),
        _ => Ok(()),
    }
}

/// The base has vectors as the queries are.
pub(crate) fn same_dimension(base: usize, queries: &Matrix<f32>) -> Outcome<()> {
    if base == queries.dimension() {
        return Ok(());
    }
    Err(Failure::input(format_args!(
        "the base has dimension {base} and the queries have {}; give the vectors that the index was built from",
        queries.dimension()
    )))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn recalls_need_enough_neighbours() {
        let truth = vec![(0..20).collect::<Vec<u64>>()];
        let found = vec![(0..10).rev().collect::<Vec<u64>>()];
        let recalls = Recalls::by_ids(&found, &truth, 10);
        assert_eq!(recalls.ten_at_ten, Some(1.0));
        assert_eq!(recalls.one_at_1, Some(0.0));
        assert_eq!(recalls.one_at_10, Some(1.0));
        assert_eq!(recalls.one_at_100, None);
        let as_distances = |lists: &[Vec<u64>]| -> Vec<Vec<f32>> {
            let distances = lists.iter().map(|ids| ids.iter().map(|&id| id as f32));
            distances.map(Iterator::collect).collect()
        };
        let (found, truth) = (as_distances(&found), as_distances(&truth));
        let same = Recalls::by_distances(&found, &truth, Metric::L2, 10);
        assert_eq!(same, recalls);
        assert_eq!(
            Recalls::by_distances(&found, &[vec![0.0; 5]], Metric::L2, 10).ten_at_ten,
            None
        );
    }

    #[test]
    fn of_neighbours_at_one_distance_one_is_as_right_as_another() {
        // Rows 0 to 29 at distance 1, the others far away.
        let base: Vec<f32> = (0..60)
            .map(|row| if row < 30 { 1.0 } else { 9.0 })
            .collect();
        let queries = Matrix::new(1, vec![0.0]).unwrap();
        let truth = vec![(0..10).collect::<Vec<u64>>()];
        // Ten of the same, of which the truth names none; and one of no row.
        for (found, expected) in [
            ((15..25).collect::<Vec<u64>>(), 1.0),
            ((25..35).collect(), 0.5),
            ((21..30).chain([1 << 40]).collect(), 0.9),
        ] {
            let found = vec![found];
            assert_eq!(Recalls::by_ids(&found, &truth, 10).ten_at_ten, Some(0.0));
            let mut lists = [&found, &truth].map(|l| Distances::new(l, &queries, Metric::L2));
            for (number, rows) in base.chunks(7).enumerate() {
                let first = number as u64 * 7;
                lists.iter_mut().for_each(|list| list.rows(first, rows));
            }
            let [found, truth] = lists.map(Distances::finish);
            let recalls = Recalls::by_distances(&found, &truth, Metric::L2, 10);
            assert_eq!(recalls.ten_at_ten, Some(expected));
            assert_eq!(recalls.one_at_1, Some(1.0));
        }
    }
}
