//! Roles as processes of their own: what `serve`, `bench` and `demo` start.
//!
//! A role process says where it listens with one JSON line on its standard
//! output. It stops when its standard input closes, so it also stops when the
//! process that started it is killed; what it saw is the last line it prints.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use oboro_server::config::CONFIG_VARIABLE;
use oboro_server::ready::Ready;

use crate::failure::{Failure, Kind, Outcome};
use crate::usage;

/// How long a role may take to finish the requests it has begun.
const GRACE: Duration = Duration::from_secs(10);

/// A running role.
pub(crate) struct RoleProcess {
    role: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What it said when it was ready.
    pub(crate) ready: Ready,
}

impl RoleProcess {
    /// Starts this very program as `role` and waits until it is ready.
    pub(crate) fn start(
        role: &'static str,
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Outcome<Self> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed(format_args!("cannot find this program: {error}")))?;
        let mut child = Command::new(program)
            .args(["--json", "--quiet", role, "--supervised"])
            .args(arguments)
            // The configuration file was applied to the parent's options.
            .env_remove(CONFIG_VARIABLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                Failure::failed(format_args!("cannot start the {role} process: {error}"))
            })?;
        let input = child.stdin.take();
        let output = child
            .stdout
            .take()
            .ok_or_else(|| Failure::failed(format_args!("the {role} has no output")))?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = output.read_line(&mut line);
        let ready = match (read, serde_json::from_str(&line)) {
            (Ok(_), Ok(ready)) => ready,
            _ => {
                drop(input);
                let _ = child.wait();
                return Err(failure_in(&line, role));
            }
        };
        Ok(Self {
            role,
            child,
            input,
            output,
            ready,
        })
    }

    /// Whether the process has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// The number that the system calls it by.
    pub(crate) fn process(&self) -> String {
        self.child.id().to_string()
    }

    /// What the kernel says about the process's memory, in bytes: resident
    /// and, of that, what is not backed by files.
    pub(crate) fn memory(&self) -> Option<(u64, u64)> {
        let process = self.process();
        let field = |name| usage::status_bytes(&process, name);
        Some((field("VmRSS")?, field("RssAnon")?))
    }

    /// Stops the role and returns its last words.
    pub(crate) fn stop(mut self) -> Outcome<serde_json::Value> {
        self.input.take();
        let deadline = Instant::now() + GRACE;
        while !self.has_ended() {
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return Err(Failure::failed(format_args!(
                    "the {} did not stop within {} seconds and was killed",
                    self.role,
                    GRACE.as_secs()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut last = String::new();
        for line in (&mut self.output).lines().map_while(Result::ok) {
            last = line;
        }
        match serde_json::from_str::<serde_json::Value>(&last) {
            Ok(value) if value.get("error").is_none() => Ok(value),
            _ => Err(failure_in(&last, self.role)),
        }
    }
}

impl Drop for RoleProcess {
    fn drop(&mut self) {
        // Closing its input stops it; a process that hangs is not waited for.
        if self.input.take().is_some() {
            let deadline = Instant::now() + GRACE;
            while !self.has_ended() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The failure that a process reported on its way out.
fn failure_in(line: &str, role: &str) -> Failure {
    let error = serde_json::from_str::<serde_json::Value>(line)
        .ok()
        .and_then(|value| value.get("error").cloned());
    let Some(error) = error else {
        return Failure::failed(format_args!("the {role} ended without a word"));
    };
    let kind = [
        Kind::Usage,
        Kind::BadInput,
        Kind::Refused,
        Kind::Unreachable,
    ]
    .into_iter()
    .find(|kind| error["kind"] == kind.name())
    .unwrap_or(Kind::Failed);
    let message = error["message"].as_str().unwrap_or("no reason given");
    Failure::new(kind, format_args!("the {role} did not run: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_hands_its_failure_up() {
        let line = r#"{"error":{"kind":"refused","exit_code":4,"message":"no"}}"#;
        let failure = failure_in(line, "keeper");
        assert_eq!(failure.kind, Kind::Refused);
        assert_eq!(failure.message, "the keeper did not run: no");
        assert_eq!(failure_in("", "keeper").kind, Kind::Failed);
    }
}
