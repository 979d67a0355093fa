//! The secret rotation: a layer of last resort.
//!
//! An orthogonal map keeps distances and inner products, so searches give the
//! same neighbours, while tables and centroids that leak lie in coordinates
//! that only owner and clients know. It is no encryption: who knows enough
//! pairs of vectors and images can solve for it.

use crate::IndexError;
use crate::keys::RotationSeed;
use chacha20::ChaCha20Rng;
use oboro_quant::{Metric, Subspaces};
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

/// Which rotation an index uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Rotation {
    /// None.
    None,
    /// A random orthogonal map inside each sub-space, and a random order of
    /// the sub-spaces. Costs no accuracy: sub-vectors keep their shape.
    #[default]
    Subspace,
    /// A random orthogonal map over all coordinates. Can help or hurt product
    /// quantization; measure it.
    Full,
}

impl Rotation {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::None, Self::Subspace, Self::Full];

    /// `none`, `subspace` or `full`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Subspace => "subspace",
            Self::Full => "full",
        }
    }

    /// The kind of this [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Subspace => 1,
            Self::Full => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// An orthogonal map of some coordinates onto as many others.
struct Block {
    from: usize,
    to: usize,
    width: usize,
    /// Row-major, `width * width`.
    matrix: Vec<f32>,
}

/// A rotation ready to be applied.
///
/// Under the Lorentz metric coordinate 0 (time) stays where and as it is, for
/// only maps of the other coordinates keep the Lorentz inner product.
///
/// # Security
/// Secret; zeroized on drop.
pub struct RotationMatrix {
    dimension: usize,
    blocks: Vec<Block>,
}

impl Drop for RotationMatrix {
    fn drop(&mut self) {
        for block in &mut self.blocks {
            zeroize::Zeroize::zeroize(&mut block.matrix);
        }
    }
}

impl RotationMatrix {
    /// Draws the rotation of `kind` that `seed` determines. The same seed,
    /// cut, kind and metric give the same rotation.
    #[must_use]
    pub fn derive(
        seed: &RotationSeed,
        subspaces: &Subspaces,
        kind: Rotation,
        metric: Metric,
    ) -> Self {
        let dimension = subspaces.dimension();
        let fixed = usize::from(metric == Metric::Lorentz);
        let rng = |stream: u64| {
            let mut rng = ChaCha20Rng::from_seed(*seed.secret());
            rng.set_stream(stream);
            rng
        };
        let mut blocks = match kind {
            Rotation::None => Vec::new(),
            Rotation::Full => {
                // Stream 0 is the order of the sub-spaces, 1 the full map,
                // 2 + i the map inside sub-space i.
                let width = dimension - fixed;
                vec![Block {
                    from: fixed,
                    to: fixed,
                    width,
                    matrix: random_orthogonal(width, &mut rng(1)),
                }]
            }
            Rotation::Subspace => {
                let ranges: Vec<_> = (0..subspaces.count())
                    .map(|i| {
                        let range = subspaces.range(i);
                        range.start.max(fixed)..range.end
                    })
                    .collect();
                let order = order_by_width(&ranges, &mut rng(0));
                ranges
                    .par_iter()
                    .enumerate()
                    .map(|(i, range)| Block {
                        from: range.start,
                        to: ranges[order[i]].start,
                        width: range.len(),
                        matrix: random_orthogonal(range.len(), &mut rng(2 + i as u64)),
                    })
                    .collect()
            }
        };
        blocks.retain(|block: &Block| block.width > 0);
        Self { dimension, blocks }
    }

    /// Whether applying it changes nothing.
    #[must_use]
    pub const fn is_identity(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Rotates one vector in place.
    ///
    /// # Errors
    /// If the vector has another dimension.
    pub fn apply(&self, vector: &mut [f32]) -> Result<(), IndexError> {
        if vector.len() != self.dimension {
            return Err(self.mismatch(vector.len()));
        }
        if !self.is_identity() {
            self.apply_row(vector, &mut vec![0.0; self.dimension]);
        }
        Ok(())
    }

    /// Rotates many vectors, row after row, in parallel.
    ///
    /// # Errors
    /// If the values are no whole number of vectors.
    pub fn apply_rows(&self, rows: &mut [f32]) -> Result<(), IndexError> {
        if !rows.len().is_multiple_of(self.dimension) {
            return Err(self.mismatch(rows.len() % self.dimension));
        }
        if !self.is_identity() {
            rows.par_chunks_mut(self.dimension * 256).for_each(|rows| {
                let mut scratch = vec![0.0; self.dimension];
                for row in rows.chunks_exact_mut(self.dimension) {
                    self.apply_row(row, &mut scratch);
                }
            });
        }
        Ok(())
    }

    fn mismatch(&self, found: usize) -> IndexError {
        IndexError::Mismatch {
            what: "the number of values of a vector",
            found: found as u64,
            expected: self.dimension as u64,
        }
    }

    fn apply_row(&self, row: &mut [f32], scratch: &mut [f32]) {
        scratch.copy_from_slice(row);
        for block in &self.blocks {
            let from = &scratch[block.from..block.from + block.width];
            let to = &mut row[block.to..block.to + block.width];
            to.fill(0.0);
            // Column by column: `to` in registers, one input broadcast, which
            // the compiler vectorizes without reordering any sum. The matrix
            // is orthogonal either way round, so rows serve as columns.
            for (&value, column) in from.iter().zip(block.matrix.chunks_exact(block.width)) {
                for (sum, &entry) in to.iter_mut().zip(column) {
                    *sum += value * entry;
                }
            }
        }
    }
}

/// Where each range goes: a random permutation among ranges of equal width.
/// The range that holds a fixed coordinate 0 stays in place, for it starts at 1.
fn order_by_width(ranges: &[std::ops::Range<usize>], rng: &mut impl Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    let movable = |i: &usize| ranges[*i].start != 1 || *i != 0;
    let mut widths: Vec<usize> = ranges.iter().map(std::ops::Range::len).collect();
    widths.sort_unstable();
    widths.dedup();
    for width in widths {
        let members: Vec<usize> = (0..ranges.len())
            .filter(|&i| ranges[i].len() == width)
            .filter(movable)
            .collect();
        for (&member, to) in members.iter().zip(crate::permutation(members.len(), rng)) {
            order[member] = members[to as usize];
        }
    }
    order
}

/// A matrix drawn uniformly (Haar) from the orthogonal ones: Gaussian rows,
/// orthonormalized by Gram and Schmidt's method, twice each, in `f64`.
fn random_orthogonal(width: usize, rng: &mut impl Rng) -> Vec<f32> {
    let mut rows: Vec<f64> = Vec::with_capacity(width * width);
    while rows.len() < width * width {
        let mut row: Vec<f64> = (0..width).map(|_| gaussian(rng)).collect();
        for _ in 0..2 {
            for earlier in rows.chunks_exact(width) {
                let along: f64 = row.iter().zip(earlier).map(|(a, b)| a * b).sum();
                row.iter_mut()
                    .zip(earlier)
                    .for_each(|(a, b)| *a -= along * b);
            }
        }
        let norm = row.iter().map(|a| a * a).sum::<f64>().sqrt();
        // A Gaussian row so close to the span of the others is drawn again.
        if norm > 1e-6 {
            rows.extend(row.iter().map(|a| a / norm));
        }
    }
    let out = rows.iter().map(|&a| a as f32).collect();
    zeroize::Zeroize::zeroize(&mut rows);
    out
}

/// A standard normal number, by Box and Muller's method.
fn gaussian(rng: &mut impl Rng) -> f64 {
    // 53 bits, from (0, 1] so that the logarithm is finite.
    let uniform = |word: u64| ((word >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    let radius = (-2.0 * uniform(rng.next_u64()).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(rng.next_u64())).cos()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::keys::OwnerKey;
    use proptest::prelude::*;

    fn seed(byte: u8) -> RotationSeed {
        OwnerKey::generate(&mut ChaCha20Rng::from_seed([byte; 32])).rotation_seed()
    }

    fn vector(dimension: usize, rng: &mut impl Rng) -> Vec<f32> {
        (0..dimension).map(|_| gaussian(rng) as f32).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn distances_of_all_metrics_stay(dimension in 2_usize..140, cut in 1_usize..40, which in 0_usize..4, byte: u8) {
            let metric = Metric::ALL[which];
            let subspaces = Subspaces::new(dimension, cut.min(dimension)).unwrap();
            let mut rng = ChaCha20Rng::from_seed([byte; 32]);
            let (a, b) = (vector(dimension, &mut rng), vector(dimension, &mut rng));
            let scale = a.iter().chain(&b).map(|v| v * v).sum::<f32>();
            for kind in Rotation::ALL {
                let map = RotationMatrix::derive(&seed(byte), &subspaces, kind, metric);
                let (mut ra, mut rb) = (a.clone(), b.clone());
                map.apply(&mut ra).unwrap();
                map.apply_rows(&mut rb).unwrap();
                let difference = metric.distance(&a, &b) - metric.distance(&ra, &rb);
                prop_assert!(difference.abs() < 1e-5 * scale.max(1.0), "{kind:?} {difference}");
                prop_assert_eq!(kind == Rotation::None, map.is_identity());
                if metric == Metric::Lorentz {
                    prop_assert_eq!(a[0], ra[0]);
                }
            }
        }
    }

    #[test]
    fn matrices_are_orthogonal_and_differ() {
        for width in [1, 2, 3, 8, 97] {
            let mut rng = ChaCha20Rng::from_seed([5; 32]);
            let matrix = random_orthogonal(width, &mut rng);
            for i in 0..width {
                for j in 0..width {
                    let dot: f64 = (0..width)
                        .map(|k| {
                            f64::from(matrix[i * width + k]) * f64::from(matrix[j * width + k])
                        })
                        .sum();
                    let want = f64::from(u8::from(i == j));
                    assert!((dot - want).abs() < 1e-5, "{width} {i} {j} {dot}");
                }
            }
            assert_ne!(random_orthogonal(width.max(2), &mut rng), matrix);
        }
    }

    #[test]
    fn sub_spaces_go_to_places_of_their_width() {
        let subspaces = Subspaces::new(100, 16).unwrap();
        let map = RotationMatrix::derive(&seed(1), &subspaces, Rotation::Subspace, Metric::L2);
        let mut covered = vec![0; 100];
        for block in &map.blocks {
            covered[block.to..block.to + block.width]
                .iter_mut()
                .for_each(|c| *c += 1);
            assert!((0..16).any(|i| subspaces.range(i) == (block.to..block.to + block.width)));
        }
        assert!(covered.iter().all(|&c| c == 1));
        assert!(map.blocks.iter().any(|block| block.from != block.to));
        // The same seed gives the same map, another gives another.
        let image = |byte| {
            let mut v: Vec<f32> = (0..100).map(|i| i as f32).collect();
            RotationMatrix::derive(&seed(byte), &subspaces, Rotation::Subspace, Metric::L2)
                .apply(&mut v)
                .unwrap();
            v
        };
        assert_eq!(image(1), image(1));
        assert_ne!(image(1), image(2));
    }

    #[test]
    fn fail_another_dimension() {
        let subspaces = Subspaces::new(8, 2).unwrap();
        let map = RotationMatrix::derive(&seed(1), &subspaces, Rotation::Full, Metric::L2);
        assert!(map.apply(&mut [0.0; 7]).is_err());
        assert!(map.apply_rows(&mut [0.0; 12]).is_err());
    }
}
