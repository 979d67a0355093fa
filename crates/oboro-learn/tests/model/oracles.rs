//! Networks against torch, torchvision and timm.

use crate::common::*;
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use oboro_learn::backend::{cpu, cpu_autodiff};
use oboro_learn::data::Input;
use oboro_learn::model::{Backbone, Heads, Network, Settings, load_weights};
use serde_json::Value;
use std::collections::BTreeMap;

fn agrees(name: &str, file: &str) {
    let fixture = fixture();
    let case = &fixture["cases"][name];
    let settings = settings(case);
    let mut network = settings.build(&cpu(), &mut rng(1)).unwrap();
    let before = network.to_bytes().unwrap();
    let loaded = load_weights(&mut network, &folder().join(file)).unwrap();
    assert!(loaded.tensors > 10, "{loaded:?}");
    assert_ne!(network.to_bytes().unwrap(), before);
    let features = network.features(images(case, &cpu()));
    close(name, &list(features), &numbers(&case["features"]), 1e-5);

    // One step of training.
    let mut network = settings.build(&cpu_autodiff(), &mut rng(2)).unwrap();
    load_weights(&mut network, &folder().join(file)).unwrap();
    let features = network.features(images(case, &cpu_autodiff()));
    let count = features.dims()[1];
    let expected = numbers(&case["training_features"]);
    close(name, &list(features.clone()), &expected, 1e-4);
    let weights = TensorData::new(values(count), [1, count]);
    let weights = Tensor::<2>::from_data(weights, &cpu_autodiff());
    let gradients = (features * weights).sum().backward();
    let mut named = Named {
        path: Vec::new(),
        gradients: &gradients,
        lengths: BTreeMap::new(),
        values: BTreeMap::new(),
    };
    network.visit(&mut named);
    let lengths = case["gradient_lengths"].as_object().unwrap();
    let largest = lengths.values().map(|v| v.as_f64().unwrap());
    let largest = largest.fold(0.0, f64::max);
    for (tensor, length) in lengths {
        let length = length.as_f64().unwrap();
        let own = named.lengths[tensor];
        assert!(
            (own - length).abs() <= 1e-3 * length + 1e-5 * largest,
            "{name}, gradient of {tensor}: {own} is not {length}"
        );
    }
    // A copy that stands still has the last update.
    let mut named = Named {
        path: Vec::new(),
        gradients: &gradients,
        lengths: BTreeMap::new(),
        values: BTreeMap::new(),
    };
    network.valid().visit(&mut named);
    for (tensor, expected) in case["running"].as_object().unwrap() {
        close(tensor, &named.values[tensor], &numbers(expected), 1e-4);
    }
}

#[test]
fn a_residual_network_is_torchvisions() {
    agrees("basic", "basic.safetensors");
}

#[test]
fn a_bottleneck_network_is_torchvisions_from_a_pytorch_checkpoint() {
    agrees("bottleneck", "bottleneck.pth");
}

#[test]
fn a_transformer_is_timms() {
    agrees("transformer", "transformer.safetensors");
}

#[test]
fn the_convolutional_network_is_torchs_from_onnx() {
    agrees("convolutional", "convolutional.onnx");
}

#[test]
fn half_precision_weights_are_widened() {
    let fixture = fixture();
    let case = &fixture["cases"]["transformer"];
    let mut network = settings(case).build(&cpu(), &mut rng(1)).unwrap();
    load_weights(&mut network, &folder().join("transformer_half.safetensors")).unwrap();
    let features = network.features(images(case, &cpu()));
    close("half", &list(features), &numbers(&case["features"]), 2e-3);
}

#[test]
fn both_heads_are_torchs_and_geoopts() {
    let fixture = fixture();
    let case = &fixture["cases"]["convolutional"];
    let bytes = std::fs::read(folder().join("whole.safetensors")).unwrap();
    let network = Network::from_bytes(&bytes, &cpu()).unwrap();
    assert_eq!(*network.settings(), settings(case));
    let made = network.forward(images(case, &cpu()));
    close(
        "e",
        &list(made.euclidean),
        &numbers(&case["euclidean"]),
        1e-5,
    );
    let z = list(made.hyperbolic.unwrap());
    close("z", &z, &numbers(&case["hyperbolic"]), 1e-5);
}

#[test]
fn weights_of_a_saved_network_are_a_backbones() {
    let fixture = fixture();
    let case = &fixture["cases"]["convolutional"];
    let mut settings = settings(case);
    settings.heads = Heads {
        euclidean: 2,
        hyperbolic: None,
    };
    let mut network = settings.build(&cpu(), &mut rng(1)).unwrap();
    let loaded = load_weights(&mut network, &folder().join("whole.safetensors")).unwrap();
    assert_eq!(loaded.unused.len(), 4, "{loaded:?}");
    let features = network.features(images(case, &cpu()));
    close(
        "features",
        &list(features),
        &numbers(&case["features"]),
        1e-5,
    );
}

/// The names and shapes in the header of a safetensors file.
fn header(bytes: &[u8]) -> BTreeMap<String, Vec<usize>> {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, tensor)| (name.clone(), sizes(&tensor["shape"])))
        .collect()
}

#[test]
fn full_networks_have_the_tensors_of_published_weights() {
    let fixture = fixture();
    for (name, backbone, classifier) in [
        ("resnet18", Backbone::resnet18(), "fc."),
        ("resnet50", Backbone::resnet50(), "fc."),
        ("vit_s16", Backbone::vit_s16(), "head."),
    ] {
        let settings = Settings {
            input: Input::imagenet(224),
            backbone,
            heads: Heads {
                euclidean: 1,
                hyperbolic: None,
            },
        };
        let network = settings.build(&cpu(), &mut rng(1)).unwrap();
        let own: BTreeMap<String, Vec<usize>> = header(&network.to_bytes().unwrap())
            .into_iter()
            .filter_map(|(name, shape)| Some((name.strip_prefix("backbone.")?.to_owned(), shape)))
            .collect();
        let published: BTreeMap<String, Vec<usize>> = fixture["full"][name]
            .as_object()
            .unwrap()
            .iter()
            .filter(|(name, _)| !name.starts_with(classifier))
            .map(|(name, shape)| (name.clone(), sizes(shape)))
            .collect();
        assert_eq!(own, published, "{name}");
        let running = own
            .iter()
            .filter(|(name, _)| name.contains(".running_"))
            .map(|(_, shape)| shape[0] as u64)
            .sum::<u64>();
        let trainable = own
            .values()
            .map(|shape| shape.iter().product::<usize>() as u64)
            .sum::<u64>()
            - running;
        let head = settings.backbone.features() as u64 + 1;
        assert_eq!(settings.parameters(), trainable + head, "{name}");
    }
}
