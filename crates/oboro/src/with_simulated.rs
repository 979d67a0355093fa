//! Hardware platforms and, where that was asked for, the simulated one.

use std::path::PathBuf;
use std::sync::Arc;

use oboro_attest::platforms::Detection;
use oboro_attest::{Attester, Platform, PlatformVerifier, Sealer};
use oboro_server::platforms::{HardwarePlatforms, Platforms};
use oboro_simulated::{SimulatedAttester, SimulatedVerifier, measure};

use crate::failure::{Failure, Named, Outcome};

/// What `oboro` runs on and accepts.
///
/// With `--allow-simulated` a role attests itself as simulated even where hardware is at
/// hand: a trial behaves the same on every machine. Policies for hardware stay in force
/// beside it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WithSimulated {
    allowed: bool,
}

impl WithSimulated {
    /// Hardware, and simulation if `allowed`.
    pub(crate) const fn new(allowed: bool) -> Self {
        Self { allowed }
    }
}

/// The simulated platform's measurement of this program.
fn measurement() -> Outcome<[u8; 48]> {
    let program = std::env::current_exe().named("find", "this program")?;
    let bytes = std::fs::read(&program).named("read", program.display())?;
    Ok(measure(&bytes))
}

impl Platforms for WithSimulated {
    fn attester(&self) -> Outcome<Arc<dyn Attester>> {
        if self.allowed {
            return Ok(Arc::new(SimulatedAttester::new(measurement()?)));
        }
        HardwarePlatforms.attester().map_err(|failure| {
            Failure::new(
                failure.kind,
                format_args!(
                    "{}; pass --allow-simulated to run all the same, for a trial",
                    failure.message
                ),
            )
        })
    }

    fn sealer(&self) -> Option<Arc<dyn Sealer>> {
        if self.allowed {
            // Keys that anyone can derive would seal nothing; the keeper's own keys do.
            return None;
        }
        HardwarePlatforms.sealer()
    }

    fn verifiers(&self) -> Vec<Arc<dyn PlatformVerifier>> {
        let mut all = HardwarePlatforms.verifiers();
        // Known even where it is not accepted, so that the refusal names it.
        all.push(Arc::new(SimulatedVerifier));
        all
    }

    fn detections(&self) -> Vec<Detection> {
        let mut all = HardwarePlatforms.detections();
        all.push(Detection {
            platform: Platform::Simulated,
            available: true,
            detail: "for trials with --allow-simulated; protects nothing".to_owned(),
        });
        all
    }

    fn paths(&self) -> Vec<PathBuf> {
        if self.allowed {
            return Vec::new();
        }
        HardwarePlatforms.paths()
    }

    fn accepts_simulated(&self) -> bool {
        self.allowed
    }
}
