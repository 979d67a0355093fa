//! AdamW with groups of parameters and a clipped gradient.
//!
//! burn's own AdamW does the arithmetic, one parameter at a time. What is
//! kept here is which rate and weight decay a parameter gets, and its moments,
//! by the parameter's path: burn's records name them by identities that a
//! fresh network does not share.

use super::Config;
use super::config::setting;
use super::parameters::Path;
use crate::LearnError;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::{AdamWConfig, AdamWState, AdaptiveMomentumState, GradientsParams, Optimizer};
use burn::tensor::{Tensor, Transaction};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a group of parameters does differently.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Multiplies the learning rate; 0 freezes the group.
    pub rate: f64,
    /// Decoupled weight decay. Vectors (biases, gains of normalizations) have
    /// none.
    pub weight_decay: f32,
}

/// The groups of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Groups {
    /// The network but for its heads.
    pub backbone: Group,
    /// The heads.
    pub head: Group,
    /// The loss's parameters.
    pub proxies: Group,
}

impl Default for Groups {
    /// Proxies at a hundred times the rate; decay 1e-4 everywhere.
    fn default() -> Self {
        let plain = Group {
            rate: 1.0,
            weight_decay: 1e-4,
        };
        Self {
            backbone: plain,
            head: plain,
            proxies: Group {
                rate: 100.0,
                ..plain
            },
        }
    }
}

impl Groups {
    pub(super) fn check(&self) -> Result<(), LearnError> {
        for group in [self.backbone, self.head, self.proxies] {
            if !(group.rate.is_finite() && group.rate >= 0.0) {
                return Err(setting(
                    "the factor of a group's learning rate",
                    group.rate,
                    "choose 0 or more",
                ));
            }
            if !(0.0..=1.0).contains(&group.weight_decay) {
                return Err(setting(
                    "a weight decay",
                    group.weight_decay,
                    "choose a number from 0 to 1",
                ));
            }
        }
        Ok(())
    }
}

/// The moments of a parameter, flat.
#[derive(Clone)]
pub(super) struct Moments {
    /// Updates so far.
    pub(super) updates: u64,
    pub(super) first: Tensor<1>,
    pub(super) second: Tensor<1>,
}

/// The optimizer's state: moments by `module.path`.
#[derive(Default)]
pub(super) struct AdamW {
    pub(super) moments: BTreeMap<String, Moments>,
}

/// How parameters are updated in a step.
pub(super) struct Update<'a> {
    pub(super) config: &'a Config,
    /// The scheduled rate.
    pub(super) rate: f64,
    /// What gradients are multiplied by.
    pub(super) scale: f64,
}

impl AdamW {
    /// Updates the parameters of a module that have a gradient; `group` says
    /// how by the path.
    pub(super) fn step<M: Module>(
        &mut self,
        name: &'static str,
        module: M,
        gradients: GradientsParams,
        update: &Update<'_>,
        group: impl Fn(&str) -> Group,
    ) -> M {
        module.map(&mut Stepper {
            name,
            path: Path::default(),
            moments: &mut self.moments,
            gradients,
            update,
            group,
        })
    }
}

struct Stepper<'a, G> {
    name: &'static str,
    path: Path,
    moments: &'a mut BTreeMap<String, Moments>,
    gradients: GradientsParams,
    update: &'a Update<'a>,
    group: G,
}

impl<G: Fn(&str) -> Group> ModuleMapper for Stepper<'_, G> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove::<D>(param.id) else {
            return param;
        };
        let path = self.path.joined();
        let group = (self.group)(&path);
        if group.rate == 0.0 {
            return param;
        }
        let config = self.update.config;
        let adamw = AdamWConfig::new()
            .with_beta_1(config.beta_1)
            .with_beta_2(config.beta_2)
            .with_epsilon(config.epsilon)
            .with_weight_decay(if D > 1 { group.weight_decay } else { 0.0 })
            .build();
        let name = format!("{}.{path}", self.name);
        let state = self.moments.remove(&name).map(|moments| {
            let time = moments.updates as usize;
            AdamWState::new(AdaptiveMomentumState::new(
                time,
                moments.first,
                moments.second,
            ))
        });
        let (id, tensor, mapper) = param.consume();
        let shape = tensor.dims();
        let count = tensor.shape().num_elements();
        let gradient = gradient.reshape([count]);
        let gradient = if self.update.scale == 1.0 {
            gradient
        } else {
            gradient.mul_scalar(self.update.scale)
        };
        let (tensor, state) = adamw.step::<1>(
            self.update.rate * group.rate,
            tensor.reshape([count]),
            gradient,
            state,
        );
        if let Some(AdamWState { momentum }) = state {
            self.moments.insert(
                name,
                Moments {
                    updates: momentum.time as u64,
                    first: momentum.moment_1,
                    second: momentum.moment_2,
                },
            );
        }
        Param::from_mapped_value(id, tensor.reshape(shape), mapper)
    }
}

/// The value of a loss and the norm of the gradients over all parameters. Read
/// together: a GPU has to come to rest for whatever is read.
pub(super) fn value_and_norm<N: Module, L: Module>(
    value: Tensor<1>,
    network: (&N, &GradientsParams),
    objective: (&L, &GradientsParams),
) -> (f64, f64) {
    let mut squares = Squares {
        gradients: network.1,
        found: vec![value],
    };
    network.0.visit(&mut squares);
    squares.gradients = objective.1;
    objective.0.visit(&mut squares);
    let transaction = squares
        .found
        .into_iter()
        .fold(Transaction::default(), Transaction::register);
    let figures: Vec<f64> = transaction
        .execute()
        .iter()
        .flat_map(|data| data.iter::<f64>())
        .collect();
    match figures.split_first() {
        Some((value, squares)) => (*value, squares.iter().sum::<f64>().sqrt()),
        None => (f64::NAN, f64::NAN),
    }
}

struct Squares<'a> {
    gradients: &'a GradientsParams,
    found: Vec<Tensor<1>>,
}

impl Squares<'_> {
    fn add<const D: usize>(&mut self, id: ParamId) {
        if let Some(gradient) = self.gradients.get::<D>(id) {
            self.found.push(gradient.square().sum());
        }
    }
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.add::<D>(param.id);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Schedule;
    use super::*;
    use crate::backend::{cpu, parameter};
    use burn::tensor::TensorData;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;
    use std::collections::HashMap;

    #[derive(Module, Debug)]
    struct Body {
        weight: Param<Tensor<2>>,
        bias: Param<Tensor<1>>,
        head: Param<Tensor<2>>,
    }

    #[derive(Module, Debug)]
    struct Proxies {
        proxies: Param<Tensor<2>>,
    }

    #[derive(Deserialize)]
    struct Fixture {
        first: HashMap<String, Vec<f32>>,
        gradients: Vec<HashMap<String, Vec<f32>>>,
        norms: Vec<f64>,
        after: Vec<HashMap<String, Vec<f32>>>,
    }

    fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &cpu())
    }

    #[test]
    fn steps_are_those_of_torch() {
        let text = include_str!("../../tests/fixtures/train/adamw.json");
        let fixture: Fixture = serde_json::from_str(text).unwrap();
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let first = &fixture.first;
        let mut body = Body {
            weight: parameter(tensor(&first["weight"], [3, 4]), &mut rng),
            bias: parameter(tensor(&first["bias"], [4]), &mut rng),
            head: parameter(tensor(&first["head"], [4, 2]), &mut rng),
        };
        let mut proxies = Proxies {
            proxies: parameter(tensor(&first["proxies"], [5, 2]), &mut rng),
        };
        let config = Config {
            rate: 0.02,
            warm_up: 5,
            schedule: Schedule::Cosine { last: 0.1 },
            beta_2: 0.99,
            ..Config::default()
        };
        let group = |rate, weight_decay| Group { rate, weight_decay };
        let mut optimizer = AdamW::default();
        for (step, gradients) in fixture.gradients.iter().enumerate() {
            let mut of_body = GradientsParams::new();
            of_body.register(body.weight.id, tensor(&gradients["weight"], [3, 4]));
            of_body.register(body.bias.id, tensor(&gradients["bias"], [4]));
            of_body.register(body.head.id, tensor(&gradients["head"], [4, 2]));
            let mut of_proxies = GradientsParams::new();
            of_proxies.register(proxies.proxies.id, tensor(&gradients["proxies"], [5, 2]));
            let loss = tensor(&[0.5], [1]);
            let (loss, norm) = value_and_norm(loss, (&body, &of_body), (&proxies, &of_proxies));
            assert_eq!(loss, 0.5);
            assert!((norm - fixture.norms[step]).abs() < 1e-5 * norm);
            let update = Update {
                config: &config,
                rate: config.rate_at(step as u64, 20),
                scale: (1.5 / (norm + 1e-6)).min(1.0),
            };
            body = optimizer.step("network", body, of_body, &update, |path| match path {
                // A vector has no decay, whatever its group says.
                "weight" | "bias" => group(1.0, 0.1),
                _ => group(2.0, 0.05),
            });
            proxies = optimizer.step("loss", proxies, of_proxies, &update, |_| group(100.0, 0.01));
            let after = &fixture.after[step];
            let now = [
                ("weight", body.weight.val().into_data()),
                ("bias", body.bias.val().into_data()),
                ("head", body.head.val().into_data()),
                ("proxies", proxies.proxies.val().into_data()),
            ];
            for (name, values) in now {
                for (ours, theirs) in values.iter::<f32>().zip(&after[name]) {
                    let error = (ours - theirs).abs();
                    assert!(
                        error < 2e-5 * theirs.abs().max(1.0),
                        "{name}: {ours} {theirs}"
                    );
                }
            }
        }
        assert_eq!(optimizer.moments["network.weight"].updates, 20);
    }

    #[test]
    fn a_group_without_a_rate_stays() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        let proxies = Proxies {
            proxies: parameter(tensor(&[1.0, 2.0], [1, 2]), &mut rng),
        };
        let mut gradients = GradientsParams::new();
        gradients.register(proxies.proxies.id, tensor(&[1.0, 1.0], [1, 2]));
        let config = Config::default();
        let update = Update {
            config: &config,
            rate: 1.0,
            scale: 1.0,
        };
        let mut optimizer = AdamW::default();
        let frozen = |_: &str| Group {
            rate: 0.0,
            weight_decay: 0.1,
        };
        let proxies = optimizer.step("loss", proxies, gradients, &update, frozen);
        let values: Vec<f32> = proxies.proxies.val().into_data().iter().collect();
        assert_eq!(values, [1.0, 2.0]);
        assert!(optimizer.moments.is_empty());
    }

    #[test]
    fn fail_groups_out_of_range() {
        let refused = [
            Group {
                rate: -1.0,
                weight_decay: 0.0,
            },
            Group {
                rate: f64::NAN,
                weight_decay: 0.0,
            },
            Group {
                rate: 1.0,
                weight_decay: 1.5,
            },
        ];
        for head in refused {
            let groups = Groups {
                head,
                ..Groups::default()
            };
            assert!(groups.check().is_err());
        }
    }
}
