//! The configuration file: a TOML table for each verb, whose keys are the
//! verb's long options; a verb with verbs below it has tables below it, such
//! as `[attest.show]`.
//!
//! The file is turned into arguments that stand before those of the command
//! line, so the command line wins and every value is checked by the same code.
//! A key that no option has is refused: a misspelt `allow-simulated` must not
//! pass unseen.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Command;

use crate::failure::{Failure, Named, Outcome};

/// The environment variable that names a configuration file.
pub const CONFIG_VARIABLE: &str = "OBORO_CONFIG";

/// The arguments of this process with those of the configuration file put in.
/// The file is the value of `--config`, or of `OBORO_CONFIG`.
///
/// # Errors
/// A file that cannot be read, or does not fit the verbs and options of `cli`.
pub fn expand(arguments: Vec<OsString>, cli: Command) -> Outcome<Vec<OsString>> {
    let Some(path) = config_path(&arguments) else {
        return Ok(arguments);
    };
    let text = std::fs::read_to_string(&path).named("read", path.display())?;
    insert(arguments, cli, &text, &path)
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
    std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from)
}

fn insert(
    mut arguments: Vec<OsString>,
    mut cli: Command,
    text: &str,
    path: &Path,
) -> Outcome<Vec<OsString>> {
    let tables: toml::Table = toml::from_str(text).map_err(|error| {
        Failure::usage(format_args!(
            "{} is not valid TOML: {}",
            path.display(),
            error.message()
        ))
    })?;
    // `build` fills in the options that are inherited from the top.
    cli.build();
    let file = path.display().to_string();
    let mut extra = Vec::new();
    Checked {
        file: &file,
        arguments: &arguments,
    }
    .verbs(&cli, &tables, "", Some(1), &mut extra)?;
    if let Some((at, extra)) = extra.pop() {
        arguments.splice(at..at, extra);
    }
    Ok(arguments)
}

/// One file against one command line.
struct Checked<'a> {
    file: &'a str,
    arguments: &'a [OsString],
}

/// Where arguments go in, and which.
type Extra = Vec<(usize, Vec<OsString>)>;

impl Checked<'_> {
    /// Tables named after the verbs of `command`, which stands on the command line
    /// before `from`; `None` where it does not stand there.
    fn verbs(
        &self,
        command: &Command,
        tables: &toml::Table,
        within: &str,
        from: Option<usize>,
        extra: &mut Extra,
    ) -> Outcome<()> {
        let names: Vec<&str> = command
            .get_subcommands()
            .map(Command::get_name)
            .filter(|name| *name != "help")
            .collect();
        let place = from.and_then(|from| {
            let rest = self.arguments.iter().enumerate().skip(from);
            rest.take_while(|(_, argument)| *argument != "--")
                .find(|(_, argument)| argument.to_str().is_some_and(|text| names.contains(&text)))
        });
        for (verb, value) in tables {
            let Some(below) = command.find_subcommand(verb).filter(|_| verb != "help") else {
                return Err(Failure::usage(format_args!(
                    "{} has a table or key \"{within}{verb}\", which is no verb; the verbs are {}",
                    self.file,
                    names.join(", ")
                )));
            };
            let Some(table) = value.as_table() else {
                return Err(Failure::usage(format_args!(
                    "{} gives \"{within}{verb}\" a value; write a table [{within}{verb}] with its options",
                    self.file
                )));
            };
            let at = place
                .filter(|(_, argument)| *argument == verb.as_str())
                .map(|(at, _)| at + 1);
            if below.has_subcommands() {
                self.verbs(below, table, &format!("{within}{verb}."), at, extra)?;
            } else {
                self.options(below, table, &format!("{within}{verb}"), at, extra)?;
            }
        }
        Ok(())
    }

    fn options(
        &self,
        command: &Command,
        table: &toml::Table,
        verb: &str,
        at: Option<usize>,
        extra: &mut Extra,
    ) -> Outcome<()> {
        let file = self.file;
        let mut found = Vec::new();
        for (key, value) in table {
            let known = command
                .get_arguments()
                .any(|argument| argument.get_long() == Some(key) && !unfit(key));
            if !known {
                return Err(Failure::usage(format_args!(
                    "{file} has an unknown key \"{key}\" in [{verb}]; `--help` lists the options"
                )));
            }
            push(&mut found, key, value).map_err(|()| {
                Failure::usage(format_args!(
                    "{file} gives \"{key}\" in [{verb}] a table, list or date; write a string, number or true/false"
                ))
            })?;
        }
        if let Some(at) = at {
            extra.push((at, found));
        }
        Ok(())
    }
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
    use clap::{Arg, ArgAction};

    fn cli() -> Command {
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        let value = |name: &'static str| Arg::new(name).long(name);
        Command::new("program")
            .arg(flag("json").global(true))
            .arg(value("config").global(true))
            .args_override_self(true)
            .subcommand(
                Command::new("search")
                    .arg(value("queries"))
                    .arg(value("rerank"))
                    .arg(value("neighbours").short('k'))
                    .arg(flag("allow-simulated")),
            )
            .subcommand(Command::new("keeper").arg(value("listen")))
            .subcommand(
                Command::new("attest").subcommand(Command::new("show").arg(value("address"))),
            )
    }

    fn run(arguments: &[&str], text: &str) -> Outcome<Vec<String>> {
        let arguments = arguments.iter().map(OsString::from).collect();
        let all = insert(arguments, cli(), text, Path::new("oboro.toml"))?;
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
        // Keys are long options: "neighbours", not "k".
        assert!(run(&["oboro", "search"], "[search]\nk = 3\n").is_err());
        let all = run(
            &["oboro", "search", "--queries=q", "--rerank=50"],
            "[search]\nrerank = 200\nneighbours = 3\n",
        )
        .unwrap();
        let matches = cli().try_get_matches_from(all).unwrap();
        let (_, search) = matches.subcommand().unwrap();
        assert_eq!(search.get_one::<String>("rerank").unwrap(), "50");
        assert_eq!(search.get_one::<String>("neighbours").unwrap(), "3");
    }

    #[test]
    fn verbs_below_verbs_have_tables_below_tables() {
        let text = "[attest.show]\naddress = \"a:1\"\n";
        assert_eq!(
            run(&["oboro", "attest", "show", "--json"], text).unwrap(),
            ["oboro", "attest", "show", "--address=a:1", "--json"]
        );
        assert_eq!(
            run(&["oboro", "search"], text).unwrap(),
            ["oboro", "search"]
        );
        assert!(run(&["oboro", "search"], "[attest]\naddress = \"a:1\"\n").is_err());
        assert!(run(&["oboro", "search"], "[attest.show]\nadress = \"a:1\"\n").is_err());
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
