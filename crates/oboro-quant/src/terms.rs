//! What an encrypted table is computed of.
//!
//! Only differences within a sub-quantizer's row of a table order vectors: a number
//! added to a whole row changes all sums alike. So centroids are given relative to the
//! middle of their sub-space, whatever the query: `q.(c - u)` differs from `q.c` by
//! `q.u`, the same for all centroids. Offsets are given relative to the
//! middle of their row. That makes the largest sum that a table may hold, and with
//! it the step that noise and rounding have in it, smaller: by a third to a half on
//! word vectors and descriptors of pictures.

use crate::metric::dot;
use crate::{Codebook, Metric, QuantError};
use zeroize::Zeroizing;

/// Turns of the search for a sub-space's middle; its distance from the best possible one falls
/// with their number (Badoiu and Clarkson, "Optimal core-sets for balls", 2003).
const TURNS: usize = 100;

/// The norm given is at least this part of what it is without the middle: all centroids
/// may be the same.
const LEAST: f64 = 1e-3;

/// Centroids and offsets for tables of one metric, with bounds on what they add up to.
///
/// # Security
/// With the codebook's middle they are the codebook; wiped when dropped.
pub struct TableTerms {
    centroids: Zeroizing<Vec<f32>>,
    offsets: Option<Zeroizing<Vec<f32>>>,
    width: usize,
    row: usize,
    norm: f64,
    offset_bound: f64,
}

impl Codebook {
    /// What tables of this codebook are computed of.
    #[must_use]
    pub fn table_terms(&self, metric: Metric) -> TableTerms {
        let width = self.subspaces().width();
        let row = self.centroids() * width;
        let mut centroids = Zeroizing::new(self.values().to_vec());
        let (mut squares, mut whole) = (0.0, 0.0);
        for (moved, own) in centroids
            .chunks_exact_mut(row)
            .zip(self.values().chunks_exact(row))
        {
            let middle = middle(own, width);
            for (value, middle) in moved.iter_mut().zip(middle.iter().cycle()) {
                *value -= middle;
            }
            squares += largest_square(moved, width);
            whole += largest_square(own, width);
        }
        let mut offset_bound = 0.0;
        let offsets = self.offsets(metric).map(|offsets| {
            let mut offsets = Zeroizing::new(offsets);
            for row in offsets.chunks_exact_mut(self.centroids()) {
                let most = row.iter().copied().fold(f32::MIN, f32::max);
                let least = row.iter().copied().fold(f32::MAX, f32::min);
                let middle = least + (most - least) / 2.0;
                row.iter_mut().for_each(|offset| *offset -= middle);
                let largest = row.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
                offset_bound += f64::from(largest);
            }
            offsets
        });
        TableTerms {
            centroids,
            offsets,
            width,
            row,
            norm: squares.sqrt().max(LEAST * whole.sqrt()),
            offset_bound,
        }
    }
}

impl TableTerms {
    /// Centroids relative to the middles of their sub-spaces, `[m][k][width]`.
    #[must_use]
    pub fn centroids(&self) -> &[f32] {
        &self.centroids
    }

    /// What is added to inner products, `[m][k]`; nothing for metrics without.
    #[must_use]
    pub fn offsets(&self) -> Option<&[f32]> {
        self.offsets.as_ref().map(|offsets| offsets.as_slice())
    }

    /// A bound on the norm of a vector that is made of these centroids: the square root of
    /// the sum over sub-spaces of the largest squared norm.
    #[must_use]
    pub const fn norm(&self) -> f64 {
        self.norm
    }

    /// A bound on the sum of the offsets of a vector's codes, by magnitude.
    #[must_use]
    pub const fn offset_bound(&self) -> f64 {
        self.offset_bound
    }

    /// The table of a prepared and [padded](crate::Subspaces::pad) query in the clear,
    /// `[m][k]`: what the encrypted one computes. Each row differs from that of
    /// [`Codebook::similarities`] by one number.
    ///
    /// # Errors
    /// When the query has another length.
    pub fn table(&self, query: &[f32]) -> Result<Vec<f32>, QuantError> {
        let expected = self.centroids.len() / self.row * self.width;
        if query.len() != expected {
            return Err(QuantError::Mismatch {
                what: "the length of the padded query",
                actual: query.len(),
                expected,
            });
        }
        let products = query
            .chunks_exact(self.width)
            .zip(self.centroids.chunks_exact(self.row))
            .flat_map(|(query, row)| row.chunks_exact(self.width).map(move |c| dot(query, c)));
        Ok(match self.offsets() {
            Some(offsets) => products.zip(offsets).map(|(p, o)| p + o).collect(),
            None => products.collect(),
        })
    }
}

/// About the centre of the smallest ball around some centroids.
fn middle(centroids: &[f32], width: usize) -> Zeroizing<Vec<f32>> {
    let mut middle = Zeroizing::new(centroids[..width].to_vec());
    for turn in 1..=TURNS {
        let mut farthest = &centroids[..width];
        let mut most = f32::MIN;
        for centroid in centroids.chunks_exact(width) {
            let far = centroid
                .iter()
                .zip(middle.iter())
                .map(|(c, m)| (c - m) * (c - m))
                .sum();
            if far > most {
                (farthest, most) = (centroid, far);
            }
        }
        let step = 1.0 / (turn + 1) as f32;
        for (middle, far) in middle.iter_mut().zip(farthest) {
            *middle += (far - *middle) * step;
        }
    }
    middle
}

fn largest_square(centroids: &[f32], width: usize) -> f64 {
    centroids
        .chunks_exact(width)
        .map(|c| c.iter().map(|&v| f64::from(v) * f64::from(v)).sum())
        .fold(0.0, f64::max)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Subspaces;
    use proptest::prelude::*;

    fn codebook(
        dimension: usize,
        subquantizers: usize,
        centroids: usize,
        far: f32,
        seed: u64,
    ) -> Codebook {
        let subspaces = Subspaces::new(dimension, subquantizers).unwrap();
        let width = subspaces.width();
        let mut state = seed;
        let mut values = Vec::new();
        for m in 0..subquantizers {
            let used = subspaces.range(m).len();
            for _ in 0..centroids {
                values.extend((0..width).map(|at| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let unit = (state >> 40) as f32 / (1 << 24) as f32 - 0.5;
                    if at < used { far + unit } else { 0.0 }
                }));
            }
        }
        Codebook::from_values(subspaces, centroids, values).unwrap()
    }

    proptest! {
        #[test]
        fn rows_differ_from_plain_similarities_by_one_number(
            dimension in 1usize..20,
            centroids in prop::sample::select(vec![1usize, 2, 16, 100]),
            seed in any::<u64>(),
            far in -3f32..3.0,
        ) {
            let subquantizers = dimension.div_ceil(3);
            let codebook = codebook(dimension, subquantizers, centroids, far, seed);
            let query: Vec<f32> = (0..dimension).map(|i| (i as f32 - 3.0) * 0.3).collect();
            for metric in Metric::ALL {
                let terms = codebook.table_terms(metric);
                let table = terms.table(&codebook.subspaces().pad(&query)).unwrap();
                let plain = codebook.similarities(&query, metric).unwrap();
                for (row, plain) in table.chunks(centroids).zip(plain.chunks(centroids)) {
                    for (a, b) in row.iter().zip(plain) {
                        prop_assert!(((a - row[0]) - (b - plain[0])).abs() < 1e-3);
                    }
                }
                // The bounds hold: by what a vector's codes can add up to.
                let most: f64 = table
                    .chunks(centroids)
                    .map(|row| f64::from(row.iter().fold(0.0_f32, |most, v| most.max(v.abs()))))
                    .sum();
                let norm = query.iter().map(|&v| f64::from(v * v)).sum::<f64>().sqrt();
                prop_assert!(most <= norm * terms.norm() + terms.offset_bound() + 1e-3);
            }
        }
    }

    #[test]
    fn far_from_the_origin_bounds_do_not_grow() {
        let near = codebook(12, 3, 64, 0.0, 1).table_terms(Metric::InnerProduct);
        let far = codebook(12, 3, 64, 50.0, 1).table_terms(Metric::InnerProduct);
        assert!(
            far.norm() < near.norm() * 1.1,
            "{} {}",
            far.norm(),
            near.norm()
        );
        assert!(near.offsets().is_none() && near.offset_bound() == 0.0);
    }

    #[test]
    fn equal_centroids_leave_a_norm_to_scale_by() {
        let terms = codebook(4, 2, 1, 2.0, 1).table_terms(Metric::L2);
        assert!(terms.norm() > 1e-3);
        assert_eq!(terms.offset_bound(), 0.0);
    }

    #[test]
    fn fail_a_query_of_another_length() {
        let terms = codebook(10, 3, 4, 0.0, 1).table_terms(Metric::L2);
        assert!(terms.table(&[0.0; 10]).is_err());
        assert!(terms.table(&[0.0; 12]).is_ok());
    }
}
