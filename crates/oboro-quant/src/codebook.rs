//! Centroids of all sub-spaces.

use crate::error::{check_finite, check_rows};
use crate::metric::dot;
use crate::{Metric, QuantError, Subspaces};
use oboro_simd::Arch;
use oboro_simd::assign::{Transposed, assign};
use rayon::prelude::*;
use zeroize::Zeroize;

/// Rows that a thread encodes at a time.
const ROWS: usize = 1024;

/// First bytes of an encoded codebook; the last is the format's version.
const MAGIC: [u8; 8] = *b"OBCBOOK\x01";

/// A product quantizer: K centroids in each of M sub-spaces.
///
/// # Security
/// The codebook in the clear turns codes back into approximate vectors. Only
/// the owner holds it; it is wiped when dropped.
#[derive(Clone, PartialEq)]
pub struct Codebook {
    subspaces: Subspaces,
    centroids: usize,
    /// `[m][k][width]`, zeros where a sub-space is shorter than the width.
    values: Vec<f32>,
}

impl Drop for Codebook {
    fn drop(&mut self) {
        self.values.zeroize();
    }
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
    /// `-|c|^2 / 2` for L2 and cosine, nothing for the other metrics.
    #[must_use]
    pub fn offsets(&self, metric: Metric) -> Option<Vec<f32>> {
        metric.has_offsets().then(|| {
            self.values
                .chunks_exact(self.subspaces.width())
                .map(|c| (-square(c) / 2.0) as f32)
                .collect()
        })
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
                if let Err(QuantError::NotFinite { row }) = check_finite(vectors, dimension) {
                    return Some(chunk * ROWS + row);
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
    /// plus offsets, larger nearer. The encrypted table has these up to one number
    /// a row; see [`crate::TableTerms`].
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::TrainOptions;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Clustered rows: a few centres and small deviations.
    fn vectors(rows: usize, dimension: usize) -> Vec<f32> {
        let mut state = 5u64;
        let mut unit = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let centres: Vec<f32> = (0..32 * dimension).map(|_| unit() * 10.0).collect();
        (0..rows)
            .flat_map(|_| {
                let centre = (unit() * 32.0) as usize;
                (0..dimension)
                    .map(|j| centres[centre * dimension + j] + unit())
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    fn options(subquantizers: usize, centroids: usize, threads: usize) -> TrainOptions {
        TrainOptions {
            threads,
            ..TrainOptions::new(subquantizers, centroids, [3; 32])
        }
    }

    #[test]
    fn training_does_not_depend_on_threads() {
        for (dimension, subquantizers, centroids) in [(16, 4, 64), (13, 3, 16), (5, 5, 200)] {
            let data = vectors(3000, dimension);
            let train = |threads| {
                Codebook::train(
                    &data,
                    dimension,
                    &options(subquantizers, centroids, threads),
                )
                .unwrap()
                .to_bytes()
            };
            let one = train(1);
            assert!(one == train(2) && one == train(3));
        }
    }

    #[test]
    fn more_centroids_lower_the_distortion() {
        let data = vectors(2000, 12);
        let mut last = f64::INFINITY;
        for centroids in [1, 4, 16, 64, 256] {
            let codebook = Codebook::train(&data, 12, &options(4, centroids, 1)).unwrap();
            let distortion = codebook.distortion(&data).unwrap();
            assert!(distortion < last, "{centroids}: {distortion} {last}");
            last = distortion;
        }
    }

    #[test]
    fn codes_name_the_nearest_centroids() {
        for (dimension, subquantizers, centroids) in [(16, 4, 64), (97, 16, 50), (25, 25, 16)] {
            let data = vectors(1100, dimension);
            let codebook =
                Codebook::train(&data, dimension, &options(subquantizers, centroids, 1)).unwrap();
            let codes = codebook.encode(&data).unwrap();
            let width = codebook.subspaces().width();
            for (vector, row) in data
                .chunks_exact(dimension)
                .zip(codes.chunks_exact(subquantizers))
                .step_by(37)
            {
                let padded = codebook.subspaces().pad(vector);
                for (m, &code) in row.iter().enumerate() {
                    let x = &padded[m * width..][..width];
                    let distance = |k: usize| {
                        let c = &codebook.values()[(m * centroids + k) * width..][..width];
                        Metric::L2.distance(x, c)
                    };
                    let nearest = (0..centroids).map(distance).fold(f32::INFINITY, f32::min);
                    assert!(distance(usize::from(code)) <= nearest + 1e-3);
                }
            }
        }
    }

    #[test]
    fn similarities_of_codes_are_inner_products_with_what_they_decode_to() {
        let data = vectors(500, 10);
        let codebook = Codebook::train(&data, 10, &options(3, 32, 1)).unwrap();
        let codes = codebook.encode(&data[..200]).unwrap();
        let decoded = codebook.decode(&codes).unwrap();
        for metric in Metric::ALL {
            let mut query = data[4000..4010].to_vec();
            metric.prepare_query(&mut query);
            let table = codebook.similarities(&query, metric).unwrap();
            for (row, vector) in codes.chunks_exact(3).zip(decoded.chunks_exact(10)) {
                let sum: f32 = row
                    .iter()
                    .enumerate()
                    .map(|(m, &k)| table[m * 32 + usize::from(k)])
                    .sum();
                let offset = if metric.has_offsets() {
                    square(vector) as f32 / 2.0
                } else {
                    0.0
                };
                assert!((sum - (dot(&query, vector) - offset)).abs() < 1e-2);
            }
        }
        assert!(codebook.offsets(Metric::InnerProduct).is_none());
    }

    #[test]
    fn fewer_vectors_than_centroids_are_all_centroids() {
        for rows in [1, 2, 15, 99] {
            let data = vectors(rows, 10);
            let codebook = Codebook::train(&data, 10, &options(3, 100, 1)).unwrap();
            let codes = codebook.encode(&data).unwrap();
            assert_eq!(codebook.decode(&codes).unwrap(), data);
            assert_eq!(codebook.centroids(), 100);
        }
    }

    #[test]
    fn bytes_round_trip() {
        let data = vectors(300, 7);
        let codebook = Codebook::train(&data, 7, &options(2, 20, 1)).unwrap();
        let bytes = codebook.to_bytes();
        assert!(Codebook::from_bytes(&bytes).unwrap() == codebook);
    }

    #[test]
    fn fail_damaged_bytes() {
        let data = vectors(300, 7);
        let bytes = Codebook::train(&data, 7, &options(2, 20, 1))
            .unwrap()
            .to_bytes();
        for end in 0..bytes.len() {
            assert!(Codebook::from_bytes(&bytes[..end]).is_err());
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(Codebook::from_bytes(&longer).is_err());
        // Everything of the header counts.
        for byte in 0..HEADER {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[byte] ^= 1 << bit;
                assert!(
                    Codebook::from_bytes(&flipped).is_err(),
                    "byte {byte} bit {bit}"
                );
            }
        }
        let mut huge = bytes[..HEADER].to_vec();
        huge[8..].fill(0xff);
        assert!(Codebook::from_bytes(&huge).is_err());
        let mut nan = bytes.clone();
        nan[HEADER..HEADER + 4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(Codebook::from_bytes(&nan).is_err());
        // Sub-space 1 has three values and one of padding.
        let mut padding = bytes;
        padding[HEADER + 4 * (20 * 4 + 3)] = 1;
        assert!(Codebook::from_bytes(&padding).is_err());
    }

    #[test]
    fn fail_training_input() {
        let train = |data: &[f32], dimension, m, k| {
            Codebook::train(data, dimension, &options(m, k, 1))
                .err()
                .map(|e| e.to_string())
        };
        let text = |e: Option<String>| e.unwrap();
        assert!(text(train(&[], 4, 2, 16)).contains("0 training vectors"));
        let mut few = options(2, 16, 1);
        few.sample = Some(10);
        let few = Codebook::train(&[0.0; 400], 4, &few);
        assert!(
            text(few.err().map(|e| e.to_string()))
                .contains("10 training vectors are fewer than the 16")
        );
        assert!(text(train(&[0.0; 40], 4, 5, 2)).contains("dimension 4 into 5"));
        assert!(text(train(&[0.0; 40], 4, 2, 257)).contains("257 centroids"));
        assert!(text(train(&[0.0; 41], 4, 2, 2)).contains("41 values"));
        let mut data = vec![0.0; 40];
        data[17] = f32::INFINITY;
        assert!(text(train(&data, 4, 2, 2)).contains("vector 4"));
    }

    #[test]
    fn fail_encoding_input() {
        let data = vectors(2500, 7);
        let codebook = Codebook::train(&data, 7, &options(2, 20, 1)).unwrap();
        assert!(codebook.encode(&data[..8]).is_err());
        let mut bad = data.clone();
        bad[7 * 1500 + 3] = f32::NAN;
        bad[7 * 2200] = f32::NAN;
        assert_eq!(
            codebook.encode(&bad),
            Err(QuantError::NotFinite { row: 1500 })
        );
        assert!(codebook.decode(&[0; 3]).is_err());
        assert!(codebook.decode(&[0, 20]).is_err());
        assert!(codebook.similarities(&[0.0; 6], Metric::L2).is_err());
    }

    #[test]
    fn progress_reaches_its_end_and_cancelling_stops() {
        let data = vectors(600, 8);
        let last = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&last);
        let mut options = options(2, 16, 1);
        options.progress = Some(Arc::new(move |done, total| {
            assert!(done <= total);
            heard.store(done * 1000 / total, Ordering::Relaxed);
        }));
        Codebook::train(&data, 8, &options).unwrap();
        assert_eq!(last.load(Ordering::Relaxed), 1000);
        options.cancel.store(true, Ordering::Relaxed);
        assert_eq!(
            Codebook::train(&data, 8, &options).err(),
            Some(QuantError::Cancelled)
        );
    }
}
