//! The Poincaré ball on tensors, with gradients: the operations of
//! [`super::Ball`] on rows of matrices.
//!
//! Distances are in the arsinh form. Between two sets of points they come from
//! one matrix product and never from a tensor of all differences, which for
//! `B` items and `N` proxies would hold `B N D` values. The product costs
//! digits: `|x - y|^2 = |x|^2 + |y|^2 - 2 x.y` cancels for near pairs, so in
//! single precision [`distances`] sees none below about `1e-3` of the longest
//! point's length and says that much instead. [`paired_distances`] subtracts
//! first and is exact for near pairs too.

// Divisions by numbers are written as products with their reciprocals in the
// losses: the gradient of burn's `div_scalar` rounds to single precision.

use crate::fused::{self, Form};
use burn::tensor::{DType, Tensor};

/// Added under roots of squares, so that their gradient at zero is zero; in
/// single precision too it changes no number that matters.
const TINY: f64 = 1e-30;

/// The distance of 1 from the next greater number of the tensor's type.
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

/// The greater of `x` and a floor of each row, in fewer passes than a mask.
fn at_least(x: Tensor<2>, floor: Tensor<2>) -> Tensor<2> {
    (x - floor.clone()).clamp_min(0.0) + floor
}

/// `(2 factor / √c) arsinh √z`, of `z` no less than the `floor` of its row, with
/// its slope in `z`.
fn arsinh_form(z: Tensor<2>, floor: Tensor<2>, c: f64, factor: f64) -> Tensor<2> {
    let safe = at_least(z.clone().inner(), floor);
    // With m = √(z (1 + z)) the function is log1p(2 (z + m)) / 2, which keeps
    // the digits of small z, and its slope in z is 1 / (2 m).
    let m = (safe.clone().add_scalar(1.0) * safe.clone()).sqrt();
    let value = (safe + m.clone())
        .mul_scalar(2.0)
        .log1p()
        .mul_scalar(factor / c.sqrt());
    let slope = m.recip().mul_scalar(factor / c.sqrt());
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
    arsinh_form(z, floor, c, 1.0)
}

/// `[rows of x, rows of y]`: all distances between two sets of points, by one
/// matrix product; see the [module](self) for what that costs near pairs.
#[must_use]
pub fn distances(x: Tensor<2>, y: Tensor<2>, c: f64) -> Tensor<2> {
    let square = squares(&x);
    let inverse_gap = inverse_gap(square.clone(), c);
    let ray = Ray {
        factor: square.clone().inner().ones_like(),
        square,
        inverse_gap,
    };
    spread(x, ray, y, c, 1.0)
}

/// `[rows of v, rows of z]`: the distances of points `z` from the points where
/// clipped tangent vectors `v` end, without making those.
#[must_use]
pub fn distances_to_tangents(v: Tensor<2>, z: Tensor<2>, c: f64, r: f64) -> Tensor<2> {
    let ray = Ray::of(&v, c, r);
    spread(v, ray, z, c, 1.0)
}

/// The negatives of [`distances_to_tangents`], a pass cheaper than negating
/// them.
pub(crate) fn nearness_to_tangents(v: Tensor<2>, z: Tensor<2>, c: f64, r: f64) -> Tensor<2> {
    let ray = Ray::of(&v, c, r);
    spread(v, ray, z, c, -1.0)
}

/// Distances, times a number, of points at the ends of `v` from points `z`.
fn spread(v: Tensor<2>, ray: Ray, z: Tensor<2>, c: f64, times: f64) -> Tensor<2> {
    let alpha = ray.inverse_gap.mul_scalar(c);
    let other = squares(&z);
    let beta = inverse_gap(other.clone(), c);
    let scale = (alpha.clone() * ray.factor).mul_scalar(2.0);
    // c (|x|^2 + |y|^2) over both gaps, as a product of rank two; never zero,
    // so that the floor is not either.
    let rows = Tensor::cat(vec![alpha.clone() * ray.square.add_scalar(TINY), alpha], 1);
    let columns = Tensor::cat(vec![beta.clone(), beta.clone() * other], 1);
    let floor = floor(rows.clone(), columns.clone());
    let products = v.matmul((z * beta).transpose());
    let numbers = Tensor::cat(vec![rows.clone(), scale.clone()], 1);
    let factor = times / c.sqrt();
    fused::spread(&products, &numbers, &columns, &floor, Form::Arsinh, factor).unwrap_or_else(
        || {
            let ends = rows.matmul(columns.transpose());
            arsinh_form(ends - products * scale, floor, c, times)
        },
    )
}

/// `[rows, 1]`: what differences of the products of `rows` and `columns` from
/// others of their size lose in rounding, at most.
fn floor(rows: Tensor<2>, columns: Tensor<2>) -> Tensor<2> {
    let least = 8.0 * epsilon(&rows);
    let most = columns.inner().max_dim(0);
    (rows.inner() * most).sum_dim(1).mul_scalar(least)
}

/// `[rows of v, rows of u]`: twice the Euclidean distances of tangent vectors
/// `u` from clipped ones `v`, the limit of the ball's distances as the
/// curvature goes to zero.
#[must_use]
pub fn flat_distances(v: Tensor<2>, u: Tensor<2>, r: f64) -> Tensor<2> {
    flat(v, u, r, 1.0)
}

/// The negatives of [`flat_distances`].
pub(crate) fn flat_nearness(v: Tensor<2>, u: Tensor<2>, r: f64) -> Tensor<2> {
    flat(v, u, r, -1.0)
}

fn flat(v: Tensor<2>, u: Tensor<2>, r: f64, times: f64) -> Tensor<2> {
    let norm = norms(&v);
    let short = norm.clone().clamp_max(r);
    let scale = (short.clone() / norm).mul_scalar(2.0);
    let square = short.clone() * short;
    let other = squares(&u).add_scalar(TINY);
    let one = |x: &Tensor<2>| x.clone().inner().ones_like();
    let rows = Tensor::cat(vec![square.clone(), one(&square)], 1);
    let columns = Tensor::cat(vec![one(&other), other.clone()], 1);
    let floor = floor(rows.clone(), columns.clone());
    let products = v.matmul(u.transpose());
    let numbers = Tensor::cat(vec![rows, scale.clone()], 1);
    fused::spread(&products, &numbers, &columns, &floor, Form::Root, times).unwrap_or_else(|| {
        let q = square + other.transpose() - products * scale;
        let root = at_least(q.clone().inner(), floor).sqrt();
        let slope = root.clone().recip().mul_scalar(times);
        with_slope(root.mul_scalar(2.0 * times), q, slope)
    })
}
