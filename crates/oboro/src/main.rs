//! The `oboro` command.

mod cli;
mod commands;
mod input;
mod figures;
mod measure;
mod or_failure;
mod processes;
mod progress;
mod results;
mod words;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::failure::Outcome;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    // Whether errors go out as JSON must be known before anything is parsed.
    let json = arguments.iter().any(|argument| argument == "--json");
    let cli = match config::expand(arguments) {
        Ok(arguments) => match Cli::try_parse_from(arguments) {
            Ok(cli) => cli,
            // Help and version are no failures; and people get clap's own words.
            Err(error) if !json || !error.use_stderr() => error.exit(),
            Err(error) => return failure::usage_of(&error).report(json),
        },
        Err(failure) => return failure.report(json),
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(cli.global.json),
    }
}

fn run(cli: &Cli) -> Outcome<()> {
    commands::doctor::check_instructions()?;
    let global = &cli.global;
    match &cli.command {
        Command::Demo(options) => commands::demo::run(options, global),
        Command::Keygen(options) => commands::keygen::run(options, global),
        Command::Build(options) => commands::build::run(options, global),
        Command::Serve(options) => commands::serve::run(options, global),
        Command::Keeper(options) => commands::keeper::run(options, global),
        Command::Searcher(options) => commands::searcher::run(options, global),
        Command::Search(options) => commands::search::run(options, global),
        Command::Eval(options) => commands::eval::run(options, global),
        Command::Bench(options) => commands::bench::run(options, global),
        Command::Inspect(options) => commands::inspect::run(options, global),
        Command::Verify(options) => commands::verify::run(options, global),
        Command::Doctor(options) => commands::doctor::run(options, global),
    }
}
