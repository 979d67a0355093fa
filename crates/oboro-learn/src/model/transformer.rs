use super::init::Init;
use crate::backend::is_cpu;
use burn::module::{Module, Param};
use burn::nn::conv::Conv2d;
use burn::nn::{LayerNorm, Linear};
use burn::tensor::Tensor;
use burn::tensor::activation::gelu;
use burn::tensor::module::{attention, attention_fallback};
use burn::tensor::ops::AttentionModuleOptions;
use std::f64::consts::FRAC_1_SQRT_2;

/// timm's; burn's default is 1e-5.
const EPSILON: f64 = 1e-6;
/// The deviation of first weights, from the paper.
const DEVIATION: f64 = 0.02;

/// A vision transformer; fields are named as timm's tensors are.
#[derive(Module, Debug)]
pub(super) struct VisionTransformer {
    cls_token: Param<Tensor<3>>,
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

#[derive(Module, Debug)]
struct PatchEmbed {
    proj: Conv2d,
}

#[derive(Module, Debug)]
struct Block {
    norm1: LayerNorm,
    attn: Attention,
    norm2: LayerNorm,
    mlp: Mlp,
}

#[derive(Module, Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl VisionTransformer {
    pub(super) fn new(
        [channels, side]: [usize; 2],
        patch: usize,
        width: usize,
        depth: usize,
        heads: usize,
        init: &mut Init<'_>,
    ) -> Self {
        let tokens = (side / patch) * (side / patch) + 1;
        Self {
            cls_token: init.uniform([1, 1, width], 1e-6),
            pos_embed: init.uniform([1, tokens, width], DEVIATION),
            patch_embed: PatchEmbed {
                proj: init.patches([channels, width], patch),
            },
            blocks: (0..depth).map(|_| Block::new(width, heads, init)).collect(),
            norm: init.layer_norm(width, EPSILON),
        }
    }

    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let patches = self.patch_embed.proj.forward(images);
        let [batch, width, rows, columns] = patches.dims();
        let patches = patches
            .reshape([batch, width, rows * columns])
            .swap_dims(1, 2);
        let class = self.cls_token.val().expand([batch, 1, width]);
        let mut x = Tensor::cat(vec![class, patches], 1) + self.pos_embed.val();
        for block in &self.blocks {
            x = block.forward(x);
        }
        // Layers are normalised token by token, so the others can go before.
        let class = x.narrow(1, 0, 1);
        self.norm.forward(class).reshape([batch, width])
    }
}

impl Block {
    fn new(width: usize, heads: usize, init: &mut Init<'_>) -> Self {
        Self {
            norm1: init.layer_norm(width, EPSILON),
            attn: Attention {
                qkv: init.linear([width, 3 * width], DEVIATION),
                proj: init.linear([width, width], DEVIATION),
                heads,
            },
            norm2: init.layer_norm(width, EPSILON),
            mlp: Mlp {
                fc1: init.linear([width, 4 * width], DEVIATION),
                fc2: init.linear([4 * width, width], DEVIATION),
            },
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let x = x.clone() + self.attn.forward(self.norm1.forward(x));
        let hidden = rectified(self.mlp.fc1.forward(self.norm2.forward(x.clone())));
        x + self.mlp.fc2.forward(hidden)
    }
}

/// The exact `gelu`. On a GPU burn's own has the gradient of its approximation
/// by tanh, which is off by a thousandth.
fn rectified(x: Tensor<3>) -> Tensor<3> {
    if is_cpu(&x.device()) {
        return gelu(x);
    }
    let share = x.clone().mul_scalar(FRAC_1_SQRT_2).erf().add_scalar(1.0);
    (x * share).mul_scalar(0.5)
}

impl Attention {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        let parts = self
            .qkv
            .forward(x)
            .reshape([batch, tokens, 3, self.heads, width / self.heads])
            .permute([2, 0, 3, 1, 4]);
        let part = |index: usize| -> Tensor<4> {
            let one = parts.clone().narrow(0, index, 1);
            one.reshape([batch, self.heads, tokens, width / self.heads])
        };
        let options = AttentionModuleOptions::default();
        // On a GPU with matrix units burn's fused kernel multiplies in half
        // precision, whatever it is given.
        let of = if is_cpu(&parts.device()) {
            attention
        } else {
            attention_fallback
        };
        let mixed = of(part(0), part(1), part(2), None, None, options)
            .swap_dims(1, 2)
            .reshape([batch, tokens, width]);
        self.proj.forward(mixed)
    }
}
