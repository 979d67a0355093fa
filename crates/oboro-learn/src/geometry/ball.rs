use super::{Real, constant, dot, squared_distance};
use crate::LearnError;

/// The Poincaré ball of curvature `-c`: points with `c |x|^2 < 1`.
///
/// ```
/// # fn main() -> Result<(), oboro_learn::LearnError> {
/// let ball = oboro_learn::geometry::Ball::new(0.1_f64)?;
/// let origin = [0.0, 0.0];
/// let point = ball.exp0(&[0.3, 0.4]);
/// // The exponential map at the origin doubles lengths.
/// assert!((ball.distance(&origin, &point) - 1.0).abs() < 1e-12);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ball<T> {
    c: T,
    root: T,
}

impl<T: Real> Ball<T> {
    /// The ball of curvature `-c`.
    ///
    /// # Errors
    /// When `c` is not a positive finite number.
    pub fn new(c: T) -> Result<Self, LearnError> {
        if !(c > T::zero() && c.is_finite()) {
            return Err(LearnError::Setting {
                what: "the curvature's magnitude",
                actual: format!("{c:?}"),
                wanted: "give a positive number such as 0.1",
            });
        }
        Ok(Self { c, root: c.sqrt() })
    }

    /// The magnitude of the curvature.
    #[must_use]
    pub fn c(&self) -> T {
        self.c
    }

    /// Whether `x` is finite and strictly inside the ball.
    #[must_use]
    pub fn contains(&self, x: &[T]) -> bool {
        self.c * dot(x, x) < T::one()
    }

    /// Shortens a tangent vector to length `radius` at most; keeps the
    /// exponential map away from the border.
    #[must_use]
    pub fn clip(u: &[T], radius: T) -> Vec<T> {
        let norm = dot(u, u).sqrt();
        let factor = if norm > radius {
            radius / norm
        } else {
            T::one()
        };
        u.iter().map(|&v| v * factor).collect()
    }

    /// The exponential map at the origin: `tanh(√c |u|) u / (√c |u|)`.
    #[must_use]
    pub fn exp0(&self, u: &[T]) -> Vec<T> {
        let length = self.root * dot(u, u).sqrt();
        let factor = if length > T::zero() {
            length.tanh() / length
        } else {
            T::one()
        };
        u.iter().map(|&v| v * factor).collect()
    }

    /// The logarithmic map at the origin, the inverse of [`Self::exp0`].
    #[must_use]
    pub fn log0(&self, x: &[T]) -> Vec<T> {
        let length = self.root * dot(x, x).sqrt();
        let factor = if length > T::zero() {
            length.atanh() / length
        } else {
            T::one()
        };
        x.iter().map(|&v| v * factor).collect()
    }

    /// The distance, in the arsinh form: exact to rounding for near pairs too,
    /// where the Möbius and arccosh forms cancel.
    ///
    /// Infinite when a point is on the border or beyond it, and zero for equal
    /// points inside.
    #[must_use]
    pub fn distance(&self, x: &[T], y: &[T]) -> T {
        let (a, b) = (self.gap(x), self.gap(y));
        if a <= T::zero() || b <= T::zero() {
            return T::infinity();
        }
        let z = self.root * squared_distance(x, y).sqrt() / (a * b).sqrt();
        constant::<T>(2.0) / self.root * z.asinh()
    }

    /// The distance and its gradient with respect to `x`; the gradient is
    /// zero where it is not defined: for equal points and on the border.
    #[must_use]
    pub fn distance_and_gradient(&self, x: &[T], y: &[T]) -> (T, Vec<T>) {
        let (a, b) = (self.gap(x), self.gap(y));
        let q = squared_distance(x, y);
        let z = self.c * q / (a * b);
        let root = (z * (T::one() + z)).sqrt() * self.root;
        // Below the smallest normal number the direction is lost, and on the
        // border the distance is infinite.
        if !root.is_finite() || root < T::min_positive_value() {
            return (self.distance(x, y), vec![T::zero(); x.len()]);
        }
        let two = constant::<T>(2.0);
        let along = two * self.c / (a * b) / root;
        let outward = two * self.c * self.c * q / (a * a * b) / root;
        let gradient = x
            .iter()
            .zip(y)
            .map(|(&x, &y)| along * (x - y) + outward * x)
            .collect();
        (self.distance(x, y), gradient)
    }

    /// `|x - y|^2 / (1 - c |y|^2)`: orders points `y` by their distance from a
    /// fixed `x` without a transcendental function.
    #[must_use]
    pub fn rank_key(&self, x: &[T], y: &[T]) -> T {
        squared_distance(x, y) / self.gap(y)
    }

    /// The point of the unit hyperboloid that belongs to `x`, time coordinate
    /// first: `((1 + c|x|^2), 2 √c x) / (1 - c|x|^2)`.
    ///
    /// With it, `-` [`super::lorentz_product`] is `cosh(√c d)`, so the Lorentz
    /// metric of an index orders as [`Self::distance`] does.
    #[must_use]
    pub fn lift(&self, x: &[T]) -> Vec<T> {
        let gap = self.gap(x);
        let time = (constant::<T>(2.0) - gap) / gap;
        let factor = constant::<T>(2.0) * self.root / gap;
        std::iter::once(time)
            .chain(x.iter().map(|&v| factor * v))
            .collect()
    }

    /// The inverse of [`Self::lift`]; `None` when `p` has no time coordinate.
    #[must_use]
    pub fn lower(&self, p: &[T]) -> Option<Vec<T>> {
        let (&time, space) = p.split_first()?;
        let factor = T::one() / ((T::one() + time) * self.root);
        Some(space.iter().map(|&v| v * factor).collect())
    }

    /// `1 - c |x|^2`.
    fn gap(&self, x: &[T]) -> T {
        T::one() - self.c * dot(x, x)
    }
}
