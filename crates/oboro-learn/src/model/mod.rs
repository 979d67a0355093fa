//! Networks that turn images into embeddings.
//!
//! | module | what |
//! |---|---|
//! | [`Settings`] | which backbone, which input, which heads; what a saved network carries with it |
//! | [`Network`] | a backbone with two heads: [`Embeddings`](crate::losses::Embeddings) of a batch of images |
//! | [`load_weights`] | pretrained weights of a backbone from safetensors, PyTorch or ONNX files |
//! | [`weights_made_for`] | which images the weights of a file want |
//!
//! Backbones have the layout and the names of the tensors of the
//! implementations that most published weights come from: torchvision's
//! residual networks, timm's vision transformers. First weights are drawn from
//! the caller's generator alone: the same seed gives the same bits.
//!
//! Nothing here assumes a CPU: a network lives on the
//! [`Device`](burn::tensor::Device) that it was built on.

mod convolutional;
mod heads;
mod init;
mod network;
mod onnx;
mod resnet;
mod saved;
mod settings;
mod transformer;
mod weights;

pub use network::Network;
pub use settings::{Backbone, Heads, Hyperbolic, Settings};
pub use weights::{Loaded, MadeFor, Mismatch, load_weights, weights_made_for};
