use crate::backend::parameter;
use burn::module::{Param, ParamId, RunningState};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, PaddingConfig2d,
};
use burn::tensor::{Device, Tensor, TensorData};
use rand_core::Rng;

/// Makes layers with first weights from the caller's generator.
///
/// All draws are uniform: the square root is the only function they need, so
/// the same seed gives the same weights on every machine. burn's own
/// generator is shared by the whole process and is never asked. Parameters
/// get their identifiers from the generator too, so that whatever is keyed by
/// them comes in the same order again.
pub(super) struct Init<'a> {
    rng: &'a mut dyn Rng,
    device: &'a Device,
}

impl<'a> Init<'a> {
    pub(super) fn new(rng: &'a mut dyn Rng, device: &'a Device) -> Self {
        Self { rng, device }
    }

    fn parameter<const D: usize>(
        &mut self,
        values: Vec<f32>,
        shape: [usize; D],
    ) -> Param<Tensor<D>> {
        let value = Tensor::from_data(TensorData::new(values, shape), self.device);
        parameter(value, &mut self.rng)
    }

    /// Uniform values with this standard deviation.
    pub(super) fn uniform<const D: usize>(
        &mut self,
        shape: [usize; D],
        deviation: f64,
    ) -> Param<Tensor<D>> {
        let bound = deviation * 3.0f64.sqrt();
        let values = (0..shape.iter().product())
            .map(|_| {
                let unit = f64::from(self.rng.next_u32() >> 8) / f64::from(1u32 << 24);
                (bound * (2.0 * unit - 1.0)) as f32
            })
            .collect();
        self.parameter(values, shape)
    }

    pub(super) fn constant<const D: usize>(
        &mut self,
        shape: [usize; D],
        value: f32,
    ) -> Param<Tensor<D>> {
        self.parameter(vec![value; shape.iter().product()], shape)
    }

    /// A convolution without a bias, as before a normalisation; He's
    /// deviation over the outputs, torchvision's choice.
    pub(super) fn convolution(
        &mut self,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
    ) -> Conv2d {
        let padding = kernel / 2;
        let mut conv = Conv2dConfig::new(channels, [kernel, kernel])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(
                padding, padding, padding, padding,
            ))
            .with_bias(false)
            .init(self.device);
        let fan_out = (channels[1] * kernel * kernel) as f64;
        conv.weight = self.uniform(
            [channels[1], channels[0], kernel, kernel],
            (2.0 / fan_out).sqrt(),
        );
        conv
    }

    /// The convolution that cuts an image into patches.
    pub(super) fn patches(&mut self, channels: [usize; 2], side: usize) -> Conv2d {
        let mut conv = Conv2dConfig::new(channels, [side, side])
            .with_stride([side, side])
            .init(self.device);
        let fan_in = (channels[0] * side * side) as f64;
        conv.weight = self.uniform(
            [channels[1], channels[0], side, side],
            (1.0 / fan_in).sqrt(),
        );
        conv.bias = Some(self.constant([channels[1]], 0.0));
        conv
    }

    pub(super) fn linear(&mut self, sizes: [usize; 2], deviation: f64) -> Linear {
        let mut linear = LinearConfig::new(sizes[0], sizes[1]).init(self.device);
        linear.weight = self.uniform(sizes, deviation);
        linear.bias = Some(self.constant([sizes[1]], 0.0));
        linear
    }

    pub(super) fn batch_norm(&mut self, features: usize) -> BatchNorm {
        let mut norm = BatchNormConfig::new(features).init(self.device);
        norm.gamma = self.constant([features], 1.0);
        norm.beta = self.constant([features], 0.0);
        let mut state = |value| RunningState::with_id(ParamId::from(self.rng.next_u64()), value);
        norm.running_mean = state(Tensor::zeros([features], self.device));
        norm.running_var = state(Tensor::ones([features], self.device));
        norm
    }

    pub(super) fn layer_norm(&mut self, features: usize, epsilon: f64) -> LayerNorm {
        let mut norm = LayerNormConfig::new(features)
            .with_epsilon(epsilon)
            .init(self.device);
        norm.gamma = self.constant([features], 1.0);
        norm.beta = Some(self.constant([features], 0.0));
        norm
    }
}
