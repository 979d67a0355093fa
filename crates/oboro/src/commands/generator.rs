//! `oboro generator`: `oboro-server generator`, and the simulated platform for trials.

use clap::Args;
use oboro_server::generator;

use crate::failure::Outcome;
use crate::global::Global;
use crate::with_simulated::WithSimulated;

/// Options of `oboro generator`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    role: generator::Options,
    /// Run without hardware that protects the vectors, for a trial
    #[arg(long)]
    allow_simulated: bool,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    generator::run(
        &options.role,
        global.json,
        &WithSimulated::new(options.allow_simulated),
    )
}
