//! Lists of equal length: which vector comes into which.

use super::CoarseCentroids;
use crate::QuantError;
use crate::error::{check_finite, check_rows};
use oboro_simd::scan::BLOCK;
use std::collections::BinaryHeap;
use zeroize::{Zeroize, Zeroizing};

/// Lists that a vector may come into when nearer ones are full, before any
/// with room will do.
const CHOICES: usize = 8;

/// Vectors without a list that are compared with all lists at a time.
const TOGETHER: usize = 256;

/// The lists nearest to vectors, from which each gets one.
///
/// # Security
/// It tells where vectors lie; wiped when dropped.
pub struct Choices {
    lists: usize,
    /// For every vector its choices, nearest first, each with the bits of its squared
    /// distance.
    near: Vec<(u32, u32)>,
}

impl Drop for Choices {
    fn drop(&mut self) {
        self.near.zeroize();
    }
}

impl Choices {
    /// Of no vectors yet.
    pub(super) const fn new(lists: usize) -> Self {
        Self {
            lists,
            near: Vec::new(),
        }
    }

    fn each(&self) -> usize {
        CHOICES.min(self.lists)
    }

    fn check(&self, centroids: &CoarseCentroids) -> Result<(), QuantError> {
        if centroids.lists() != self.lists {
            return Err(QuantError::Mismatch {
                what: "the number of lists",
                actual: centroids.lists(),
                expected: self.lists,
            });
        }
        Ok(())
    }

    /// Takes in vectors, row after row, after those that came before.
    ///
    /// # Errors
    /// When the values are not whole vectors or not finite, or the centroids are
    /// others.
    pub fn add(&mut self, centroids: &CoarseCentroids, vectors: &[f32]) -> Result<(), QuantError> {
        check_rows(vectors, centroids.dimension())?;
        check_finite(vectors, centroids.dimension())?;
        self.check(centroids)?;
        self.near
            .extend(centroids.nearest_lists(vectors, self.each()));
        Ok(())
    }

    /// A list for every vector, as [`CoarseCentroids::assign_balanced`] gives it.
    ///
    /// Vectors that none of their choices takes come into the nearest list with room. The
    /// vectors themselves are no longer there: for the numbers it is given, in ascending
    /// order, `stand_ins` gives rows near to them, such as those that their codes stand for.
    ///
    /// # Errors
    /// When the slack is below 1, the centroids are others, or `stand_ins` fails or gives
    /// another number of rows.
    pub fn balanced(
        &self,
        centroids: &CoarseCentroids,
        slack: f64,
        mut stand_ins: impl FnMut(&[usize]) -> Result<Vec<f32>, QuantError>,
    ) -> Result<Vec<u32>, QuantError> {
        self.check(centroids)?;
        if slack.is_nan() || slack < 1.0 {
            return Err(QuantError::OutOfRange {
                what: "the slack of lists, in percent",
                actual: (slack * 100.0) as usize,
                minimum: 100,
                maximum: 100 * self.lists,
            });
        }
        let (lists, choices) = (self.lists, self.each());
        let rows = self.near.len() / choices;
        let capacity = (slack * rows as f64 / lists as f64).ceil() as usize;
        // No more than there are, however large the slack.
        let capacity = capacity.clamp(rows.div_ceil(lists), rows);
        let capacity = capacity.next_multiple_of(BLOCK);
        let mut full: Vec<BinaryHeap<(u32, u32)>> = vec![BinaryHeap::new(); lists];
        let mut asked = vec![0u8; rows];
        let mut homeless = Vec::new();
        for vector in 0..rows {
            let mut seeking = vector;
            loop {
                let choice = usize::from(asked[seeking]);
                if choice == choices {
                    homeless.push(seeking);
                    break;
                }
                asked[seeking] += 1;
                let (distance, list) = self.near[seeking * choices + choice];
                let list = &mut full[list as usize];
                list.push((distance, seeking as u32));
                if list.len() <= capacity {
                    break;
                }
                match list.pop() {
                    Some((_, farthest)) => seeking = farthest as usize,
                    None => break,
                }
            }
        }
        let mut lists_of = vec![0u32; rows];
        for (list, members) in full.iter().enumerate() {
            for &(_, vector) in members {
                lists_of[vector as usize] = list as u32;
            }
        }
        let mut counts: Vec<usize> = full.iter().map(BinaryHeap::len).collect();
        homeless.sort_unstable();
        for vectors in homeless.chunks(TOGETHER) {
            let rows = Zeroizing::new(stand_ins(vectors)?);
            if rows.len() != vectors.len() * centroids.dimension() {
                return Err(QuantError::Mismatch {
                    what: "the values of vectors without a list",
                    actual: rows.len(),
                    expected: vectors.len() * centroids.dimension(),
                });
            }
            let near = Zeroizing::new(centroids.nearest_lists(&rows, lists));
            for (&vector, order) in vectors.iter().zip(near.chunks_exact(lists)) {
                // All lists together have room for all vectors.
                let with_room = order
                    .iter()
                    .find(|&&(_, list)| counts[list as usize] < capacity);
                if let Some(&(_, list)) = with_room {
                    counts[list as usize] += 1;
                    lists_of[vector] = list;
                }
            }
        }
        Ok(lists_of)
    }
}
