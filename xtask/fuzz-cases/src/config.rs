//! Configuration files.

use std::ffi::OsString;
use std::fs;

use clap::{Arg, ArgAction, Command};

/// A configuration file of a command with a few verbs.
pub fn configuration(data: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), data).expect("a temporary file can be written");
    let value = |name: &'static str| Arg::new(name).long(name);
    let command = Command::new("oboro")
        .arg(value("config").global(true))
        .subcommand(
            Command::new("search")
                .arg(value("rerank"))
                .arg(value("allow-simulated").action(ArgAction::SetTrue)),
        )
        .subcommand(Command::new("attest").subcommand(Command::new("show").arg(value("address"))));
    let arguments: Vec<OsString> = ["oboro", "search", "--config"]
        .iter()
        .map(OsString::from)
        .chain([file.path().as_os_str().to_owned()])
        .collect();
    let count = arguments.len();
    if let Ok(expanded) = oboro_server::config::expand(arguments, command) {
        assert!(expanded.len() >= count);
    }
}
