//! What `oboro learn` reads: sets of images, weights, checkpoints, recipes.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use chacha20::ChaCha20Rng;
use oboro_learn::backend::cpu;
use oboro_learn::data::{self, ImageLimits, Input, OnBad, garments};
use oboro_learn::losses::{AnyLoss, Dimensions, Settings as Loss};
use oboro_learn::model::{
    Backbone, Heads, Hyperbolic, Network, Settings, load_weights, weights_made_for,
};
use oboro_learn::train::{Checkpoint, Config, NETWORK, Trainer};
use rand_core::SeedableRng;

/// A manifest's name, and that of the tensors of a training.
const MANIFEST: &str = "MANIFEST";
const STATE: &str = "state.safetensors";

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([7; 32])
}

fn write(path: impl AsRef<Path>, bytes: &[u8]) {
    fs::write(path, bytes).expect("a temporary file can be written");
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A file of a set of images; the first byte says which.
pub fn sets(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let root = folder();
    let at = |name: &str| root.path().join(name);
    let labels = [0, 0, 8, 1, 0, 0, 0, 2, 0, 1];
    let image = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9];
    let split = match kind % 6 {
        0 => {
            write(at("cars_annos.mat"), bytes);
            data::cars(root.path(), OnBad::Skip)
        }
        1 | 2 => {
            let ending = if kind % 6 == 1 { "" } else { ".gz" };
            write(at(&format!("train-images-idx3-ubyte{ending}")), bytes);
            write(at("train-labels-idx1-ubyte"), &labels);
            write(at("t10k-images-idx3-ubyte"), &image);
            write(at("t10k-labels-idx1-ubyte"), &labels);
            data::idx(root.path(), &["a", "b"], OnBad::Skip)
        }
        3 => {
            for name in 1..=5 {
                write(at(&format!("data_batch_{name}.bin")), bytes);
            }
            write(at("test_batch.bin"), bytes);
            data::cifar(root.path(), OnBad::Skip)
        }
        4 => {
            write(at("train.bin"), bytes);
            write(at("test.bin"), bytes);
            data::cifar(root.path(), OnBad::Skip)
        }
        _ => {
            for list in ["classes.txt", "image_class_labels.txt", "images.txt"] {
                write(at(list), bytes);
            }
            write(at("list_eval_partition.txt"), bytes);
            write(at("Ebay_train.txt"), bytes);
            write(at("Ebay_test.txt"), bytes);
            let _ = data::in_shop(root.path(), OnBad::Skip);
            let _ = data::sop(root.path(), OnBad::Skip);
            data::cub(root.path(), OnBad::Skip)
        }
    };
    if let Ok(split) = split {
        let set = split.train;
        let classes = set.classes().len() as u32;
        assert!(set.labels().iter().all(|&label| label < classes));
        if kind % 6 != 0 && kind % 6 != 5 {
            let image = set.image(0, &ImageLimits::default());
            let image = image.expect("an image in memory");
            let pixels = image.width as usize * image.height as usize;
            assert_eq!(image.data.len(), pixels * usize::from(image.channels));
        }
    }
}

/// An image, and one as a network takes it.
pub fn images(bytes: &[u8]) {
    let root = folder();
    let path = root.path().join("image");
    write(&path, bytes);
    let limits = ImageLimits {
        side: 512,
        bytes: 4 << 20,
    };
    if let Ok(image) = data::decode(&path, &limits) {
        let pixels = image.width as usize * image.height as usize;
        assert_eq!(image.data.len(), pixels * usize::from(image.channels));
        let input = Input::grey(8);
        let values = input.prepare(image);
        assert!(values.len() == input.values() && values.iter().all(|v| v.is_finite()));
    }
}

fn settings() -> Settings {
    Settings {
        input: Input::grey(8),
        backbone: Backbone::Convolutional {
            channels: [2, 2, 2, 3],
        },
        heads: Heads {
            euclidean: 3,
            hyperbolic: Some(Hyperbolic::new(2)),
        },
    }
}

fn network(saved: &[u8]) -> Network {
    Network::from_bytes(saved, &cpu()).expect("a saved network")
}

/// The networks that weights are put into, saved.
fn networks() -> &'static [Vec<u8>] {
    static NETWORKS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    NETWORKS.get_or_init(|| {
        let residual = Settings {
            input: Input::colour(32),
            backbone: Backbone::ResidualNetwork {
                blocks: [1; 4],
                bottleneck: false,
                width: 2,
            },
            ..settings()
        };
        [settings(), residual]
            .iter()
            .map(|settings| {
                let network = settings.build(&cpu(), &mut rng());
                let network = network.expect("settings in range");
                network.to_bytes().expect("a network of the CPU")
            })
            .collect()
    })
}

/// The network of the seeds, saved.
#[must_use]
pub fn saved_network() -> Vec<u8> {
    networks()[0].clone()
}

/// A file of weights; the first byte says of which kind.
pub fn weights(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let extension = ["safetensors", "pth", "onnx"][usize::from(*kind) % 3];
    let root = folder();
    let path = root.path().join(format!("weights.{extension}"));
    write(&path, bytes);
    let _ = weights_made_for(&path);
    for before in networks() {
        // No clone: those share the running statistics.
        let mut network = network(before);
        if load_weights(&mut network, &path).is_err() {
            let after = network.to_bytes().expect("a network of the CPU");
            assert!(
                &after == before,
                "weights that do not fit changed a network"
            );
        }
    }
    if let Ok(network) = Network::from_bytes(bytes, &cpu()) {
        network.to_bytes().expect("a network of the CPU");
    }
}

fn loss() -> AnyLoss {
    let dimensions = Dimensions {
        euclidean: 3,
        hyperbolic: Some(2),
    };
    let loss = Loss::named("proxy-anchor").expect("a loss of this name");
    loss.build(10, dimensions, &cpu(), &mut rng())
        .expect("settings in range")
}

fn config() -> Config {
    Config {
        classes: 2,
        items: 2,
        ..Config::default()
    }
}

fn trainer(config: Config) -> Option<Trainer> {
    Trainer::new(config, &network(&networks()[0]), &loss(), cpu()).ok()
}

/// The three files of a checkpoint: manifest, network, state.
#[must_use]
pub fn checkpoint_files() -> &'static [Vec<u8>; 3] {
    static FILES: OnceLock<[Vec<u8>; 3]> = OnceLock::new();
    FILES.get_or_init(|| {
        let root = folder();
        let trainer = trainer(config()).expect("settings in range");
        let mut trainer = trainer.into_folder(root.path()).expect("an empty folder");
        let images = garments().expect("the images of this crate");
        let at_once = AtomicBool::new(true);
        trainer
            .run(&images, None, &at_once, &mut ())
            .expect("a training that is stopped at once");
        let found = Checkpoint::latest(root.path()).expect("a folder of a run");
        let found = found.expect("a checkpoint");
        let read = |name: &str| fs::read(found.join(name)).expect("a file of a checkpoint");
        [read(MANIFEST), read(NETWORK), read(STATE)]
    })
}

/// A line with its hash below it, as a manifest is.
fn sealed(line: &[u8]) -> Vec<u8> {
    let hash = blake3::hash(line).to_hex();
    [line, b"\n", hash.as_bytes(), b"\n"].concat()
}

/// A checkpoint of which one file is given; the first byte says which: a
/// manifest as it is, or its first line, which gets its hash, or the network,
/// or the state, which the manifest is made to fit.
pub fn checkpoint(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let [manifest, network, state] = checkpoint_files();
    let entry = |bytes: &[u8]| {
        serde_json::json!({
            "bytes": bytes.len(),
            "blake3": blake3::hash(bytes).to_hex().to_string(),
        })
    };
    let fitting = |name: &str| {
        let line = manifest.split(|&byte| byte == b'\n').next();
        let line = line.expect("a line of a manifest");
        let mut json: serde_json::Value = serde_json::from_slice(line).expect("a manifest");
        json[name] = entry(bytes);
        sealed(json.to_string().as_bytes())
    };
    let files: [&[u8]; 3] = match kind % 4 {
        0 => [bytes, network, state],
        1 => [&sealed(bytes), network, state],
        2 => [&fitting("network"), bytes, state],
        _ => [&fitting("state"), network, bytes],
    };
    let root = folder();
    let run = root.path().join("run");
    let step = run.join("step-00000000");
    fs::create_dir_all(&step).expect("a folder in a temporary one");
    for (name, bytes) in [MANIFEST, NETWORK, STATE].iter().zip(files) {
        write(step.join(name), bytes);
    }
    let Ok(read) = Checkpoint::read(&step) else {
        return;
    };
    let _ = Checkpoint::best_of(&run);
    let _ = read.restore_loss(loss());
    let _ = Network::from_bytes(read.network(), &cpu());
    if let Some(trainer) = trainer(config()) {
        let _ = trainer.resume(&run);
    }
}

/// The tables of a recipe, and what they are the settings of.
pub fn recipe(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(table) = toml::from_str::<toml::Table>(text) else {
        return;
    };
    let dimensions = Dimensions {
        euclidean: 3,
        hyperbolic: Some(2),
    };
    if let Some(value) = table.get("network")
        && let Ok(settings) = value.clone().try_into::<Settings>()
        && settings.parameters() < 20_000
    {
        let _ = settings.build(&cpu(), &mut rng());
    }
    if let Some(value) = table.get("training")
        && let Ok(config) = value.clone().try_into::<Config>()
    {
        let _ = trainer(config);
    }
    // Few enough proxies that a fuzzer's memory lasts.
    if let Some(value) = table.get("loss")
        && !has_large_number(value)
        && let Ok(loss) = value.clone().try_into::<Loss>()
    {
        let _ = loss.build(3, dimensions, &cpu(), &mut rng());
    }
}

fn has_large_number(value: &toml::Value) -> bool {
    match value {
        toml::Value::Integer(number) => (10_000..i64::MAX / 2).contains(number),
        toml::Value::Array(values) => values.iter().any(has_large_number),
        toml::Value::Table(values) => values.values().any(has_large_number),
        _ => false,
    }
}
