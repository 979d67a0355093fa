//! Fixtures, small networks and what they came to.

use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use chacha20::ChaCha20Rng;
use oboro_learn::data::Input;
use oboro_learn::model::{Backbone, Heads, Hyperbolic, Settings};
use rand_core::SeedableRng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/networks")
}

pub(crate) fn fixture() -> Value {
    let text = std::fs::read_to_string(folder().join("networks.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap().iter();
    list.map(|v| v.as_f64().unwrap()).collect()
}

pub(crate) fn sizes(value: &Value) -> Vec<usize> {
    numbers(value).iter().map(|&v| v as usize).collect()
}

pub(crate) fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

pub(crate) fn settings(case: &Value) -> Settings {
    serde_json::from_value(case["settings"].clone()).unwrap()
}

/// The script's images.
pub(crate) fn values(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 7919 + i / 97 * 131) % 1009) as f64 / 504.5 - 1.0)
        .map(|v| v as f32)
        .collect()
}

pub(crate) fn images(case: &Value, device: &Device) -> Tensor<4> {
    let shape: [usize; 4] = sizes(&case["images"]).try_into().unwrap();
    let data = TensorData::new(values(shape.iter().product()), shape);
    Tensor::from_data(data, device)
}

pub(crate) fn list<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

#[track_caller]
pub(crate) fn close(what: &str, actual: &[f64], expected: &[f64], relative: f64) {
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
pub(crate) struct Named<'a> {
    pub(crate) path: Vec<String>,
    pub(crate) gradients: &'a burn::tensor::Gradients,
    pub(crate) lengths: BTreeMap<String, f64>,
    pub(crate) values: BTreeMap<String, Vec<f64>>,
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

pub(crate) fn small(side: usize, channels: usize) -> Settings {
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
