//! Where tensors live: the devices of burn and the parameters put on them.
//!
//! burn chooses its backend by the device at run time, so nothing in this
//! crate names a backend but this module. The default is `flex`, the CPU in
//! pure Rust.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor};
use rand_core::Rng;

/// The CPU, without gradients: for embedding and evaluation.
#[must_use]
pub fn cpu() -> Device {
    Device::flex()
}

/// The CPU, recording what gradients need: for training.
#[must_use]
pub fn cpu_autodiff() -> Device {
    cpu().autodiff()
}

/// A trainable parameter whose identity is drawn from `rng`.
///
/// burn's own constructors draw the identity from a global generator; then the
/// same seed would not give the same bytes of a checkpoint.
#[must_use]
pub fn parameter<const D: usize>(value: Tensor<D>, rng: &mut impl Rng) -> Param<Tensor<D>> {
    Param::initialized(ParamId::from(rng.next_u64()), value).set_require_grad(true)
}
