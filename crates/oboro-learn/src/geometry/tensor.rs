//! The Poincaré ball on tensors, with gradients: the operations of
//! [`super::Ball`] on rows of matrices.
//!
//! Distances are in the arsinh form. Between two sets of points they come from
//! one matrix product and never from a tensor of all differences, which for
//! `B` items and `N` proxies would hold `B N D` values. The product costs
//! digits: `|x - y|^2 = |x|^2 + |y|^2 - 2 x.y` cancels for near pairs, so in
//! single precision [`distances`] sees none below about `1e-3 |x|` and says
//! that much instead. [`paired_distances`] subtracts first and is exact for
//! near pairs too.

// Divisions by numbers are written as products with their reciprocals in the
// losses: the gradient of burn's `div_scalar` rounds to single precision.

use burn::tensor::{DType, Tensor};

/// Added under roots of squares, so that their gradient at zero is zero; in
/// single precision too it changes no number that matters.
const TINY: f64 = 1e-30;

/// Half the digits of the tensor's numbers: the distance of 1 from the next.
fn epsilon<const D: usize>(x: &Tensor<D>) -> f64 {
    match x.dtype() {
        DType::F64 => f64::EPSILON,
        DType::F32 => f64::from(f32::EPSILON),
        _ => 1.0 / 128.0,
    }
}

/// `[rows, 1]`: the squared length of each row.
///
/// As `2 s - s` with one factor recorded of two, which is exactly `s` with the
/// gradient of the square: going back takes one matrix as large as `x` and not
/// three.
pub(crate) fn squares(x: &Tensor<2>) -> Tensor<2> {
    let sum = (x.clone() * x.clone().inner()).sum_dim(1);
    let held = sum.clone().inner();
    sum.mul_scalar(2.0) - held
}

/// `[rows, 1]`: the length of each row; the gradient at zero is zero.
pub(crate) fn norms(x: &Tensor<2>) -> Tensor<2> {
    squares(x).add_scalar(TINY).sqrt()
}

/// `[rows, 1]`: 1 over the length of each row, or over 1e-6 where it is less.
pub(crate) fn inverse_norms(x: &Tensor<2>) -> Tensor<2> {
    norms(x).clamp_min(1e-6).recip()
}

/// `value` as a function of `input` whose derivative is `slope`, both found
/// without recording: for functions whose closed form is cheaper or safer
/// than the chain rule over their steps.
pub(crate) fn with_slope<const D: usize>(
    value: Tensor<D>,
    input: Tensor<D>,
    slope: Tensor<D>,
) -> Tensor<D> {
    if !input.is_tracked() {
        return value;
    }
    // The difference is exactly zero.
    let held = input.clone().inner();
    (input - held) * slope + value
}

/// Rows at length 1; rows below 1e-6 stay shorter.
#[must_use]
pub fn normalize(x: Tensor<2>) -> Tensor<2> {
    let factor = inverse_norms(&x);
    x * factor
}

/// Shortens rows to length `r` at most.
#[must_use]
pub fn clip(u: Tensor<2>, r: f64) -> Tensor<2> {
    let norm = norms(&u);
    let factor = norm.clone().clamp_max(r) / norm;
    u * factor
}

/// The exponential map at the origin of the ball of curvature `-c`.
#[must_use]
pub fn exp0(u: Tensor<2>, c: f64) -> Tensor<2> {
    let length = norms(&u).mul_scalar(c.sqrt());
    let factor = length.clone().tanh() / length;
    u * factor
}

/// [`exp0`] after [`clip`], in one step.
#[must_use]
pub fn exp0_clipped(u: Tensor<2>, c: f64, r: f64) -> Tensor<2> {
    let factor = Ray::of(&u, c, r).factor;
    u * factor
}

/// The logarithmic map at the origin; points at the border are taken for ones
/// just inside.
#[must_use]
pub fn log0(x: Tensor<2>, c: f64) -> Tensor<2> {
    let limit = 1.0 - 2.0 * epsilon(&x);
    let length = norms(&x).mul_scalar(c.sqrt());
    let inside = length.clone().clamp_max(limit);
    // artanh t = log1p(2t / (1 - t)) / 2 keeps the digits of small t.
    let artanh = (inside.clone().mul_scalar(2.0) / (inside.neg().add_scalar(1.0)))
        .log1p()
        .mul_scalar(0.5);
    x * (artanh / length)
}

/// Where a clipped tangent vector ends in the ball, as functions of its length
/// alone: nothing here is as large as the vectors.
struct Ray {
    /// The point is the vector times this.
    factor: Tensor<2>,
    /// The point's squared length.
    square: Tensor<2>,
    /// `1 / (1 - c |point|^2)`, which is `cosh^2`, without cancellation.
    inverse_gap: Tensor<2>,
}

impl Ray {
    fn of(u: &Tensor<2>, c: f64, r: f64) -> Self {
        let norm = norms(u);
        let length = norm.clone().clamp_max(r).mul_scalar(c.sqrt());
        let tanh = length.clone().tanh();
        let cosh = length.cosh();
        Self {
            factor: tanh.clone() / norm.mul_scalar(c.sqrt()),
            square: (tanh.clone() * tanh).mul_scalar(c.recip()),
            inverse_gap: cosh.clone() * cosh,
        }
    }
}

/// `1 / (1 - c |x|^2)` from squared lengths, bounded for points at the border.
fn inverse_gap(square: Tensor<2>, c: f64) -> Tensor<2> {
    let least = 8.0 * epsilon(&square);
    square
        .mul_scalar(-c)
        .add_scalar(1.0)
        .clamp_min(least)
        .recip()
}

/// `(2 / √c) arsinh √z`, of `z` no less than `floor`, with its slope in `z`.
fn arsinh_form(z: Tensor<2>, floor: Tensor<2>, c: f64) -> Tensor<2> {
    let safe = z.clone().inner().max_pair(floor);
    let root = safe.clone().sqrt();
    let hypotenuse = safe.clone().add_scalar(1.0).sqrt();
    let slope = (root.clone() * hypotenuse.clone())
        .recip()
        .mul_scalar(c.sqrt().recip());
    // arsinh t = log1p(t + t^2 / (1 + sqrt(1 + t^2))) keeps small t's digits.
    let value = (safe / hypotenuse.add_scalar(1.0) + root)
        .log1p()
        .mul_scalar(2.0 / c.sqrt());
    with_slope(value, z, slope)
}

/// `[rows, 1]`: the distance of each row of `x` from the same row of `y`, to
/// the last digits for near pairs too. The gradient between equal points is
/// zero.
#[must_use]
pub fn paired_distances(x: Tensor<2>, y: Tensor<2>, c: f64) -> Tensor<2> {
    let gaps = inverse_gap(squares(&x), c) * inverse_gap(squares(&y), c);
    let z = squares(&(x - y)).mul_scalar(c) * gaps;
    let floor = z.clone().inner().zeros_like().add_scalar(TINY);
    arsinh_form(z, floor, c)
}

/// `[rows of x, rows of y]`: all distances between two sets of points, by one
/// matrix product; see the [module](self) for what that costs near pairs.
#[must_use]
pub fn distances(x: Tensor<2>, y: Tensor<2>, c: f64) -> Tensor<2> {
    let square = squares(&x);
    let gap = inverse_gap(square.clone(), c);
    let one = gap.clone().inner().ones_like();
    spread(x, one, square, gap, y, c)
}

/// `[rows of v, rows of z]`: the distances of points `z` from the points where
/// clipped tangent vectors `v` end, without making those.
#[must_use]
pub fn distances_to_tangents(v: Tensor<2>, z: Tensor<2>, c: f64, r: f64) -> Tensor<2> {
    let ray = Ray::of(&v, c, r);
    spread(v, ray.factor, ray.square, ray.inverse_gap, z, c)
}

/// Distances of points `factor * v` from points `z`.
fn spread(
    v: Tensor<2>,
    factor: Tensor<2>,
    square: Tensor<2>,
    gap: Tensor<2>,
    z: Tensor<2>,
    c: f64,
) -> Tensor<2> {
    let alpha = gap.mul_scalar(c);
    let other = squares(&z);
    let beta = inverse_gap(other.clone(), c);
    let scale = (alpha.clone() * factor).mul_scalar(2.0);
    // c (|x|^2 + |y|^2) over both gaps, as a product of rank two.
    let rows = Tensor::cat(vec![alpha.clone() * square, alpha], 1);
    let columns = Tensor::cat(vec![beta.clone(), beta.clone() * other], 1);
    let ends = rows.matmul(columns.transpose());
    let products = v.matmul((z * beta).transpose());
    // Below this the difference is rounding.
    let floor = ends.clone().inner();
    let least = 8.0 * epsilon(&floor);
    let floor = floor.mul_scalar(least).add_scalar(TINY);
    arsinh_form(ends - products * scale, floor, c)
}

/// `[rows of v, rows of u]`: twice the Euclidean distances of tangent vectors
/// `u` from clipped ones `v`, the limit of the ball's distances as the
/// curvature goes to zero.
#[must_use]
pub fn flat_distances(v: Tensor<2>, u: Tensor<2>, r: f64) -> Tensor<2> {
    let norm = norms(&v);
    let short = norm.clone().clamp_max(r);
    let scale = (short.clone() / norm).mul_scalar(2.0);
    let other = squares(&u);
    let ends = short.clone() * short + other.transpose();
    let floor = ends.clone().inner();
    let least = 8.0 * epsilon(&floor);
    let floor = floor.mul_scalar(least).add_scalar(TINY);
    let q = ends - v.matmul(u.transpose()) * scale;
    let root = q.clone().inner().max_pair(floor).sqrt();
    with_slope(root.clone().mul_scalar(2.0), q, root.recip())
}
