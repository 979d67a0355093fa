//! Vectors and the exact answers to queries among them.

use chacha20::ChaCha20Rng;
use oboro_quant::{Metric, exact};
use rand_core::{Rng, SeedableRng};

use crate::Outcome;

/// Values of a vector.
pub(crate) const DIMENSION: usize = 32;
/// Vectors in the index.
pub(crate) const ROWS: usize = 50_000;
/// Different queries.
const QUERIES: usize = 256;
/// Neighbours whose truth is known.
pub(crate) const TRUTH: usize = 10;

/// Clustered vectors of whole numbers from 0 to 255, which every encoding of originals
/// keeps exactly, and queries near to them.
pub(crate) struct Data {
    pub(crate) base: Vec<f32>,
    pub(crate) queries: Vec<Vec<f32>>,
    pub(crate) truth: Vec<Vec<u64>>,
}

impl Data {
    pub(crate) fn generate(seed: u64) -> Outcome<Self> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed ^ 0x0bad_5eed);
        let mut below = move |n: u32| rng.next_u32() % n;
        let centres: Vec<u32> = (0..500 * DIMENSION).map(|_| 40 + below(176)).collect();
        let mut near = |rows: usize| -> Vec<f32> {
            let mut out = Vec::with_capacity(rows * DIMENSION);
            for _ in 0..rows {
                let centre = below(500) as usize * DIMENSION;
                for value in &centres[centre..centre + DIMENSION] {
                    out.push((value + below(41) - 20) as f32);
                }
            }
            out
        };
        let base = near(ROWS);
        let queries = near(QUERIES);
        let (_, truth) = exact::search(&base, DIMENSION, &queries, TRUTH, Metric::L2, 2)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            base,
            queries: queries.chunks(DIMENSION).map(<[f32]>::to_vec).collect(),
            truth: truth.chunks(TRUTH).map(<[u64]>::to_vec).collect(),
        })
    }

    /// The squared distance between a query and a vector; exact, since both are whole
    /// numbers.
    pub(crate) fn distance(&self, query: usize, id: u64) -> Option<f32> {
        let at = usize::try_from(id).ok()?.checked_mul(DIMENSION)?;
        let row = self.base.get(at..at + DIMENSION)?;
        Some(Metric::L2.distance(&self.queries[query], row))
    }
}
