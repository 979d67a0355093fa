//! What networks give, and that they are saved and come back.

use crate::common::*;
use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use oboro_learn::backend::{cpu, cpu_autodiff};
use oboro_learn::model::{Backbone, MadeFor, Network, weights_made_for};
use std::collections::BTreeMap;

#[test]
fn any_size_and_number_of_channels_gives_points_where_they_belong() {
    for (side, channels) in [(8, 1), (28, 1), (28, 3), (33, 3), (64, 1)] {
        let settings = small(side, channels);
        let network = settings.build(&cpu(), &mut rng(3)).unwrap();
        let shape = [2, channels, side, side];
        let data = TensorData::new(values(shape.iter().product()), shape);
        let made = network.forward(Tensor::from_data(data, &cpu()));
        assert_eq!(made.euclidean.dims(), [2, 6]);
        for row in list(made.euclidean).chunks(6) {
            let length: f64 = row.iter().map(|v| v * v).sum();
            assert!((length - 1.0).abs() < 1e-5);
        }
        let hyperbolic = made.hyperbolic.unwrap();
        assert_eq!(hyperbolic.dims(), [2, 4]);
        for row in list(hyperbolic).chunks(4) {
            let length: f64 = row.iter().map(|v| v * v).sum();
            assert!(0.1 * length < (0.1f64.sqrt() * 2.3).tanh().powi(2) + 1e-5);
        }
    }
}

#[test]
fn a_blank_feature_has_finite_gradients() {
    // A network of zeros: both heads see nothing but their bias of zero.
    let mut settings = small(8, 1);
    settings.backbone = Backbone::Convolutional { channels: [1; 4] };
    let device = cpu_autodiff();
    let network = settings.build(&device, &mut rng(3)).unwrap();
    let made = network.forward(Tensor::zeros([2, 1, 8, 8], &device));
    let gradients = (made.euclidean.sum() + made.hyperbolic.unwrap().sum()).backward();
    let mut named = Named {
        path: Vec::new(),
        gradients: &gradients,
        lengths: BTreeMap::new(),
        values: BTreeMap::new(),
    };
    network.visit(&mut named);
    assert!(!named.lengths.is_empty());
    assert!(named.lengths.values().all(|length| length.is_finite()));
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let build = |seed| small(28, 1).build(&cpu(), &mut rng(seed)).unwrap();
    let first = build(1).to_bytes().unwrap();
    assert_eq!(first, build(1).to_bytes().unwrap());
    assert_ne!(first, build(2).to_bytes().unwrap());
    // burn's record holds the parameters' identities too.
    let record = |seed| build(seed).into_record().into_bytes().unwrap().to_vec();
    assert_eq!(record(1), record(1));
}

#[test]
fn a_saved_network_comes_back_bit_for_bit() {
    let network = small(28, 3).build(&cpu_autodiff(), &mut rng(1)).unwrap();
    let shape = [4, 3, 28, 28];
    let data = TensorData::new(values(shape.iter().product()), shape);
    let batch = Tensor::from_data(data, &cpu_autodiff());
    // Running statistics move.
    let before = network.to_bytes().unwrap();
    let _ = network.forward(batch);
    let bytes = network.to_bytes().unwrap();
    assert_ne!(bytes, before);
    let again = Network::from_bytes(&bytes, &cpu()).unwrap();
    assert_eq!(again.to_bytes().unwrap(), bytes);
    let mut other = small(28, 3).build(&cpu_autodiff(), &mut rng(2)).unwrap();
    other.restore(&bytes).unwrap();
    assert_eq!(other.to_bytes().unwrap(), bytes);
    // What was restored can be trained on.
    let data = TensorData::new(values(shape.iter().product()), shape);
    let made = other.forward(Tensor::from_data(data, &cpu_autodiff()));
    let gradients = made.euclidean.sum().backward();
    let mut named = Named {
        path: Vec::new(),
        gradients: &gradients,
        lengths: BTreeMap::new(),
        values: BTreeMap::new(),
    };
    other.visit(&mut named);
    assert_eq!(named.lengths.len(), 4 * 3 + 2);
}

#[test]
fn files_of_weights_say_which_images_they_are_for() {
    for (file, channels) in [
        ("basic.safetensors", 3),
        ("bottleneck.pth", 3),
        ("transformer.safetensors", 3),
        ("convolutional.onnx", 1),
    ] {
        let found = weights_made_for(&folder().join(file)).unwrap();
        assert_eq!(found, MadeFor::Channels(channels), "{file}");
    }
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("network.safetensors");
    for channels in [1, 3] {
        let mut settings = small(16, channels);
        settings.input.mean[0] = 0.25;
        let network = settings.build(&cpu(), &mut rng(3)).unwrap();
        std::fs::write(&path, network.to_bytes().unwrap()).unwrap();
        let found = weights_made_for(&path).unwrap();
        assert_eq!(found, MadeFor::Input(settings.input));
    }
    // Truncated anywhere: an error, or what a whole header says.
    let bytes = std::fs::read(&path).unwrap();
    for length in (0..bytes.len().min(3000)).step_by(17) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        if let Ok(found) = weights_made_for(&path) {
            assert!(matches!(found, MadeFor::Input(_)), "{length}: {found:?}");
        }
    }
}
