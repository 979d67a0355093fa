//! How near an item is to a proxy.

use super::settings::ball;
use crate::LearnError;
use crate::geometry::tensor::{flat_nearness, inverse_norms, log0, nearness_to_tangents};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// The distance between items and proxies; the similarity is its negative, or
/// the cosine itself.
///
/// Euclidean proxies are free vectors of which the direction counts.
/// Hyperbolic ones are tangent vectors at the origin, clipped to length `r`
/// and mapped into the ball, so a Euclidean optimiser moves them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Distance {
    /// The cosine.
    Cosine,
    /// The squared Euclidean distance of directions, `2 - 2 cos`.
    SquaredEuclidean,
    /// The distance of the Poincaré ball of curvature `-c`.
    Poincare {
        /// The curvature's magnitude.
        c: f64,
        /// Where tangent vectors are clipped.
        r: f64,
    },
    /// Twice the Euclidean distance in the tangent space: the ball without its
    /// curvature, a control at equal range, from 0 to `4 r`.
    Tangent {
        /// The curvature's magnitude of the ball that embeddings come in.
        c: f64,
        /// Where tangent vectors are clipped.
        r: f64,
    },
}

impl Distance {
    /// Whether the hyperbolic embedding is read.
    #[must_use]
    pub fn is_hyperbolic(&self) -> bool {
        self.curvature().is_some()
    }

    /// The curvature's magnitude and the clipping radius of the ball whose
    /// points are read; `None` for the Euclidean embedding.
    #[must_use]
    pub fn curvature(&self) -> Option<(f64, f64)> {
        match *self {
            Self::Cosine | Self::SquaredEuclidean => None,
            Self::Poincare { c, r } | Self::Tangent { c, r } => Some((c, r)),
        }
    }

    pub(super) fn check(&self) -> Result<(), LearnError> {
        self.curvature().map_or(Ok(()), |(c, r)| ball(c, r))
    }

    /// `[local, classes, batch]`: the similarities of `proxies`, `[local,
    /// classes, dimensions]`, and embeddings, `[batch, dimensions]`.
    pub(super) fn similarities(&self, proxies: Tensor<3>, x: Tensor<2>) -> Tensor<3> {
        let [local, classes, length] = proxies.dims();
        let batch = x.dims()[0];
        let flat = proxies.reshape([local * classes, length]);
        let similar = match *self {
            Self::Cosine => cosines(flat, x),
            Self::SquaredEuclidean => cosines(flat, x).sub_scalar(1.0).mul_scalar(2.0),
            Self::Poincare { c, r } => nearness_to_tangents(flat, x, c, r),
            Self::Tangent { c, r } => flat_nearness(flat, log0(x, c), r),
        };
        similar.reshape([local, classes, batch])
    }
}

/// Products with the directions of proxies. Scaling the products and not the
/// proxies saves a second copy of those.
fn cosines(proxies: Tensor<2>, x: Tensor<2>) -> Tensor<2> {
    let factor = inverse_norms(&proxies);
    proxies.matmul(x.transpose()) * factor
}
