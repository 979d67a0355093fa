//! How a program fails: one sentence and an exit code.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

/// Why a program failed; each has an exit code of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing more precise fits.
    Failed,
    /// Command line or configuration.
    Usage,
    /// Vectors, key or index wrong or damaged.
    BadInput,
    /// Attestation, policy or an existing output.
    Refused,
    /// A server is not there.
    Unreachable,
}

impl Kind {
    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::BadInput => 3,
            Self::Refused => 4,
            Self::Unreachable => 5,
        }
    }

    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::BadInput => "bad_input",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
        }
    }
}

/// One sentence that says what happened and what to do, and its kind.
#[derive(Debug)]
pub struct Failure {
    /// What kind of failure.
    pub kind: Kind,
    /// The sentence.
    pub message: String,
    /// Everything that is wrong, where the sentence tells the first of several things.
    pub problems: Vec<String>,
}

/// What everything returns that may fail.
pub type Outcome<T> = Result<T, Failure>;

impl Failure {
    /// A failure of some kind.
    #[must_use]
    pub fn new(kind: Kind, message: impl Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
            problems: Vec::new(),
        }
    }

    /// The same, with everything that is wrong; the sentence tells the first of it.
    #[must_use]
    pub fn with_problems(self, problems: Vec<String>) -> Self {
        Self { problems, ..self }
    }

    /// Nothing more precise fits.
    #[must_use]
    pub fn failed(message: impl Display) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Command line or configuration.
    #[must_use]
    pub fn usage(message: impl Display) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Vectors, key or index wrong or damaged.
    #[must_use]
    pub fn input(message: impl Display) -> Self {
        Self::new(Kind::BadInput, message)
    }

    /// Attestation, policy or an existing output.
    #[must_use]
    pub fn refused(message: impl Display) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// Prints the sentence to standard error, below it what else is wrong, and, for
    /// `--json`, an object with all of it to standard output; returns the exit code.
    pub fn report(&self, program: &str, json: bool) -> ExitCode {
        eprintln!("{program}: {}", self.message);
        for problem in self.problems.iter().skip(1) {
            eprintln!("{program}: {problem}");
        }
        if json {
            // Nobody reads it where the pipe is closed.
            let _ = writeln!(io::stdout(), "{}", self.object());
        }
        ExitCode::from(self.kind.code())
    }

    fn object(&self) -> serde_json::Value {
        let mut error = serde_json::json!({
            "kind": self.kind.name(),
            "exit_code": self.kind.code(),
            "message": self.message,
        });
        if !self.problems.is_empty() {
            error["problems"] = self.problems.clone().into();
        }
        serde_json::json!({"error": error})
    }
}

/// What clap says about a command line, in one sentence.
#[must_use]
pub fn usage_of(error: &clap::Error) -> Failure {
    let text = error.to_string();
    let sentence: Vec<&str> = text
        .trim_start_matches("error: ")
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect();
    Failure::usage(sentence.join(" "))
}

/// Names the thing an input/output error is about.
pub trait Named<T> {
    /// `cannot read keys/owner.key: No such file or directory`
    ///
    /// # Errors
    /// The input/output error, named.
    fn named(self, action: &str, what: impl Display) -> Outcome<T>;
}

impl<T> Named<T> for std::io::Result<T> {
    fn named(self, action: &str, what: impl Display) -> Outcome<T> {
        self.map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::InvalidData => Kind::BadInput,
                std::io::ErrorKind::AlreadyExists => Kind::Refused,
                _ => Kind::Failed,
            };
            Failure::new(kind, format_args!("cannot {action} {what}: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_is_one_sentence() {
        let command =
            clap::Command::new("program").arg(clap::Arg::new("keys").long("keys").required(true));
        let error = command.try_get_matches_from(["program"]).map(|_| ());
        let failure = usage_of(&error.expect_err("an option is missing"));
        assert_eq!(failure.kind, Kind::Usage);
        assert!(failure.message.contains("--keys"), "{}", failure.message);
        assert!(!failure.message.contains('\n'), "{}", failure.message);
    }

    #[test]
    fn programs_are_told_everything_that_is_wrong() {
        let failure = Failure::input("a is damaged (and 1 more problem)");
        assert!(failure.object()["error"].get("problems").is_none());
        let failure = failure.with_problems(vec!["a is damaged".into(), "b is gone".into()]);
        let object = failure.object();
        assert_eq!(object["error"]["exit_code"], 3);
        assert_eq!(object["error"]["problems"][1], "b is gone");
    }

    #[test]
    fn every_kind_has_its_own_code() {
        let all = [
            Kind::Failed,
            Kind::Usage,
            Kind::BadInput,
            Kind::Refused,
            Kind::Unreachable,
        ];
        let codes: Vec<_> = all.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes, [1, 2, 3, 4, 5]);
    }
}
