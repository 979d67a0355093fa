use super::init::Init;
use super::settings::{Heads as HeadSettings, Hyperbolic};
use crate::losses::Embeddings;
use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;

/// The two linear maps from features to embeddings.
#[derive(Module, Debug)]
pub(super) struct Heads {
    euclidean: Linear,
    hyperbolic: Option<Linear>,
}

impl Heads {
    pub(super) fn new(features: usize, settings: &HeadSettings, init: &mut Init<'_>) -> Self {
        let deviation = (1.0 / features as f64).sqrt();
        Self {
            euclidean: init.linear([features, settings.euclidean], deviation),
            hyperbolic: settings
                .hyperbolic
                .map(|h| init.linear([features, h.dims], deviation)),
        }
    }

    pub(super) fn forward(&self, features: Tensor<2>, settings: &HeadSettings) -> Embeddings {
        let hyperbolic = match (&self.hyperbolic, settings.hyperbolic) {
            (Some(head), Some(ball)) => {
                let tangent = head.forward(features.clone());
                Some(into_ball(tangent, &ball))
            }
            _ => None,
        };
        Embeddings {
            euclidean: unit(self.euclidean.forward(features)),
            hyperbolic,
        }
    }
}

/// Below this length a vector has no direction: the gradient of its length
/// would be without bound.
const SHORTEST: f64 = 1e-6;

fn length(x: Tensor<2>) -> Tensor<2> {
    x.square().sum_dim(1).clamp_min(SHORTEST * SHORTEST).sqrt()
}

/// Each row divided by its length.
fn unit(x: Tensor<2>) -> Tensor<2> {
    let length = length(x.clone());
    x / length
}

/// `exp_0` of each row, shortened to the clip first.
fn into_ball(u: Tensor<2>, ball: &Hyperbolic) -> Tensor<2> {
    let root = ball.curvature.sqrt();
    let length = length(u.clone());
    // `clip_r` changes the length alone, so the direction is that of `u`.
    let clipped = length.clone().clamp_max(ball.clip).mul_scalar(root);
    let factor = clipped.tanh() / length.mul_scalar(root);
    u * factor
}
