//! Memory of the process: not dumped, not traced, not swapped; and no new privileges.

use crate::{Extent, Measure};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_no_new_privs};

pub(crate) fn no_core_dumps() -> Measure {
    const NAME: &str = "no core dumps";
    let zero = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    match setrlimit(Resource::Core, zero) {
        Ok(()) => Measure::full(NAME, "their size is limited to 0"),
        Err(error) => Measure::none(NAME, format!("the limit cannot be set: {error}")),
    }
}

pub(crate) fn not_traceable() -> Measure {
    const NAME: &str = "not dumpable, not traceable by its user";
    match rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        Ok(()) => Measure::full(NAME, "only an administrator can attach to it"),
        Err(error) => Measure::none(NAME, format!("the flag cannot be set: {error}")),
    }
}

pub(crate) fn no_new_privileges() -> Measure {
    const NAME: &str = "no new privileges";
    match set_no_new_privs(true) {
        Ok(()) => Measure::full(NAME, "set-user-ID programs gain it nothing"),
        Err(error) => Measure::none(NAME, format!("the flag cannot be set: {error}")),
    }
}

/// Locks all memory where the limit allows any amount. Under a limit that will be reached,
/// locking what comes in future would make allocations fail, so nothing is locked.
pub(crate) fn not_swapped() -> Measure {
    const NAME: &str = "memory not swapped";
    let swap = swap();
    let otherwise = |why: String| match swap {
        Swap::Off => Measure::full(NAME, format!("{why}, but there is no swap")),
        Swap::On => Measure::none(NAME, format!("{why}, and there is swap")),
        Swap::Unknown => Measure::new(
            NAME,
            Extent::None,
            format!("{why}, and whether there is swap is unknown"),
        ),
    };
    let limit = getrlimit(Resource::Memlock);
    // A process may raise its limit up to the maximum; what fails shows in the next line.
    let _ = setrlimit(
        Resource::Memlock,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    let privileged =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if let Some(bytes) = getrlimit(Resource::Memlock).current
        && !privileged
    {
        return otherwise(format!(
            "not locked: the limit of locked memory is {} KB",
            bytes / 1024
        ));
    }
    // Pages are locked when they are first used, not all that could be.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match mlockall(flags) {
        Ok(()) => Measure::full(NAME, "all of it is locked"),
        Err(error) => otherwise(format!("not locked: {error}")),
    }
}

#[derive(Clone, Copy)]
enum Swap {
    On,
    Off,
    Unknown,
}

fn swap() -> Swap {
    match std::fs::read_to_string("/proc/swaps") {
        // A heading, then a line for each.
        Ok(text) if text.lines().count() > 1 => Swap::On,
        Ok(text) if text.starts_with("Filename") => Swap::Off,
        _ => Swap::Unknown,
    }
}
