//! Forward and backward pass of a batch in parts, one thread each.
//!
//! A metric loss couples all items of a batch, so the batch cannot simply be
//! cut in two. But only its embeddings are coupled: the parts are embedded on
//! their own, the loss of all embeddings gives a gradient with respect to each
//! embedding, and with that each part goes backward on its own. Gradients of
//! the parts are added in their order.
//!
//! Every part runs in a pool of one thread. Within such a pool the backend's
//! kernels do the same operations in the same order whatever the machine, so
//! the bits depend on the number of parts alone.
//!
//! A GPU gets a batch whole, from one thread: it has work enough in one part,
//! and threads of their own would make it wait for each other's queues.

use super::config::setting;
use super::parameters::Path;
use crate::LearnError;
use crate::losses::{AnyLoss, Embeddings, Loss};
use crate::model::Network;
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use chacha20::ChaCha20Rng;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::BTreeMap;

/// Threads that never help each other; none of them where the work is a GPU's,
/// which the caller's own thread feeds.
pub(super) struct Pools {
    /// For what is done on the whole batch; never one of the workers, which
    /// it waits for.
    main: Option<ThreadPool>,
    workers: Vec<ThreadPool>,
}

impl Pools {
    pub(super) fn new(workers: usize) -> Result<Self, LearnError> {
        let one = || {
            ThreadPoolBuilder::new()
                .num_threads(1)
                .build()
                .map_err(|error| setting("a thread", error, "let this process start more threads"))
        };
        Ok(Self {
            main: Some(one()?),
            workers: (0..workers.max(1))
                .map(|_| one())
                .collect::<Result<_, _>>()?,
        })
    }

    /// No threads.
    pub(super) fn none() -> Self {
        Self {
            main: None,
            workers: Vec::new(),
        }
    }

    /// Threads that run parts.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Runs `work` in the thread for whole batches.
    pub(super) fn alone<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.main {
            Some(main) => main.install(work),
            None => work(),
        }
    }

    /// Runs every job, each in one thread; results in the jobs' order.
    pub(super) fn each<T: Send, R: Send>(
        &self,
        jobs: Vec<T>,
        work: impl Fn(T) -> R + Sync,
    ) -> Vec<R> {
        if self.workers.is_empty() {
            return jobs.into_iter().map(work).collect();
        }
        let count = jobs.len();
        let mut shares: Vec<Vec<(usize, T)>> = self.workers.iter().map(|_| Vec::new()).collect();
        for (number, job) in jobs.into_iter().enumerate() {
            shares[number % self.workers.len()].push((number, job));
        }
        let mut results: Vec<Option<R>> = (0..count).map(|_| None).collect();
        std::thread::scope(|scope| {
            let work = &work;
            let started: Vec<_> = self
                .workers
                .iter()
                .zip(shares)
                .filter(|(_, share)| !share.is_empty())
                .map(|(pool, share)| {
                    scope.spawn(move || {
                        pool.install(|| {
                            let done = share.into_iter().map(|(number, job)| (number, work(job)));
                            done.collect::<Vec<_>>()
                        })
                    })
                })
                .collect();
            for thread in started {
                match thread.join() {
                    Ok(done) => {
                        for (number, result) in done {
                            results[number] = Some(result);
                        }
                    }
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        results.into_iter().flatten().collect()
    }
}

/// What a batch asks of the parameters.
pub(super) struct BatchGradients {
    /// The loss of the batch, not yet read.
    pub(super) value: Tensor<1>,
    /// With respect to the network's parameters.
    pub(super) network: GradientsParams,
    /// With respect to the loss's parameters.
    pub(super) loss: GradientsParams,
    /// Values that the forward pass itself has moved, such as the running
    /// statistics of batch normalization: the mean over the parts, by path.
    pub(super) moved: BTreeMap<String, Tensor<1>>,
}

/// The gradients of a batch, whose rows are in the parts' order.
pub(super) fn gradients(
    pools: &Pools,
    parts: usize,
    network: &Network,
    loss: &AnyLoss,
    images: Tensor<4>,
    labels: &[usize],
    rng: &mut ChaCha20Rng,
) -> Result<BatchGradients, LearnError> {
    let rows = images.dims()[0];
    let bounds: Vec<usize> = (0..=parts).map(|part| part * rows / parts).collect();
    // `train` gives every part leaves, and so a graph, of its own; parts that
    // shared one would wait for each other at its lock.
    let jobs: Vec<(Network, Tensor<4>)> = bounds
        .windows(2)
        .map(|b| {
            let part = images.clone().narrow(0, b[0], b[1] - b[0]);
            (network.clone().train(), part)
        })
        .collect();
    let embedded = pools.each(jobs, |(network, images)| {
        let embeddings = network.forward(Tensor::from_inner(images));
        (network, embeddings)
    });

    let (value, loss, gradients) = pools.alone(|| of_embeddings(loss, &embedded, labels, rng))?;
    let jobs: Vec<_> = embedded
        .into_iter()
        .zip(bounds.windows(2))
        .map(|((network, embeddings), b)| {
            let part = |gradient: &Option<Tensor<2>>| {
                let gradient = gradient.clone()?;
                Some(gradient.narrow(0, b[0], b[1] - b[0]))
            };
            let (first, second) = (part(&gradients.0), part(&gradients.1));
            (network, embeddings, first, second)
        })
        .collect();
    let mut done = pools.each(jobs, |(network, embeddings, euclidean, hyperbolic)| {
        backward(network, embeddings, euclidean, hyperbolic)
    });

    // In the parts' order, whichever ended first.
    let mut rest = done.split_off(1);
    let Some((mut sum, mut moved)) = done.pop() else {
        return Err(setting(
            "the number of parts of a batch",
            0,
            "choose 1 or more",
        ));
    };
    let network = pools.alone(|| {
        for (gradients, part) in rest.drain(..) {
            let mut add = Add {
                sum: &mut sum,
                other: gradients,
            };
            network.visit(&mut add);
            for (path, value) in part {
                if let Some(total) = moved.remove(&path) {
                    moved.insert(path, total + value);
                }
            }
        }
        if parts > 1 {
            for value in moved.values_mut() {
                *value = value.clone().div_scalar(parts as f32);
            }
        }
        sum
    });
    Ok(BatchGradients {
        value,
        network,
        loss,
        moved,
    })
}

/// The gradients with respect to Euclidean and hyperbolic embeddings.
type OfEmbeddings = (Option<Tensor<2>>, Option<Tensor<2>>);

/// The loss of all parts' embeddings and its gradients.
fn of_embeddings(
    loss: &AnyLoss,
    embedded: &[(Network, Embeddings)],
    labels: &[usize],
    rng: &mut ChaCha20Rng,
) -> Result<(Tensor<1>, GradientsParams, OfEmbeddings), LearnError> {
    let loss = loss.clone().train();
    let leaf = |parts: Vec<Tensor<2>>| Tensor::from_inner(Tensor::cat(parts, 0)).require_grad();
    let euclidean = leaf(
        embedded
            .iter()
            .map(|(_, e)| e.euclidean.clone().inner())
            .collect(),
    );
    let hyperbolic = embedded
        .iter()
        .map(|(_, e)| e.hyperbolic.clone().map(Tensor::inner))
        .collect::<Option<Vec<_>>>()
        .map(leaf);
    let embeddings = Embeddings {
        euclidean,
        hyperbolic,
    };
    let value = loss.forward(&embeddings, labels, rng)?;
    if !value.is_tracked() {
        return Err(setting(
            "the gradient of the loss",
            "none",
            "choose a loss that depends on the embeddings",
        ));
    }
    let held = value.clone().inner();
    let mut gradients = value.backward();
    let euclidean = embeddings.euclidean.grad_remove(&mut gradients);
    let hyperbolic = embeddings
        .hyperbolic
        .and_then(|leaf| leaf.grad_remove(&mut gradients));
    let loss = GradientsParams::from_module(&mut gradients, &loss);
    Ok((held, loss, (euclidean, hyperbolic)))
}

/// The gradients of a part's parameters, and the values its forward pass has
/// moved.
fn backward(
    network: Network,
    embeddings: Embeddings,
    euclidean: Option<Tensor<2>>,
    hyperbolic: Option<Tensor<2>>,
) -> (GradientsParams, BTreeMap<String, Tensor<1>>) {
    // The gradient of sum(e * g) with respect to e is g.
    let weigh = |e: Tensor<2>, g: Tensor<2>| (e * Tensor::from_inner(g)).sum();
    let euclidean = euclidean.map(|g| weigh(embeddings.euclidean, g));
    let hyperbolic = hyperbolic.and_then(|g| Some(weigh(embeddings.hyperbolic?, g)));
    let sum = match (euclidean, hyperbolic) {
        (Some(a), Some(b)) => Some(a + b),
        (a, b) => a.or(b),
    };
    // A wholly frozen network has no gradient, and nothing to learn.
    let gradients = match sum {
        Some(sum) if sum.is_tracked() => GradientsParams::from_grads(sum.backward(), &network),
        _ => GradientsParams::new(),
    };
    let mut moved = Moved {
        path: Path::default(),
        untrained: BTreeMap::new(),
    };
    network.visit(&mut moved);
    let trained = moved.untrained;
    // Only `valid` brings the running statistics up to date.
    let mut moved = Moved {
        path: Path::default(),
        untrained: BTreeMap::new(),
    };
    network.valid().visit(&mut moved);
    let untrained = moved.untrained.into_iter();
    (
        gradients,
        untrained
            .filter(|(path, _)| trained.contains_key(path))
            .collect(),
    )
}

/// Finds what has no gradient.
struct Moved {
    path: Path,
    untrained: BTreeMap<String, Tensor<1>>,
}

impl ModuleVisitor for Moved {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            let value = param.val();
            let count = value.shape().num_elements();
            self.untrained
                .insert(self.path.joined(), value.inner().reshape([count]));
        }
    }
}

/// Adds the gradients of another part.
struct Add<'a> {
    sum: &'a mut GradientsParams,
    other: GradientsParams,
}

impl ModuleVisitor for Add<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.other.remove::<D>(param.id) {
            let total = match self.sum.remove::<D>(param.id) {
                Some(sum) => sum + gradient,
                None => gradient,
            };
            self.sum.register(param.id, total);
        }
    }
}

/// Puts moved values in place.
pub(super) fn put<M: Module>(module: M, moved: BTreeMap<String, Tensor<1>>) -> M {
    if moved.is_empty() {
        return module;
    }
    module.map(&mut Put {
        path: Path::default(),
        moved,
    })
}

struct Put {
    path: Path,
    moved: BTreeMap<String, Tensor<1>>,
}

impl ModuleMapper for Put {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.enter(name);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.moved.remove(&self.path.joined()) {
            Some(value) => param.map(|old| {
                let shape = old.dims();
                value.reshape(shape)
            }),
            None => param,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::cpu;
    use crate::data::Input;
    use crate::losses::{Dimensions, Settings};
    use crate::model;
    use crate::train::parameters::values;
    use burn::tensor::TensorData;
    use rand_core::{Rng, SeedableRng};

    /// A transformer: its normalization knows no batch, so parts must give
    /// what the whole gives.
    fn network() -> Network {
        let settings = model::Settings {
            input: Input::grey(12),
            backbone: model::Backbone::VisionTransformer {
                patch: 4,
                width: 16,
                depth: 2,
                heads: 2,
            },
            heads: model::Heads {
                euclidean: 6,
                hyperbolic: Some(model::Hyperbolic::new(4)),
            },
        };
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        settings.build(&cpu(), &mut rng).unwrap().valid()
    }

    fn of(parts: usize, threads: usize) -> (f64, Vec<Vec<f32>>, Vec<Vec<f32>>) {
        let network = network();
        let dimensions = Dimensions {
            euclidean: 6,
            hyperbolic: Some(4),
        };
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        let loss = Settings::named("chest")
            .unwrap()
            .build(4, dimensions, &cpu(), &mut rng)
            .unwrap()
            .valid();
        let pixels = (0..8 * 144).map(|_| (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32);
        let images = TensorData::new(pixels.collect(), [8, 1, 12, 12]);
        let images = Tensor::from_data(images, &cpu());
        let labels = [0, 1, 2, 3, 0, 1, 2, 3];
        let pools = match threads {
            0 => Pools::none(),
            threads => Pools::new(threads).unwrap(),
        };
        let found = gradients(&pools, parts, &network, &loss, images, &labels, &mut rng).unwrap();
        let all = |module: &dyn Fn(&mut Flatten), gradients| {
            let mut flatten = Flatten {
                gradients,
                found: Vec::new(),
            };
            module(&mut flatten);
            flatten.found
        };
        (
            f64::from(found.value.into_scalar::<f32>()),
            all(&|f| network.visit(f), found.network),
            all(&|f| loss.visit(f), found.loss),
        )
    }

    struct Flatten {
        gradients: GradientsParams,
        found: Vec<Vec<f32>>,
    }

    impl ModuleVisitor for Flatten {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.gradients.remove::<D>(param.id).unwrap();
            self.found.push(values(gradient).unwrap().values);
        }
    }

    #[test]
    fn parts_have_the_gradient_of_the_whole() {
        let (loss, network, proxies) = of(1, 1);
        assert!(loss > 0.0 && network.len() > 20 && !proxies.is_empty());
        for parts in [2, 4, 8] {
            let (of_parts, network_of_parts, proxies_of_parts) = of(parts, 2);
            assert!((of_parts - loss).abs() < 1e-5 * loss);
            let whole = network.iter().chain(&proxies);
            let parts = network_of_parts.iter().chain(&proxies_of_parts);
            for (whole, parts) in whole.zip(parts) {
                let size = whole.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                for (a, b) in whole.iter().zip(parts) {
                    assert!((a - b).abs() <= 2e-4 * size + 1e-7, "{a} {b} of {size}");
                }
            }
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let bits = |(loss, a, b): (f64, Vec<Vec<f32>>, Vec<Vec<f32>>)| {
            let all = a.into_iter().chain(b).flatten();
            (loss.to_bits(), all.map(f32::to_bits).collect::<Vec<_>>())
        };
        let one = bits(of(4, 1));
        assert_eq!(one, bits(of(4, 2)));
        assert_eq!(one, bits(of(4, 4)));
        assert_eq!(of(1, 1).1.len(), of(1, 0).1.len());
    }
}
