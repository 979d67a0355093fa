use super::init::Init;
use crate::fused;
use burn::module::Module;
use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;

/// Four convolutions: `layers.0.conv`, `layers.0.norm` and so on.
#[derive(Module, Debug)]
pub(super) struct Convolutional {
    layers: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Layer {
    conv: Conv2d,
    norm: BatchNorm,
}

impl Convolutional {
    pub(super) fn new(input: usize, channels: [usize; 4], init: &mut Init<'_>) -> Self {
        let inputs = [input, channels[0], channels[1], channels[2]];
        let layers = inputs
            .into_iter()
            .zip(channels)
            .map(|(from, to)| Layer {
                conv: init.convolution([from, to], 3, 1),
                norm: init.batch_norm(to),
            })
            .collect();
        Self { layers }
    }

    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut x = images;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x, index < 3);
        }
        mean_over_image(x)
    }
}

impl Layer {
    /// Convolution, normalization, rectification and, if asked for, halving.
    fn forward(&self, x: Tensor<4>, halve: bool) -> Tensor<4> {
        let x = match fused::convolve(&x, &self.conv.weight.val()) {
            Some(x) => x,
            None => self.conv.forward(x),
        };
        if let Some(x) = fused::normalize(&x, &self.norm, halve) {
            return x;
        }
        let x = relu(self.norm.forward(x));
        if halve {
            max_pool2d(x, MaxPoolOptions::new([2, 2]).with_stride([2, 2]))
        } else {
            x
        }
    }
}

/// The mean of each channel.
pub(super) fn mean_over_image(x: Tensor<4>) -> Tensor<2> {
    let [batch, channels, height, width] = x.dims();
    x.reshape([batch, channels, height * width])
        .mean_dim(2)
        .reshape([batch, channels])
}
