//! The losses: values and gradients of the fixtures that
//! `scripts/oracles/make_fixtures.py` writes, what the losses promise, and what
//! they refuse.
#![allow(clippy::unwrap_used)]

mod ball;
mod common;
mod fixtures;
mod promises;
mod refusals;
mod slopes;
mod stability;

use burn::tensor::{DType, Device};

/// Where the tests compute.
fn device() -> Device {
    oboro_learn::backend::cpu_autodiff()
}

/// The number types and how near the fixtures they have to come.
fn precisions() -> &'static [(DType, f64)] {
    &[(DType::F64, 1e-9), (DType::F32, 1e-5)]
}
