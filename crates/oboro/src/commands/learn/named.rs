//! Networks, losses and augmentations by name.

use oboro_learn::data::{Augmentation, Dataset, ImageLimits, Input};
use oboro_learn::losses::Settings as Loss;
use oboro_learn::losses::similarity::Distance;
use oboro_learn::model::{Backbone, Heads, Hyperbolic, Settings as Network};

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
    /// Whether weights of photographs are loaded, which want their input.
    pub(super) pretrained: bool,
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
    let input = if shape.pretrained {
        Input::imagenet(side)
    } else if first.channels == 1 {
        Input::grey(side).measured(images, &limits).or_failure()?
    } else {
        Input::colour(side).measured(images, &limits).or_failure()?
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
