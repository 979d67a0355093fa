//! Seeds for what `oboro learn` reads.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::Seeds;
use crate::learn;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!(
            "../../../../crates/oboro-learn/tests/fixtures/",
            $name
        ))
    };
}

const RECIPE: &str = r#"
[network]
input = { channels = 1, side = 8, enlarge = 1.0, mean = [0.5], deviation = [0.5] }
backbone = { kind = "vision-transformer", patch = 4, width = 4, depth = 1, heads = 2 }
heads = { euclidean = 3, hyperbolic = { dims = 2, curvature = 0.1, clip = 2.3 } }

[loss]
loss = "sum"

[[loss.terms]]
weight = 1.0
of = { loss = "chest", per_class = 2 }

[[loss.terms]]
weight = 0.5
of = { loss = "hier", ancestors = 8, over_ancestors = true }

[training]
epochs = 2
classes = 5
items = 4
rate = 1e-3
"#;

fn kind(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}

pub(super) fn all(seeds: &mut Seeds) {
    let images = [0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 2, 3, 4];
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&images).expect("memory can be written");
    let packed = packed.finish().expect("memory can be written");
    let cifar = |labels: usize| {
        let mut bytes = vec![1; labels];
        bytes.extend((0..3072).map(|at| (at % 251) as u8));
        bytes
    };
    let list = b"1 a/1.png\n2 b/2.png\n1 1\n2 2\na/1.png id train\nb/2.png id query\n1 1 1 a\n";
    seeds.push(("learn_sets", kind(0, fixture!("cars_annos_small.mat"))));
    seeds.push(("learn_sets", kind(1, &images)));
    seeds.push(("learn_sets", kind(2, &packed)));
    seeds.push(("learn_sets", kind(3, &cifar(1))));
    seeds.push(("learn_sets", kind(4, &cifar(2))));
    seeds.push(("learn_sets", kind(5, list)));
    seeds.push(("learn_images", include_bytes!("image.png").to_vec()));
    seeds.push(("learn_images", include_bytes!("image.jpg").to_vec()));
    seeds.push(("learn_weights", kind(0, &learn::saved_network())));
    seeds.push((
        "learn_weights",
        kind(2, fixture!("networks/convolutional.onnx")),
    ));
    // What torch.save makes, now and before its version 1.6.
    seeds.push(("learn_weights", kind(1, include_bytes!("zipped.pth"))));
    seeds.push(("learn_weights", kind(1, include_bytes!("plain.pth"))));
    let [manifest, network, state] = learn::checkpoint_files();
    seeds.push(("learn_checkpoint", kind(0, manifest)));
    let line = manifest.split(|&byte| byte == b'\n').next();
    seeds.push(("learn_checkpoint", kind(1, line.unwrap_or_default())));
    seeds.push(("learn_checkpoint", kind(2, network)));
    seeds.push(("learn_checkpoint", kind(3, state)));
    seeds.push(("learn_recipe", RECIPE.as_bytes().to_vec()));
}
