//! `oboro attest`: evidence of programs, and policies that judge it.

mod draft;
mod policy;
mod show;
mod verify;

use clap::Subcommand;

use crate::failure::Outcome;
use crate::global::Global;

/// Verbs below `oboro attest`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the platforms and the evidence of this machine, or of a server
    Show(show::Options),
    /// Judge stored evidence under a policy; prints every fact and remark
    Verify(verify::Options),
    /// Make a policy file from evidence or from a server, or check one
    Policy(policy::Options),
}

/// Runs the verb.
pub(crate) fn run(command: &Command, global: &Global) -> Outcome<()> {
    match command {
        Command::Show(options) => show::run(options, global),
        Command::Verify(options) => verify::run(options, global),
        Command::Policy(options) => policy::run(options, global),
    }
}
