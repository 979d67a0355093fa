//! Running a scenario under strace, to see or to disturb its calls.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Outcome;
use crate::drive;
use crate::record::CALLS;
use crate::scenario::Scenario;

/// Whether strace is there and may trace, or why not.
pub(crate) fn available() -> Result<(), String> {
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=none", "true"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            format!("strace cannot be run ({error}); scripts/install-test-tools.sh installs it")
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "strace may not trace here: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

/// How a run ended.
pub(crate) struct Ended {
    pub(crate) killed: bool,
    pub(crate) code: Option<i32>,
    /// The last step that it called durable.
    pub(crate) told: usize,
    pub(crate) errors: String,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    Kill,
    /// This call fails.
    Once(&'static str),
    /// This call and all later ones of its name fail.
    From(&'static str),
}

/// Runs the scenario in `folder` and gives the text of its calls.
pub(crate) fn trace(
    scenario: &dyn Scenario,
    folder: &Path,
    log: &Path,
) -> Outcome<(String, Ended)> {
    let all: Vec<String> = CALLS.iter().map(|name| format!("?{name}")).collect();
    let trace = format!("trace={}", all.join(","));
    // What is read is not needed, and is much.
    let options = [
        "-e",
        &trace,
        "-e",
        "raw=?read,?readv",
        "-xx",
        "-s",
        "268435456",
    ];
    let ended = run(scenario, folder, log, &options)?;
    let text = std::fs::read_to_string(log).map_err(crate::disk::at(log))?;
    Ok((text, ended))
}

/// Runs the scenario in `folder` with a blow at the given calls: name and which one of
/// its name it is.
pub(crate) fn strike(
    scenario: &dyn Scenario,
    folder: &Path,
    log: &Path,
    blows: &[(&str, usize, Blow)],
) -> Outcome<Ended> {
    let mut options = Vec::new();
    let names: Vec<&str> = blows.iter().map(|(name, ..)| *name).collect();
    options.extend(["-e".to_owned(), format!("trace={}", names.join(","))]);
    for (name, ordinal, blow) in blows {
        let what = match blow {
            Blow::Kill => format!("signal=KILL:when={ordinal}"),
            Blow::Once(error) => format!("error={error}:when={ordinal}"),
            Blow::From(error) => format!("error={error}:when={ordinal}+"),
        };
        options.extend(["-e".to_owned(), format!("inject={name}:{what}")]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    run(scenario, folder, log, &options)
}

fn run(scenario: &dyn Scenario, folder: &Path, log: &Path, options: &[&str]) -> Outcome<Ended> {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(log).args(options);
    command.arg("--");
    match scenario.command(folder)? {
        Some(program) => {
            command.arg(program.get_program()).args(program.get_args());
        }
        None => {
            let own = std::env::current_exe().map_err(|error| error.to_string())?;
            command.arg(own).arg(drive::WORD).arg(scenario.name());
            command.arg(folder);
        }
    }
    let output = command
        // One thread that calls, so that calls have one order.
        .env("RAYON_NUM_THREADS", "1")
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run strace: {error}"))?;
    let told = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(drive::told)
        .next_back()
        .unwrap_or(0);
    let code = output.status.code();
    Ok(Ended {
        // strace ends itself as its program ended.
        killed: output.status.signal() == Some(9) || code == Some(128 + 9),
        told: match scenario.command(folder)? {
            Some(_) if code == Some(0) => scenario.steps(),
            _ => told,
        },
        code,
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
