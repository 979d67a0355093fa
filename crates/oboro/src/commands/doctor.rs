//! `oboro doctor`: what this machine can do.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use oboro_simd::arch::{ARCH_VARIABLE, Arch};
use serde::Serialize;

use crate::cli::Global;
use crate::failure::{Failure, Outcome};
use crate::output::{self, Report};

/// Options of `oboro doctor`.
#[derive(Args, Debug)]
pub(crate) struct Options {}

/// What was found.
#[derive(Serialize)]
struct Findings {
    version: &'static str,
    processor: String,
    cores: usize,
    instructions: &'static str,
    instructions_available: Vec<&'static str>,
    memory_bytes: u64,
    memory_available_bytes: u64,
    page_bytes: usize,
    huge_pages: String,
    operating_system: String,
    tls_provider: &'static str,
    tls_key_exchange: &'static str,
    platforms: Vec<Platform>,
    remarks: Vec<String>,
}

#[derive(Serialize)]
struct Platform {
    name: &'static str,
    present: bool,
    supported: bool,
}

/// Runs the verb.
pub(crate) fn run(_: &Options, global: &Global) -> Outcome<()> {
    output::print(&findings()?, global.json)
}

/// Refuses a wish for instructions that this processor lacks, before a kernel
/// panics over it.
pub(crate) fn check_instructions() -> Outcome<()> {
    let Some(wanted) = std::env::var_os(ARCH_VARIABLE) else {
        return Ok(());
    };
    let names: Vec<_> = Arch::available().iter().map(|arch| arch.name()).collect();
    if names.iter().any(|name| *name == wanted) {
        return Ok(());
    }
    Err(Failure::usage(format_args!(
        "{ARCH_VARIABLE} demands \"{}\" but this processor offers {}; unset it or name one of those",
        wanted.display(),
        names.join(", ")
    )))
}

/// The processor's name, for reports of measurements.
pub(crate) fn processor() -> String {
    field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn findings() -> Outcome<Findings> {
    let arch = Arch::detect();
    let available: Vec<_> = Arch::available().iter().map(|arch| arch.name()).collect();
    let kilobytes = |name| {
        field("/proc/meminfo", name)
            .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
            .map_or(0, |value| value * 1_024)
    };
    let platforms = vec![
        Platform {
            name: "simulated",
            present: true,
            supported: true,
        },
        Platform {
            name: "sev-snp",
            present: Path::new("/dev/sev-guest").exists(),
            supported: false,
        },
        Platform {
            name: "tdx",
            present: Path::new("/dev/tdx_guest").exists(),
            supported: false,
        },
        Platform {
            name: "nitro",
            present: Path::new("/dev/nsm").exists(),
            supported: false,
        },
    ];
    let mut remarks = Vec::new();
    if arch.name() != "avx512" {
        remarks.push(format!(
            "the fastest kernels need AVX-512 (VBMI, IFMA); here {} ones run",
            arch.name()
        ));
    }
    for platform in &platforms {
        if platform.present && !platform.supported {
            remarks.push(format!(
                "{} hardware is here but this version cannot use it yet",
                platform.name
            ));
        }
    }
    remarks.push(
        "roles run on the simulated platform only; every verb that uses them needs --allow-simulated".to_owned(),
    );
    Ok(Findings {
        version: env!("CARGO_PKG_VERSION"),
        processor: processor(),
        cores: cores(),
        instructions: arch.name(),
        instructions_available: available,
        memory_bytes: kilobytes("MemTotal"),
        memory_available_bytes: kilobytes("MemAvailable"),
        page_bytes: rustix::param::page_size(),
        huge_pages: chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        operating_system: format!(
            "{} {}",
            std::env::consts::OS,
            std::fs::read_to_string("/proc/sys/kernel/osrelease")
                .unwrap_or_default()
                .trim()
        ),
        tls_provider: "aws-lc-rs",
        tls_key_exchange: "X25519MLKEM768",
        platforms,
        remarks,
    })
}

/// The value after `name` and a colon in a file of the kernel.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The word in brackets, the kernel's way to mark the chosen one.
fn chosen(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'))
        .map_or_else(|| "unknown".to_owned(), |(word, _)| word.to_owned())
}

impl Report for Findings {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "oboro          {}", self.version)?;
        writeln!(out, "processor      {}", self.processor)?;
        writeln!(
            out,
            "instructions   {} (of {})",
            self.instructions,
            self.instructions_available.join(", ")
        )?;
        writeln!(out, "cores          {}", self.cores)?;
        writeln!(
            out,
            "memory         {} ({} available)",
            output::bytes(self.memory_bytes),
            output::bytes(self.memory_available_bytes)
        )?;
        writeln!(
            out,
            "pages          {} bytes, huge pages {}",
            self.page_bytes, self.huge_pages
        )?;
        writeln!(out, "system         {}", self.operating_system)?;
        writeln!(
            out,
            "TLS            1.3, {}, {}",
            self.tls_provider, self.tls_key_exchange
        )?;
        for platform in &self.platforms {
            writeln!(
                out,
                "platform       {:10} {}",
                platform.name,
                match (platform.present, platform.supported) {
                    (true, true) => "usable (no protection)",
                    (true, false) => "present, not supported by this version",
                    (false, _) => "not present",
                }
            )?;
        }
        for remark in &self.remarks {
            writeln!(out, "note           {remark}")?;
        }
        Ok(())
    }
}
