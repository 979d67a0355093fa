use crate::VectorsError;

/// Rows of equal length, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix<T> {
    dimension: usize,
    data: Vec<T>,
}

impl<T> Matrix<T> {
    /// A matrix of `data.len() / dimension` rows.
    ///
    /// # Errors
    /// [`VectorsError::Shape`] if `dimension` is zero or does not divide the
    /// number of values.
    pub fn new(dimension: usize, data: Vec<T>) -> Result<Self, VectorsError> {
        if dimension == 0 || !data.len().is_multiple_of(dimension) {
            return Err(VectorsError::Shape {
                values: data.len(),
                dimension,
            });
        }
        Ok(Self { dimension, data })
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.data.len() / self.dimension
    }

    /// The number of values in a row.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Row `index`.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn row(&self, index: usize) -> &[T] {
        &self.data[index * self.dimension..][..self.dimension]
    }

    /// All rows in order.
    pub fn iter(&self) -> std::slice::ChunksExact<'_, T> {
        self.data.chunks_exact(self.dimension)
    }

    /// All values, row after row.
    #[must_use]
    pub fn data(&self) -> &[T] {
        &self.data
    }

    /// All values, row after row, to change in place.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [T] {
        &mut self.data
    }

    /// All values, row after row.
    #[must_use]
    pub fn into_data(self) -> Vec<T> {
        self.data
    }
}

impl<'a, T> IntoIterator for &'a Matrix<T> {
    type Item = &'a [T];
    type IntoIter = std::slice::ChunksExact<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
