//! Exact neighbours of the trial queries, gathered chunk by chunk.

use oboro_quant::{Metric, exact};

use crate::OwnerError;

/// The nearest rows so far of every query.
pub(crate) struct Nearest {
    queries: Vec<f32>,
    dimension: usize,
    metric: Metric,
    keep: usize,
    best: Vec<Vec<(f32, usize)>>,
}

impl Nearest {
    pub(crate) fn new(queries: Vec<f32>, dimension: usize, metric: Metric, keep: usize) -> Self {
        let count = queries.len() / dimension;
        Self {
            queries,
            dimension,
            metric,
            keep,
            best: vec![Vec::new(); count],
        }
    }

    /// Takes in rows of which the first has the number `first`.
    pub(crate) fn add(&mut self, rows: &[f32], first: usize) -> Result<(), OwnerError> {
        if self.best.is_empty() {
            return Ok(());
        }
        let (distances, ids) = exact::search(
            rows,
            self.dimension,
            &self.queries,
            self.keep,
            self.metric,
            0,
        )?;
        let each = ids.len() / self.best.len();
        for (query, best) in self.best.iter_mut().enumerate() {
            let range = query * each..(query + 1) * each;
            best.extend(
                distances[range.clone()]
                    .iter()
                    .zip(&ids[range])
                    .map(|(&distance, &id)| (distance, first + id as usize)),
            );
            best.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            best.truncate(self.keep);
        }
        Ok(())
    }

    /// Rows, nearest first, for every query.
    pub(crate) fn into_rows(self) -> impl Iterator<Item = Vec<usize>> {
        self.best
            .into_iter()
            .map(|best| best.into_iter().map(|(_, row)| row).collect())
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
        let (_, whole) = exact::search(&rows, 2, &queries, 7, Metric::L2, 0).unwrap();
        let mut nearest = Nearest::new(queries, 2, Metric::L2, 7);
        for (number, part) in rows.chunks(2 * 9).enumerate() {
            nearest.add(part, number * 9).unwrap();
        }
        for (found, expected) in nearest.into_rows().zip(whole.chunks(7)) {
            let expected: Vec<usize> = expected.iter().map(|&id| id as usize).collect();
            assert_eq!(found, expected);
        }
    }
}
