//! What protects a role, and whose evidence a party can check.

use std::path::PathBuf;
use std::sync::Arc;

use oboro_attest::platforms::{self, Detection};
use oboro_attest::{AttestError, Attester, PlatformVerifier, Sealer};

use crate::failure::{Failure, Outcome};

/// Where a program's own evidence and keys come from, and whose evidence it can check.
pub trait Platforms {
    /// What attests this program.
    ///
    /// # Errors
    /// One sentence where nothing can.
    fn attester(&self) -> Outcome<Arc<dyn Attester>>;

    /// What derives keys for this program on this machine; `None` where the platform
    /// derives none.
    fn sealer(&self) -> Option<Arc<dyn Sealer>>;

    /// The platforms whose evidence can be checked.
    fn verifiers(&self) -> Vec<Arc<dyn PlatformVerifier>>;

    /// What this machine offers, platform by platform.
    fn detections(&self) -> Vec<Detection>;

    /// Files and folders that the attester works with.
    fn paths(&self) -> Vec<PathBuf>;

    /// Whether evidence that proves nothing is accepted, for trials.
    fn accepts_simulated(&self) -> bool;
}

/// Platforms made of hardware, and nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct HardwarePlatforms;

impl Platforms for HardwarePlatforms {
    fn attester(&self) -> Outcome<Arc<dyn Attester>> {
        platforms::hardware_attester().map_err(|error| match error {
            AttestError::NoPlatform(_) => Failure::refused(
                "nothing would protect the memory of this role: no hardware of this machine attests it; `oboro-server show` says what is missing",
            ),
            other => other.into(),
        })
    }

    fn sealer(&self) -> Option<Arc<dyn Sealer>> {
        platforms::hardware_sealer().ok()
    }

    fn verifiers(&self) -> Vec<Arc<dyn PlatformVerifier>> {
        platforms::hardware_verifiers()
    }

    fn detections(&self) -> Vec<Detection> {
        platforms::detect()
    }

    fn paths(&self) -> Vec<PathBuf> {
        [
            "/sys/kernel/config/tsm",
            "/dev/sev-guest",
            "/dev/tdx_guest",
            "/dev/nsm",
            "/dev/tpmrm0",
        ]
        .into_iter()
        .map(PathBuf::from)
        .filter(|path| path.exists())
        .collect()
    }

    fn accepts_simulated(&self) -> bool {
        false
    }
}
