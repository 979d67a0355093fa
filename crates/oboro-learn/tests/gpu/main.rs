//! On a GPU: losses and their gradients are the fixtures', operations, networks
//! and training steps are the CPU's, and a run begun on the one goes on on the
//! other. Without a GPU they say that they are skipped.
//!
//! `cargo test -p oboro-learn --features gpu --test gpu`
//!
//! With `OBORO_TEST_RENDERER=1` a renderer that computes on the CPU stands in for
//! a GPU, of which `scripts/gpu-tests.sh` brings one.
#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../losses/common.rs"]
mod common;
#[path = "../losses/fixtures.rs"]
mod fixtures;
mod operations;
#[allow(dead_code)]
#[path = "../common/mod.rs"]
mod toy;
mod training;

use burn::tensor::wgpu::WgpuBackend;
use burn::tensor::{DType, Device, DeviceKind};
use oboro_learn::backend::{Place, name};
use std::io::Write;
use std::sync::OnceLock;

/// A renderer that computes on the CPU, which is no GPU to anybody but these
/// tests.
fn renderer() -> Device {
    Device::wgpu_options()
        .device_kind(DeviceKind::Cpu)
        .graphics_api(WgpuBackend::Vulkan)
        .init()
        .unwrap()
}

/// The first GPU.
fn gpu() -> Option<&'static Device> {
    static GPU: OnceLock<Option<Device>> = OnceLock::new();
    let gpu = GPU.get_or_init(|| {
        let found = match std::env::var_os("OBORO_TEST_RENDERER") {
            Some(_) => Ok(renderer()),
            None => Place::Gpu(None).open(),
        };
        // The standard error itself: tests that pass have their lines taken away.
        let mut terminal = std::io::stderr();
        match found {
            Ok(device) => {
                writeln!(terminal, "device: {}", name(&device)).unwrap();
                Some(device)
            }
            Err(error) => {
                writeln!(terminal, "SKIPPED, all tests on a GPU: {error}").unwrap();
                None
            }
        }
    });
    gpu.as_ref()
}

/// Where the fixtures' tests compute.
fn device() -> Device {
    let device = gpu().expect("fixtures are only reckoned in the precisions there are");
    device.clone().autodiff()
}

/// The number types and how near the fixtures they have to come; none where
/// there is no GPU.
fn precisions() -> &'static [(DType, f64)] {
    match gpu() {
        Some(_) => &[(DType::F32, 1e-4)],
        None => &[],
    }
}
