//! What a role gives up before it serves.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use oboro_lockdown::{Degree, Lockdown};

use crate::failure::{Failure, Outcome};
use crate::ready::Measure;

/// The option that says how far.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct LockdownOptions {
    /// Give up what serving does not need: files, ports, system calls, core dumps, swapping
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub lockdown: Wanted,
}

/// How far a process is locked down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Wanted {
    /// Every measure in full, or the role does not start
    Require,
    /// What this kernel offers
    #[default]
    BestEffort,
    /// Not at all
    Off,
}

impl Wanted {
    /// The word on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Require => "require",
            Self::BestEffort => "best-effort",
            Self::Off => "off",
        }
    }
}

/// What a role still needs.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Files and folders to read.
    pub read: Vec<PathBuf>,
    /// Files and folders to write, too.
    pub write: Vec<PathBuf>,
    /// Ports to listen on; 0 for any free one.
    pub bind: Vec<u16>,
    /// Ports of other machines.
    pub connect: Vec<u16>,
}

/// What resolving names and counting processors reads.
const SYSTEM: [&str; 14] = [
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/proc",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
];

/// Gives up everything else, for good and for all threads that start from now on.
///
/// # Errors
/// If a measure cannot be taken in full and `wanted` is [`Wanted::Require`].
pub fn apply(wanted: Wanted, needs: &Needs) -> Outcome<Vec<Measure>> {
    let degree = match wanted {
        Wanted::Off => {
            return Ok(vec![Measure {
                name: "lock-down".to_owned(),
                degree: "no".to_owned(),
                detail: "--lockdown off was given".to_owned(),
            }]);
        }
        Wanted::BestEffort => Degree::BestEffort,
        Wanted::Require => Degree::Require,
    };
    let report = Lockdown::new()
        .read(SYSTEM)
        .read(&needs.read)
        .write(&needs.write)
        .bind(needs.bind.iter().copied())
        .connect(needs.connect.iter().copied())
        .apply(degree)
        .map_err(Failure::refused)?;
    Ok(report
        .measures
        .into_iter()
        .map(|measure| Measure {
            name: measure.name.to_owned(),
            degree: measure.degree.name().to_owned(),
            detail: measure.detail,
        })
        .collect())
}
