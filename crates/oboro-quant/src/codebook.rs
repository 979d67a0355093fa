//! Centroids of all sub-spaces.

use crate::error::{check_finite, check_rows};
use crate::metric::dot;
use crate::{Metric, QuantError, Subspaces};
use oboro_simd::Arch;
use oboro_simd::assign::{Transposed, assign};
use rayon::prelude::*;

/// Rows that a thread encodes at a time.
const ROWS: usize = 1024;

/// First bytes of an encoded codebook; the last is the format's version.
const MAGIC: [u8; 8] = *b"OBCBOOK\x01";

/// A product quantizer: K centroids in each of M sub-spaces.
#[derive(Clone, PartialEq)]
pub struct Codebook {
    subspaces: Subspaces,
    centroids: usize,
    /// `[m][k][width]`, zeros where a sub-space is shorter than the width.
    values: Vec<f32>,
}

impl Codebook {
    /// A codebook of given centroids: `[m][k][width]`, padded with zeros where
    /// a sub-space is shorter than the width.
    ///
    /// # Errors
    /// When the number of centroids is not 1 to 256, the length does not fit,
    /// or a value is not finite or not zero where it should be.
    pub fn from_values(
        subspaces: Subspaces,
        centroids: usize,
        values: Vec<f32>,
    ) -> Result<Self, QuantError> {
        if centroids == 0 || centroids > 256 {
            return Err(QuantError::Centroids { centroids });
        }
        let width = subspaces.width();
        let expected = subspaces.count() * centroids * width;
        if values.len() != expected {
            return Err(QuantError::Mismatch {
                what: "the number of values of a codebook",
                actual: values.len(),
                expected,
            });
        }
        check_finite(&values, width)?;
        for (m, centroids) in values.chunks_exact(centroids * width).enumerate() {
            let used = subspaces.range(m).len();
            if centroids
                .chunks_exact(width)
                .any(|c| c[used..].iter().any(|&v| v != 0.0))
            {
                return Err(QuantError::Decode("a padding value is not zero"));
            }
        }
        Ok(Self {
            subspaces,
            centroids,
            values,
        })
    }

    /// How vectors are cut.
    #[must_use]
    pub const fn subspaces(&self) -> &Subspaces {
        &self.subspaces
    }

    /// Number of centroids of a sub-space, K.
    #[must_use]
    pub const fn centroids(&self) -> usize {
        self.centroids
    }

    /// All centroids, `[m][k][width]`.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// What is added to inner products so that larger means nearer, `[m][k]`:
    /// `-|c|^2 / 2` for L2, nothing for the other metrics.
    #[must_use]
    pub fn offsets(&self, metric: Metric) -> Option<Vec<f32>> {
        metric.has_offsets().then(|| {
            self.values
                .chunks_exact(self.subspaces.width())
                .map(|c| (-square(c) / 2.0) as f32)
                .collect()
        })
    }

    /// Bound on the norm of a reconstructed vector: the square root of the sum
    /// over sub-spaces of the largest squared norm of a centroid.
    #[must_use]
    pub fn norm(&self) -> f64 {
        self.largest_squares().sum::<f64>().sqrt()
    }

    /// Bound on the sum of the offsets of a vector's codes, by magnitude; zero
    /// for metrics without offsets.
    #[must_use]
    pub fn offset_bound(&self, metric: Metric) -> f64 {
        if metric.has_offsets() {
            self.largest_squares().sum::<f64>() / 2.0
        } else {
            0.0
        }
    }

    fn largest_squares(&self) -> impl Iterator<Item = f64> + '_ {
        let width = self.subspaces.width();
        self.values
            .chunks_exact(self.centroids * width)
            .map(move |row| row.chunks_exact(width).map(square).fold(0.0, f64::max))
    }

    /// Codes of vectors, row-major: M bytes a vector. Runs in the current
    /// rayon pool; the result does not depend on its size.
    ///
    /// # Errors
    /// When the values are not whole vectors of the codebook's dimension or
    /// not finite.
    pub fn encode(&self, vectors: &[f32]) -> Result<Vec<u8>, QuantError> {
        let dimension = self.subspaces.dimension();
        let rows = check_rows(vectors, dimension)?;
        let subquantizers = self.subspaces.count();
        let mut codes = vec![0u8; rows * subquantizers];
        let tables = self.transposed();
        let bad_row = codes
            .par_chunks_mut(ROWS * subquantizers)
            .zip(vectors.par_chunks(ROWS * dimension))
            .enumerate()
            .filter_map(|(chunk, (codes, vectors))| {
                match check_finite(vectors, dimension) {
                    Err(QuantError::NotFinite { row }) => return Some(chunk * ROWS + row),
                    Err(_) | Ok(()) => {}
                }
                self.encode_chunk(&tables, vectors, codes);
                None
            })
            .min();
        match bad_row {
            Some(row) => Err(QuantError::NotFinite { row }),
            None => Ok(codes),
        }
    }

    fn encode_chunk(&self, tables: &[Transposed], vectors: &[f32], codes: &mut [u8]) {
        let dimension = self.subspaces.dimension();
        let rows = vectors.len() / dimension;
        let mut indexes = [0u32; ROWS];
        let mut values = [0f32; ROWS];
        for (m, table) in tables.iter().enumerate() {
            assign(
                Arch::detect(),
                &vectors[self.subspaces.range(m).start..],
                dimension,
                table,
                &mut indexes[..rows],
                &mut values[..rows],
            );
            for (codes, &index) in codes.chunks_exact_mut(self.subspaces.count()).zip(&indexes) {
                codes[m] = index as u8;
            }
        }
    }

    /// The centroids of every sub-space as the assignment kernel wants them.
    fn transposed(&self) -> Vec<Transposed> {
        let width = self.subspaces.width();
        self.values
            .chunks_exact(self.centroids * width)
            .enumerate()
            .map(|(m, rows)| {
                let used = self.subspaces.range(m).len();
                Transposed::with_half_norms(rows, self.centroids, used, width)
            })
            .collect()
    }

    /// The vectors that codes stand for, row-major.
    ///
    /// # Errors
    /// When `codes` is not whole rows, or a code names no centroid.
    pub fn decode(&self, codes: &[u8]) -> Result<Vec<f32>, QuantError> {
        let (count, width) = (self.subspaces.count(), self.subspaces.width());
        if !codes.len().is_multiple_of(count) {
            return Err(QuantError::Ragged {
                values: codes.len(),
                dimension: count,
            });
        }
        let rows = codes.len() / count;
        if let Some(&code) = codes
            .iter()
            .find(|&&code| usize::from(code) >= self.centroids)
        {
            return Err(QuantError::OutOfRange {
                what: "a code",
                actual: usize::from(code),
                minimum: 0,
                maximum: self.centroids - 1,
            });
        }
        let mut vectors = Vec::with_capacity(rows * self.subspaces.dimension());
        for row in codes.chunks_exact(count) {
            for (m, &code) in row.iter().enumerate() {
                let used = self.subspaces.range(m).len();
                let at = (m * self.centroids + usize::from(code)) * width;
                vectors.extend_from_slice(&self.values[at..at + used]);
            }
        }
        Ok(vectors)
    }

    /// The table of a prepared query in the clear, `[m][k]`: inner products
    /// plus offsets, larger nearer. What the encrypted table computes.
    ///
    /// # Errors
    /// When the query has another dimension.
    pub fn similarities(&self, query: &[f32], metric: Metric) -> Result<Vec<f32>, QuantError> {
        if query.len() != self.subspaces.dimension() {
            return Err(QuantError::Mismatch {
                what: "the dimension of the query",
                actual: query.len(),
                expected: self.subspaces.dimension(),
            });
        }
        let width = self.subspaces.width();
        let query = self.subspaces.pad(query);
        let products = query
            .chunks_exact(width)
            .zip(self.values.chunks_exact(self.centroids * width))
            .flat_map(|(query, rows)| rows.chunks_exact(width).map(move |c| dot(query, c)));
        Ok(match self.offsets(metric) {
            Some(offsets) => products.zip(offsets).map(|(p, o)| p + o).collect(),
            None => products.collect(),
        })
    }

    /// Mean squared distance of vectors from what their codes stand for.
    ///
    /// # Errors
    /// As [`Self::encode`]; also when there are no vectors.
    pub fn distortion(&self, vectors: &[f32]) -> Result<f64, QuantError> {
        let codes = self.encode(vectors)?;
        let decoded = self.decode(&codes)?;
        let rows = vectors.len() / self.subspaces.dimension();
        if rows == 0 {
            return Err(QuantError::TooFewVectors {
                vectors: 0,
                centroids: self.centroids,
            });
        }
        let sum: f64 = vectors
            .iter()
            .zip(&decoded)
            .map(|(a, b)| f64::from(a - b) * f64::from(a - b))
            .sum();
        Ok(sum / rows as f64)
    }

    /// The codebook as bytes: magic, dimension, M, K as 32-bit and values as
    /// 32-bit little-endian numbers.
    ///
    /// # Security
    /// The bytes are the codebook in the clear; seal them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.values.len() * 4);
        bytes.extend_from_slice(&MAGIC);
        for number in [
            self.subspaces.dimension(),
            self.subspaces.count(),
            self.centroids,
        ] {
            bytes.extend_from_slice(&(number as u32).to_le_bytes());
        }
        for value in &self.values {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// When the bytes are of another kind or version, truncated, too long, or
    /// hold impossible numbers.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, QuantError> {
        let (header, body) = bytes
            .split_at_checked(HEADER)
            .ok_or(QuantError::Decode("it is too short"))?;
        let (magic, numbers) = header.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(QuantError::Decode("it is of another kind or version"));
        }
        let mut numbers = numbers
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize);
        let mut number = || numbers.next().ok_or(QuantError::Decode("it is too short"));
        let (dimension, count, centroids) = (number()?, number()?, number()?);
        let subspaces = Subspaces::new(dimension, count)?;
        if centroids == 0 || centroids > 256 {
            return Err(QuantError::Centroids { centroids });
        }
        // In 128 bits nothing overflows, whatever the header says.
        let expected = count as u128 * centroids as u128 * subspaces.width() as u128 * 4;
        if body.len() as u128 != expected {
            return Err(QuantError::Decode("its length does not fit its header"));
        }
        let values = body
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        Self::from_values(subspaces, centroids, values)
    }
}

const HEADER: usize = MAGIC.len() + 3 * 4;

fn square(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}
