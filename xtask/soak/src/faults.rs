//! What happens to the roles in a storm.

use std::fmt;
use std::time::Duration;

use chacha20::ChaCha20Rng;
use nix::sys::signal::Signal;
use rand_core::Rng;

use crate::Outcome;
use crate::roles::{Roles, Which};

/// Draws faults and counts them.
pub(crate) struct Faults {
    rng: ChaCha20Rng,
    kills: u64,
    stops: u64,
    freezes: u64,
    rotations: u64,
    rotations_cut: u64,
}

impl Faults {
    pub(crate) fn new(rng: ChaCha20Rng) -> Self {
        Self {
            rng,
            kills: 0,
            stops: 0,
            freezes: 0,
            rotations: 0,
            rotations_cut: 0,
        }
    }

    fn pause(&mut self, most_ms: u32) {
        let ms = self.rng.next_u32() % most_ms;
        std::thread::sleep(Duration::from_millis(ms.into()));
    }

    /// One fault, and a pause before it.
    pub(crate) fn one(&mut self, roles: &mut Roles) -> Outcome<()> {
        self.pause(6_000);
        roles.check_alive()?;
        let which = if self.rng.next_u32().is_multiple_of(2) {
            Which::Keeper
        } else {
            Which::Searcher
        };
        match self.rng.next_u32() % 10 {
            0..=4 => {
                roles.end(which, Signal::SIGKILL)?;
                self.kills += 1;
                self.pause(2_500);
                roles.start(which)
            }
            5 | 6 => {
                // Asked to stop; a role that is still starting may be killed by it.
                std::thread::sleep(Duration::from_secs(2));
                roles.end(which, Signal::SIGTERM)?;
                self.stops += 1;
                self.pause(2_500);
                roles.start(which)
            }
            7 => {
                roles.signal(which, Signal::SIGSTOP)?;
                self.freezes += 1;
                self.pause(4_000);
                roles.signal(which, Signal::SIGCONT)
            }
            _ => {
                match roles.rotate() {
                    Ok(()) => self.rotations += 1,
                    // Refusals because a role is starting are no fault of the rotation.
                    Err(ended) if ended.passing_rotation() => self.rotations_cut += 1,
                    Err(ended) => return Err(ended.said),
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} kills, {} stops, {} freezes, {} rotations ({} more not finished)",
            self.kills, self.stops, self.freezes, self.rotations, self.rotations_cut
        )
    }
}
