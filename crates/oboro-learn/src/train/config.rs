//! What a training run is made of.

use super::{Groups, Schedule};
use crate::LearnError;
use crate::data::Augmentation;
use serde::{Deserialize, Serialize};

/// The settings of a training run.
///
/// Steps, and with them the bytes of every checkpoint, depend on these, on the
/// data and on the processor's instruction set; not on the number of threads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The seed of the sampler, the augmentation and what losses sample.
    pub seed: u64,
    /// Passes over as many records as the training set holds.
    pub epochs: u64,
    /// Classes of a batch.
    pub classes: usize,
    /// Items of each class in a batch.
    pub items: usize,
    /// How images are changed.
    pub augmentation: Augmentation,
    /// The learning rate that the schedule starts from.
    pub rate: f64,
    /// Steps in which the rate rises linearly to `rate`.
    pub warm_up: u64,
    /// How the rate falls afterwards.
    pub schedule: Schedule,
    /// What differs between backbone, head and proxies.
    pub groups: Groups,
    /// AdamW's decay of the first moment.
    pub beta_1: f32,
    /// AdamW's decay of the second moment.
    pub beta_2: f32,
    /// AdamW's epsilon.
    pub epsilon: f32,
    /// Gradients are scaled down to this norm over all parameters.
    pub clip: Option<f64>,
    /// Parts that the batch is cut into for the network's forward and backward
    /// pass, a power of two; each runs on one thread. The loss sees the whole
    /// batch, so the gradient is the same but for rounding. Batch
    /// normalization takes its statistics over a part.
    pub parts: usize,
    /// Epochs between two validations.
    pub validate_every: u64,
    /// Validations without a better figure after which training stops.
    pub patience: Option<u64>,
    /// Epochs between two checkpoints.
    pub checkpoint_every: u64,
    /// Newest checkpoints that stay; the best one stays as well.
    pub keep: usize,
    /// Steps between two lines of metrics.
    pub log_every: u64,
}

impl Default for Config {
    /// Proxy Anchor's recipe with a clipped gradient: AdamW at 1e-4, proxies
    /// at a hundred times that, batches of 45 classes with 4 items.
    fn default() -> Self {
        Self {
            seed: 0,
            epochs: 40,
            classes: 45,
            items: 4,
            augmentation: Augmentation::default(),
            rate: 1e-4,
            warm_up: 0,
            schedule: Schedule::default(),
            groups: Groups::default(),
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            clip: Some(10.0),
            parts: 2,
            validate_every: 1,
            patience: None,
            checkpoint_every: 1,
            keep: 2,
            log_every: 10,
        }
    }
}

impl Config {
    /// Images of a batch.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.classes * self.items
    }

    /// The learning rate of a step, before the groups' factors.
    #[must_use]
    pub fn rate_at(&self, step: u64, steps: u64) -> f64 {
        if step < self.warm_up {
            return self.rate * (step + 1) as f64 / self.warm_up as f64;
        }
        let steps = steps.saturating_sub(self.warm_up);
        self.rate * self.schedule.factor(step - self.warm_up, steps)
    }

    /// Checks that every setting is in its range.
    ///
    /// # Errors
    /// Naming the first setting that is not.
    pub fn check(&self) -> Result<(), LearnError> {
        let counts = [
            ("the number of epochs", self.epochs, 1),
            ("the number of classes in a batch", self.classes as u64, 1),
            ("the number of items of a class", self.items as u64, 1),
            ("validate_every", self.validate_every, 1),
            ("checkpoint_every", self.checkpoint_every, 1),
            ("the number of checkpoints to keep", self.keep as u64, 1),
            ("log_every", self.log_every, 1),
            ("the patience", self.patience.unwrap_or(1), 1),
        ];
        for (what, value, least) in counts {
            if value < least {
                return Err(setting(what, value, "choose 1 or more"));
            }
        }
        let positive = [
            ("the learning rate", self.rate),
            ("epsilon", f64::from(self.epsilon)),
            ("the norm to clip at", self.clip.unwrap_or(1.0)),
        ];
        for (what, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(setting(what, value, "choose a number above 0"));
            }
        }
        for (what, value) in [("beta_1", self.beta_1), ("beta_2", self.beta_2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(setting(what, value, "choose a number from 0 to below 1"));
            }
        }
        let batch = self.classes.checked_mul(self.items);
        if batch.is_none_or(|batch| batch > 1 << 20) {
            return Err(setting(
                "the number of images in a batch",
                format!("{} x {}", self.classes, self.items),
                "choose 1,048,576 at most",
            ));
        }
        if !self.parts.is_power_of_two() || self.parts > self.batch() {
            // Statistics of parts are averaged; with a power of two the
            // average of equal numbers is that number.
            return Err(setting(
                "the number of parts of a batch",
                self.parts,
                "choose a power of two, at most the number of images in a batch",
            ));
        }
        self.augmentation.check()?;
        self.schedule.check()?;
        self.groups.check()
    }
}

/// A refused setting.
pub(super) fn setting(
    what: &'static str,
    actual: impl ToString,
    wanted: &'static str,
) -> LearnError {
    LearnError::Setting {
        what,
        actual: actual.to_string(),
        wanted,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_in_range() {
        Config::default().check().unwrap();
    }

    #[test]
    fn warm_up_rises_to_the_rate_and_the_schedule_follows() {
        let config = Config {
            rate: 2.0,
            warm_up: 4,
            schedule: Schedule::Cosine { last: 0.0 },
            ..Config::default()
        };
        let rates: Vec<f64> = (0..9).map(|step| config.rate_at(step, 8)).collect();
        assert_eq!(rates[..5], [0.5, 1.0, 1.5, 2.0, 2.0]);
        assert!((rates[6] - 1.0).abs() < 1e-12);
        assert_eq!(rates[8], 0.0);
    }

    #[test]
    fn settings_are_read_as_written() {
        let config = Config {
            schedule: Schedule::Step {
                every: 100,
                factor: 0.5,
            },
            clip: None,
            patience: Some(3),
            ..Config::default()
        };
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
        // What is not named has its default.
        let short: Config = serde_json::from_str(r#"{"epochs": 3}"#).unwrap();
        assert_eq!(
            short,
            Config {
                epochs: 3,
                ..Config::default()
            }
        );
    }

    #[test]
    fn fail_settings_that_there_are_not() {
        for text in [
            r#"{"epoch": 3}"#,
            r#"{"schedule": {"kind": "cosine", "last": 0.1, "first": 1}}"#,
            r#"{"groups": {"backbones": {"rate": 1, "weight_decay": 0}}}"#,
        ] {
            assert!(serde_json::from_str::<Config>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fail_settings_out_of_range() {
        let refused = [
            Config {
                epochs: 0,
                ..Config::default()
            },
            Config {
                classes: 0,
                ..Config::default()
            },
            Config {
                items: 0,
                ..Config::default()
            },
            Config {
                classes: usize::MAX,
                ..Config::default()
            },
            Config {
                rate: f64::NAN,
                ..Config::default()
            },
            Config {
                rate: 0.0,
                ..Config::default()
            },
            Config {
                beta_1: 1.0,
                ..Config::default()
            },
            Config {
                beta_2: -0.1,
                ..Config::default()
            },
            Config {
                epsilon: 0.0,
                ..Config::default()
            },
            Config {
                clip: Some(0.0),
                ..Config::default()
            },
            Config {
                parts: 0,
                ..Config::default()
            },
            Config {
                parts: 3,
                ..Config::default()
            },
            Config {
                parts: 256,
                ..Config::default()
            },
            Config {
                patience: Some(0),
                ..Config::default()
            },
            Config {
                keep: 0,
                ..Config::default()
            },
            Config {
                log_every: 0,
                ..Config::default()
            },
            Config {
                validate_every: 0,
                ..Config::default()
            },
            Config {
                checkpoint_every: 0,
                ..Config::default()
            },
            Config {
                schedule: Schedule::Cosine { last: 2.0 },
                ..Config::default()
            },
        ];
        for config in refused {
            assert!(config.check().is_err(), "{config:?}");
        }
    }
}
