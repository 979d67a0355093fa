//! The Poincaré ball and the hyperboloid, on plain slices and on tensors.
//!
//! Embeddings are trained as points of the Poincaré ball of curvature `-c`
//! ([`Ball`]). A private index ranks by the Lorentz inner product, so a point
//! leaves through [`Ball::lift`]: with the lifted vectors, `oboro build
//! --metric lorentz` orders as hyperbolic distance does.
//!
//! Everything on slices is generic over `f32` and `f64`; [`tensor`] holds the
//! same on tensors with gradients, for training.

mod ball;
mod lorentz;
pub mod tensor;
mod tree;

pub use ball::Ball;
pub use lorentz::{lorentz_distance, lorentz_product};
pub use tree::{ancestor_depth, hyphc_term};

/// A real number type: `f32` or `f64`.
pub trait Real:
    num_traits::Float + num_traits::FromPrimitive + std::iter::Sum + std::fmt::Debug + Send + Sync
{
}

impl Real for f32 {}
impl Real for f64 {}

/// A constant as a number of type `T`.
pub(crate) fn constant<T: Real>(value: f64) -> T {
    T::from_f64(value).unwrap_or_else(T::nan)
}

pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).map(|(&x, &y)| x * y).sum()
}

pub(crate) fn squared_distance<T: Real>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).map(|(&x, &y)| (x - y) * (x - y)).sum()
}
