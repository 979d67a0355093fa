//! Steps of a convolutional layer, and distances from proxies, as single
//! operations on the CPU.
//!
//! burn's `flex` backend computes a layer's gradients out of its general
//! operations: batch normalization alone goes over its input two dozen times,
//! the gradient of a convolution's weights is a convolution with a kernel as
//! large as the image, and hyperbolic distances are a dozen matrices as large
//! as that of all pairs. Here the whole of it is one operation with a gradient
//! of its own. Anywhere else, and without gradients, the functions return
//! `None` and burn's operations do the same.
//!
//! All sums are taken in one fixed order, so bits do not depend on the number
//! of threads; the matrix products are `flex`'s.

mod convolve;
mod normalize;
mod spread;

pub(crate) use convolve::convolve;
pub(crate) use normalize::normalize;
pub(crate) use spread::{Form, spread};

use burn::backend::Flex;
use burn::backend::autodiff::Autodiff;
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Tensor, TensorData};

/// A tensor of the CPU.
type Plain = FloatTensor<Flex>;
/// A tensor of the CPU whose operations are recorded.
type Recorded = FloatTensor<Autodiff<Flex>>;

/// The tensor, if it is one of single precision that is recorded on the CPU.
fn recorded<const D: usize>(tensor: &Tensor<D>) -> Option<Recorded> {
    if tensor.dtype() != DType::F32 {
        return None;
    }
    tensor.clone().try_into_primitive::<Autodiff<Flex>>().ok()
}

/// The tensor, if it is one of single precision on the CPU; nothing that is
/// done with it is recorded.
fn held<const D: usize>(tensor: &Tensor<D>) -> Option<Plain> {
    if tensor.dtype() != DType::F32 {
        return None;
    }
    tensor.clone().inner().try_into_primitive::<Flex>().ok()
}

/// Values as a tensor, without copying them.
fn plain(values: Vec<f32>, shape: &[usize]) -> Plain {
    Flex::float_from_data(TensorData::new(values, shape.to_vec()), &Default::default())
}

/// A sum of terms in a fixed order, sixteen side by side.
#[inline(always)]
fn sum_by(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += term(a[lane], b[lane]);
        }
    }
    for ((sum, &a), &b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
        *sum += term(a, b);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::backend::{cpu, cpu_autodiff};
    use burn::module::Param;
    use burn::nn::{BatchNorm, BatchNormConfig};
    use burn::tensor::activation::relu;
    use burn::tensor::module::{conv2d, max_pool2d};
    use burn::tensor::ops::{ConvOptions, MaxPoolOptions};
    use chacha20::ChaCha20Rng;
    use rand_core::{Rng, SeedableRng};

    fn values(count: usize, rng: &mut ChaCha20Rng) -> Vec<f32> {
        let one = |rng: &mut ChaCha20Rng| (f64::from(rng.next_u32()) / 2f64.powi(31) - 1.0) as f32;
        (0..count).map(|_| one(rng)).collect()
    }

    fn tensor<const D: usize>(shape: [usize; D], rng: &mut ChaCha20Rng) -> Tensor<D> {
        let values = values(shape.iter().product(), rng);
        Tensor::from_data(TensorData::new(values, shape), &cpu_autodiff())
    }

    fn near<const D: usize>(found: Tensor<D>, wanted: Tensor<D>) {
        let [found, wanted] = [found, wanted].map(|t| t.into_data().try_to_vec::<f32>().unwrap());
        assert_eq!(found.len(), wanted.len());
        let size = wanted.iter().fold(1e-3f32, |m, v| m.max(v.abs()));
        for (found, wanted) in found.iter().zip(&wanted) {
            assert!(
                (found - wanted).abs() <= 1e-5 * size,
                "{found} {wanted} of {size}"
            );
        }
    }

    #[test]
    fn convolutions_are_those_of_burn() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        // The last needs several groups of images.
        for (images, from, to, height, width, side) in [
            (1, 1, 1, 1, 1, 3),
            (2, 1, 3, 5, 7, 3),
            (3, 2, 4, 2, 3, 5),
            (2, 3, 2, 4, 4, 1),
            (30, 16, 8, 14, 12, 3),
        ] {
            let x = tensor([images, from, height, width], &mut rng).require_grad();
            let w = tensor([to, from, side, side], &mut rng).require_grad();
            let weigh = tensor([images, to, height, width], &mut rng);
            let options = ConvOptions::new([1; 2], [side / 2; 2], [1; 2], 1);
            let fused = convolve(&x, &w).unwrap();
            let plain = conv2d(x.clone(), w.clone(), None, options);
            near(fused.clone(), plain.clone());
            let fused = (fused * weigh.clone()).sum().backward();
            let plain = (plain * weigh).sum().backward();
            near(x.grad(&fused).unwrap(), x.grad(&plain).unwrap());
            near(w.grad(&fused).unwrap(), w.grad(&plain).unwrap());
        }
    }

    fn norm(channels: usize, rng: &mut ChaCha20Rng) -> BatchNorm {
        let mut norm = BatchNormConfig::new(channels).init(&cpu_autodiff());
        // Some factors are negative, so that the largest pixel is the smallest.
        norm.gamma = Param::from_tensor(tensor([channels], rng));
        norm.beta = Param::from_tensor(tensor([channels], rng));
        norm
    }

    #[test]
    fn normalization_is_that_of_burn() {
        let mut rng = ChaCha20Rng::from_seed([2; 32]);
        for (shape, halve) in [
            ([2, 1, 2, 2], true),
            ([4, 3, 5, 7], true),
            ([4, 3, 5, 7], false),
            ([9, 20, 28, 28], true),
            ([9, 20, 3, 3], false),
        ] {
            let channels = shape[1];
            let ours = norm(channels, &mut rng);
            let mut theirs = BatchNormConfig::new(channels).init(&cpu_autodiff());
            theirs.gamma = Param::from_tensor(ours.gamma.val().detach());
            theirs.beta = Param::from_tensor(ours.beta.val().detach());
            // Away from 0, where careless sums of squares cancel.
            let x = tensor(shape, &mut rng).add_scalar(30.0).require_grad();
            let fused = normalize(&x, &ours, halve).unwrap();
            let plain = relu(theirs.forward(x.clone()));
            let plain = if halve {
                max_pool2d(plain, MaxPoolOptions::new([2; 2]).with_stride([2; 2]))
            } else {
                plain
            };
            near(fused.clone(), plain.clone());
            for (ours, theirs) in [
                (&ours.running_mean, &theirs.running_mean),
                (&ours.running_var, &theirs.running_var),
            ] {
                near(ours.value_sync(), theirs.value_sync());
            }
            let weigh = tensor(fused.dims(), &mut rng);
            let fused = (fused * weigh.clone()).sum().backward();
            let plain = (plain * weigh).sum().backward();
            near(x.grad(&fused).unwrap(), x.grad(&plain).unwrap());
            for (ours, theirs) in [(&ours.gamma, &theirs.gamma), (&ours.beta, &theirs.beta)] {
                near(
                    ours.val().grad(&fused).unwrap(),
                    theirs.val().grad(&plain).unwrap(),
                );
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = values(2 * 2 * 16, &mut rng);
            values[3] = bad;
            let data = TensorData::new(values, [2, 2, 4, 4]);
            let x = Tensor::<4>::from_data(data, &cpu_autodiff());
            for halve in [false, true] {
                let found = normalize(&x, &norm(2, &mut rng), halve).unwrap();
                let found = found.into_data().try_to_vec::<f32>().unwrap();
                assert!(found.iter().any(|v| v.is_nan()));
                assert!(found.iter().any(|v| v.is_finite()));
            }
        }
    }

    #[test]
    fn fail_other_tensors_are_left_to_burn() {
        let x = Tensor::<4>::zeros([1, 1, 4, 4], &cpu());
        assert!(convolve(&x, &x).is_none());
        let mut rng = ChaCha20Rng::from_seed([4; 32]);
        assert!(normalize(&x, &norm(1, &mut rng), true).is_none());
    }
}
