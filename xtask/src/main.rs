//! Checks of the workspace that the compiler does not make.
//!
//! `cargo xtask tiers` holds the dependency rule between crates;
//! `cargo xtask claims` finds the tests that SECURITY.md names;
//! `cargo xtask release` finds no simulated platform in the servers' binary;
//! `cargo xtask oblivious` holds the constant-time rule in the machine code.

mod claims;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod oblivious;
mod release;
mod tiers;
#[cfg(test)]
mod widths;

use std::fmt;
use std::process::ExitCode;

const USAGE: &str =
    "usage: cargo xtask tiers | claims | release | oblivious [taint|trace|code] [CASE]";

/// Why a check failed, in words for whoever reads the log.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("tiers") => tiers::run(),
        Some("claims") => claims::run(),
        Some("release") => release::run(),
        Some("oblivious") => oblivious(&arguments[1..]),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn oblivious(arguments: &[String]) -> Result<(), Failure> {
    let mut words = arguments.iter().map(String::as_str).peekable();
    let part = match words.peek() {
        Some(&"taint") => oblivious::Part::Taint,
        Some(&"trace") => oblivious::Part::Trace,
        Some(&"code") => oblivious::Part::Code,
        _ => oblivious::Part::All,
    };
    if part != oblivious::Part::All {
        words.next();
    }
    oblivious::run(part, words.next())
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn oblivious(_: &[String]) -> Result<(), Failure> {
    Err(Failure::new(
        "the oblivious checks run on x86-64 Linux only",
    ))
}
