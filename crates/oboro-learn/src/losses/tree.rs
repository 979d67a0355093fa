//! A tree read off the ball: HypHC's term over triples of points.
//!
//! Of three points, the pair with the deepest common ancestor belongs
//! together; the term is small when that pair is the most similar one.

use super::initial::below;
use crate::geometry::tensor::{exp0_clipped, paired_distances, squares};
use burn::tensor::{DType, Int, Tensor, TensorData, activation::softmax};
use rand_core::Rng;

/// `[rows, 1]`: the depth of the lowest common ancestor of each row of `a` and
/// the same row of `b` in the unit ball, the distance from the origin to the
/// geodesic between them.
///
/// As [`crate::geometry::ancestor_depth`], with `cosh d(a, b) - 1` in place of
/// the cosh itself, so that near points keep their digits; equal points are
/// their own ancestor.
#[must_use]
pub fn ancestor_depths(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let least = match a.dtype() {
        DType::F64 => 1e-24,
        _ => 1e-10,
    };
    let (a2, b2) = (squares(&a), squares(&b));
    let gap = |square: &Tensor<2>| square.clone().neg().add_scalar(1.0).clamp_min(1e-6);
    let (ga, gb) = (gap(&a2), gap(&b2));
    let cosh = |square: &Tensor<2>, gap: &Tensor<2>| square.clone().add_scalar(1.0) / gap.clone();
    let (x, y) = (cosh(&a2, &ga), cosh(&b2, &gb));
    let depth = |square: Tensor<2>, gap: &Tensor<2>| {
        (square.add_scalar(1e-30).sqrt().mul_scalar(2.0) / gap.clone()).asinh()
    };
    let nearer = depth(a2, &ga).min_pair(depth(b2, &gb));
    // W - 1, where W = cosh d(a, b).
    let w = squares(&(a - b)).mul_scalar(2.0) / (ga * gb);
    // The nearest point of the geodesic lies outside the segment.
    let near = x.clone().min_pair(y.clone()).inner();
    let far = x.clone().max_pair(y.clone()).inner();
    let held = w.clone().inner();
    let outside = far
        .greater_equal(near * held.clone().add_scalar(1.0))
        .bool_or(held.lower_elem(least));
    let w = w.mask_fill(outside.clone(), 1.0);
    // sinh^2 of the depth: (2 W x y - x^2 - y^2) / (W^2 - 1) - 1.
    let square = w.clone() * w.clone().add_scalar(2.0);
    let apart = x.clone() - y.clone();
    let sinh2 = (w * x * y).mul_scalar(2.0) - apart.clone() * apart - square.clone();
    let between = (sinh2 / square).clamp_min(least).sqrt().asinh();
    between.mask_where(outside, nearer)
}

/// HypHC's term, the mean over triples of `s_ij + s_ik + s_jk - w . s`, where
/// `w` is the softmax of the three ancestors' depths over `temperature`.
///
/// `points` are the `i`, `j` and `k` of the triples, rows in the unit ball;
/// `similarities`, `[triples, 3]`, are of the pairs (i, j), (i, k), (j, k).
#[must_use]
pub fn hyphc(points: [Tensor<2>; 3], similarities: Tensor<2>, temperature: f64) -> Tensor<1> {
    let [i, j, k] = points;
    let depths = Tensor::cat(
        vec![
            ancestor_depths(i.clone(), j.clone()),
            ancestor_depths(i, k.clone()),
            ancestor_depths(j, k),
        ],
        1,
    );
    let weights = softmax(depths.mul_scalar(temperature.recip()), 1);
    // Every triple has three weights, so the mean is a third too small.
    (weights.neg().add_scalar(1.0) * similarities)
        .mean()
        .mul_scalar(3.0)
}

/// Triples of different numbers below `count`; `None` when there are fewer
/// than three.
pub(super) fn sample_triples(
    triples: usize,
    count: usize,
    rng: &mut impl Rng,
) -> Option<Vec<[usize; 3]>> {
    if count < 3 {
        return None;
    }
    let draw = |_| {
        let i = below(count, rng);
        // Skip what is taken, lesser first.
        let j = below(count - 1, rng);
        let j = j + usize::from(j >= i);
        let mut k = below(count - 2, rng);
        for taken in [i.min(j), i.max(j)] {
            k += usize::from(k >= taken);
        }
        [i, j, k]
    };
    Some((0..triples).map(draw).collect())
}

/// The rows of a matrix that the first, second and third numbers of triples
/// name. One selection for all: its gradient is as large as the matrix.
pub(super) fn rows_of(matrix: Tensor<2>, triples: &[[usize; 3]]) -> [Tensor<2>; 3] {
    let count = triples.len();
    let chosen: Vec<i64> = (0..3)
        .flat_map(|n| triples.iter().map(move |t| t[n] as i64))
        .collect();
    let indices =
        Tensor::<1, Int>::from_data(TensorData::new(chosen, [3 * count]), &matrix.device());
    let rows = matrix.select(0, indices);
    [0, 1, 2].map(|n| rows.clone().narrow(0, n * count, count))
}

/// The term over the points where clipped tangent vectors end in the ball of
/// curvature `-c`.
pub(super) fn tree(
    tangents: Tensor<2>,
    c: f64,
    r: f64,
    triples: &[[usize; 3]],
    similarities: Tensor<2>,
    temperature: f64,
) -> Tensor<1> {
    // √c times a point of that ball is one of the unit ball.
    let points = rows_of(tangents, triples).map(|t| exp0_clipped(t, c, r).mul_scalar(c.sqrt()));
    hyphc(points, similarities, temperature)
}

/// `[triples, 3]`: similarities of hyperbolic proxies of themselves, `exp(-d)`
/// and one more within a class, without gradient. Proxy `n` is of class `n %
/// classes`.
pub(super) fn own_similarities(
    tangents: Tensor<2>,
    c: f64,
    r: f64,
    classes: usize,
    triples: &[[usize; 3]],
) -> Tensor<2> {
    let device = tangents.device();
    let dtype = tangents.dtype();
    let points = rows_of(tangents.inner(), triples).map(|t| exp0_clipped(t, c, r));
    let same: Vec<f64> = triples
        .iter()
        .flat_map(|t| pairs(*t).map(|(a, b)| f64::from(u8::from(a % classes == b % classes))))
        .collect();
    let same = Tensor::<2>::from_data(
        TensorData::new(same, [triples.len(), 3]),
        (&device.inner(), dtype),
    );
    of_pairs(points, |a, b| paired_distances(a, b, c).neg().exp()) + same
}

/// `[triples, 3]`: similarities of the directions of Euclidean proxies,
/// `(1 + cos) / 2`, without gradient.
pub(super) fn cross_similarities(directions: Tensor<2>, triples: &[[usize; 3]]) -> Tensor<2> {
    let rows = rows_of(directions.inner(), triples).map(crate::geometry::tensor::normalize);
    of_pairs(rows, |a, b| {
        (a * b).sum_dim(1).add_scalar(1.0).mul_scalar(0.5)
    })
}

fn pairs<T: Copy>([i, j, k]: [T; 3]) -> [(T, T); 3] {
    [(i, j), (i, k), (j, k)]
}

fn of_pairs(
    [i, j, k]: [Tensor<2>; 3],
    similarity: impl Fn(Tensor<2>, Tensor<2>) -> Tensor<2>,
) -> Tensor<2> {
    Tensor::cat(
        vec![
            similarity(i.clone(), j.clone()),
            similarity(i, k.clone()),
            similarity(j, k),
        ],
        1,
    )
}
