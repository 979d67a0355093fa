//! The configuration file: a TOML table for each verb, whose keys are the
//! verb's long options.
//!
//! The file is turned into arguments that stand before those of the command
//! line, so the command line wins and every value is checked by the same code.
//! A key that no option has is refused: a misspelt `allow-simulated` must not
//! pass unseen.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::cli::Cli;
use crate::failure::{Failure, Named, Outcome};

/// The arguments of this process with those of the configuration file put in.
pub(crate) fn expand(arguments: Vec<OsString>) -> Outcome<Vec<OsString>> {
    let Some(path) = config_path(&arguments) else {
        return Ok(arguments);
    };
    let text = std::fs::read_to_string(&path).named("read", path.display())?;
    insert(arguments, &text, &path)
}

fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("--config") => return rest.next().map(PathBuf::from),
            Some("--") => break,
            Some(text) => {
                if let Some(value) = text.strip_prefix("--config=") {
                    return Some(PathBuf::from(value));
                }
            }
            None => {}
        }
    }
    std::env::var_os("OBORO_CONFIG").map(PathBuf::from)
}

fn insert(mut arguments: Vec<OsString>, text: &str, path: &Path) -> Outcome<Vec<OsString>> {
    let file = path.display();
    let tables: toml::Table = toml::from_str(text).map_err(|error| {
        Failure::usage(format_args!(
            "{file} is not valid TOML: {}",
            error.message()
        ))
    })?;
    // `build` fills in the options that are inherited from the top.
    let mut cli = Cli::command();
    cli.build();
    let verbs: Vec<&str> = cli
        .get_subcommands()
        .map(clap::Command::get_name)
        .filter(|name| *name != "help")
        .collect();
    let place = arguments
        .iter()
        .skip(1)
        .position(|argument| argument.to_str().is_some_and(|text| verbs.contains(&text)));
    let mut extra = Vec::new();
    for (verb, value) in &tables {
        let Some(command) = cli.find_subcommand(verb).filter(|_| verb != "help") else {
            return Err(Failure::usage(format_args!(
                "{file} has a table or key \"{verb}\", which is no verb; the verbs are {}",
                verbs.join(", ")
            )));
        };
        let Some(table) = value.as_table() else {
            return Err(Failure::usage(format_args!(
                "{file} gives \"{verb}\" a value; write a table [{verb}] with its options"
            )));
        };
        let wanted = place.is_some_and(|at| arguments[at + 1].to_str() == Some(verb.as_str()));
        for (key, value) in table {
            let known = command
                .get_arguments()
                .any(|argument| argument.get_long() == Some(key) && !unfit(key));
            if !known {
                return Err(Failure::usage(format_args!(
                    "{file} has an unknown key \"{key}\" in [{verb}]; `oboro {verb} --help` lists the options"
                )));
            }
            if wanted {
                push(&mut extra, key, value).map_err(|()| {
                    Failure::usage(format_args!(
                        "{file} gives \"{key}\" in [{verb}] a table, list or date; write a string, number or true/false"
                    ))
                })?;
            }
        }
    }
    if let Some(at) = place {
        arguments.splice(at + 2..at + 2, extra);
    }
    Ok(arguments)
}

/// Options that make no sense in the file itself.
fn unfit(key: &str) -> bool {
    matches!(key, "config" | "help" | "version")
}

fn push(extra: &mut Vec<OsString>, key: &str, value: &toml::Value) -> Result<(), ()> {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Boolean(true) => {
            extra.push(format!("--{key}").into());
            return Ok(());
        }
        toml::Value::Boolean(false) => return Ok(()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => return Err(()),
    };
    extra.push(format!("--{key}={text}").into());
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], text: &str) -> Outcome<Vec<String>> {
        let arguments = arguments.iter().map(OsString::from).collect();
        let all = insert(arguments, text, Path::new("oboro.toml"))?;
        Ok(all.into_iter().map(|a| a.into_string().unwrap()).collect())
    }

    #[test]
    fn options_of_the_verb_come_before_the_command_line() {
        let all = run(
            &["oboro", "--json", "search", "--queries=q", "--rerank", "50"],
            "[search]\nrerank = 200\nallow-simulated = true\n[keeper]\nlisten = \"a:1\"\n",
        )
        .unwrap();
        assert_eq!(
            all,
            [
                "oboro",
                "--json",
                "search",
                "--allow-simulated",
                "--rerank=200",
                "--queries=q",
                "--rerank",
                "50"
            ]
        );
    }

    #[test]
    fn the_command_line_wins() {
        use clap::Parser;
        let all = run(
            &["oboro", "search", "--queries=q", "--rerank=50"],
            "[search]\nrerank = 200\nk = 3\n",
        );
        // Keys are long options: "neighbours", not "k".
        assert!(all.is_err());
        let all = run(
            &["oboro", "search", "--queries=q", "--rerank=50"],
            "[search]\nrerank = 200\nconcurrency = 3\n",
        )
        .unwrap();
        let cli = crate::cli::Cli::try_parse_from(all).unwrap();
        let crate::cli::Command::Search(options) = cli.command else {
            panic!("another verb");
        };
        assert_eq!(options.connection.rerank, "50");
        assert_eq!(options.connection.concurrency, 3);
    }

    #[test]
    fn fail_unknown_key() {
        let failure = run(&["oboro", "search"], "[search]\nrerank_ = 1\n").unwrap_err();
        assert!(
            failure
                .message
                .contains("unknown key \"rerank_\" in [search]")
        );
        assert_eq!(failure.kind.code(), 2);
    }

    #[test]
    fn fail_unknown_verb() {
        let failure = run(&["oboro", "search"], "[serach]\nrerank = 1\n").unwrap_err();
        assert!(failure.message.contains("\"serach\""));
    }

    #[test]
    fn fail_wrong_shape() {
        assert!(run(&["oboro", "search"], "search = 3\n").is_err());
        assert!(run(&["oboro", "search"], "[search]\nrerank = [1]\n").is_err());
        assert!(run(&["oboro", "search"], "[search\n").is_err());
    }
}
