//! `oboro learn` in a program that was built without it.

use clap::Args;

use crate::failure::{Failure, Outcome};
use crate::global::Global;

/// Whatever is asked for.
#[derive(Args, Debug)]
pub(crate) struct Command {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<std::ffi::OsString>,
}

/// Says how to have it.
pub(crate) fn run(command: &Command, _: &Global) -> Outcome<()> {
    Err(Failure::usage(format_args!(
        "this program was built without \"learn {}\", which trains networks; build it with: cargo build --release --features learn",
        command
            .rest
            .first()
            .map_or_else(|| "train".into(), |verb| verb.to_string_lossy())
    )))
}
