//! Networks against torch, torchvision and timm; fixtures written by
//! `scripts/oracles/make_network_fixtures.py`.
#![allow(clippy::unwrap_used)]

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use chacha20::ChaCha20Rng;
use oboro_learn::backend::{cpu, cpu_autodiff};
use oboro_learn::data::Input;
use oboro_learn::model::{
    Backbone, Heads, Hyperbolic, Loaded, Mismatch, Network, Settings, load_weights,
};
use oboro_learn::{LearnError, model};
use rand_core::SeedableRng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/networks")
}

fn fixture() -> Value {
    let text = std::fs::read_to_string(folder().join("networks.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap().iter();
    list.map(|v| v.as_f64().unwrap()).collect()
}

fn sizes(value: &Value) -> Vec<usize> {
    numbers(value).iter().map(|&v| v as usize).collect()
}

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn settings(case: &Value) -> Settings {
    serde_json::from_value(case["settings"].clone()).unwrap()
}

/// The script's images.
fn values(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 7919 + i / 97 * 131) % 1009) as f64 / 504.5 - 1.0)
        .map(|v| v as f32)
        .collect()
}

fn images(case: &Value, device: &Device) -> Tensor<4> {
    let shape: [usize; 4] = sizes(&case["images"]).try_into().unwrap();
    let data = TensorData::new(values(shape.iter().product()), shape);
    Tensor::from_data(data, device)
}

fn list<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

#[track_caller]
fn close(what: &str, actual: &[f64], expected: &[f64], relative: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    let worst = actual
        .iter()
        .zip(expected)
        .map(|(a, e)| (a - e).abs() / scale)
        .fold(0.0, f64::max);
    assert!(worst <= relative, "{what} is off by {worst}");
}

/// Lengths of gradients and values of running statistics, by torch's names.
struct Named<'a> {
    path: Vec<String>,
    gradients: &'a burn::tensor::Gradients,
    lengths: BTreeMap<String, f64>,
    values: BTreeMap<String, Vec<f64>>,
}

impl ModuleVisitor for Named<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        let name = match name {
            "gamma" => "weight",
            "beta" => "bias",
            name => name,
        };
        self.path.push(name.to_owned());
        if container.starts_with("Enum:") {
            self.path.pop();
            self.path.push(String::new());
        }
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let parts: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let name = parts
            .into_iter()
            .filter(|part| !part.is_empty() && *part != "backbone")
            .collect::<Vec<_>>()
            .join(".");
        if let Some(gradient) = param.val().grad(self.gradients) {
            let length: f64 = list(gradient).iter().map(|v| v * v).sum();
            self.lengths.insert(name.clone(), length.sqrt());
        }
        self.values.insert(name, list(param.val()));
    }
}

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

fn small(side: usize, channels: usize) -> Settings {
    Settings {
        input: match channels {
            1 => Input::grey(side),
            _ => Input::colour(side),
        },
        backbone: Backbone::Convolutional {
            channels: [4, 4, 8, 8],
        },
        heads: Heads {
            euclidean: 6,
            hyperbolic: Some(Hyperbolic::new(4)),
        },
    }
}

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

#[track_caller]
fn mismatch(result: Result<Loaded, LearnError>) -> Mismatch {
    match result {
        Err(LearnError::Weights { mismatch, .. }) => mismatch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn fail_weights_of_another_network() {
    let fixture = fixture();
    let cases = &fixture["cases"];
    let unchanged = |settings: &Settings, file: &str| {
        let mut network = settings.build(&cpu(), &mut rng(1)).unwrap();
        let before = network.to_bytes().unwrap();
        let result = load_weights(&mut network, &folder().join(file));
        assert_eq!(network.to_bytes().unwrap(), before);
        mismatch(result)
    };
    // Another architecture.
    let basic = settings(&cases["basic"]);
    assert_eq!(
        unchanged(&basic, "transformer.safetensors"),
        Mismatch::Missing {
            tensor: "conv1.weight".to_owned()
        }
    );
    // Grey images.
    let mut grey = basic.clone();
    grey.input = Input::grey(40);
    assert_eq!(
        unchanged(&grey, "basic.safetensors"),
        Mismatch::Shape {
            tensor: "conv1.weight".to_owned(),
            actual: vec![4, 3, 7, 7],
            expected: vec![4, 1, 7, 7],
        }
    );
    // Fewer blocks, and more.
    let depth = |blocks| {
        let mut settings = basic.clone();
        settings.backbone = Backbone::ResidualNetwork {
            blocks,
            bottleneck: false,
            width: 4,
        };
        settings
    };
    assert_eq!(
        unchanged(&depth([1, 1, 1, 1]), "basic.safetensors"),
        Mismatch::Unknown {
            tensor: "layer1.1.bn1.bias".to_owned()
        }
    );
    assert_eq!(
        unchanged(&depth([2, 1, 1, 2]), "basic.safetensors"),
        Mismatch::Missing {
            tensor: "layer4.1.conv1.weight".to_owned()
        }
    );
    // Another size of image moves a transformer's places.
    let mut larger = settings(&cases["transformer"]);
    larger.input = Input::colour(32);
    let message = unchanged(&larger, "transformer.safetensors").to_string();
    assert!(
        message.contains("pos_embed has the shape [1, 10, 24]"),
        "{message}"
    );
}

#[test]
fn fail_files_that_are_no_weights() {
    let fixture = fixture();
    let basic = settings(&fixture["cases"]["basic"]);
    let mut network = basic.build(&cpu(), &mut rng(1)).unwrap();
    let before = network.to_bytes().unwrap();
    let place = tempfile::tempdir().unwrap();
    let nothing = place.path().join("missing.safetensors");
    let result = load_weights(&mut network, &nothing);
    assert!(matches!(result, Err(LearnError::Read { .. })), "{result:?}");
    for extension in ["safetensors", "pth", "onnx", "txt"] {
        for content in [&b""[..], b"PK", b"\x80\x02}q\x00.", &[0xff; 64]] {
            let path = place.path().join(format!("weights.{extension}"));
            std::fs::write(&path, content).unwrap();
            let result = load_weights(&mut network, &path);
            assert!(result.is_err(), "{extension}");
        }
    }
    assert_eq!(network.to_bytes().unwrap(), before);
}

/// An ONNX file with one tensor of two rows and two columns.
fn onnx(name: &str, location: u8, data: &[u8]) -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend(content);
        bytes
    };
    let mut tensor = vec![1 << 3, 2, 1 << 3, 2, 2 << 3, 1];
    tensor.extend(field(8, name.as_bytes()));
    tensor.extend(field(9, data));
    tensor.extend([14 << 3, location]);
    field(7, &field(5, &tensor))
}

#[test]
fn fail_onnx_without_names_or_data() {
    let fixture = fixture();
    let basic = settings(&fixture["cases"]["basic"]);
    let mut network = basic.build(&cpu(), &mut rng(1)).unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("weights.onnx");
    let mut refusal = |bytes: Vec<u8>| {
        std::fs::write(&path, bytes).unwrap();
        load_weights(&mut network, &path).unwrap_err().to_string()
    };
    let folded = refusal(onnx("onnx::Conv_136", 0, &[0; 16]));
    assert!(folded.contains("do_constant_folding=False"), "{folded}");
    let outside = refusal(onnx("conv1.weight", 1, &[]));
    assert!(outside.contains("lies in another file"), "{outside}");
    let short = refusal(onnx("conv1.weight", 0, &[0; 12]));
    assert!(short.contains("as much data as its shape says"), "{short}");
    let shape = refusal(onnx("conv1.weight", 0, &[0; 16]));
    assert!(shape.contains("has the shape [2, 2]"), "{shape}");
}

/// Truncated anywhere, or with a byte flipped anywhere: never a panic, and
/// never half of it loaded.
fn survives(name: &str, file: &str, places: &[(usize, usize)]) {
    let fixture = fixture();
    let mut network = settings(&fixture["cases"][name])
        .build(&cpu(), &mut rng(1))
        .unwrap();
    let before = network.to_bytes().unwrap();
    let bytes = std::fs::read(folder().join(file)).unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join(file);
    let mut check = |content: &[u8], must_fail: bool| {
        std::fs::write(&path, content).unwrap();
        match load_weights(&mut network, &path) {
            Ok(_) => {
                assert!(!must_fail);
                network.restore(&before).unwrap();
            }
            Err(_) => assert_eq!(network.to_bytes().unwrap(), before),
        }
    };
    // Up to this byte, in these steps.
    let mut start = 0;
    let mut visited = Vec::new();
    for &(end, step) in places {
        visited.extend((start..end.min(bytes.len())).step_by(step));
        start = end;
    }
    for &length in &visited {
        check(&bytes[..length], true);
    }
    for place in visited {
        let mut bytes = bytes.clone();
        bytes[place] ^= 0xff;
        check(&bytes, false);
    }
}

#[test]
fn fail_damaged_safetensors() {
    survives(
        "basic",
        "basic.safetensors",
        &[(9000, 7), (usize::MAX, 997)],
    );
}

#[test]
fn fail_damaged_checkpoint() {
    survives(
        "bottleneck",
        "bottleneck.pth",
        &[(9000, 11), (60_000, 499), (usize::MAX, 23)],
    );
}

#[test]
fn fail_damaged_onnx() {
    survives("convolutional", "convolutional.onnx", &[(usize::MAX, 7)]);
}

#[test]
fn fail_damaged_network() {
    let bytes = small(8, 1)
        .build(&cpu(), &mut rng(1))
        .unwrap()
        .to_bytes()
        .unwrap();
    for length in (0..bytes.len()).step_by(7) {
        assert!(Network::from_bytes(&bytes[..length], &cpu()).is_err());
    }
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize + 8;
    for place in 0..header {
        let mut bytes = bytes.clone();
        bytes[place] ^= 0x15;
        // A name or a number may still be one; what is made can be saved.
        if let Ok(network) = Network::from_bytes(&bytes, &cpu()) {
            network.to_bytes().unwrap();
        }
    }
    let mut other = small(8, 3).build(&cpu(), &mut rng(1)).unwrap();
    let result = other.restore(&bytes);
    assert!(
        matches!(
            result,
            Err(LearnError::Weights {
                mismatch: Mismatch::Settings,
                ..
            })
        ),
        "{result:?}"
    );
    let mut nan = bytes.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(
        Network::from_bytes(&nan, &cpu()),
        Err(LearnError::Weights {
            mismatch: Mismatch::NotFinite { .. },
            ..
        })
    ));
}

#[test]
fn fail_settings_out_of_range() {
    let fine = small(28, 1);
    type Change = Box<dyn Fn(&mut Settings)>;
    let wrong: Vec<Change> = vec![
        Box::new(|s| s.input.channels = 2),
        Box::new(|s| s.input.side = 7),
        Box::new(|s| s.input.side = 5000),
        Box::new(|s| s.input.enlarge = 0.5),
        Box::new(|s| s.input.mean = vec![]),
        Box::new(|s| s.input.deviation = vec![0.0]),
        Box::new(|s| s.backbone = Backbone::Convolutional { channels: [0; 4] }),
        Box::new(|s| s.backbone = Backbone::resnet18()),
        Box::new(|s| s.backbone = Backbone::vit_s16()),
        Box::new(|s| s.heads.euclidean = 0),
        Box::new(|s| s.heads.euclidean = 1 << 20),
        Box::new(|s| {
            s.heads.hyperbolic = Some(Hyperbolic {
                clip: 100.0,
                ..Hyperbolic::new(3)
            });
        }),
        Box::new(|s| {
            s.heads.hyperbolic = Some(Hyperbolic {
                curvature: f64::NAN,
                ..Hyperbolic::new(3)
            });
        }),
    ];
    for (number, wrong) in wrong.iter().enumerate() {
        let mut settings = fine.clone();
        wrong(&mut settings);
        let result = settings.build(&cpu(), &mut rng(1));
        assert!(
            matches!(result, Err(LearnError::Setting { .. })),
            "{number}"
        );
    }
    let unknown = r#"{"input": {}, "backbone": {"kind": "alexnet"}, "heads": {"euclidean": 3}}"#;
    assert!(serde_json::from_str::<model::Settings>(unknown).is_err());
}
