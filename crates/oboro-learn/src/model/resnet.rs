use super::convolutional::mean_over_image;
use super::init::Init;
use burn::module::Module;
use burn::nn::BatchNorm;
use burn::nn::conv::Conv2d;
use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;

/// A residual network; fields are named as torchvision's tensors are.
#[derive(Module, Debug)]
pub(super) struct ResidualNetwork {
    conv1: Conv2d,
    bn1: BatchNorm,
    layer1: Vec<Block>,
    layer2: Vec<Block>,
    layer3: Vec<Block>,
    layer4: Vec<Block>,
}

/// Two convolutions, or three in a bottleneck, around which the input is
/// added.
#[derive(Module, Debug)]
struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Option<Conv2d>,
    bn3: Option<BatchNorm>,
    downsample: Option<(Conv2d, BatchNorm)>,
}

impl ResidualNetwork {
    pub(super) fn new(
        input: usize,
        blocks: [usize; 4],
        bottleneck: bool,
        width: usize,
        init: &mut Init<'_>,
    ) -> Self {
        let conv1 = init.convolution([input, width], 7, 2);
        let bn1 = init.batch_norm(width);
        let mut from = width;
        let mut stage = |index: usize| {
            let inner = width << index;
            let to = inner * if bottleneck { 4 } else { 1 };
            (0..blocks[index])
                .map(|block| {
                    let stride = if block == 0 && index > 0 { 2 } else { 1 };
                    let made = Block::new([from, inner, to], stride, bottleneck, init);
                    from = to;
                    made
                })
                .collect()
        };
        Self {
            layer1: stage(0),
            layer2: stage(1),
            layer3: stage(2),
            layer4: stage(3),
            conv1,
            bn1,
        }
    }

    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.bn1.forward(self.conv1.forward(images)));
        let options = MaxPoolOptions::new([3, 3])
            .with_stride([2, 2])
            .with_padding([1, 1]);
        let mut x = max_pool2d(x, options);
        for stage in [&self.layer1, &self.layer2, &self.layer3, &self.layer4] {
            for block in stage {
                x = block.forward(x);
            }
        }
        mean_over_image(x)
    }
}

impl Block {
    fn new(
        [from, inner, to]: [usize; 3],
        stride: usize,
        bottleneck: bool,
        init: &mut Init<'_>,
    ) -> Self {
        // The stride is that of the convolution over the neighbourhood:
        // torchvision's choice, "v1.5".
        let kernels = if bottleneck { [1, 3] } else { [3, 3] };
        let strides = if bottleneck { [1, stride] } else { [stride, 1] };
        Self {
            conv1: init.convolution([from, inner], kernels[0], strides[0]),
            bn1: init.batch_norm(inner),
            conv2: init.convolution([inner, inner], kernels[1], strides[1]),
            bn2: init.batch_norm(inner),
            conv3: bottleneck.then(|| init.convolution([inner, to], 1, 1)),
            bn3: bottleneck.then(|| init.batch_norm(to)),
            downsample: (stride != 1 || from != to)
                .then(|| (init.convolution([from, to], 1, stride), init.batch_norm(to))),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let around = match &self.downsample {
            Some((conv, norm)) => norm.forward(conv.forward(x.clone())),
            None => x.clone(),
        };
        let x = relu(self.bn1.forward(self.conv1.forward(x)));
        let mut x = self.bn2.forward(self.conv2.forward(x));
        if let (Some(conv), Some(norm)) = (&self.conv3, &self.bn3) {
            x = norm.forward(conv.forward(relu(x)));
        }
        relu(x + around)
    }
}
