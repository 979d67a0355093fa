//! Checks of the workspace that the compiler does not make.
//!
//! `cargo xtask tiers` holds the dependency rule between crates;
//! `cargo xtask oblivious` holds the constant-time rule in the machine code.

mod tiers;

use std::fmt;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask <tiers>";

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
