//! Each operation that networks are made of beside the CPU's, so that a fault
//! has a name: values and, where training needs them, gradients.

use crate::gpu;
use crate::training::{apart, pixels};
use burn::nn::{BatchNormConfig, LayerNormConfig};
use burn::tensor::activation::relu;
use burn::tensor::module::{attention_fallback, conv2d, max_pool2d};
use burn::tensor::ops::{AttentionModuleOptions, ConvOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData};
use oboro_learn::backend::cpu;
use std::f64::consts::FRAC_1_SQRT_2;

/// What an operation makes of its inputs, and the gradients of a weighted sum
/// of it for each of them.
fn made<const D: usize, const E: usize>(
    device: &Device,
    shapes: &[[usize; D]],
    operation: &dyn Fn(&[Tensor<D>]) -> Tensor<E>,
) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let inputs: Vec<Tensor<D>> = shapes
        .iter()
        .map(|&shape| {
            let values = pixels(shape.iter().product());
            Tensor::from_data(TensorData::new(values, shape), &device).require_grad()
        })
        .collect();
    let value = operation(&inputs);
    let dims = value.dims();
    // Backwards, so that they are not those of the inputs.
    let weights: Vec<f32> = pixels(dims.iter().product()).into_iter().rev().collect();
    let weights = Tensor::<E>::from_data(TensorData::new(weights, dims), &device);
    let gradients = (value.clone() * weights).sum().backward();
    let list = |data: TensorData| data.iter().collect();
    let slopes = inputs.iter().filter_map(|input| input.grad(&gradients));
    std::iter::once(list(value.into_data()))
        .chain(slopes.map(|slope| list(slope.into_data())))
        .collect()
}

/// The largest difference of values and gradients, relative to the largest
/// value of each.
fn differences<const D: usize, const E: usize>(
    shapes: &[[usize; D]],
    operation: &dyn Fn(&[Tensor<D>]) -> Tensor<E>,
) -> Option<Vec<f32>> {
    let ours = made(gpu()?, shapes, operation);
    let theirs = made(&cpu(), shapes, operation);
    assert_eq!(ours.len(), theirs.len());
    let relative = |(ours, theirs): (&Vec<f32>, &Vec<f32>)| {
        let (worst, size) = apart(ours, theirs);
        worst / size.max(1e-6)
    };
    Some(ours.iter().zip(&theirs).map(relative).collect())
}

#[track_caller]
fn agrees<const D: usize, const E: usize>(
    what: &str,
    shapes: &[[usize; D]],
    operation: &dyn Fn(&[Tensor<D>]) -> Tensor<E>,
) {
    if let Some(found) = differences(shapes, operation) {
        assert!(
            found.iter().all(|&difference| difference < 1e-5),
            "{what} of {shapes:?}: value and gradients differ by {found:?}"
        );
    }
}

#[test]
fn convolutions_are_those_of_the_cpu() {
    // Channels in and out, side, kernel, stride, padding.
    for [from, to, side, kernel, stride, padding] in [
        [1, 64, 28, 3, 1, 1],
        [64, 64, 14, 3, 1, 1],
        [64, 128, 7, 3, 1, 1],
        [8, 16, 12, 3, 1, 1],
        [3, 8, 33, 7, 2, 3],
        [8, 8, 9, 1, 1, 0],
        [8, 16, 9, 1, 2, 0],
        [16, 16, 9, 3, 2, 1],
        [1, 32, 28, 4, 4, 0],
    ] {
        let shapes = [[3, from, side, side], [to, from, kernel, kernel]];
        agrees("a convolution", &shapes, &|inputs| {
            let options = ConvOptions::new([stride; 2], [padding; 2], [1; 2], 1);
            conv2d(inputs[0].clone(), inputs[1].clone(), None, options)
        });
    }
}

#[test]
fn pooling_and_normalization_are_those_of_the_cpu() {
    for side in [28, 14, 7, 5] {
        let shape = [[4, 6, side, side]];
        agrees("halving", &shape, &|inputs| {
            let options = MaxPoolOptions::new([2; 2]).with_stride([2; 2]);
            max_pool2d(inputs[0].clone(), options)
        });
        agrees("overlapping pooling", &shape, &|inputs| {
            let options = MaxPoolOptions::new([3; 2])
                .with_stride([2; 2])
                .with_padding([1; 2]);
            max_pool2d(inputs[0].clone(), options)
        });
        agrees("batch normalization", &shape, &|inputs| {
            let norm = BatchNormConfig::new(6).init(&inputs[0].device());
            relu(norm.forward(inputs[0].clone()))
        });
        agrees("the mean over an image", &shape, &|inputs| {
            inputs[0].clone().reshape([4, 6, side * side]).mean_dim(2)
        });
    }
    agrees("layer normalization", &[[4, 50, 32]], &|inputs| {
        let norm = LayerNormConfig::new(32).init(&inputs[0].device());
        norm.forward(inputs[0].clone())
    });
}

#[test]
fn products_are_those_of_the_cpu() {
    for [rows, inner, columns] in [
        [6, 128, 16],
        [128, 128, 128],
        [180, 64, 500],
        [300, 32, 96],
        [1, 512, 7],
        [5, 3, 2],
    ] {
        agrees("a product", &[[rows, inner], [columns, inner]], &|inputs| {
            inputs[0].clone().matmul(inputs[1].clone().transpose())
        });
    }
    agrees("attention", &[[6, 2, 50, 16]; 3], &|inputs| {
        let [query, key, value] = [0, 1, 2].map(|at| inputs[at].clone());
        let options = AttentionModuleOptions::default();
        attention_fallback(query, key, value, None, None, options)
    });
}

#[test]
fn functions_are_those_of_the_cpu() {
    // With the gradient of the exact one, as transformers have it.
    agrees("gelu", &[[40, 50]], &|inputs| {
        let x = inputs[0].clone().mul_scalar(4.0);
        let share = x.clone().mul_scalar(FRAC_1_SQRT_2).erf().add_scalar(1.0);
        (x * share).mul_scalar(0.5)
    });
    agrees("functions of the ball", &[[40, 8]], &|inputs| {
        let x = inputs[0].clone();
        let length = (x.clone() * x.clone()).sum_dim(1).add_scalar(1e-30).sqrt();
        x * (length.clone().tanh() / length.clone()) + length.cosh().log1p()
    });
}
