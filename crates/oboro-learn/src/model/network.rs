use super::convolutional::Convolutional;
use super::heads::Heads;
use super::init::Init;
use super::resnet::ResidualNetwork;
use super::settings::{Backbone as BackboneSettings, Settings};
use super::transformer::VisionTransformer;
use crate::losses::Embeddings;
use burn::module::Module;
use burn::tensor::Tensor;

/// A backbone with a Euclidean head and, if asked for, a hyperbolic one.
///
/// `h = backbone(x)`, `e = W_E h / |W_E h|`, `z = exp_0(clip(W_H h))`.
///
/// It is a burn [`Module`]: parameters lie under `backbone` and `heads`, so an
/// optimiser can treat them apart. Clones share the running statistics of
/// batch normalisation; [`Module::valid`] gives a copy that stands still.
#[derive(Module, Debug)]
pub struct Network {
    pub(super) backbone: Backbone,
    pub(super) heads: Heads,
    #[module(skip)]
    settings: Settings,
}

// One lives in a network; its size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub(super) enum Backbone {
    Convolutional(Convolutional),
    ResidualNetwork(ResidualNetwork),
    VisionTransformer(VisionTransformer),
}

impl Network {
    /// The settings must have been checked.
    pub(super) fn new(settings: &Settings, init: &mut Init<'_>) -> Self {
        let channels = settings.input.channels;
        let backbone = match settings.backbone {
            BackboneSettings::Convolutional { channels: widths } => {
                Backbone::Convolutional(Convolutional::new(channels, widths, init))
            }
            BackboneSettings::ResidualNetwork {
                blocks,
                bottleneck,
                width,
            } => Backbone::ResidualNetwork(ResidualNetwork::new(
                channels, blocks, bottleneck, width, init,
            )),
            BackboneSettings::VisionTransformer {
                patch,
                width,
                depth,
                heads,
            } => Backbone::VisionTransformer(VisionTransformer::new(
                [channels, settings.input.side],
                patch,
                width,
                depth,
                heads,
                init,
            )),
        };
        Self {
            backbone,
            heads: Heads::new(settings.backbone.features(), &settings.heads, init),
            settings: settings.clone(),
        }
    }

    /// The embeddings of images, `[batch, channels, side, side]`.
    ///
    /// On an autodiff device batch normalisation uses and records the
    /// statistics of the batch; anywhere else it uses the recorded ones.
    ///
    /// # Panics
    /// When the images do not have the shape that the settings say.
    #[must_use]
    pub fn forward(&self, images: Tensor<4>) -> Embeddings {
        self.heads
            .forward(self.features(images), &self.settings.heads)
    }

    /// What the backbone makes of images, before the heads.
    ///
    /// # Panics
    /// When the images do not have the shape that the settings say.
    #[must_use]
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        match &self.backbone {
            Backbone::Convolutional(network) => network.forward(images),
            Backbone::ResidualNetwork(network) => network.forward(images),
            Backbone::VisionTransformer(network) => network.forward(images),
        }
    }

    /// Its shape.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}
