//! Memory and descriptors of a process, from the kernel.

use std::fmt;
use std::fs;

use crate::Outcome;

/// Growth in a calm that is no leak: pools, allocator arenas.
const SLACK_BYTES: u64 = 24 << 20;
const SLACK_DESCRIPTORS: usize = 16;

/// What a process uses at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Resident bytes that no file backs.
    anonymous: u64,
    descriptors: usize,
    threads: usize,
}

impl Usage {
    pub(crate) fn of(process: u32) -> Outcome<Self> {
        Self::read(&format!("/proc/{process}"))
    }

    pub(crate) fn of_this_process() -> Outcome<Self> {
        Self::read("/proc/self")
    }

    fn read(folder: &str) -> Outcome<Self> {
        let status = fs::read_to_string(format!("{folder}/status"))
            .map_err(|error| format!("cannot read {folder}/status: {error}"))?;
        let field = |name: &str| -> Outcome<u64> {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_whitespace().next())
                .and_then(|number| number.parse().ok())
                .ok_or_else(|| format!("{folder}/status has no {name}"))
        };
        let descriptors = fs::read_dir(format!("{folder}/fd"))
            .map_err(|error| format!("cannot read {folder}/fd: {error}"))?
            .count();
        Ok(Self {
            anonymous: field("RssAnon:")? * 1_024,
            descriptors,
            threads: field("Threads:")? as usize,
        })
    }

    /// Fails where `later` is more than noise above this.
    pub(crate) fn check_growth(&self, who: &str, later: Self) -> Outcome<()> {
        if later.anonymous > self.anonymous + self.anonymous / 4 + SLACK_BYTES {
            return Err(format!("memory of {who} grew from {self} to {later}"));
        }
        if later.descriptors > self.descriptors + SLACK_DESCRIPTORS
            || later.threads > self.threads + SLACK_DESCRIPTORS
        {
            return Err(format!(
                "descriptors or threads of {who} grew from {self} to {later}"
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:.1} MB, {} descriptors, {} threads",
            self.anonymous as f64 / 1e6,
            self.descriptors,
            self.threads
        )
    }
}

/// The first and the latest of several readings.
#[derive(Default)]
pub(crate) struct Growth {
    readings: Vec<Usage>,
}

impl Growth {
    pub(crate) fn note(&mut self, usage: Usage) {
        self.readings.push(usage);
    }

    /// Compares the last reading with the first.
    pub(crate) fn check(&self, who: &str) -> Outcome<()> {
        let (Some(first), Some(last)) = (self.readings.first(), self.readings.last()) else {
            return Ok(());
        };
        println!("soak: {who}: {first} -> {last}");
        first.check_growth(who, *last)
    }
}
