//! Times training steps of the small network: four convolutions of 64 to 128
//! channels, batches of 128 images of 28 x 28 pixels, Proxy Anchor.
//!
//! `cargo run --release -p oboro-learn --features avx512 --example step_rate [steps] [parts] [threads] [device]`
//!
//! Prints milliseconds, one step a line. `scripts/bench_step.py` runs it in
//! turn with the same step in PyTorch.

use burn::tensor::{Tensor, TensorData};
use chacha20::ChaCha20Rng;
use oboro_learn::backend::{Place, name};
use oboro_learn::data::Input;
use oboro_learn::losses::{Dimensions, Settings};
use oboro_learn::model;
use oboro_learn::train::{Config, Trainer};
use rand_core::{Rng, SeedableRng};
use std::time::Instant;

const CLASSES: usize = 32;
const BATCH: usize = 128;
const SIDE: usize = 28;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| match arguments.next() {
        Some(text) => text.parse(),
        None => Ok(default),
    };
    let (steps, parts, threads) = (number(20)?, number(2)?, number(2)?);
    let place: Place = std::env::args()
        .nth(4)
        .as_deref()
        .unwrap_or("cpu")
        .parse()?;
    let device = place.open()?;
    eprintln!("{place}: {}", name(&device));
    // What runs on whole batches uses the global pool.
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()?;
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let network = model::Settings {
        input: Input::grey(SIDE),
        backbone: model::Backbone::small(),
        heads: model::Heads {
            euclidean: 128,
            hyperbolic: None,
        },
    }
    .build(&device, &mut rng)?;
    let dimensions = Dimensions {
        euclidean: 128,
        hyperbolic: None,
    };
    let loss = Settings::named("proxy-anchor")?.build(CLASSES, dimensions, &device, &mut rng)?;
    let config = Config {
        classes: CLASSES,
        items: BATCH / CLASSES,
        parts,
        ..Config::default()
    };
    let mut trainer =
        Trainer::new(config, &network, &loss, device.clone())?.with_threads(threads)?;
    let pixels = (0..BATCH * SIDE * SIDE).map(|_| (rng.next_u32() >> 8) as f32 / (1 << 24) as f32);
    let images = TensorData::new(pixels.collect(), [BATCH, 1, SIDE, SIDE]);
    let images = Tensor::from_data(images, &device);
    let labels: Vec<usize> = (0..BATCH).map(|row| row % CLASSES).collect();
    for _ in 0..steps {
        let start = Instant::now();
        trainer.learn(images.clone(), &labels, 1_000)?;
        println!("{:.2}", start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(())
}
