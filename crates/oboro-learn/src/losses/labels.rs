//! The labels of a batch, checked.

use super::Embeddings;
use crate::LearnError;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// Labels below the number of classes.
pub(super) struct Labels<'a> {
    labels: &'a [usize],
    classes: usize,
}

impl<'a> Labels<'a> {
    /// Checks labels against the classes of a loss.
    pub(super) fn new(labels: &'a [usize], classes: usize) -> Result<Self, LearnError> {
        if let Some((row, &label)) = labels.iter().enumerate().find(|&(_, &l)| l >= classes) {
            return Err(LearnError::Label {
                row,
                label,
                classes,
            });
        }
        Ok(Self { labels, classes })
    }

    /// `[classes, batch]`: whether an item is of a class.
    pub(super) fn own(&self, device: &Device) -> Tensor<2, Bool> {
        let batch = self.labels.len();
        let mut own = vec![false; self.classes * batch];
        for (item, &label) in self.labels.iter().enumerate() {
            own[label * batch + item] = true;
        }
        Tensor::from_data(TensorData::new(own, [self.classes, batch]), device)
    }

    /// `[1, batch]`: the class of each item.
    pub(super) fn indices(&self, device: &Device) -> Tensor<2, Int> {
        let labels: Vec<i64> = self.labels.iter().map(|&l| l as i64).collect();
        Tensor::from_data(TensorData::new(labels, [1, self.labels.len()]), device)
    }

    /// How many classes the batch holds.
    pub(super) fn present(&self) -> usize {
        let mut seen = self.labels.to_vec();
        seen.sort_unstable();
        seen.dedup();
        seen.len()
    }
}

/// Refuses embeddings that do not fit their labels, and values that are not
/// finite: the loss and all that follows would be lost without a word.
pub(super) fn check(
    what: &'static str,
    vectors: &Tensor<2>,
    labels: &[usize],
    dimensions: Option<usize>,
) -> Result<(), LearnError> {
    let [batch, length] = vectors.dims();
    if labels.len() != batch || batch == 0 {
        return Err(LearnError::Length {
            what: "the labels of a batch",
            actual: labels.len(),
            expected: batch.max(1),
        });
    }
    if let Some(expected) = dimensions
        && expected != length
    {
        return Err(LearnError::Length {
            what,
            actual: length,
            expected,
        });
    }
    let finite = vectors.clone().inner().is_finite();
    if !finite.clone().all().into_scalar::<bool>() {
        let rows: Vec<bool> = finite
            .all_dim(1)
            .try_into_vec_as()
            .map_err(|_| LearnError::NotFinite { what, row: 0 })?;
        let row = rows.iter().position(|&ok| !ok).unwrap_or(0);
        return Err(LearnError::NotFinite { what, row });
    }
    Ok(())
}

/// [`check`] of the Euclidean embeddings.
pub(super) fn euclidean(
    embeddings: &Embeddings,
    labels: &[usize],
    dimensions: Option<usize>,
) -> Result<Tensor<2>, LearnError> {
    check(
        "the Euclidean embeddings",
        &embeddings.euclidean,
        labels,
        dimensions,
    )?;
    Ok(embeddings.euclidean.clone())
}

/// [`check`] of the hyperbolic embeddings.
pub(super) fn hyperbolic(
    embeddings: &Embeddings,
    labels: &[usize],
    dimensions: usize,
) -> Result<Tensor<2>, LearnError> {
    let points = embeddings.points()?;
    check(
        "the hyperbolic embeddings",
        &points,
        labels,
        Some(dimensions),
    )?;
    Ok(points)
}
