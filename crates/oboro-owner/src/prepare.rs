//! What happens to a vector before it is quantized.

use oboro_index::{QueryModel, RotationMatrix};
use oboro_quant::Metric;

use crate::OwnerError;

/// The metric's preparation, then the secret rotation, then the learned matrix.
pub(crate) struct Prepare<'a> {
    pub(crate) metric: Metric,
    pub(crate) rotation: &'a RotationMatrix,
    /// `None` for no matrix.
    pub(crate) query: Option<&'a QueryModel>,
    pub(crate) dimension: usize,
}

impl Prepare<'_> {
    /// Prepares vectors of an index, row after row, on rayon's current pool.
    pub(crate) fn rows(&self, rows: &mut [f32]) -> Result<(), OwnerError> {
        if self.metric == Metric::Cosine {
            use rayon::prelude::*;
            rows.par_chunks_exact_mut(self.dimension)
                .for_each(|row| self.metric.prepare_base(row));
        }
        self.rotation.apply_rows(rows)?;
        match self.query {
            Some(query) => Ok(query.apply_rows(rows)?),
            None => Ok(()),
        }
    }

    /// Prepares one query.
    pub(crate) fn query(&self, query: &mut [f32]) -> Result<(), OwnerError> {
        self.metric.prepare_query(query);
        self.rotation.apply(query)?;
        match self.query {
            Some(model) => Ok(model.apply(query)?),
            None => Ok(()),
        }
    }
}

/// Norms beyond this overflow single precision when they are multiplied.
pub(crate) const LARGEST_NORM: f32 = 1e15;

/// The Euclidean norm.
pub(crate) fn norm(vector: &[f32]) -> f32 {
    // Eight running sums let the compiler use wide registers.
    let mut squares = [0.0_f32; 8];
    let (parts, rest) = vector.as_chunks::<8>();
    for part in parts {
        for (sum, value) in squares.iter_mut().zip(part) {
            *sum += value * value;
        }
    }
    for (sum, value) in squares.iter_mut().zip(rest) {
        *sum += value * value;
    }
    squares.iter().sum::<f32>().sqrt()
}
