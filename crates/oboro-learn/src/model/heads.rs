use super::init::Init;
use super::settings::Heads as HeadSettings;
use crate::geometry::tensor::{exp0_clipped, normalize};
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
                Some(exp0_clipped(tangent, ball.curvature, ball.clip))
            }
            _ => None,
        };
        Embeddings {
            euclidean: normalize(self.euclidean.forward(features)),
            hyperbolic,
        }
    }
}
