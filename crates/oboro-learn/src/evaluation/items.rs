use crate::LearnError;
use oboro_vectors::Matrix;
use std::collections::HashMap;

/// Embedded items with their classes: one row and one label each, in the
/// Euclidean space, the hyperbolic one, or both.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    pub(super) euclidean: Option<&'a Matrix<f32>>,
    pub(super) hyperbolic: Option<&'a Matrix<f32>>,
    pub(super) labels: &'a [u32],
}

impl<'a> Items<'a> {
    /// Items with embeddings that cosine or Euclidean distance compares.
    ///
    /// # Errors
    /// When rows and labels differ in number or a value is not finite.
    pub fn euclidean(rows: &'a Matrix<f32>, labels: &'a [u32]) -> Result<Self, LearnError> {
        check(rows, labels, "the Euclidean embeddings")?;
        Ok(Self {
            euclidean: Some(rows),
            hyperbolic: None,
            labels,
        })
    }

    /// Items with embeddings in the Poincaré ball.
    ///
    /// # Errors
    /// As [`Self::euclidean`]; whether the points are inside the ball is
    /// checked where its curvature is given.
    pub fn hyperbolic(points: &'a Matrix<f32>, labels: &'a [u32]) -> Result<Self, LearnError> {
        check(points, labels, "the hyperbolic embeddings")?;
        Ok(Self {
            euclidean: None,
            hyperbolic: Some(points),
            labels,
        })
    }

    /// Items with both embeddings, for every score.
    ///
    /// # Errors
    /// As [`Self::euclidean`].
    pub fn both(
        rows: &'a Matrix<f32>,
        points: &'a Matrix<f32>,
        labels: &'a [u32],
    ) -> Result<Self, LearnError> {
        check(rows, labels, "the Euclidean embeddings")?;
        check(points, labels, "the hyperbolic embeddings")?;
        Ok(Self {
            euclidean: Some(rows),
            hyperbolic: Some(points),
            labels,
        })
    }

    /// The class of each item.
    #[must_use]
    pub fn labels(&self) -> &'a [u32] {
        self.labels
    }

    /// The number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// How many items each class has.
    pub(super) fn class_sizes(&self) -> HashMap<u32, usize> {
        let mut sizes = HashMap::new();
        for &label in self.labels {
            *sizes.entry(label).or_insert(0) += 1;
        }
        sizes
    }
}

fn check(rows: &Matrix<f32>, labels: &[u32], what: &'static str) -> Result<(), LearnError> {
    if rows.rows() != labels.len() {
        return Err(LearnError::Length {
            what: "the list of labels",
            actual: labels.len(),
            expected: rows.rows(),
        });
    }
    if rows.rows() > u32::MAX as usize {
        return Err(LearnError::Setting {
            what: "the number of items",
            actual: rows.rows().to_string(),
            wanted: "evaluate at most 4,294,967,295 at a time",
        });
    }
    match rows
        .iter()
        .position(|row| row.iter().any(|v| !v.is_finite()))
    {
        Some(row) => Err(LearnError::NotFinite { what, row }),
        None => Ok(()),
    }
}
