//! First values of proxies.

use crate::backend::parameter;
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand_core::Rng;

/// Independent Gaussian vectors of length 1 in the mean: directions are
/// uniform, and the lengths suit both the cosine, which forgets them, and the
/// tangent space of the ball, where they stay below the clipping radius.
pub(super) fn gaussian<const D: usize>(
    shape: [usize; D],
    device: &Device,
    rng: &mut impl Rng,
) -> Param<Tensor<D>> {
    let count = shape.iter().product();
    let scale = (shape[D - 1].max(1) as f64).sqrt().recip();
    let mut values: Vec<f32> = Vec::with_capacity(count + 1);
    while values.len() < count {
        // Box and Muller's pair; 1 - u keeps the logarithm away from zero.
        let radius = scale * (-2.0 * (1.0 - uniform(rng)).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * uniform(rng)).sin_cos();
        values.push((radius * cos) as f32);
        values.push((radius * sin) as f32);
    }
    values.truncate(count);
    parameter(
        Tensor::from_data(TensorData::new(values, shape), device),
        rng,
    )
}

/// Uniform in `[0, 1)`.
fn uniform(rng: &mut impl Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Uniform below `bound`, which is not zero; the bias of the remainder is
/// below 2^-40 for all numbers of proxies there are.
pub(super) fn below(bound: usize, rng: &mut impl Rng) -> usize {
    (rng.next_u64() % bound as u64) as usize
}
