//! `oboro-server`: keeper, searcher and generator on hardware platforms, and nothing else.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use oboro_server::failure::Outcome;
use oboro_server::platforms::HardwarePlatforms;
use oboro_server::{config, failure, generator, keeper, roles, searcher, show};

/// The name in front of errors.
const PROGRAM: &str = "oboro-server";

/// Keeper, searcher and generator of Oboro, for machines whose hardware protects them.
#[derive(Parser)]
#[command(name = PROGRAM, version, args_override_self = true, arg_required_else_help = true)]
struct Cli {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    json: bool,
    /// Take options from a TOML file: one table a verb, keys as the long options
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = config::CONFIG_VARIABLE,
        hide_env = true
    )]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the keeper: holds the decryption key, sees no query and no index
    Keeper(keeper::Options),
    /// Run the searcher: holds the index, has no decryption key
    Searcher(searcher::Options),
    /// Run the generator: builds one index for its owner, seeing all of it, and forgets it
    Generator(generator::Options),
    /// Show the platforms and the evidence of this machine, or of a server
    Show(show::Options),
}

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
        Err(failure) => failure.report(PROGRAM, cli.json),
    }
}

fn run(cli: &Cli) -> Outcome<()> {
    roles::raise_open_files();
    match &cli.command {
        Command::Keeper(options) => keeper::run(options, cli.json, &HardwarePlatforms),
        Command::Searcher(options) => searcher::run(options, cli.json, &HardwarePlatforms),
        Command::Generator(options) => generator::run(options, cli.json, &HardwarePlatforms),
        Command::Show(options) => show::run(options, cli.json, &HardwarePlatforms),
    }
}
