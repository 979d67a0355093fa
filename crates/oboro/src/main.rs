//! The `oboro` command.

mod cli;
mod commands;
mod durable;
mod figures;
mod global;
mod input;
mod measure;
mod or_failure;
mod passphrase;
mod place;
mod processes;
mod progress;
mod register;
mod results;
mod usage;
mod with_simulated;
mod words;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use oboro_server::{config, failure, keys, output, roles, shutdown};

use crate::cli::{Cli, Command};
use crate::failure::Outcome;

/// The name in front of errors.
const PROGRAM: &str = "oboro";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    // Whether errors go out as JSON must be known before anything is parsed.
    let json = arguments.iter().any(|argument| argument == "--json");
    let cli = match config::expand(arguments, Cli::command()) {
        Ok(arguments) => match Cli::try_parse_from(arguments) {
            Ok(cli) => cli,
            // Help and version are no failures; and people get clap's own words.
            Err(error) if !json || !error.use_stderr() => error.exit(),
            Err(error) => return failure::usage_of(&error).report(PROGRAM, json),
        },
        Err(failure) => return failure.report(PROGRAM, json),
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(PROGRAM, cli.global.json),
    }
}

fn run(cli: &Cli) -> Outcome<()> {
    commands::doctor::check_instructions()?;
    roles::raise_open_files();
    let global = &cli.global;
    match &cli.command {
        Command::Demo(options) => commands::demo::run(options, global),
        Command::Keygen(options) => commands::keygen::run(options, global),
        Command::Build(options) => commands::build::run(options, global),
        Command::Serve(options) => commands::serve::run(options, global),
        Command::Keeper(options) => commands::keeper::run(options, global),
        Command::Searcher(options) => commands::searcher::run(options, global),
        Command::Generator(options) => commands::generator::run(options, global),
        Command::Search(options) => commands::search::run(options, global),
        Command::Insert(options) => commands::insert::run(options, global),
        Command::Upsert(options) => commands::insert::upsert(options, global),
        Command::Delete(options) => commands::delete::run(options, global),
        Command::Compact(options) => commands::compact::run(options, global),
        Command::Eval(options) => commands::eval::run(options, global),
        Command::Bench(options) => commands::bench::run(options, global),
        Command::Inspect(options) => commands::inspect::run(options, global),
        Command::Verify(options) => commands::verify::run(options, global),
        Command::Doctor(options) => commands::doctor::run(options, global),
        Command::Attest(command) => commands::attest::run(command, global),
        Command::Grant(options) => commands::grant::run(options, global),
        Command::Renew(options) => commands::renew::run(options, global),
        Command::Revoke(options) => commands::revoke::run(options, global),
        Command::Rotate(options) => commands::rotate::run(options, global),
        Command::Backup(options) => commands::backup::run(options, global),
        Command::Restore(options) => commands::restore::run(options, global),
        Command::Learn(command) => commands::learn::run(command, global),
    }
}
