//! Weights, networks and settings that are refused.

use crate::common::*;
use oboro_learn::backend::cpu;
use oboro_learn::data::Input;
use oboro_learn::model::{Backbone, Hyperbolic, Loaded, Mismatch, Network, Settings, load_weights};
use oboro_learn::{LearnError, model};

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
