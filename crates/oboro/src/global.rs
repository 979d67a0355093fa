//! Options that all verbs share.

use std::path::PathBuf;

use clap::Args;

/// Options of every verb.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Print one JSON object instead of text
    #[arg(long, global = true, display_order = 900)]
    pub(crate) json: bool,
    /// No progress and no remarks on standard error; notes on what protects a connection are
    /// shown all the same
    #[arg(long, short, global = true, display_order = 901)]
    pub(crate) quiet: bool,
    /// Take options from a TOML file: one table a verb, keys as the long options
    #[arg(
        long,
        global = true,
        display_order = 902,
        value_name = "FILE",
        env = "OBORO_CONFIG",
        hide_env = true
    )]
    pub(crate) config: Option<PathBuf>,
}
