//! Networks and training, beside the CPU's.

use crate::gpu;
use crate::toy::{Toy, config, trainer_on};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use chacha20::ChaCha20Rng;
use oboro_learn::backend::cpu;
use oboro_learn::data::{Input, garments};
use oboro_learn::embed::{Options, embed};
use oboro_learn::evaluation::Score;
use oboro_learn::losses::{self, Dimensions};
use oboro_learn::model::{Backbone, Heads, Hyperbolic, Settings};
use oboro_learn::train::{Config, End, Metric, Observer, Progress, Trainer, Validation, Watched};
use rand_core::{Rng, SeedableRng};
use std::sync::atomic::{AtomicBool, Ordering};

/// All parameters and running statistics, one after the other.
fn parameters(module: &impl Module) -> Vec<Vec<f32>> {
    #[derive(Default)]
    struct Found(Vec<Vec<f32>>);
    impl ModuleVisitor for Found {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().into_data().iter().collect());
        }
    }
    let mut found = Found::default();
    module.visit(&mut found);
    found.0
}

/// The largest difference of two lists, and the largest value.
pub(crate) fn apart(ours: &[f32], theirs: &[f32]) -> (f32, f32) {
    assert_eq!(ours.len(), theirs.len());
    assert!(ours.iter().chain(theirs).all(|v| v.is_finite()));
    let worst = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs());
    let size = theirs.iter().map(|v| v.abs());
    (worst.fold(0.0, f32::max), size.fold(0.0, f32::max))
}

pub(crate) fn pixels(count: usize) -> Vec<f32> {
    let mut rng = ChaCha20Rng::from_seed([9; 32]);
    let one = |_| (rng.next_u32() >> 8) as f32 / (1u32 << 23) as f32 - 1.0;
    (0..count).map(one).collect()
}

#[test]
fn networks_make_the_embeddings_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let backbones = [
        Backbone::small(),
        Backbone::ResidualNetwork {
            blocks: [1, 1, 1, 1],
            bottleneck: true,
            width: 8,
        },
        Backbone::VisionTransformer {
            patch: 4,
            width: 32,
            depth: 2,
            heads: 2,
        },
    ];
    for backbone in backbones {
        let settings = Settings {
            input: Input::grey(28),
            backbone,
            heads: Heads {
                euclidean: 16,
                hyperbolic: Some(Hyperbolic::new(8)),
            },
        };
        let made = |device: &Device| {
            let mut rng = ChaCha20Rng::from_seed([3; 32]);
            let network = settings.build(device, &mut rng).unwrap().valid();
            let images = TensorData::new(pixels(6 * 28 * 28), [6, 1, 28, 28]);
            let made = network.forward(Tensor::from_data(images, device));
            [made.euclidean, made.hyperbolic.unwrap()]
                .map(|t| t.into_data().iter().collect::<Vec<f32>>())
        };
        let theirs = made(&cpu());
        for (ours, theirs) in made(gpu).iter().zip(&theirs) {
            let (worst, size) = apart(ours, theirs);
            assert!(worst < 1e-4 * size, "{settings:?}: {worst} of {size}");
        }
    }
}

/// Three steps of a loss on random images.
fn steps(device: &Device, loss: &str) -> (Trainer, Vec<(f64, f64)>) {
    let config = Config {
        parts: 1,
        // So large that an update follows the gradient and not its sign alone,
        // which rounding can turn.
        epsilon: 1e-2,
        ..config()
    };
    let mut trainer = trainer_on(device, config, loss, 4, 6);
    let images = TensorData::new(pixels(12 * 144), [12, 1, 12, 12]);
    let images = Tensor::<4>::from_data(images, device);
    let labels: Vec<usize> = (0..12).map(|row| row % 4).collect();
    let figures = (0..3)
        .map(|_| {
            let step = trainer.learn(images.clone(), &labels, 10).unwrap();
            (step.loss, step.gradient_norm)
        })
        .collect();
    (trainer, figures)
}

#[test]
fn steps_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    for loss in [
        "proxy-anchor",
        "soft-triple",
        "multi-similarity",
        "mpa-class-class",
        "hyperbolic-soft-triple",
        "chest",
    ] {
        let (ours, our_figures) = steps(gpu, loss);
        let (theirs, their_figures) = steps(&cpu(), loss);
        for ((value, norm), (cpu_value, cpu_norm)) in our_figures.iter().zip(&their_figures) {
            assert!(
                (value - cpu_value).abs() < 1e-4 * cpu_value,
                "{loss}: {value} {cpu_value}"
            );
            assert!(
                (norm - cpu_norm).abs() < 1e-3 * cpu_norm,
                "{loss}: {norm} {cpu_norm}"
            );
        }
        let ours = [parameters(ours.network()), parameters(ours.loss())].concat();
        let theirs = [parameters(theirs.network()), parameters(theirs.loss())].concat();
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let (worst, size) = apart(ours, theirs);
            assert!(worst <= 1e-3 * size.max(1e-2), "{loss}: {worst} of {size}");
        }
    }
}

/// Keeps the loss of every step.
#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn stepped(&mut self, progress: &Progress) {
        self.0.push(progress.loss);
    }
}

/// An epoch of the smallest network of `oboro learn train` over real images:
/// 25 steps.
#[test]
fn an_epoch_learns_as_it_does_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let garments = garments().unwrap();
    let settings = Settings {
        input: Input::grey(28),
        backbone: Backbone::Convolutional {
            channels: [16, 32, 64, 64],
        },
        heads: Heads {
            euclidean: 32,
            hyperbolic: None,
        },
    };
    let losses = |device: &Device| {
        let mut rng = ChaCha20Rng::from_seed([8; 32]);
        let network = settings.build(device, &mut rng).unwrap();
        let dimensions = Dimensions {
            euclidean: 32,
            hyperbolic: None,
        };
        let loss = losses::Settings::named("proxy-anchor").unwrap();
        let loss = loss.build(10, dimensions, device, &mut rng).unwrap();
        let config = Config {
            epochs: 1,
            classes: 10,
            items: 12,
            parts: 1,
            rate: 1e-3,
            epsilon: 1e-2,
            ..Config::default()
        };
        let mut trainer = Trainer::new(config, &network, &loss, device.clone()).unwrap();
        let mut losses = Losses::default();
        let never = AtomicBool::new(false);
        let outcome = trainer.run(&garments, None, &never, &mut losses).unwrap();
        assert_eq!((outcome.end, outcome.step), (End::Finished, 25));
        losses.0
    };
    let (ours, theirs) = (losses(gpu), losses(&cpu()));
    assert_eq!((ours.len(), theirs.len()), (25, 25));
    // Rounding grows from step to step.
    for (step, (ours, theirs)) in ours.iter().zip(&theirs).enumerate().take(10) {
        assert!(
            (ours - theirs).abs() < 1e-3 * theirs,
            "{step}: {ours} {theirs}"
        );
    }
    let sum = |of: &[f64]| of.iter().sum::<f64>();
    assert!(sum(&ours[20..]) < 0.9 * sum(&ours[..5]), "{ours:?}");
}

/// Sets the flag at a step.
struct StopAt<'a>(u64, &'a AtomicBool);

impl Observer for StopAt<'_> {
    fn stepped(&mut self, progress: &Progress) {
        self.1.store(progress.step == self.0, Ordering::Relaxed);
    }
}

#[test]
fn a_run_begun_on_the_gpu_goes_on_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let toy = Toy::new();
    let validation = Validation {
        dataset: &toy.test,
        score: Score::Cosine,
        metric: Metric::RecallAt1,
        watched: Watched::Validation,
    };
    for places in [[gpu, &cpu()], [&cpu(), gpu]] {
        let folder = tempfile::tempdir().unwrap();
        let run = |device: &Device, stop: u64| {
            let config = Config {
                epochs: 3,
                ..config()
            };
            let cancel = AtomicBool::new(false);
            let trainer = trainer_on(device, config, "chest", 1, 6);
            let mut trainer = if stop < u64::MAX {
                trainer.into_folder(folder.path()).unwrap()
            } else {
                trainer.resume(folder.path()).unwrap()
            };
            let observer = &mut StopAt(stop, &cancel);
            let outcome = trainer.run(&toy.train, Some(&validation), &cancel, observer);
            (trainer, outcome.unwrap())
        };
        let (_, begun) = run(places[0], 13);
        assert_eq!((begun.end, begun.step), (End::Interrupted, 13));
        let (trainer, ended) = run(places[1], u64::MAX);
        assert_eq!((ended.end, ended.step), (End::Finished, 30));
        assert!(ended.best.unwrap().figure > 0.9, "{:?}", ended.best);

        // What it learned is the same on both.
        let never = AtomicBool::new(false);
        let bytes = trainer.network().to_bytes().unwrap();
        let [ours, theirs] = [gpu, &cpu()].map(|device| {
            let network = oboro_learn::model::Network::from_bytes(&bytes, device).unwrap();
            let options = Options {
                batch: 7,
                ..Options::default()
            };
            embed(&network, &toy.test, &options, &never, |_| {}).unwrap()
        });
        assert_eq!(ours.labels, theirs.labels);
        let (worst, size) = apart(ours.euclidean.data(), theirs.euclidean.data());
        assert!(worst < 1e-4 * size, "{worst} of {size}");
        let [ours, theirs] = [ours, theirs].map(|of| of.hyperbolic.unwrap());
        let (worst, size) = apart(ours.data(), theirs.data());
        assert!(worst < 1e-4 * size, "{worst} of {size}");
    }
}
