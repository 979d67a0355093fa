//! The program under test: one scenario, run once, in a process of its own.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use crate::scenario::Scenario;

/// The first argument that makes this program run a scenario.
pub(crate) const WORD: &str = "drive";

/// Runs it and prints each step that was said to be durable.
pub(crate) fn run(scenario: &dyn Scenario, folder: &Path) -> ExitCode {
    let outcome = scenario.run(folder, &mut |step| {
        let mut out = std::io::stdout().lock();
        // In one call, so that it is one operation of the recording.
        out.write_all(format!("durable {step}\n").as_bytes())
            .and_then(|()| out.flush())
            .map_err(|error| error.to_string())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not a panic where standard error is on the full disk as well.
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// The step of a line that [`run`] printed.
pub(crate) fn told(line: &str) -> Option<usize> {
    line.strip_prefix("durable ")?.parse().ok()
}
