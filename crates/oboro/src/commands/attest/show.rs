//! `oboro attest show`: `oboro-server show`, and the simulated platform for trials.

use clap::Args;
use oboro_server::show;

use crate::failure::Outcome;
use crate::global::Global;
use crate::with_simulated::WithSimulated;

/// Options of `oboro attest show`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    what: show::Options,
    /// Show the simulated platform's evidence, which proves nothing
    #[arg(long)]
    allow_simulated: bool,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    show::run(
        &options.what,
        global.json,
        &WithSimulated::new(options.allow_simulated),
    )
}
