//! Files, folders and TCP ports: Landlock.

use crate::{Extent, Lockdown, Measure};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    RestrictSelfAttr, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};

const NAME: &str = "other files and TCP ports closed";

/// What is given up, where the kernel knows it: files (1), renaming between folders (2),
/// truncating (3), TCP ports (4), ioctl on devices (5), signals and abstract sockets (6).
const GIVEN_UP: ABI = ABI::V6;

pub(crate) fn restrict(lockdown: &Lockdown) -> Measure {
    let threads = std::fs::read_dir("/proc/self/task")
        .ok()
        .map(Iterator::count);
    match apply(lockdown, threads != Some(1)) {
        Ok(status) => {
            let abi = match status.landlock {
                LandlockStatus::Available {
                    effective_abi,
                    kernel_abi,
                } => kernel_abi.unwrap_or(effective_abi as i32),
                LandlockStatus::NotEnabled => {
                    return Measure::none(NAME, "Landlock is not enabled in this kernel");
                }
                LandlockStatus::NotImplemented => {
                    return Measure::none(NAME, "this kernel has no Landlock");
                }
            };
            let counts = format!(
                "{} to read, {} to write, {} ports to listen on, {} to connect to",
                lockdown.read.len(),
                lockdown.write.len(),
                lockdown.bind.len(),
                lockdown.connect.len()
            );
            match status.ruleset {
                RulesetStatus::NotEnforced => Measure::none(NAME, "Landlock enforces nothing"),
                enforced => match unreached(threads, status.all_threads) {
                    Some(others) => Measure::new(
                        NAME,
                        Extent::Partly,
                        format!("Landlock ABI {abi}, but {others}"),
                    ),
                    None if enforced == RulesetStatus::FullyEnforced => Measure::full(
                        NAME,
                        format!("Landlock ABI {abi}: files and TCP ports; {counts}"),
                    ),
                    None => Measure::new(
                        NAME,
                        Extent::Partly,
                        format!("Landlock ABI {abi}: {}; {counts}", offered(abi)),
                    ),
                },
            }
        }
        Err(error) => Measure::none(NAME, format!("Landlock refuses: {error}")),
    }
}

/// Which threads keep their rights; `threads` is `None` where nobody can count them.
fn unreached(threads: Option<usize>, all_restricted: bool) -> Option<String> {
    if all_restricted {
        return None;
    }
    match threads {
        None => Some(
            "/proc does not say whether other threads were running, which keep their rights"
                .to_owned(),
        ),
        Some(0 | 1) => None,
        Some(2) => Some("1 thread was running already and keeps its rights".to_owned()),
        Some(more) => Some(format!(
            "{} threads were running already and keep their rights",
            more - 1
        )),
    }
}

/// What an ABI below [`GIVEN_UP`] covers.
fn offered(abi: i32) -> &'static str {
    match abi {
        ..4 => "files, but no TCP ports",
        4 => "files and TCP ports, but not ioctl on devices, nor signals to others",
        _ => "files and TCP ports, but not signals to others",
    }
}

fn apply(
    lockdown: &Lockdown,
    has_threads: bool,
) -> Result<landlock::RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(GIVEN_UP))?
        .handle_access(AccessNet::from_all(GIVEN_UP))?
        .scope(Scope::from_all(GIVEN_UP))?
        .create()?
        .add_rules(path_beneath_rules(&lockdown.read, read))?
        .add_rules(path_beneath_rules(&lockdown.write, read | write()))?
        .add_rules(ports(&lockdown.bind, AccessNet::BindTcp))?
        .add_rules(ports(&lockdown.connect, AccessNet::ConnectTcp))?
        // Kernels from 7.0 on reach the other threads; on others this is what is missing,
        // so it is asked for only where there are any.
        .all_threads(has_threads)?
        .restrict_self()
}

/// Regular files and folders may be made; devices, pipes, sockets and links may not.
fn write() -> BitFlags<AccessFs> {
    AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::Refer
        | AccessFs::IoctlDev
}

fn ports(ports: &[u16], access: AccessNet) -> impl Iterator<Item = Result<NetPort, RulesetError>> {
    ports
        .iter()
        .map(move |port| Ok(NetPort::new(*port, access)))
}

#[cfg(test)]
mod tests {
    use super::unreached;

    #[test]
    fn fail_threads_that_nobody_counted_are_not_called_restricted() {
        assert!(unreached(None, false).is_some_and(|text| text.contains("/proc")));
        assert!(unreached(Some(2), false).is_some_and(|text| text.starts_with("1 thread")));
        assert!(unreached(Some(9), false).is_some_and(|text| text.starts_with("8 threads")));
        assert_eq!(unreached(Some(1), false), None);
        assert_eq!(unreached(None, true), None);
    }
}
