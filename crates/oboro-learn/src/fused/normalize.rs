//! Batch normalization, rectification and halving of images in one.

use super::{Plain, Recorded, plain, recorded, sum_by};
use burn::backend::Flex;
use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::nn::BatchNorm;
use burn::tensor::Tensor;
use oboro_simd::Arch;

/// `relu(norm(x))` with the statistics of the batch; halved, the largest of
/// every two by two pixels of it. The layer's running statistics move.
///
/// `None` where the layer does not train or the tensor is not the CPU's.
pub(crate) fn normalize(x: &Tensor<4>, norm: &BatchNorm, halve: bool) -> Option<Tensor<4>> {
    if !norm.training.is_enabled() {
        return None;
    }
    let (gamma, beta) = (norm.gamma.val(), norm.beta.val());
    let inputs = [recorded(x)?, recorded(&gamma)?, recorded(&beta)?];
    let [images, channels, height, width] = x.dims();
    let planes = Planes {
        images,
        channels,
        height,
        width,
        halve,
        epsilon: norm.epsilon,
    };
    let (output, mean, variance) = record(inputs, planes);
    // As burn's layer does it.
    let moved = |old: Tensor<1>, new: Plain| {
        let new = Tensor::from_primitive::<Autodiff<Flex>>(Recorded::new(new));
        let kept = old.to_device(&x.device()).mul_scalar(1.0 - norm.momentum);
        kept.add(new.mul_scalar(norm.momentum)).detach()
    };
    let running = moved(norm.running_mean.value_sync(), mean);
    norm.running_mean.update(running);
    let running = moved(norm.running_var.value_sync(), variance);
    norm.running_var.update(running);
    Some(Tensor::from_primitive::<Autodiff<Flex>>(output))
}

/// The shape of an input and what is done to it.
#[derive(Clone, Copy, Debug)]
struct Planes {
    images: usize,
    channels: usize,
    height: usize,
    width: usize,
    halve: bool,
    epsilon: f64,
}

/// Output, mean and variance, with the gradient recorded.
fn record(inputs: [Recorded; 3], planes: Planes) -> (Recorded, Plain, Plain) {
    let nodes = [inputs[0].node(), inputs[1].node(), inputs[2].node()];
    let [x, gamma, beta] = inputs.map(|input| input.into_primitive().to_contiguous());
    let (output, mean, variance) = planes.forward(x.storage(), gamma.storage(), beta.storage());
    let output = plain(output, &planes.shape());
    let [mean, variance] = [mean, variance].map(|v| plain(v, &[planes.channels]));
    let prepared = Normalize
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful();
    let recorded = match prepared {
        OpsKind::Tracked(prepared) => {
            let state = (planes, [x, gamma, beta, mean.clone(), variance.clone()]);
            prepared.finish(state, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    (recorded, mean, variance)
}

#[derive(Debug)]
struct Normalize;

impl Backward<Flex, 3> for Normalize {
    type State = (Planes, [Plain; 5]);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let (planes, [x, gamma, beta, mean, variance]) = ops.state;
        let (of_x, of_gamma, of_beta) = planes.backward(
            x.storage(),
            [&gamma, &beta, &mean, &variance].map(|tensor| tensor.storage()),
            gradient.storage(),
        );
        let shape = [planes.images, planes.channels, planes.height, planes.width];
        let found = [
            plain(of_x, &shape),
            plain(of_gamma, &[planes.channels]),
            plain(of_beta, &[planes.channels]),
        ];
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}

impl Planes {
    /// Of the output.
    fn shape(&self) -> [usize; 4] {
        let part = if self.halve { 2 } else { 1 };
        let (height, width) = (self.height / part, self.width / part);
        [self.images, self.channels, height, width]
    }

    /// Values of one channel of one image, before and after.
    fn sizes(&self) -> (usize, usize) {
        let [_, _, height, width] = self.shape();
        (self.height * self.width, height * width)
    }

    /// The factor and the summand of a channel.
    fn affine(&self, gamma: f32, beta: f32, mean: f32, variance: f32) -> (f32, f32) {
        let factor = gamma * self.inverse(variance);
        (factor, beta - mean * factor)
    }

    fn inverse(&self, variance: f32) -> f32 {
        (1.0 / (f64::from(variance) + self.epsilon).sqrt()) as f32
    }

    /// Output, mean and variance. One channel of all images after the other:
    /// that much stays in the cache between its statistics and its output.
    fn forward(&self, x: &[f32], gamma: &[f32], beta: &[f32]) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let (size, size_out) = self.sizes();
        let mut output = vec![0.0; self.images * self.channels * size_out];
        let (mut means, mut variances) = (Vec::new(), Vec::new());
        let arch = Arch::detect();
        for channel in 0..self.channels {
            let plane = |image: usize| (image * self.channels + channel) * size;
            let (mean, variance) = arch.vectorize(
                #[inline(always)]
                || {
                    statistics((0..self.images).map(
                        #[inline(always)]
                        |image| &x[plane(image)..][..size],
                    ))
                },
            );
            means.push(mean);
            variances.push(variance);
            let (factor, summand) = self.affine(gamma[channel], beta[channel], mean, variance);
            arch.vectorize(
                #[inline(always)]
                || {
                    for image in 0..self.images {
                        let from = &x[plane(image)..][..size];
                        let at = (image * self.channels + channel) * size_out;
                        let to = &mut output[at..][..size_out];
                        if !(factor.is_finite() && summand.is_finite()) {
                            // Comparisons would lose it, and with it the
                            // trainer's refusal.
                            to.fill(f32::NAN);
                        } else if self.halve {
                            halved(from, to, self.width, factor, summand);
                        } else {
                            rectified(from, to, factor, summand);
                        }
                    }
                },
            );
        }
        (output, means, variances)
    }

    /// The gradients of input, gamma and beta.
    fn backward(
        &self,
        x: &[f32],
        [gamma, beta, means, variances]: [&[f32]; 4],
        gradient: &[f32],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let (size, size_out) = self.sizes();
        let mut of_x = vec![0.0; x.len()];
        let (mut of_gamma, mut of_beta) = (Vec::new(), Vec::new());
        let count = (self.images * size) as f64;
        let arch = Arch::detect();
        for channel in 0..self.channels {
            let (mean, variance) = (means[channel], variances[channel]);
            let (factor, summand) = self.affine(gamma[channel], beta[channel], mean, variance);
            let inverse = self.inverse(variance);
            let plane = |image: usize| (image * self.channels + channel) * size;
            let (sum, product) = arch.vectorize(
                #[inline(always)]
                || {
                    let (mut sum, mut product) = (0.0f64, 0.0f64);
                    for image in 0..self.images {
                        let from = &x[plane(image)..][..size];
                        let to = &mut of_x[plane(image)..][..size];
                        let at = (image * self.channels + channel) * size_out;
                        let gradient = &gradient[at..][..size_out];
                        if self.halve {
                            spread(from, gradient, to, self.width, factor, summand);
                        } else {
                            passed(from, gradient, to, factor, summand);
                        }
                        sum += f64::from(sum_by(
                            to,
                            to,
                            #[inline(always)]
                            |g, _| g,
                        ));
                        product += f64::from(sum_by(
                            to,
                            from,
                            #[inline(always)]
                            |g, x| g * (x - mean),
                        ));
                    }
                    (sum, product)
                },
            );
            of_beta.push(sum as f32);
            of_gamma.push((product * f64::from(inverse)) as f32);
            let level = (sum / count) as f32;
            let slope = (product * f64::from(inverse) * f64::from(inverse) / count) as f32;
            arch.vectorize(
                #[inline(always)]
                || {
                    for image in 0..self.images {
                        let from = &x[plane(image)..][..size];
                        let to = &mut of_x[plane(image)..][..size];
                        for (to, &x) in to.iter_mut().zip(from) {
                            *to = factor * (*to - level - (x - mean) * slope);
                        }
                    }
                },
            );
        }
        (of_x, of_gamma, of_beta)
    }
}

/// Mean and (biased) variance of all values, merged plane after plane.
#[inline(always)]
fn statistics<'a>(planes: impl Iterator<Item = &'a [f32]>) -> (f32, f32) {
    let (mut count, mut mean, mut squares) = (0.0f64, 0.0f64, 0.0f64);
    for plane in planes {
        let size = plane.len() as f64;
        // Differences to a number near the mean: their squares do not cancel.
        let near = (f64::from(sum_by(
            plane,
            plane,
            #[inline(always)]
            |x, _| x,
        )) / size) as f32;
        let rest = f64::from(sum_by(
            plane,
            plane,
            #[inline(always)]
            |x, _| x - near,
        )) / size;
        let own = f64::from(sum_by(
            plane,
            plane,
            #[inline(always)]
            |x, _| (x - near) * (x - near),
        ));
        let ahead = f64::from(near) + rest - mean;
        let total = count + size;
        mean += ahead * size / total;
        squares += own - rest * rest * size + ahead * ahead * count * size / total;
        count = total;
    }
    (mean as f32, (squares / count) as f32)
}

/// The larger one; neither is NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
fn rectified(from: &[f32], to: &mut [f32], factor: f32, summand: f32) {
    for (to, &x) in to.iter_mut().zip(from) {
        *to = larger(factor * x + summand, 0.0);
    }
}

/// The gradient where the output is above 0.
#[inline(always)]
fn passed(from: &[f32], gradient: &[f32], to: &mut [f32], factor: f32, summand: f32) {
    for ((to, &x), &gradient) in to.iter_mut().zip(from).zip(gradient) {
        let above = factor * x + summand > 0.0;
        *to = if above { gradient } else { 0.0 };
    }
}

#[inline(always)]
fn halved(from: &[f32], to: &mut [f32], width: usize, factor: f32, summand: f32) {
    let of = |pair: &[f32; 2]| larger(factor * pair[0] + summand, factor * pair[1] + summand);
    let rows = from.chunks_exact(2 * width);
    for (rows, to) in rows.zip(to.chunks_exact_mut(width / 2)) {
        let (first, second) = rows.split_at(width);
        let pairs = first
            .as_chunks::<2>()
            .0
            .iter()
            .zip(second.as_chunks::<2>().0);
        for (to, (first, second)) in to.iter_mut().zip(pairs) {
            *to = larger(larger(of(first), of(second)), 0.0);
        }
    }
}

/// The gradient at the first of the largest of every four pixels.
#[inline(always)]
fn spread(from: &[f32], gradient: &[f32], to: &mut [f32], width: usize, factor: f32, summand: f32) {
    let of = |x: f32| factor * x + summand;
    let rows = from.chunks_exact(2 * width);
    let rows = rows.zip(to.chunks_exact_mut(2 * width));
    for ((rows, to), gradient) in rows.zip(gradient.chunks_exact(width / 2)) {
        let (first, second) = rows.split_at(width);
        let (to_first, to_second) = to.split_at_mut(width);
        let pairs = first
            .as_chunks::<2>()
            .0
            .iter()
            .zip(second.as_chunks::<2>().0);
        let to_first = to_first.as_chunks_mut::<2>().0.iter_mut();
        let to_pairs = to_first.zip(to_second.as_chunks_mut::<2>().0);
        for (((first, second), (to_first, to_second)), &gradient) in
            pairs.zip(to_pairs).zip(gradient)
        {
            let (a, b) = (of(first[0]), of(first[1]));
            let (c, d) = (of(second[0]), of(second[1]));
            let largest = larger(larger(a, b), larger(c, d));
            let gradient = if largest > 0.0 { gradient } else { 0.0 };
            let at_a = a == largest;
            let at_b = !at_a & (b == largest);
            let at_c = !(at_a | at_b) & (c == largest);
            let at_d = !(at_a | at_b | at_c);
            to_first[0] = if at_a { gradient } else { 0.0 };
            to_first[1] = if at_b { gradient } else { 0.0 };
            to_second[0] = if at_c { gradient } else { 0.0 };
            to_second[1] = if at_d { gradient } else { 0.0 };
        }
    }
}
