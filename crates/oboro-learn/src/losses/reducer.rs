//! One loss from the similarities of items and classes.

use super::labels::Labels;
use super::settings::{finite, positive};
use crate::LearnError;
use burn::tensor::{Bool, Tensor};
use serde::{Deserialize, Serialize};

/// Over what the terms of the anchor reducer are summed before the logarithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Over the items of the batch, for each class: a class's gradient is
    /// shared among its items by how hard they are, so an item beside harder
    /// ones of its class gets little of it.
    Class,
    /// Over classes, for each item: an item's gradient does not depend on what
    /// else is in the batch, so one that is far from its class always has one.
    Data,
}

/// How similarities `S` of items and classes become one loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Reducer {
    /// Cross-entropy: the mean of `log(1 + Σ exp(scale (S_c - S_y + margin)))`
    /// over the other classes `c`.
    Softmax {
        /// What similarities are multiplied with.
        scale: f64,
        /// By how much the item's own class has to be ahead.
        margin: f64,
    },
    /// `log(1 + Σ exp(-alpha (S - delta)))` for positives plus `log(1 + Σ
    /// exp(alpha (S + delta)))` for negatives, each summed class-wise or
    /// data-wise. Class-wise positive terms are averaged over the classes
    /// present in the batch, negative ones over all classes, data-wise terms
    /// over the items.
    Anchor {
        /// What similarities are multiplied with.
        alpha: f64,
        /// The margin.
        delta: f64,
        /// Of items and their own class.
        positive: Side,
        /// Of items and other classes.
        negative: Side,
    },
}

impl Reducer {
    /// The anchor reducer with alpha 32 and delta 0.1.
    #[must_use]
    pub fn anchor(positive: Side, negative: Side) -> Self {
        Self::Anchor {
            alpha: 32.0,
            delta: 0.1,
            positive,
            negative,
        }
    }

    pub(super) fn check(&self) -> Result<(), LearnError> {
        match *self {
            Self::Softmax { scale, margin } => {
                positive("the scale of the softmax", scale)?;
                finite("the margin of the softmax", margin)
            }
            Self::Anchor { alpha, delta, .. } => {
                positive("alpha", alpha)?;
                finite("delta", delta)
            }
        }
    }

    /// The loss of similarities `[classes, batch]`.
    pub(super) fn reduce(&self, s: Tensor<2>, labels: &Labels<'_>) -> Tensor<1> {
        match *self {
            Self::Softmax { scale, margin } => softmax(s, labels, scale, margin),
            Self::Anchor {
                alpha,
                delta,
                positive,
                negative,
            } => anchor(s, labels, alpha, delta, positive, negative),
        }
    }
}

fn softmax(s: Tensor<2>, labels: &Labels<'_>, scale: f64, margin: f64) -> Tensor<1> {
    let device = s.device();
    let own = labels.own(&device);
    let target = s.clone().gather(0, labels.indices(&device));
    // Behind the own class, which the appended 1 stands for.
    let behind = (s - target).add_scalar(margin).mul_scalar(scale);
    log1p_sum_exp(behind, Some(own), 0).mean()
}

fn anchor(
    s: Tensor<2>,
    labels: &Labels<'_>,
    alpha: f64,
    delta: f64,
    positive: Side,
    negative: Side,
) -> Tensor<1> {
    let device = s.device();
    let own = labels.own(&device);
    let pull = match positive {
        Side::Class => {
            let z = s.clone().sub_scalar(delta).mul_scalar(-alpha);
            // Classes that are not present add log 1.
            log1p_sum_exp(z, Some(own.clone().bool_not()), 1)
                .sum()
                .mul_scalar((labels.present() as f64).recip())
        }
        Side::Data => {
            let target = s.clone().gather(0, labels.indices(&device));
            log1p_sum_exp(target.sub_scalar(delta).mul_scalar(-alpha), None, 0).mean()
        }
    };
    let axis = match negative {
        Side::Class => 1,
        Side::Data => 0,
    };
    let z = s.add_scalar(delta).mul_scalar(alpha);
    pull + log1p_sum_exp(z, Some(own), axis).mean()
}

/// `log(1 + Σ exp z)` along an axis, leaving out where `without` is true: a
/// log-sum-exp with a zero appended. Nothing overflows, an empty sum is 0, and
/// small sums keep their digits.
pub(super) fn log1p_sum_exp(
    z: Tensor<2>,
    without: Option<Tensor<2, Bool>>,
    axis: usize,
) -> Tensor<2> {
    let z = match without {
        // exp gives exactly zero, and the largest number there is is not
        // exceeded in single precision.
        Some(without) => z.mask_fill(without, -1e30),
        None => z,
    };
    let most = z.clone().inner().max_dim(axis).clamp_min(0.0);
    // exp(-most) - 1 is exactly zero where most is.
    let one = most.clone().neg().exp().sub_scalar(1.0);
    let sum = (z - most.clone()).exp().sum_dim(axis);
    (sum + one).log1p() + most
}
