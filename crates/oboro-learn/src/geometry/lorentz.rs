use super::{Real, dot};

/// The Lorentz inner product `-p0 q0 + sum pi qi`, at most -1 for two points
/// of the unit hyperboloid.
#[must_use]
pub fn lorentz_product<T: Real>(p: &[T], q: &[T]) -> T {
    match (p.split_first(), q.split_first()) {
        (Some((&p0, p)), Some((&q0, q))) => dot(p, q) - p0 * q0,
        _ => T::zero(),
    }
}

/// The distance of two points of the unit hyperboloid, `arcosh` of the negated
/// product. Near pairs cancel; [`super::Ball::distance`] is exact for them.
#[must_use]
pub fn lorentz_distance<T: Real>(p: &[T], q: &[T]) -> T {
    (-lorentz_product(p, q)).max(T::one()).acosh()
}
