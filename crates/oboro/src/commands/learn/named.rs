//! Networks, losses and augmentations by name.

use std::path::PathBuf;

use oboro_learn::data::{Augmentation, Dataset, ImageLimits, Input};
use oboro_learn::losses::Settings as Loss;
use oboro_learn::losses::similarity::Distance;
use oboro_learn::model::{
    Backbone, Heads, Hyperbolic, MadeFor, Settings as Network, weights_made_for,
};

use crate::failure::{Failure, Outcome};
use crate::or_failure::OrFailure;

/// The networks that have a name.
const NETWORKS: [&str; 5] = ["tiny", "small", "resnet18", "resnet50", "vit-s16"];
/// The augmentations.
const AUGMENTATIONS: [&str; 4] = ["none", "things", "characters", "photographs"];

/// What the command line says about a network.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    pub(super) network: Option<String>,
    pub(super) side: Option<usize>,
    pub(super) dims: Option<usize>,
    pub(super) hyperbolic_dims: Option<usize>,
    /// Weights that are loaded, which want the images that they were made for.
    pub(super) weights: Option<PathBuf>,
}

/// The loss of a name.
pub(super) fn loss(name: &str) -> Outcome<Loss> {
    Loss::named(name).or_failure()
}

/// The augmentation of a name.
pub(super) fn augmentation(name: &str) -> Outcome<Augmentation> {
    Ok(match name {
        "none" => Augmentation::default(),
        "things" => Augmentation::things(),
        "characters" => Augmentation::characters(),
        "photographs" => Augmentation::photographs(),
        _ => return Err(unknown("augmentation", name, &AUGMENTATIONS)),
    })
}

/// The network of a name, for these images and this loss.
pub(super) fn network(shape: &Shape, images: &Dataset, loss: &Loss) -> Outcome<Network> {
    let name = shape.network.as_deref().unwrap_or("small");
    let (backbone, usual_side) = match name {
        "tiny" => (
            Backbone::Convolutional {
                channels: [16, 32, 64, 64],
            },
            None,
        ),
        "small" => (Backbone::small(), None),
        "resnet18" => (Backbone::resnet18(), Some(224)),
        "resnet50" => (Backbone::resnet50(), Some(224)),
        "vit-s16" => (Backbone::vit_s16(), Some(224)),
        _ => return Err(unknown("network", name, &NETWORKS)),
    };
    let limits = ImageLimits::default();
    let first = images.image(0, &limits).or_failure()?;
    let shorter = first.width.min(first.height) as usize;
    let side = shape.side.or(usual_side).unwrap_or(shorter.clamp(16, 64));
    let made_for = shape.weights.as_deref().map(weights_made_for);
    let input = match made_for.transpose().or_failure()? {
        // Begun with the network of another run.
        Some(MadeFor::Input(input)) => Input {
            side: shape.side.unwrap_or(input.side),
            ..input
        },
        Some(MadeFor::Channels(3) | MadeFor::Unknown) => Input::imagenet(side),
        Some(MadeFor::Channels(1)) => Input::grey(side).measured(images, &limits).or_failure()?,
        None if first.channels == 1 => Input::grey(side).measured(images, &limits).or_failure()?,
        _ => Input::colour(side).measured(images, &limits).or_failure()?,
    };
    let euclidean = shape.dims.unwrap_or(128);
    let hyperbolic = match (ball(loss), shape.hyperbolic_dims) {
        (Some((curvature, clip)), dims) => Some(Hyperbolic {
            dims: dims.unwrap_or(euclidean),
            curvature,
            clip,
        }),
        (None, Some(dims)) => Some(Hyperbolic::new(dims)),
        (None, None) => None,
    };
    Ok(Network {
        input,
        backbone,
        heads: Heads {
            euclidean,
            hyperbolic,
        },
    })
}

/// Curvature and clip of the ball that a loss works in.
fn ball(loss: &Loss) -> Option<(f64, f64)> {
    if !loss.needs_hyperbolic() {
        return None;
    }
    match loss {
        Loss::Chest(of) => Some((of.c, of.r)),
        Loss::Hier(of) => Some((of.c, of.r)),
        Loss::Proxies(of) => match of.distance {
            Distance::Poincare { c, r } | Distance::Tangent { c, r } => Some((c, r)),
            _ => None,
        },
        Loss::Sum { terms } => terms.iter().find_map(|term| ball(&term.of)),
        Loss::Pairs(_) => None,
    }
}

fn unknown(what: &str, name: &str, all: &[&str]) -> Failure {
    Failure::usage(format_args!(
        "there is no {what} \"{name}\"; choose one of {}",
        all.join(", ")
    ))
}
