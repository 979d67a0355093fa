//! Convolutions as products of matrices.

use super::{Plain, plain, recorded};
use burn::backend::Flex;
use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::tensor::Tensor;

/// Values of a matrix of patches: a megabyte, which stays in the cache between
/// its making and its use.
const PATCHES: usize = 1 << 18;

/// The convolution of images with `weight`, `[to, from, side, side]` with an
/// odd side, at every pixel, zeros around the image.
///
/// `None` where the tensors are not the CPU's.
pub(crate) fn convolve(x: &Tensor<4>, weight: &Tensor<4>) -> Option<Tensor<4>> {
    let inputs = [recorded(x)?, recorded(weight)?];
    let [images, from, height, width] = x.dims();
    let [to, _, side, _] = weight.dims();
    let shape = Shape {
        images,
        from,
        to,
        height,
        width,
        side,
    };
    let nodes = [inputs[0].node(), inputs[1].node()];
    let [x, weight] = inputs.map(|input| input.into_primitive().to_contiguous());
    let output = shape.forward(x.storage(), &weight);
    let output = plain(output, &[images, to, height, width]);
    let recorded = match Convolve
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(prepared) => prepared.finish((shape, x, weight), output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    Some(Tensor::from_primitive::<Autodiff<Flex>>(recorded))
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    images: usize,
    /// Channels before.
    from: usize,
    /// Channels after.
    to: usize,
    height: usize,
    width: usize,
    /// Of the kernel.
    side: usize,
}

#[derive(Debug)]
struct Convolve;

impl Backward<Flex, 2> for Convolve {
    type State = (Shape, Plain, Plain);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node).to_contiguous();
        let (shape, x, weight) = ops.state;
        let [of_x, of_weight] = ops.parents;
        if let Some(node) = of_weight {
            let found = shape.of_weight(x.storage(), gradient.storage());
            gradients.register::<Flex>(node.id, found);
        }
        if let Some(node) = of_x {
            let found = shape.of_images(&weight, gradient.storage());
            let dims = [shape.images, shape.from, shape.height, shape.width];
            gradients.register::<Flex>(node.id, plain(found, &dims));
        }
    }
}

impl Shape {
    fn pixels(&self) -> usize {
        self.height * self.width
    }

    /// Values of a patch.
    fn patch(&self) -> usize {
        self.from * self.side * self.side
    }

    /// Groups of images, as the first and the number.
    fn groups(&self) -> impl Iterator<Item = (usize, usize)> {
        let images = self.images;
        let most = (PATCHES / (self.patch() * self.pixels()).max(1)).max(1);
        (0..images)
            .step_by(most)
            .map(move |first| (first, most.min(images - first)))
    }

    /// `weight`, `[to, patch]`.
    fn matrix(&self, weight: &Plain) -> Plain {
        Flex::float_reshape(weight.clone(), [self.to, self.patch()].into())
    }

    fn forward(&self, x: &[f32], weight: &Plain) -> Vec<f32> {
        let pixels = self.pixels();
        let weight = self.matrix(weight);
        let mut output = Vec::with_capacity(self.images * self.to * pixels);
        for (first, count) in self.groups() {
            let patches = self.patches(x, first, count);
            let found = Flex::float_matmul(weight.clone(), patches).to_contiguous();
            let found: &[f32] = found.storage();
            // From channels of images to images of channels.
            for image in 0..count {
                for channel in found.chunks_exact(count * pixels) {
                    output.extend_from_slice(&channel[image * pixels..][..pixels]);
                }
            }
        }
        output
    }

    fn of_weight(&self, x: &[f32], gradient: &[f32]) -> Plain {
        let mut sum: Option<Plain> = None;
        for (first, count) in self.groups() {
            let patches = Flex::float_transpose(self.patches(x, first, count));
            let part = Flex::float_matmul(self.channels(gradient, first, count), patches);
            sum = Some(match sum {
                Some(sum) => Flex::float_add(sum, part),
                None => part,
            });
        }
        let dims = [self.to, self.from, self.side, self.side];
        match sum {
            Some(sum) => Flex::float_reshape(sum, dims.into()),
            None => plain(vec![0.0; dims.iter().product()], &dims),
        }
    }

    fn of_images(&self, weight: &Plain, gradient: &[f32]) -> Vec<f32> {
        let weight = Flex::float_transpose(self.matrix(weight));
        let mut found = vec![0.0; self.images * self.from * self.pixels()];
        for (first, count) in self.groups() {
            let gradient = self.channels(gradient, first, count);
            let patches = Flex::float_matmul(weight.clone(), gradient).to_contiguous();
            self.add_patches(patches.storage(), first, count, &mut found);
        }
        found
    }

    /// `[to, count * pixels]` of images' `[to, pixels]`.
    fn channels(&self, images: &[f32], first: usize, count: usize) -> Plain {
        let pixels = self.pixels();
        let images = &images[first * self.to * pixels..][..count * self.to * pixels];
        let mut values = Vec::with_capacity(images.len());
        for channel in 0..self.to {
            for image in images.chunks_exact(self.to * pixels) {
                values.extend_from_slice(&image[channel * pixels..][..pixels]);
            }
        }
        plain(values, &[self.to, count * pixels])
    }

    /// `[patch, count * pixels]`: what the kernel sees at each pixel.
    fn patches(&self, x: &[f32], first: usize, count: usize) -> Plain {
        let pixels = self.pixels();
        let mut values = Vec::with_capacity(self.patch() * count * pixels);
        for channel in 0..self.from {
            for at in 0..self.side * self.side {
                let window = self.window(at / self.side, at % self.side);
                for image in first..first + count {
                    let plane = &x[(image * self.from + channel) * pixels..][..pixels];
                    for row in 0..self.height {
                        let Some(other) = window.row(row) else {
                            values.resize(values.len() + self.width, 0.0);
                            continue;
                        };
                        let source = &plane[other * self.width..][..self.width];
                        values.resize(values.len() + window.before, 0.0);
                        values.extend_from_slice(&source[window.from..][..window.length]);
                        let after = self.width - window.before - window.length;
                        values.resize(values.len() + after, 0.0);
                    }
                }
            }
        }
        plain(values, &[self.patch(), count * pixels])
    }

    /// The reverse of [`Self::patches`]: adds what each pixel was seen as.
    fn add_patches(&self, patches: &[f32], first: usize, count: usize, to: &mut [f32]) {
        let pixels = self.pixels();
        let mut rows = patches.chunks_exact(self.width);
        for channel in 0..self.from {
            for at in 0..self.side * self.side {
                let window = self.window(at / self.side, at % self.side);
                for image in first..first + count {
                    let plane = &mut to[(image * self.from + channel) * pixels..][..pixels];
                    for (row, source) in (0..self.height).zip(&mut rows) {
                        let Some(other) = window.row(row) else {
                            continue;
                        };
                        let sums = &mut plane[other * self.width + window.from..][..window.length];
                        for (sum, &value) in sums.iter_mut().zip(&source[window.before..]) {
                            *sum += value;
                        }
                    }
                }
            }
        }
    }

    /// What the kernel's value at a place sees of a row of pixels.
    fn window(&self, row: usize, column: usize) -> Window {
        let reach = self.side / 2;
        let before = reach.saturating_sub(column).min(self.width);
        let from = column.saturating_sub(reach).min(self.width);
        Window {
            down: row,
            reach,
            height: self.height,
            before,
            from,
            length: self.width - before.max(from),
        }
    }
}

/// Which pixels of an image one value of the kernel sees.
#[derive(Clone, Copy)]
struct Window {
    down: usize,
    reach: usize,
    height: usize,
    /// Zeros before the first pixel that it sees.
    before: usize,
    /// The first pixel.
    from: usize,
    /// Pixels.
    length: usize,
}

impl Window {
    /// The row that is seen from a row; `None` outside the image.
    fn row(&self, row: usize) -> Option<usize> {
        let at = (row + self.down).checked_sub(self.reach)?;
        (at < self.height).then_some(at)
    }
}
