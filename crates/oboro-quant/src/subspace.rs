//! How a vector is cut into sub-vectors.

use crate::QuantError;
use std::ops::Range;

/// A cut of `dimension` coordinates into `count` runs whose lengths differ by
/// at most one; the first `dimension % count` runs are the longer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subspaces {
    dimension: usize,
    count: usize,
}

impl Subspaces {
    /// Cuts `dimension` coordinates into `count` runs.
    ///
    /// # Errors
    /// When `count` is zero or above `dimension`.
    pub const fn new(dimension: usize, count: usize) -> Result<Self, QuantError> {
        if count == 0 || count > dimension {
            return Err(QuantError::Subspaces { dimension, count });
        }
        Ok(Self { dimension, count })
    }

    /// Values of a whole vector.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        self.dimension
    }

    /// Number of sub-spaces, M.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Values of a padded sub-vector: `dimension / count` rounded up.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.dimension.div_ceil(self.count)
    }

    /// The coordinates of sub-space `index`.
    ///
    /// # Panics
    /// When `index` is not below the count.
    #[must_use]
    pub fn range(&self, index: usize) -> Range<usize> {
        assert!(index < self.count, "sub-space {index} of {}", self.count);
        let (short, longer) = (self.dimension / self.count, self.dimension % self.count);
        let start = index * short + index.min(longer);
        start..start + short + usize::from(index < longer)
    }

    /// All sub-vectors padded with zeros to [`Self::width`]:
    /// `count * width` values.
    ///
    /// # Panics
    /// When `vector` has another dimension.
    #[must_use]
    pub fn pad(&self, vector: &[f32]) -> Vec<f32> {
        let mut padded = vec![0.0; self.count * self.width()];
        self.pad_into(vector, &mut padded);
        padded
    }

    /// As [`Self::pad`], into a buffer of `count * width` values.
    ///
    /// # Panics
    /// When a length does not fit.
    pub fn pad_into(&self, vector: &[f32], padded: &mut [f32]) {
        assert_eq!(vector.len(), self.dimension, "vector of another dimension");
        assert_eq!(
            padded.len(),
            self.count * self.width(),
            "buffer does not fit"
        );
        for (index, padded) in padded.chunks_exact_mut(self.width()).enumerate() {
            let values = &vector[self.range(index)];
            padded[..values.len()].copy_from_slice(values);
            padded[values.len()..].fill(0.0);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_the_vector_in_order() {
        for (dimension, count) in [(128, 16), (97, 16), (100, 7), (25, 25), (5, 1), (3, 2)] {
            let subspaces = Subspaces::new(dimension, count).unwrap();
            let mut next = 0;
            for index in 0..count {
                let range = subspaces.range(index);
                assert_eq!(range.start, next);
                assert!(range.len() <= subspaces.width() && range.len() + 1 >= subspaces.width());
                next = range.end;
            }
            assert_eq!(next, dimension);
        }
    }

    #[test]
    fn padding_adds_zeros_at_the_end_of_short_runs() {
        let subspaces = Subspaces::new(5, 2).unwrap();
        assert_eq!(
            subspaces.pad(&[1.0, 2.0, 3.0, 4.0, 5.0]),
            [1.0, 2.0, 3.0, 4.0, 5.0, 0.0]
        );
    }

    #[test]
    fn fail_more_runs_than_coordinates() {
        let message = Subspaces::new(4, 5).unwrap_err().to_string();
        assert!(message.contains("dimension 4 into 5"), "{message}");
        assert!(Subspaces::new(4, 0).is_err());
    }
}
