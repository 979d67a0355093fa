//! One similarity of an item and a class from those of the class's proxies.

use super::settings::positive;
use crate::LearnError;
use crate::geometry::tensor::with_slope;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// How the similarities of a class's proxies become one. With one proxy a
/// class all poolings are the identity.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Pooling {
    /// `S = Σ q_k s_k` with `q = softmax(s / γ)`. The gradient `q_k (1 + (s_k -
    /// S) / γ)` is negative for proxies more than `γ` below `S`: an item pushes
    /// the far centres of its class away, and they become others' centres.
    SoftTriple {
        /// The temperature.
        gamma: f64,
    },
    /// `S = γ log Σ exp(s_k / γ)`, with the gradient `q_k`.
    LogSumExp {
        /// The temperature.
        gamma: f64,
    },
    /// The greatest; the others have no gradient.
    Max,
}

impl Pooling {
    pub(super) fn check(&self) -> Result<(), LearnError> {
        match *self {
            Self::SoftTriple { gamma } | Self::LogSumExp { gamma } => {
                positive("the pooling's temperature gamma", gamma)
            }
            Self::Max => Ok(()),
        }
    }

    /// `[classes, batch]` from `[local, classes, batch]`.
    #[must_use]
    pub fn pool(&self, s: Tensor<3>) -> Tensor<2> {
        if s.dims()[0] == 1 {
            return s.squeeze_dim(0);
        }
        let pooled = match *self {
            Self::SoftTriple { gamma } => soft_triple(s, gamma),
            Self::LogSumExp { gamma } => log_sum_exp(s, gamma),
            Self::Max => s.max_dim(0),
        };
        pooled.squeeze_dim(0)
    }
}

/// `exp((s - max) / γ)` over the first axis, its sum and the maximum.
fn exponentials(s: &Tensor<3>, gamma: f64) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
    let most = s.clone().max_dim(0);
    let e = (s.clone() - most.clone()).mul_scalar(gamma.recip()).exp();
    let sum = e.clone().sum_dim(0);
    (e, sum, most)
}

fn soft_triple(s: Tensor<3>, gamma: f64) -> Tensor<3> {
    let held = s.clone().inner();
    let (e, sum, _) = exponentials(&held, gamma);
    let q = e * sum.recip();
    let pooled = (q.clone() * held.clone()).sum_dim(0);
    let slope = (held - pooled.clone())
        .mul_scalar(gamma.recip())
        .add_scalar(1.0)
        * q;
    along_first(pooled, s, slope)
}

fn log_sum_exp(s: Tensor<3>, gamma: f64) -> Tensor<3> {
    let (e, sum, most) = exponentials(&s.clone().inner(), gamma);
    let slope = e * sum.clone().recip();
    along_first(sum.log().mul_scalar(gamma) + most, s, slope)
}

/// `value` as a function of `s` over the first axis, with that gradient.
fn along_first(value: Tensor<3>, s: Tensor<3>, slope: Tensor<3>) -> Tensor<3> {
    if !s.is_tracked() {
        return value;
    }
    let nothing = s.clone().inner().zeros_like();
    with_slope(nothing, s, slope).sum_dim(0) + value
}
