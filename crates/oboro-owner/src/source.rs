//! Where vectors come from, twice: once to look, once to encode.

use oboro_vectors::{VectorReader, VectorsError};

/// Rows that can be read from the first to the last, more than once.
pub trait VectorSource: Send {
    /// How many rows there are.
    fn rows(&self) -> usize;

    /// Values of a row.
    fn dimension(&self) -> usize;

    /// Appends the next rows, at most `most`, to `out` and says how many there
    /// were; 0 at the end.
    ///
    /// # Errors
    /// If a row cannot be read, or holds NaN or infinity.
    fn read(&mut self, most: usize, out: &mut Vec<f32>) -> Result<usize, VectorsError>;

    /// Goes back to the first row.
    ///
    /// # Errors
    /// If the source cannot be positioned.
    fn rewind(&mut self) -> Result<(), VectorsError>;
}

impl VectorSource for VectorReader {
    fn rows(&self) -> usize {
        Self::rows(self)
    }

    fn dimension(&self) -> usize {
        Self::dimension(self)
    }

    fn read(&mut self, most: usize, out: &mut Vec<f32>) -> Result<usize, VectorsError> {
        self.read_into(most, out)
    }

    fn rewind(&mut self) -> Result<(), VectorsError> {
        Self::rewind(self)
    }
}

/// Rows that lie in memory already.
pub struct Rows<'a> {
    values: &'a [f32],
    dimension: usize,
    next: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `dimension` values each, one after the other.
    ///
    /// # Errors
    /// If there is no row, a part of a row, or NaN or infinity.
    pub fn new(values: &'a [f32], dimension: usize) -> Result<Self, VectorsError> {
        let shape = || VectorsError::Shape {
            values: values.len(),
            dimension,
        };
        if dimension == 0 || values.is_empty() || !values.len().is_multiple_of(dimension) {
            return Err(shape());
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(VectorsError::NotFinite {
                path: "vectors in memory".into(),
                row: (at / dimension) as u64,
            });
        }
        Ok(Self {
            values,
            dimension,
            next: 0,
        })
    }
}

impl VectorSource for Rows<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.dimension
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn read(&mut self, most: usize, out: &mut Vec<f32>) -> Result<usize, VectorsError> {
        let rows = most.min(self.rows() - self.next);
        let start = self.next * self.dimension;
        out.extend_from_slice(&self.values[start..start + rows * self.dimension]);
        self.next += rows;
        Ok(rows)
    }

    fn rewind(&mut self) -> Result<(), VectorsError> {
        self.next = 0;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_order_and_again() {
        let values: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let mut rows = Rows::new(&values, 3).unwrap();
        for _ in 0..2 {
            let mut out = Vec::new();
            assert_eq!(rows.read(3, &mut out).unwrap(), 3);
            assert_eq!(rows.read(3, &mut out).unwrap(), 1);
            assert_eq!(rows.read(3, &mut out).unwrap(), 0);
            assert_eq!(out, values);
            rows.rewind().unwrap();
        }
    }

    #[test]
    fn fail_wrong_shapes_and_values() {
        assert!(Rows::new(&[], 3).is_err());
        assert!(Rows::new(&[1.0; 4], 3).is_err());
        assert!(Rows::new(&[1.0; 4], 0).is_err());
        assert!(Rows::new(&[1.0, f32::NAN], 2).is_err());
    }
}
