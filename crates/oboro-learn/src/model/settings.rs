use super::Network;
use super::init::Init;
use crate::LearnError;
use crate::data::Input;
use burn::tensor::Device;
use rand_core::Rng;
use serde::{Deserialize, Serialize};

/// Everything that decides the shape of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The images it takes.
    pub input: Input,
    /// What turns an image into features.
    pub backbone: Backbone,
    /// What turns features into embeddings.
    pub heads: Heads,
}

/// What turns an image into features.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Backbone {
    /// Four convolutions, each normalised and rectified, the first three
    /// followed by a halving of the image; the mean over the image is the
    /// feature. For images of 8 to 64 pixels.
    Convolutional {
        /// Channels after each convolution.
        channels: [usize; 4],
    },
    /// A residual network (He et al.), torchvision's layout.
    ResidualNetwork {
        /// Blocks of each of the four stages.
        blocks: [usize; 4],
        /// Blocks of three convolutions that narrow and widen, instead of two.
        bottleneck: bool,
        /// Channels of the first stage; each further one has twice as many.
        width: usize,
    },
    /// A vision transformer (Dosovitskiy et al.), timm's layout, read out at
    /// the class token.
    VisionTransformer {
        /// Pixels of a side of a patch.
        patch: usize,
        /// Values of a token.
        width: usize,
        /// Blocks.
        depth: usize,
        /// Attention heads; they divide `width`.
        heads: usize,
    },
}

/// What turns features into embeddings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heads {
    /// Dimensions of the embedding on the unit sphere.
    pub euclidean: usize,
    /// The embedding in the Poincaré ball, if there is to be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hyperbolic: Option<Hyperbolic>,
}

/// An embedding in the Poincaré ball of curvature `-curvature`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hyperbolic {
    /// Its dimensions.
    pub dims: usize,
    /// The curvature's magnitude.
    pub curvature: f64,
    /// The longest tangent vector at the origin; longer ones are shortened to
    /// it, which keeps points off the border.
    pub clip: f64,
}

impl Hyperbolic {
    /// This many dimensions with the usual curvature, 0.1, and clip, 2.3.
    #[must_use]
    pub fn new(dims: usize) -> Self {
        Self {
            dims,
            curvature: 0.1,
            clip: 2.3,
        }
    }
}

impl Backbone {
    /// The small convolutional network: 64, 64, 128 and 128 channels.
    #[must_use]
    pub fn small() -> Self {
        Self::Convolutional {
            channels: [64, 64, 128, 128],
        }
    }

    /// ResNet-18: 512 features.
    #[must_use]
    pub fn resnet18() -> Self {
        Self::ResidualNetwork {
            blocks: [2, 2, 2, 2],
            bottleneck: false,
            width: 64,
        }
    }

    /// ResNet-50: 2048 features.
    #[must_use]
    pub fn resnet50() -> Self {
        Self::ResidualNetwork {
            blocks: [3, 4, 6, 3],
            bottleneck: true,
            width: 64,
        }
    }

    /// ViT-S/16: 384 features.
    #[must_use]
    pub fn vit_s16() -> Self {
        Self::VisionTransformer {
            patch: 16,
            width: 384,
            depth: 12,
            heads: 6,
        }
    }

    /// The number of features that it makes of an image.
    #[must_use]
    pub fn features(&self) -> usize {
        match *self {
            Self::Convolutional { channels } => channels[3],
            Self::ResidualNetwork {
                bottleneck, width, ..
            } => width.saturating_mul(if bottleneck { 32 } else { 8 }),
            Self::VisionTransformer { width, .. } => width,
        }
    }
}

impl Settings {
    /// A network of this shape with weights drawn from `rng`, on `device`;
    /// give [`Device::autodiff`] to train it.
    ///
    /// # Errors
    /// When the settings contradict each other or are out of range.
    pub fn build(&self, device: &Device, rng: &mut impl Rng) -> Result<Network, LearnError> {
        self.check()?;
        Ok(Network::new(self, &mut Init::new(rng, device)))
    }

    /// The number of trainable parameters; of settings that
    /// [`build`](Self::build) would refuse some number.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        let wide = |n: usize| n as u64;
        let channels = wide(self.input.channels);
        // A convolution without a bias and its normalisation.
        let convolution =
            |from: u64, to: u64, kernel: u64| sum([product([from, to, kernel, kernel]), to, to]);
        let backbone = match self.backbone {
            Backbone::Convolutional { channels: widths } => {
                let [a, b, c, d] = widths.map(wide);
                sum([
                    convolution(channels, a, 3),
                    convolution(a, b, 3),
                    convolution(b, c, 3),
                    convolution(c, d, 3),
                ])
            }
            Backbone::ResidualNetwork {
                blocks,
                bottleneck,
                width,
            } => {
                let mut total = convolution(channels, wide(width), 7);
                let mut from = wide(width);
                for (stage, &count) in blocks.iter().enumerate() {
                    let inner = product([wide(width), 1 << stage]);
                    let to = product([inner, if bottleneck { 4 } else { 1 }]);
                    let between = |from: u64| match bottleneck {
                        true => sum([
                            convolution(from, inner, 1),
                            convolution(inner, inner, 3),
                            convolution(inner, to, 1),
                        ]),
                        false => sum([convolution(from, inner, 3), convolution(inner, to, 3)]),
                    };
                    if count == 0 {
                        continue;
                    }
                    total = sum([
                        total,
                        between(from),
                        product([between(to), wide(count - 1)]),
                    ]);
                    if from != to || stage > 0 {
                        total = sum([total, convolution(from, to, 1)]);
                    }
                    from = to;
                }
                total
            }
            Backbone::VisionTransformer {
                patch,
                width,
                depth,
                ..
            } => {
                let (w, patch) = (wide(width), wide(patch.max(1)));
                let along = wide(self.input.side) / patch;
                let tokens = sum([product([along, along]), 1]);
                // Two norms, four linear maps.
                let block = sum([product([12, w, w]), product([13, w])]);
                sum([
                    // The class token, the bias of the patches, the last norm.
                    product([4, w]),
                    product([tokens, w]),
                    product([channels, patch, patch, w]),
                    product([wide(depth), block]),
                ])
            }
        };
        let features = wide(self.backbone.features());
        let head = |dims: usize| product([sum([features, 1]), wide(dims)]);
        let hyperbolic = self.heads.hyperbolic.map_or(0, |h| head(h.dims));
        sum([backbone, head(self.heads.euclidean), hyperbolic])
    }

    /// Refuses what cannot be built, or would only fail to be allocated.
    pub(super) fn check(&self) -> Result<(), LearnError> {
        let refuse = |what, actual: String, wanted| {
            Err(LearnError::Setting {
                what,
                actual,
                wanted,
            })
        };
        self.input.check()?;
        let least = match self.backbone {
            Backbone::Convolutional { .. } => 8,
            Backbone::ResidualNetwork { .. } => 32,
            Backbone::VisionTransformer { patch, .. } => patch,
        };
        if self.input.side < least {
            return refuse(
                "the side of the input",
                self.input.side.to_string(),
                "choose at least 8 pixels for the convolutional network, 32 for a residual network and a patch for a transformer",
            );
        }
        let widths = match &self.backbone {
            Backbone::Convolutional { channels } => channels.to_vec(),
            Backbone::ResidualNetwork { blocks, width, .. } => {
                if let Some(&count) = blocks.iter().find(|&&count| !(1..=64).contains(&count)) {
                    return refuse(
                        "the number of blocks of a stage",
                        count.to_string(),
                        "choose between 1 and 64",
                    );
                }
                vec![*width]
            }
            Backbone::VisionTransformer {
                patch,
                width,
                depth,
                heads,
            } => {
                if *patch == 0 || !self.input.side.is_multiple_of(*patch) {
                    return refuse(
                        "the side of a patch",
                        patch.to_string(),
                        "choose one that divides the side of the input",
                    );
                }
                if !(1..=64).contains(depth) {
                    return refuse(
                        "the number of blocks",
                        depth.to_string(),
                        "choose between 1 and 64",
                    );
                }
                if *heads == 0 || !width.is_multiple_of(*heads) {
                    return refuse(
                        "the number of attention heads",
                        heads.to_string(),
                        "choose one that divides the width",
                    );
                }
                vec![*width]
            }
        };
        let dims = [
            self.heads.euclidean,
            self.heads.hyperbolic.map_or(1, |h| h.dims),
        ];
        if let Some(&width) = widths
            .iter()
            .chain(&dims)
            .find(|&&width| !(1..=8192).contains(&width))
        {
            return refuse(
                "a number of channels or dimensions",
                width.to_string(),
                "choose between 1 and 8192",
            );
        }
        if let Some(hyperbolic) = self.heads.hyperbolic {
            for (what, value) in [
                ("the curvature", hyperbolic.curvature),
                ("the clip", hyperbolic.clip),
            ] {
                if !(value.is_finite() && value > 0.0) {
                    return refuse(what, value.to_string(), "choose a positive number");
                }
            }
            // At 6, the gap to the border is 1e-5 of the radius; further out it
            // soon drowns in the rounding of single precision.
            let reach = hyperbolic.curvature.sqrt() * hyperbolic.clip;
            if reach > 6.0 {
                return refuse(
                    "the clip times the root of the curvature",
                    reach.to_string(),
                    "choose both such that it is at most 6, or points fall onto the border",
                );
            }
        }
        Ok(())
    }
}

/// Sums that stop at the largest number.
fn sum<const N: usize>(terms: [u64; N]) -> u64 {
    terms.into_iter().fold(0, u64::saturating_add)
}

/// Products that stop at the largest number.
fn product<const N: usize>(factors: [u64; N]) -> u64 {
    factors.into_iter().fold(1, u64::saturating_mul)
}
