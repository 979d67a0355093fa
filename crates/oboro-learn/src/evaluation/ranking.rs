//! The nearest items of every query.

use super::score::{Prepared, Scratch};
use super::{Items, Score};
use crate::LearnError;
use oboro_simd::Arch;
use rayon::prelude::*;

/// Queries that a thread takes at a time; each pass over the gallery's tiles
/// serves all of them.
const QUERIES: usize = 64;

/// An item of the gallery in a query's list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its row in the gallery.
    pub item: u32,
    /// What the ranking orders by, smaller is nearer: the negated cosine, the
    /// squared distance, `|x - y|^2 / (1 - c|y|^2)`, or the negated fused
    /// score.
    pub key: f64,
}

impl Neighbour {
    fn order(&self, other: &Self) -> std::cmp::Ordering {
        self.key
            .total_cmp(&other.key)
            .then(self.item.cmp(&other.item))
    }
}

/// The `k` nearest items of every query, nearest first; with no gallery the
/// queries search among themselves, each left out of its own list.
///
/// # Errors
/// When the score needs an embedding that the items lack, dimensions differ,
/// a point lies outside the ball, or a parameter of the score is not positive.
pub fn nearest(
    queries: &Items<'_>,
    gallery: Option<&Items<'_>>,
    score: &Score,
    k: usize,
) -> Result<Vec<Vec<Neighbour>>, LearnError> {
    let prepared = Prepared::new(score, queries, gallery.unwrap_or(queries))?;
    let depths = vec![k; queries.len()];
    Ok(rank(&prepared, gallery.is_none(), &depths, |_, list| {
        list.to_vec()
    }))
}

/// Hands every query's list, `depths[query]` long where the gallery has so
/// many items, to `consume`; results in the order of the queries.
///
/// A depth of zero skips the query: its list is empty.
pub(super) fn rank<T: Send>(
    prepared: &Prepared<'_>,
    leave_self_out: bool,
    depths: &[usize],
    consume: impl Fn(usize, &[Neighbour]) -> T + Sync,
) -> Vec<T> {
    let blocks: Vec<Vec<T>> = depths
        .par_chunks(QUERIES)
        .enumerate()
        .map_init(Scratch::default, |scratch, (block, depths)| {
            let first = block * QUERIES;
            let mut lists: Vec<List> = depths.iter().map(|&depth| List::new(depth)).collect();
            if depths.iter().any(|&depth| depth > 0) {
                for tile in 0..prepared.tiles() {
                    let (base, rows) = prepared.bounds(tile, first, depths.len(), scratch);
                    for (offset, list) in lists.iter_mut().enumerate() {
                        let query = first + offset;
                        let skip = leave_self_out.then_some(query);
                        list.take(prepared, query, skip, base, scratch.of(offset, rows));
                    }
                }
            }
            lists
                .into_iter()
                .enumerate()
                .map(|(offset, list)| consume(first + offset, &list.finish()))
                .collect()
        })
        .collect();
    blocks.into_iter().flatten().collect()
}

/// The nearest items of one query so far, in no order.
struct List {
    depth: usize,
    found: Vec<Neighbour>,
    /// No item whose key is above belongs to the list.
    limit: f32,
}

impl List {
    fn new(depth: usize) -> Self {
        Self {
            depth,
            found: Vec::new(),
            limit: if depth == 0 {
                f32::NEG_INFINITY
            } else {
                f32::INFINITY
            },
        }
    }

    /// Takes what may belong to the list from a tile that starts at item
    /// `base` with these lower bounds of the keys.
    fn take(
        &mut self,
        prepared: &Prepared<'_>,
        query: usize,
        skip: Option<usize>,
        base: usize,
        bounds: &[f32],
    ) {
        for (chunk, bounds) in bounds.chunks(64).enumerate() {
            let limit = self.limit;
            let any = Arch::detect().vectorize(
                #[inline(always)]
                || {
                    bounds.iter().fold(
                        false,
                        #[inline(always)]
                        |any, &bound| any | (bound <= limit),
                    )
                },
            );
            if !any {
                continue;
            }
            for (offset, &bound) in bounds.iter().enumerate() {
                let item = base + chunk * 64 + offset;
                if bound <= self.limit && Some(item) != skip {
                    self.found.push(Neighbour {
                        item: item as u32,
                        key: prepared.exact(query, item),
                    });
                    if self.found.len() >= 2 * self.depth + 32 {
                        self.shrink();
                    }
                }
            }
        }
    }

    /// Drops all but the nearest and lowers the limit to the last of them.
    fn shrink(&mut self) {
        if self.found.len() <= self.depth || self.depth == 0 {
            return;
        }
        let (_, last, _) = self
            .found
            .select_nth_unstable_by(self.depth - 1, Neighbour::order);
        // Upwards, so that rounding never shuts a tie out.
        self.limit = (last.key as f32).next_up();
        self.found.truncate(self.depth);
    }

    fn finish(mut self) -> Vec<Neighbour> {
        self.shrink();
        self.found.sort_unstable_by(Neighbour::order);
        self.found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::geometry::Ball;
    use chacha20::ChaCha20Rng;
    use oboro_vectors::Matrix;
    use rand_core::{Rng, SeedableRng};

    fn random(rows: usize, dimension: usize, seed: u8) -> Matrix<f32> {
        let mut rng = ChaCha20Rng::from_seed([seed; 32]);
        let values = (0..rows * dimension)
            .map(|_| (rng.next_u64() >> 40) as f32 / (1 << 23) as f32 - 1.0)
            .collect();
        Matrix::new(dimension, values).unwrap()
    }

    fn points(rows: usize, dimension: usize, c: f32, radius: f32, seed: u8) -> Matrix<f32> {
        let ball = Ball::new(c).unwrap();
        let mut values = Vec::new();
        for row in &random(rows, dimension, seed) {
            let scaled: Vec<f32> = row.iter().map(|v| v * radius).collect();
            values.extend(ball.exp0(&Ball::clip(&scaled, radius)));
        }
        Matrix::new(dimension, values).unwrap()
    }

    /// The definition: all keys in double precision, sorted.
    fn slow(
        queries: &Items<'_>,
        gallery: &Items<'_>,
        same: bool,
        score: &Score,
        k: usize,
    ) -> Vec<Vec<u32>> {
        let wide = |row: &[f32]| row.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let cosine = |q: usize, g: usize| {
            let x = wide(queries.euclidean.unwrap().row(q));
            let y = wide(gallery.euclidean.unwrap().row(g));
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let norms = (dot(&x, &x) * dot(&y, &y)).sqrt();
            if norms > 0.0 {
                dot(&x, &y) / norms
            } else {
                0.0
            }
        };
        let far = |q: usize, g: usize, c: f64| {
            let x = wide(queries.hyperbolic.unwrap().row(q));
            let y = wide(gallery.hyperbolic.unwrap().row(g));
            Ball::new(c).unwrap().distance(&x, &y)
        };
        let key = |q: usize, g: usize| match *score {
            Score::Cosine => -cosine(q, g),
            Score::Euclidean => {
                let x = queries.euclidean.unwrap().row(q);
                let y = gallery.euclidean.unwrap().row(g);
                x.iter()
                    .zip(y)
                    .map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2))
                    .sum()
            }
            Score::Hyperbolic { curvature } => far(q, g, curvature),
            Score::Fused {
                curvature,
                euclidean_temperature,
                hyperbolic_temperature,
                lambda,
            } => {
                lambda * far(q, g, curvature) / hyperbolic_temperature
                    - cosine(q, g) / euclidean_temperature
            }
        };
        (0..queries.len())
            .map(|q| {
                let mut all: Vec<(f64, u32)> = (0..gallery.len())
                    .filter(|&g| !same || g != q)
                    .map(|g| (key(q, g), g as u32))
                    .collect();
                all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                all.truncate(k);
                all.into_iter().map(|(_, g)| g).collect()
            })
            .collect()
    }

    const SCORES: [Score; 4] = [
        Score::Cosine,
        Score::Euclidean,
        Score::Hyperbolic { curvature: 0.1 },
        Score::Fused {
            curvature: 0.1,
            euclidean_temperature: 0.2,
            hyperbolic_temperature: 1.5,
            lambda: 0.7,
        },
    ];

    #[test]
    fn lists_are_those_of_the_definition() {
        for dimension in [1, 3, 8, 33] {
            // Past the end of a tile and of a block of queries.
            let rows = 600;
            let labels = vec![0; rows];
            let (e, h) = (
                random(rows, dimension, 1),
                // Far out, where the gaps are small.
                points(rows, dimension, 0.1, 6.0, 2),
            );
            let gallery = Items::both(&e, &h, &labels).unwrap();
            let (qe, qh) = (random(70, dimension, 3), points(70, dimension, 0.1, 4.0, 4));
            let queries = Items::both(&qe, &qh, &labels[..70]).unwrap();
            for score in &SCORES {
                for k in [1, 10, 300, 1000] {
                    let items = |lists: Vec<Vec<Neighbour>>| -> Vec<Vec<u32>> {
                        lists
                            .into_iter()
                            .map(|list| list.into_iter().map(|n| n.item).collect())
                            .collect()
                    };
                    let found = items(nearest(&queries, Some(&gallery), score, k).unwrap());
                    let expected = slow(&queries, &gallery, false, score, k);
                    // In one dimension cosines are ±1 and rounding decides.
                    if dimension > 1 || !matches!(score, Score::Cosine) {
                        assert_eq!(found, expected, "{score:?} {dimension} {k}");
                    }
                    if k == 10 && dimension > 1 {
                        let found = items(nearest(&gallery, None, score, k).unwrap());
                        assert_eq!(found, slow(&gallery, &gallery, true, score, k));
                    }
                }
            }
        }
    }

    #[test]
    fn equal_items_rank_by_row_and_zero_vectors_are_unlike_all() {
        let mut data = vec![0.5f32; 3 * 500];
        data[..3].fill(0.0);
        let rows = Matrix::new(3, data).unwrap();
        let labels = vec![0; 500];
        let items = Items::both(&rows, &rows, &labels).unwrap();
        for score in &SCORES {
            let lists = nearest(&items, None, score, 4).unwrap();
            let list = |q: usize| lists[q].iter().map(|n| n.item).collect::<Vec<_>>();
            assert_eq!(list(7), [1, 2, 3, 4], "{score:?}");
            assert_eq!(list(2), [1, 3, 4, 5]);
            assert_eq!(list(0), [1, 2, 3, 4]);
        }
        let cosine = nearest(&items, None, &Score::Cosine, 1).unwrap();
        assert_eq!(cosine[0][0].key, 0.0);
    }

    #[test]
    fn one_thread_and_many_give_the_same_bits() {
        let (e, h) = (random(700, 16, 5), points(700, 16, 0.1, 2.3, 6));
        let labels = vec![0; 700];
        let items = Items::both(&e, &h, &labels).unwrap();
        for score in &SCORES {
            let run = |threads| {
                rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap()
                    .install(|| nearest(&items, None, score, 9).unwrap())
            };
            assert_eq!(run(1), run(5));
        }
    }

    #[test]
    fn fail_what_the_score_cannot_compare() {
        let rows = random(4, 3, 1);
        let wide = random(4, 4, 1);
        let labels = [0, 0, 1, 1];
        let items = Items::euclidean(&rows, &labels).unwrap();
        let other = Items::euclidean(&wide, &labels).unwrap();
        let text =
            |result: Result<Vec<Vec<Neighbour>>, LearnError>| result.unwrap_err().to_string();
        assert_eq!(
            text(nearest(&items, Some(&other), &Score::Cosine, 1)),
            "a query's embedding has 3 values where 4 are needed; give as many"
        );
        let hyperbolic = Score::Hyperbolic { curvature: 1.0 };
        assert!(text(nearest(&items, None, &hyperbolic, 1)).contains("needs the hyperbolic"));
        let far = Items::hyperbolic(&rows, &labels).unwrap();
        let outside = Score::Hyperbolic { curvature: 10.0 };
        assert!(text(nearest(&far, None, &outside, 1)).contains("outside the Poincaré ball"));
        let negative = Score::Hyperbolic { curvature: -1.0 };
        assert!(text(nearest(&far, None, &negative, 1)).contains("positive number"));
        assert!(Items::euclidean(&rows, &labels[..3]).is_err());
        let broken = Matrix::new(1, vec![0.0, f32::NAN]).unwrap();
        assert!(Items::euclidean(&broken, &labels[..2]).is_err());
    }
}
