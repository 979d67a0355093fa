//! The terms by which a tree is read off the unit ball (HypHC).

use super::{Ball, Real, constant, dot};

/// The depth of the lowest common ancestor of `a` and `b` in the unit ball:
/// the distance from the origin to the geodesic between them.
///
/// With `x0 = cosh d(0,a)`, `y0 = cosh d(0,b)` and `W = cosh d(a,b)`, the
/// square of its cosh is `(2 W x0 y0 - x0^2 - y0^2) / (W^2 - 1)`, unless the
/// nearest point of the whole geodesic lies outside the segment: then the
/// nearer end counts.
#[must_use]
pub fn ancestor_depth<T: Real>(ball: &Ball<T>, a: &[T], b: &[T]) -> T {
    let scale = ball.c().sqrt();
    let origin = vec![T::zero(); a.len()];
    let depth = |x: &[T]| scale * ball.distance(&origin, x);
    let (da, db) = (depth(a), depth(b));
    let w = (scale * ball.distance(a, b)).cosh();
    let (near, far) = if da <= db { (da, db) } else { (db, da) };
    if far.cosh() >= near.cosh() * w {
        return near;
    }
    let (x0, y0) = (da.cosh(), db.cosh());
    let two = constant::<T>(2.0);
    let squared = (two * w * x0 * y0 - x0 * x0 - y0 * y0) / (w * w - T::one());
    squared.max(T::one()).sqrt().acosh()
}

/// HypHC's term of one triple: `s_ij + s_ik + s_jk - w . s`, where `w` is the
/// softmax of the three ancestors' depths over `temperature`.
///
/// `similarities` are those of the pairs (i, j), (i, k) and (j, k).
#[must_use]
pub fn hyphc_term<T: Real>(
    ball: &Ball<T>,
    points: [&[T]; 3],
    similarities: [T; 3],
    temperature: T,
) -> T {
    let [i, j, k] = points;
    let depths = [
        ancestor_depth(ball, i, j),
        ancestor_depth(ball, i, k),
        ancestor_depth(ball, j, k),
    ];
    let deepest = depths.iter().copied().fold(T::neg_infinity(), T::max);
    let weights = depths.map(|d| ((d - deepest) / temperature).exp());
    let total: T = weights.iter().copied().sum();
    similarities.iter().copied().sum::<T>() - dot(&weights, &similarities) / total
}
