//! How the learning rate falls.

use super::config::setting;
use crate::LearnError;
use serde::{Deserialize, Serialize};

/// The learning rate after the warm-up, as a factor of its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Schedule {
    /// It stays.
    #[default]
    Constant,
    /// Half a cosine from 1 down to `last`.
    Cosine {
        /// The factor at the end.
        last: f64,
    },
    /// Multiplied by `factor` after every `every` steps.
    Step {
        /// Steps between two drops.
        every: u64,
        /// What each drop multiplies by.
        factor: f64,
    },
}

impl Schedule {
    /// The factor at a step, of `steps` after the warm-up.
    #[must_use]
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        match *self {
            Self::Constant => 1.0,
            Self::Cosine { last } => {
                let done = step.min(steps) as f64 / steps.max(1) as f64;
                last + (1.0 - last) * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
            Self::Step { every, factor } => {
                // Beyond 2^31 drops any factor below 1 has become zero.
                factor.powi(i32::try_from(step / every).unwrap_or(i32::MAX))
            }
        }
    }

    pub(super) fn check(&self) -> Result<(), LearnError> {
        let unit = |what, value: f64| {
            if (0.0..=1.0).contains(&value) {
                Ok(())
            } else {
                Err(setting(what, value, "choose a number from 0 to 1"))
            }
        };
        match *self {
            Self::Constant => Ok(()),
            Self::Cosine { last } => unit("the schedule's last factor", last),
            Self::Step { every: 0, .. } => Err(setting(
                "the number of steps between two drops",
                0,
                "choose 1 or more",
            )),
            Self::Step { factor, .. } => unit("the schedule's factor", factor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_as_defined() {
        assert_eq!(Schedule::Constant.factor(7, 10), 1.0);
        let step = Schedule::Step {
            every: 10,
            factor: 0.5,
        };
        assert_eq!(
            [0, 9, 10, 25].map(|s| step.factor(s, 100)),
            [1.0, 1.0, 0.5, 0.25]
        );
        let cosine = Schedule::Cosine { last: 0.1 };
        assert_eq!(cosine.factor(0, 100), 1.0);
        assert!((cosine.factor(50, 100) - 0.55).abs() < 1e-12);
        assert!((cosine.factor(100, 100) - 0.1).abs() < 1e-12);
        assert_eq!(cosine.factor(0, 0), 1.0);
    }

    #[test]
    fn fail_schedules_out_of_range() {
        assert!(
            Schedule::Step {
                every: 0,
                factor: 0.5
            }
            .check()
            .is_err()
        );
        assert!(
            Schedule::Step {
                every: 1,
                factor: 1.5
            }
            .check()
            .is_err()
        );
        assert!(Schedule::Cosine { last: f64::NAN }.check().is_err());
    }
}
