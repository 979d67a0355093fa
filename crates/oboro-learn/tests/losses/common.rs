//! Fixtures as tensors.

use burn::tensor::{DType, Gradients, Tensor, TensorData};
use chacha20::ChaCha20Rng;
use oboro_learn::losses::Embeddings;
use rand_core::SeedableRng;
use serde_json::Value;

pub(crate) fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([7; 32])
}

pub(crate) fn fixture(name: &str) -> Value {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let text = std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

/// All numbers of nested lists.
pub(crate) fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn shape(value: &Value) -> Vec<usize> {
    match value {
        Value::Array(items) => std::iter::once(items.len())
            .chain(items.first().map(shape).unwrap_or_default())
            .collect(),
        _ => Vec::new(),
    }
}

/// A leaf of the graph.
pub(crate) fn leaf<const D: usize>(values: Vec<f64>, shape: [usize; D], dtype: DType) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (&crate::device(), dtype)).require_grad()
}

/// A leaf with an input of a case.
pub(crate) fn input(case: &Value, name: &str, dtype: DType) -> Tensor<2> {
    let value = &case["inputs"][name];
    let shape: [usize; 2] = shape(value).try_into().unwrap();
    leaf(flat(value), shape, dtype)
}

/// Proxies of a case, `[classes, local, dimensions]` or `[classes,
/// dimensions]` there, `[local, classes, dimensions]` here.
pub(crate) fn proxies(case: &Value, name: &str, dtype: DType) -> Tensor<3> {
    let value = &case["inputs"][name];
    let [classes, local, length] = match shape(value)[..] {
        [classes, length] => [classes, 1, length],
        [classes, local, length] => [classes, local, length],
        _ => panic!("proxies have two or three axes"),
    };
    let values = regrouped(&flat(value), [classes, local, length]);
    leaf(values, [local, classes, length], dtype)
}

/// The first two axes exchanged.
pub(crate) fn regrouped(values: &[f64], [a, b, c]: [usize; 3]) -> Vec<f64> {
    (0..a * b * c)
        .map(|at| {
            let (j, i, n) = (at / (a * c), at / c % a, at % c);
            values[(i * b + j) * c + n]
        })
        .collect()
}

pub(crate) fn labels(case: &Value) -> Vec<usize> {
    let labels = list(&case["labels"]).iter();
    labels.map(|l| l.as_u64().unwrap() as usize).collect()
}

pub(crate) fn number(case: &Value, name: &str) -> f64 {
    case["parameters"][name].as_f64().unwrap()
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

pub(crate) fn scalar(tensor: &Tensor<1>) -> f64 {
    values(tensor.clone())[0]
}

pub(crate) fn gradient<const D: usize>(tensor: &Tensor<D>, gradients: &Gradients) -> Vec<f64> {
    match tensor.grad(gradients) {
        Some(gradient) => values(gradient),
        None => vec![0.0; tensor.shape().num_elements()],
    }
}

/// The gradient of proxies in the order of the fixtures.
pub(crate) fn proxy_gradient(tensor: &Tensor<3>, gradients: &Gradients) -> Vec<f64> {
    regrouped(&gradient(tensor, gradients), tensor.dims())
}

/// Value and gradients are those of the case. A gradient is measured by its
/// largest component.
#[track_caller]
pub(crate) fn matches(case: &Value, value: f64, gradients: &[(&str, Vec<f64>)], tolerance: f64) {
    let name = case["name"].as_str().unwrap();
    let expected = case["value"].as_f64().unwrap();
    assert!(
        (value - expected).abs() <= tolerance * expected.abs(),
        "{name}: {value} is not {expected} to {tolerance}"
    );
    for (what, actual) in gradients {
        let expected = flat(&case["gradients"][*what]);
        assert_eq!(actual.len(), expected.len(), "{name} {what}");
        let scale = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let worst = actual
            .iter()
            .zip(&expected)
            .fold(0.0f64, |m, (a, e)| m.max((a - e).abs()));
        // Where all cancels, so that a gradient is smaller than the rounding of
        // what it is the difference of, that rounding is allowed.
        let rounding = if tolerance < 1e-6 { 1e-15 } else { 1e-7 };
        assert!(
            worst <= (tolerance * scale).max(rounding) && actual.iter().all(|v| v.is_finite()),
            "{name} {what}: {worst} off where the largest is {scale}"
        );
    }
}

pub(crate) fn euclidean(x: Tensor<2>) -> Embeddings {
    Embeddings::euclidean(x)
}

/// Embeddings with points of the ball; nothing reads the Euclidean ones.
pub(crate) fn hyperbolic(z: Tensor<2>) -> Embeddings {
    Embeddings {
        euclidean: z.clone(),
        hyperbolic: Some(z),
    }
}

/// Numbers in [-1, 1), the same for the same seed.
pub(crate) fn draw(count: usize, seed: u8) -> Vec<f64> {
    use rand_core::Rng;
    let mut rng = ChaCha20Rng::from_seed([seed; 32]);
    let mut one = || f64::from(rng.next_u32()) / f64::from(1u32 << 31) - 1.0;
    (0..count).map(|_| one()).collect()
}

/// Single-precision embeddings of both heads from what the heads give, and
/// these as leaves.
pub(crate) fn batch(
    euclidean: Vec<f64>,
    tangent: Vec<f64>,
    items: usize,
) -> (Embeddings, [Tensor<2>; 2]) {
    use oboro_learn::geometry::tensor::{exp0_clipped, normalize};
    let head = |values: Vec<f64>| {
        let length = values.len() / items;
        leaf(values, [items, length], DType::F32)
    };
    let heads = [head(euclidean), head(tangent)];
    let embeddings = Embeddings {
        euclidean: normalize(heads[0].clone()),
        hyperbolic: Some(exp0_clipped(heads[1].clone(), 0.1, 2.3)),
    };
    (embeddings, heads)
}
