//! Loads weights into a backbone and times it; `scripts/peers/backbones.py`
//! writes weights and gives torch's time and features for the same images.
//!
//! `cargo run --release -p oboro-learn --example backbones NAME [WEIGHTS]`
//!
//! Names: small, resnet18, resnet50, vit-s16.

use burn::tensor::{Tensor, TensorData};
use chacha20::ChaCha20Rng;
use oboro_learn::backend::cpu;
use oboro_learn::data::Input;
use oboro_learn::model::{Backbone, Heads, Settings, load_weights};
use rand_core::SeedableRng;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, weights) = match arguments.as_slice() {
        [name] => (name, None),
        [name, weights] => (name, Some(weights)),
        _ => return Err("give a backbone and, if there is one, a file of weights".into()),
    };
    let (input, batch, backbone) = match name.as_str() {
        "small" => (Input::grey(28), 128, Backbone::small()),
        "resnet18" => (Input::imagenet(224), 8, Backbone::resnet18()),
        "resnet50" => (Input::imagenet(224), 8, Backbone::resnet50()),
        "vit-s16" => (Input::imagenet(224), 8, Backbone::vit_s16()),
        other => return Err(format!("there is no backbone named {other}").into()),
    };
    let heads = Heads {
        euclidean: 128,
        hyperbolic: None,
    };
    let settings = Settings {
        input,
        backbone,
        heads,
    };
    let mut network = settings.build(&cpu(), &mut ChaCha20Rng::from_seed([1; 32]))?;
    println!("{name}: {} parameters", settings.parameters());
    if let Some(weights) = weights {
        let start = Instant::now();
        let loaded = load_weights(&mut network, Path::new(weights))?;
        println!(
            "{} tensors loaded, {} not used, in {:.2} s",
            loaded.tensors,
            loaded.unused.len(),
            start.elapsed().as_secs_f64()
        );
    }
    let shape = [
        batch,
        settings.input.channels,
        settings.input.side,
        settings.input.side,
    ];
    let images: Vec<f32> = (0..shape.iter().product())
        .map(|i| (((i * 7919 + i / 97 * 131) % 1009) as f64 / 504.5 - 1.0) as f32)
        .collect();
    let images = Tensor::<4>::from_data(TensorData::new(images, shape), &cpu());
    let mut times = Vec::new();
    let mut features = Vec::new();
    for _ in 0..7 {
        let start = Instant::now();
        let made = network.features(images.clone()).into_data();
        times.push(start.elapsed().as_secs_f64() * 1e3);
        features = made.iter::<f32>().take(3).collect();
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{batch} images in {:.0} ms (median of {}; best {:.0})",
        times[times.len() / 2],
        times.len(),
        times[0]
    );
    println!("first features {features:?}");
    Ok(())
}
