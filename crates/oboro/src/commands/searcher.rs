//! `oboro searcher`: `oboro-server searcher`, and the simulated platform for trials.

use clap::Args;
use oboro_server::searcher;

use crate::failure::Outcome;
use crate::global::Global;
use crate::with_simulated::WithSimulated;

/// Options of `oboro searcher`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) role: searcher::Options,
    /// Work with a keeper that no hardware protects, and run without such hardware
    #[arg(long)]
    pub(crate) allow_simulated: bool,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    searcher::run(
        &options.role,
        global.json,
        &WithSimulated::new(options.allow_simulated),
    )
}
