//! Runs a probe under valgrind's memcheck with its secrets marked.

use std::path::Path;
use std::process::Command;

use crate::Failure;

/// The exit status that memcheck gives when it found an error.
const FOUND: i32 = 99;

/// The reports of one run; empty when nothing depended on a secret.
pub(crate) fn run(program: &Path, case: &str, arch: &str) -> Result<Vec<String>, Failure> {
    let output = Command::new("valgrind")
        .args([
            "--tool=memcheck",
            "--quiet",
            "--leak-check=no",
            "--num-callers=6",
        ])
        .arg(format!("--error-exitcode={FOUND}"))
        .arg(program)
        .args(["taint", case])
        .env("OBORO_ARCH", arch)
        .output()
        .map_err(|e| {
            Failure::new(format!(
                "cannot start valgrind: {e}; install it (apt-get install valgrind)"
            ))
        })?;
    let log = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(Vec::new()),
        Some(FOUND) => Ok(reports(&log)),
        _ => Err(Failure::new(format!(
            "the probe {case} failed under valgrind on {arch}: {log}"
        ))),
    }
}

/// The first lines of each error: what, and where in the code.
fn reports(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log
        .lines()
        .map(|line| {
            line.trim_start_matches(|c: char| c == '=' || c.is_ascii_digit())
                .trim()
        })
        .collect();
    let mut found: Vec<String> = lines
        .iter()
        .enumerate()
        .filter(|(_, line)| {
            line.starts_with("Conditional jump") || line.starts_with("Use of uninit")
        })
        .map(|(i, line)| {
            let places: Vec<&str> = lines[i + 1..].iter().take(3).copied().collect();
            format!("{line} {}", places.join(" "))
        })
        .collect();
    if found.is_empty() {
        found.push("memcheck reported an error of another kind".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_name_what_and_where() {
        let log = "==12== Conditional jump or move depends on uninitialised value(s)\n==12==    at 0x1: f (a.rs:1)\n==12==    by 0x2: main (a.rs:9)\n==12== \n==12== Use of uninitialised value of size 8\n==12==    at 0x3: g (a.rs:2)\n";
        let found = reports(log);
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("f (a.rs:1)"));
        assert!(found[1].contains("g (a.rs:2)"));
        assert_eq!(reports("Invalid read of size 4").len(), 1);
    }
}
