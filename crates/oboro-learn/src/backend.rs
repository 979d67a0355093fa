//! Where tensors live: the devices of burn and the parameters put on them.
//!
//! burn chooses its backend by the device at run time, so nothing in this
//! crate names a backend but this module. The default is `flex`, the CPU in
//! pure Rust. With the feature `gpu` there is a GPU beside it, through Vulkan
//! or, on macOS, Metal; its driver is looked for when [`Place::open`] asks.

use crate::LearnError;
use burn::module::{Param, ParamId};
pub use burn::tensor::Device;
use burn::tensor::Tensor;
use rand_core::Rng;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

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

/// Whether a device is the CPU, where work is cut among threads and reading a
/// tensor costs nothing.
#[must_use]
pub fn is_cpu(device: &Device) -> bool {
    // Devices are compared without regard to gradients.
    *device == cpu()
}

/// What a device calls itself; opens it.
#[must_use]
pub fn name(device: &Device) -> String {
    #[cfg(feature = "gpu")]
    if let Some(identity) = device.identity() {
        return identity.name;
    }
    debug_assert!(is_cpu(device));
    "CPU".to_owned()
}

/// A trainable parameter whose identity is drawn from `rng`.
///
/// burn's own constructors draw the identity from a global generator; then the
/// same seed would not give the same bytes of a checkpoint.
#[must_use]
pub fn parameter<const D: usize>(value: Tensor<D>, rng: &mut impl Rng) -> Param<Tensor<D>> {
    Param::initialized(ParamId::from(rng.next_u64()), value).set_require_grad(true)
}

/// Where to compute, as `cpu`, `gpu` or `gpu:N` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Place {
    /// The CPU.
    #[default]
    Cpu,
    /// The first GPU, or the one with this number, from 0. GPUs of their own
    /// come before those of the processor and of virtual machines. Renderers
    /// that compute on the CPU are none.
    Gpu(Option<usize>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(None) => f.write_str("gpu"),
            Self::Gpu(Some(number)) => write!(f, "gpu:{number}"),
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().map(|number| Self::Gpu(Some(number)));
        match text {
            "cpu" => Some(Self::Cpu),
            "gpu" => Some(Self::Gpu(None)),
            _ => text.strip_prefix("gpu:").and_then(number),
        }
        .ok_or_else(|| format!("the device is {text:?}; give cpu, gpu or gpu:N with N from 0"))
    }
}

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Place {
    /// The device, without gradients.
    ///
    /// # Errors
    /// [`LearnError::Device`] when there is no such GPU, its driver does not
    /// let it be opened, or this build has no GPU support.
    pub fn open(self) -> Result<Device, LearnError> {
        match self {
            Self::Cpu => Ok(cpu()),
            Self::Gpu(number) => gpu::open(number),
        }
    }
}

#[cfg(not(feature = "gpu"))]
mod gpu {
    use super::{Device, LearnError};

    pub(super) fn open(_: Option<usize>) -> Result<Device, LearnError> {
        Err(LearnError::Device {
            what: "this build computes on the CPU only and on no GPU; build it with `--features gpu` or choose the device cpu".to_owned(),
        })
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use super::{Device, LearnError};
    use burn::tensor::wgpu::WgpuBackend;
    use burn::tensor::{DeviceKind, DeviceType};
    use std::sync::{Mutex, PoisonError};

    // One graphics interface, not whichever of several answers: wgpu would
    // fall back to OpenGL, which lacks what burn's kernels need.
    #[cfg(target_vendor = "apple")]
    const INTERFACE: (DeviceType, WgpuBackend) = (DeviceType::Wgpu, WgpuBackend::Auto);
    #[cfg(not(target_vendor = "apple"))]
    const INTERFACE: (DeviceType, WgpuBackend) = (DeviceType::Vulkan, WgpuBackend::Vulkan);

    fn device(kind: DeviceKind) -> Device {
        match INTERFACE.1 {
            WgpuBackend::Vulkan => Device::vulkan(kind),
            _ => Device::wgpu(kind),
        }
    }

    /// GPUs, and whether there is a renderer on the CPU.
    fn found() -> (Vec<DeviceKind>, bool) {
        let all: Vec<Device> = Device::enumerate(INTERFACE.0).into_iter().collect();
        let there = |kind: &DeviceKind| all.contains(&device(kind.clone()));
        let kinds: [fn(usize) -> DeviceKind; 3] = [
            DeviceKind::DiscreteGpu,
            DeviceKind::IntegratedGpu,
            DeviceKind::VirtualGpu,
        ];
        let gpus = kinds
            .into_iter()
            .flat_map(|kind| (0..all.len()).map(kind).take_while(there))
            .collect();
        (gpus, there(&DeviceKind::Cpu))
    }

    fn refused(what: String) -> LearnError {
        LearnError::Device { what }
    }

    /// Devices that are open: none can be opened twice.
    static OPEN: Mutex<Vec<(DeviceKind, Device)>> = Mutex::new(Vec::new());

    pub(super) fn open(number: Option<usize>) -> Result<Device, LearnError> {
        let (kinds, renderer) = found();
        if kinds.is_empty() {
            let what = match renderer {
                false => "no GPU was found; install its Vulkan driver or choose the device cpu",
                true => {
                    "no GPU was found but a renderer that computes on the CPU; choose the device cpu"
                }
            };
            return Err(refused(what.to_owned()));
        }
        let number = number.unwrap_or(0);
        let Some(kind) = kinds.get(number) else {
            return Err(refused(format!(
                "there is no GPU with the number {number}; this machine has {}, numbered from 0",
                kinds.len()
            )));
        };
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, device)) = open.iter().find(|(other, _)| other == kind) {
            return Ok(device.clone());
        }
        let device = Device::wgpu_options()
            .device_kind(kind.clone())
            .graphics_api(INTERFACE.1)
            .init()
            .map_err(|error| {
                refused(format!(
                    "the GPU with the number {number} cannot be opened ({error}); update its driver or choose the device cpu"
                ))
            })?;
        open.push((kind.clone(), device.clone()));
        Ok(device)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in ["cpu", "gpu", "gpu:0", "gpu:12"] {
            let place: Place = text.parse().unwrap();
            assert_eq!(place.to_string(), text);
            let json = serde_json::to_string(&place).unwrap();
            assert_eq!(serde_json::from_str::<Place>(&json).unwrap(), place);
        }
        assert!(is_cpu(&Place::Cpu.open().unwrap()));
        assert!(is_cpu(&cpu_autodiff()));
        assert_eq!(name(&cpu()), "CPU");
    }

    #[test]
    fn fail_places_that_are_none() {
        for text in [
            "", "GPU", "cuda", "gpu:", "gpu:x", "gpu:-1", "gpu 0", "cpu:0",
        ] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(error.contains("give cpu, gpu or gpu:N"), "{error}");
            assert!(serde_json::from_str::<Place>(&format!("\"{text}\"")).is_err());
        }
    }

    #[test]
    fn fail_a_gpu_that_is_not_there() {
        let error = Place::Gpu(Some(99)).open().unwrap_err().to_string();
        assert!(!error.contains('\n') && error.contains("; "), "{error}");
    }
}
