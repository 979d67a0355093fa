//! A small set of images and a small network to train on it.

#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use burn::module::Module;
use chacha20::ChaCha20Rng;
use oboro_learn::backend::{Device, cpu};
use oboro_learn::data::{Dataset, Input, OnBad, Testing, idx};
use oboro_learn::losses::{Dimensions, Settings};
use oboro_learn::model;
use oboro_learn::train::{Config, Trainer};
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const SIDE: usize = 12;
const CLASSES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Noisy patterns, one a class.
pub struct Toy {
    pub train: Dataset,
    pub test: Dataset,
}

impl Toy {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = ChaCha20Rng::from_seed([5; 32]);
        let patterns: Vec<Vec<u8>> = CLASSES
            .iter()
            .map(|_| {
                (0..SIDE * SIDE / 9)
                    .map(|_| (rng.next_u32() % 160) as u8)
                    .collect()
            })
            .collect();
        for (name, items) in [("train", 20), ("t10k", 6)] {
            let mut labels = Vec::new();
            let mut pixels = Vec::new();
            for item in 0..items * CLASSES.len() {
                let class = item % CLASSES.len();
                labels.push(class as u8);
                for row in 0..SIDE {
                    for column in 0..SIDE {
                        // Squares of three by three pixels.
                        let cell = patterns[class][row / 3 * (SIDE / 3) + column / 3];
                        pixels.push(cell + (rng.next_u32() % 90) as u8);
                    }
                }
            }
            let count = labels.len() as u32;
            let mut file = vec![0, 0, 8, 1];
            file.extend(count.to_be_bytes());
            file.extend(labels);
            fs::write(
                folder.path().join(format!("{name}-labels-idx1-ubyte")),
                file,
            )
            .unwrap();
            let mut file = vec![0, 0, 8, 3];
            file.extend(count.to_be_bytes());
            file.extend((SIDE as u32).to_be_bytes());
            file.extend((SIDE as u32).to_be_bytes());
            file.extend(pixels);
            fs::write(
                folder.path().join(format!("{name}-images-idx3-ubyte")),
                file,
            )
            .unwrap();
        }
        let split = idx(folder.path(), &CLASSES, OnBad::Fail).unwrap();
        let Testing::Together(test) = split.testing else {
            panic!("one test set");
        };
        Self {
            train: split.train,
            test,
        }
    }
}

/// Twenty batches of four classes with three items take two epochs.
pub fn config() -> Config {
    Config {
        classes: 4,
        items: 3,
        rate: 1e-3,
        ..Config::default()
    }
}

pub fn trainer(config: Config, loss: &str, seed: u8) -> Trainer {
    trainer_of(config, loss, seed, CLASSES.len())
}

pub fn trainer_of(config: Config, loss: &str, seed: u8, classes: usize) -> Trainer {
    trainer_on(&cpu(), config, loss, seed, classes)
}

pub fn trainer_on(
    device: &Device,
    config: Config,
    loss: &str,
    seed: u8,
    classes: usize,
) -> Trainer {
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let settings = model::Settings {
        input: Input::grey(SIDE),
        backbone: model::Backbone::Convolutional {
            channels: [8, 8, 16, 16],
        },
        heads: model::Heads {
            euclidean: 8,
            hyperbolic: Some(model::Hyperbolic::new(4)),
        },
    };
    let network = settings.build(device, &mut rng).unwrap();
    let dimensions = Dimensions {
        euclidean: 8,
        hyperbolic: Some(4),
    };
    let chosen = Settings::named(loss).unwrap();
    let loss_module = chosen.build(classes, dimensions, device, &mut rng).unwrap();
    let _ = loss_module.num_params();
    Trainer::new(config, &network, &loss_module, device.clone())
        .unwrap()
        .describe(serde_json::json!({ "loss": loss }))
}

/// Every file of a folder.
pub fn bytes_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        })
        .collect()
}
