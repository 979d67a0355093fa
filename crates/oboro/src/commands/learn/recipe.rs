//! All that a training depends on, as one file.

use std::path::{Path, PathBuf};

use oboro_learn::backend::{Device, Place};
use oboro_learn::data::Dataset;
use oboro_learn::losses::{AnyLoss, Dimensions, Settings as Loss};
use oboro_learn::model::{Network, Settings as Shape, load_weights};
use oboro_learn::train::{Checkpoint, Config};
use rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use super::named;
use super::sets::Images;
use crate::failure::{Failure, Named, Outcome};
use crate::or_failure::OrFailure;

/// A complete recipe, as a run's folder and its checkpoints hold it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    /// Where it is trained: cpu, gpu or gpu:N.
    #[serde(default)]
    pub(super) device: Place,
    /// Whether nothing is measured while training.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) no_validation: bool,
    pub(super) data: Images,
    pub(super) network: Shape,
    /// File of pretrained weights of the backbone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) weights: Option<PathBuf>,
    pub(super) loss: Loss,
    pub(super) training: Config,
}

/// A recipe file: a network or loss may stand there by name or be left to the
/// command line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Partial {
    #[serde(default)]
    pub(super) device: Option<Place>,
    #[serde(default)]
    pub(super) no_validation: bool,
    #[serde(default)]
    pub(super) data: Option<Images>,
    #[serde(default)]
    pub(super) network: Option<toml::Value>,
    #[serde(default)]
    pub(super) weights: Option<PathBuf>,
    #[serde(default)]
    pub(super) loss: Option<toml::Value>,
    #[serde(default)]
    pub(super) training: Option<Config>,
}

/// A value in full or by its name.
pub(super) enum Given<T> {
    Name(String),
    Full(T),
}

impl Partial {
    pub(super) fn read(path: &Path) -> Outcome<Self> {
        let text = std::fs::read_to_string(path).named("read", path.display())?;
        toml::from_str(&text).map_err(|error| wrong(path, &error))
    }

    pub(super) fn loss(&self, path: &Path) -> Outcome<Option<Loss>> {
        match given(self.loss.as_ref(), path)? {
            Some(Given::Name(name)) => Ok(Some(named::loss(&name)?)),
            Some(Given::Full(loss)) => Ok(Some(loss)),
            None => Ok(None),
        }
    }

    pub(super) fn network(&self, path: &Path) -> Outcome<Option<Given<Shape>>> {
        given(self.network.as_ref(), path)
    }
}

fn given<T: serde::de::DeserializeOwned>(
    value: Option<&toml::Value>,
    path: &Path,
) -> Outcome<Option<Given<T>>> {
    match value {
        None => Ok(None),
        Some(toml::Value::String(name)) => Ok(Some(Given::Name(name.clone()))),
        Some(value) => value
            .clone()
            .try_into()
            .map(|full| Some(Given::Full(full)))
            .map_err(|error| wrong(path, &error)),
    }
}

fn wrong(path: &Path, error: &toml::de::Error) -> Failure {
    Failure::usage(format_args!(
        "{} is no recipe: {}; see docs/learn.md for what it may hold",
        path.display(),
        error.message().trim_end().replace('\n', " ")
    ))
}

impl Recipe {
    /// What a checkpoint says that it was trained with.
    pub(super) fn of(checkpoint: &Checkpoint, run: &Path) -> Outcome<Self> {
        serde_json::from_value(checkpoint.about().clone()).map_err(|error| {
            Failure::input(format_args!(
                "the checkpoints in {} do not say how they were trained ({error}); they were not made by oboro learn train",
                run.display()
            ))
        })
    }

    /// The network and the loss that training begins with, on a device.
    pub(super) fn start(&self, train: &Dataset, device: &Device) -> Outcome<(Network, AnyLoss)> {
        // Two streams of one seed: another network does not change the proxies.
        let stream = |number: u64| {
            let mut rng = chacha20::ChaCha20Rng::seed_from_u64(self.training.seed);
            rng.set_stream(number);
            rng
        };
        let mut network = self.network.build(device, &mut stream(1)).or_failure()?;
        if let Some(weights) = &self.weights {
            load_weights(&mut network, weights).or_failure()?;
        }
        let loss = self.loss(train.classes().len(), device, &mut stream(2))?;
        Ok((network, loss))
    }

    /// The loss, with proxies drawn from `rng`.
    pub(super) fn loss(
        &self,
        classes: usize,
        device: &Device,
        rng: &mut chacha20::ChaCha20Rng,
    ) -> Outcome<AnyLoss> {
        let heads = &self.network.heads;
        let dimensions = Dimensions {
            euclidean: heads.euclidean,
            hyperbolic: heads.hyperbolic.map(|h| h.dims),
        };
        self.loss
            .build(classes, dimensions, device, rng)
            .or_failure()
    }

    pub(super) fn to_toml(&self) -> Outcome<String> {
        toml::to_string_pretty(self).map_err(Failure::failed)
    }
}

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Which {
    /// The newest one.
    #[default]
    Last,
    /// The one with the best validation, on images set aside of the training part.
    Best,
}

impl Which {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Best => "best",
        }
    }
}

/// A run's checkpoint and its recipe.
pub(super) fn open(run: &Path, which: Which) -> Outcome<(Checkpoint, Recipe)> {
    let folder = match which {
        Which::Last => Checkpoint::latest(run),
        Which::Best => Checkpoint::best_of(run),
    };
    let folder = folder.or_failure()?.ok_or_else(|| {
        Failure::input(format_args!(
            "{} holds no such checkpoint; name the folder of a run of oboro learn train",
            run.display()
        ))
    })?;
    let checkpoint = Checkpoint::read(&folder).or_failure()?;
    let recipe = Recipe::of(&checkpoint, run)?;
    // Earlier versions chose it on the test part.
    if which == Which::Best && recipe.data.validate.is_empty() {
        return Err(Failure::usage(format_args!(
            "{} validated on no images of its training part, so none of its checkpoints is the best; train with --validate, or take the last",
            run.display()
        )));
    }
    Ok((checkpoint, recipe))
}
