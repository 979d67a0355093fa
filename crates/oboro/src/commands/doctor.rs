//! `oboro doctor`: what this machine can do.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use oboro_server::lockdown::{self, Needs, Wanted};
use oboro_server::ready::Measure;
use oboro_server::show::{self, PlatformReport};
use oboro_simd::arch::{ARCH_VARIABLE, Arch};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::global::Global;
use crate::output::{self, Report};
use crate::with_simulated::WithSimulated;

/// The platform that is always there.
const SIMULATED: &str = oboro_attest::Platform::Simulated.name();

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
    platforms: Vec<PlatformReport>,
    kernel: Kernel,
    remarks: Vec<String>,
}

/// What the kernel offers for locking a role down, and what could carry its memory away.
#[derive(Serialize)]
struct Kernel {
    /// What a role's lock-down comes to here.
    lockdown: Vec<Measure>,
    /// Bytes of swap.
    swap_bytes: u64,
    /// Where core dumps go.
    core_pattern: String,
    /// How much memory a process may lock; absent where there is no limit.
    lockable_bytes: Option<u64>,
    /// Devices of a TPM 2.0.
    tpm_devices: Vec<&'static str>,
}

impl Kernel {
    /// Looks at everything, and last of all locks this process down: what that comes to
    /// is best found out by doing it, and nothing is left to do but to print.
    fn look() -> Outcome<Self> {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let swap_kilobytes: u64 = text("/proc/swaps")
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
            .sum();
        Ok(Self {
            swap_bytes: 1_024 * swap_kilobytes,
            core_pattern: text("/proc/sys/kernel/core_pattern").trim().to_owned(),
            lockable_bytes: getrlimit(Resource::Memlock).current,
            tpm_devices: ["/dev/tpmrm0", "/dev/tpm0"]
                .into_iter()
                .filter(|path| Path::new(path).exists())
                .collect(),
            lockdown: lockdown::apply(Wanted::BestEffort, &Needs::default())?,
        })
    }
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
    let platforms = show::platforms(&WithSimulated::new(true));
    let mut remarks = Vec::new();
    if arch.name() != "avx512" {
        remarks.push(format!(
            "the fastest kernels need AVX-512 (VBMI, IFMA); here {} ones run",
            arch.name()
        ));
    }
    if !platforms
        .iter()
        .any(|platform| platform.available && platform.name != SIMULATED)
    {
        remarks.push(
            "no hardware here can attest a role; roles run for trials with --allow-simulated"
                .to_owned(),
        );
    }
    let operating_system = format!(
        "{} {}",
        std::env::consts::OS,
        std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .unwrap_or_default()
            .trim()
    );
    let huge_pages = chosen("/sys/kernel/mm/transparent_hugepage/enabled");
    let (processor, cores) = (processor(), cores());
    let (memory_bytes, memory_available_bytes) = (kilobytes("MemTotal"), kilobytes("MemAvailable"));
    let kernel = Kernel::look()?;
    if kernel.swap_bytes > 0 {
        remarks.push(
            "memory can be swapped out: roles lock theirs as far as the limit allows; turn swap off, or encrypt it"
                .to_owned(),
        );
    }
    if kernel.tpm_devices.is_empty() {
        remarks.push(
            "there is no TPM, so nothing tells when a host puts back an older copy of a keeper's records"
                .to_owned(),
        );
    }
    Ok(Findings {
        version: env!("CARGO_PKG_VERSION"),
        processor,
        cores,
        instructions: arch.name(),
        instructions_available: available,
        memory_bytes,
        memory_available_bytes,
        page_bytes: rustix::param::page_size(),
        huge_pages,
        operating_system,
        tls_provider: "aws-lc-rs",
        tls_key_exchange: "X25519MLKEM768",
        platforms,
        kernel,
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
            writeln!(out, "{platform}")?;
        }
        let kernel = &self.kernel;
        for measure in &kernel.lockdown {
            writeln!(out, "lock-down      {measure}")?;
        }
        writeln!(
            out,
            "memory         swap {}, core dumps to \"{}\", {} may be locked",
            match kernel.swap_bytes {
                0 => "off".to_owned(),
                bytes => output::bytes(bytes),
            },
            kernel.core_pattern,
            kernel
                .lockable_bytes
                .map_or_else(|| "all".to_owned(), output::bytes)
        )?;
        writeln!(
            out,
            "TPM            {}",
            match kernel.tpm_devices.as_slice() {
                [] => "none".to_owned(),
                devices => devices.join(", "),
            }
        )?;
        for remark in &self.remarks {
            writeln!(out, "note           {remark}")?;
        }
        Ok(())
    }
}
