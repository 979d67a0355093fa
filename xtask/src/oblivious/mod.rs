//! The constant-time rule, checked on optimized machine code.
//!
//! Three checks, since each sees what another cannot:
//!
//! - *taint*: valgrind's memcheck follows every bit computed from a secret and
//!   reports each branch and address that depends on one. It covers all data
//!   at once, but knows no AVX-512.
//! - *trace*: the same region runs on several secrets one instruction at a
//!   time; instruction and address traces must be identical. It runs on the
//!   processor itself, AVX-512 included.
//! - *code*: in the marked functions (`oblivious_*`) of every instruction set no
//!   conditional jump, address or divisor comes out of a vector register, and
//!   there is no floating-point division or root.
//!
//! Each check is also run on leaks planted in the probe, and must find them.

mod disassembly;
mod flow;
mod memcheck;
mod rules;
mod trace;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use self::disassembly::Program;
use crate::Failure;

/// Secrets that each region is traced with: all zeros, and random. Two are
/// enough for the trace, and memcheck stands for all others.
const SECRETS: [&str; 2] = ["0", "2"];

/// Leaks planted in the probe, with the checks that must find each.
const PLANTED_MARK: &str = "planted";

/// What the command line asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Taint,
    Trace,
    Code,
    All,
}

/// Builds the probe and runs the checks.
pub(crate) fn run(part: Part, only: Option<&str>) -> Result<(), Failure> {
    let program = build()?;
    let listed = list(&program, "cases")?;
    let cases: Vec<(&str, bool)> = listed
        .iter()
        .filter_map(|line| line.split_once(' '))
        .filter(|(case, _)| only.is_none_or(|o| case.contains(o)))
        .map(|(case, archs)| (case, archs == "all"))
        .collect();
    if cases.is_empty() {
        return Err(Failure::new("no case of the probe has that name"));
    }
    let archs = list(&program, "archs")?;
    let mut problems = Vec::new();
    if matches!(part, Part::Taint | Part::All) {
        for arch in archs.iter().filter(|arch| *arch != "avx512") {
            for (case, _) in &cases {
                problems.extend(taint(&program, case, arch)?);
            }
        }
    }
    let code = Program::read(&program)?;
    let mut gathers = BTreeSet::new();
    if matches!(part, Part::Trace | Part::All) {
        for arch in &archs {
            for (case, everywhere) in &cases {
                if *everywhere || Some(arch) == archs.last() {
                    problems.extend(trace_case(&program, &code, case, arch, &mut gathers)?);
                }
            }
        }
    }
    if matches!(part, Part::Code | Part::All) {
        problems.extend(check_code(&code, &gathers));
        for name in list(&program, "functions")?
            .iter()
            .filter(|name| !code.has(name))
        {
            problems.push(format!(
                "code: there is no function {name}, which a crate says is marked"
            ));
        }
    }
    if problems.is_empty() {
        println!(
            "oblivious: {} cases on {}: all as expected",
            cases.len(),
            archs.join(", ")
        );
        return Ok(());
    }
    Err(Failure::new(problems.join("\n       ")))
}

/// Builds the probe as everything ships, with symbol names that keep the
/// enclosing function of a closure and with line numbers for the reports.
fn build() -> Result<PathBuf, Failure> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    let directory = root.join("target").join("oblivious");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--package", "xtask-probe"])
        .args([
            "--config",
            "build.rustflags=[\"-Csymbol-mangling-version=v0\"]",
        ])
        .args(["--config", "profile.release.debug=\"line-tables-only\""])
        .arg("--target-dir")
        .arg(&directory)
        .status()
        .map_err(|e| Failure::new(format!("cannot start cargo: {e}")))?;
    if !status.success() {
        return Err(Failure::new("the probe does not build"));
    }
    Ok(directory.join("release").join("xtask-probe"))
}

fn list(program: &Path, what: &str) -> Result<Vec<String>, Failure> {
    let output = Command::new(program)
        .arg(what)
        .output()
        .map_err(|e| Failure::new(format!("cannot start the probe: {e}")))?;
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect())
}

fn taint(program: &Path, case: &str, arch: &str) -> Result<Vec<String>, Failure> {
    let reports = memcheck::run(program, case, arch)?;
    let planted = case.starts_with(PLANTED_MARK);
    // A division is neither a branch nor an address: memcheck cannot see it.
    let invisible = case.ends_with("division");
    println!(
        "taint {arch:<8} {case:<24} {} reports{}",
        reports.len(),
        note(planted)
    );
    Ok(if planted && !invisible && reports.is_empty() {
        vec![format!(
            "taint {arch} {case}: the planted leak was not found"
        )]
    } else if planted {
        Vec::new()
    } else {
        reports
            .iter()
            .take(8)
            .map(|r| format!("taint {arch} {case}: {r}"))
            .collect()
    })
}

fn trace_case(
    program: &Path,
    code: &Program,
    case: &str,
    arch: &str,
    gathers: &mut BTreeSet<u64>,
) -> Result<Vec<String>, Failure> {
    let planted = case.starts_with(PLANTED_MARK);
    let reference = trace::record(program, &["trace", case, SECRETS[0]], arch)?;
    let mut found: Vec<String> = reference
        .forbidden()
        .iter()
        .map(|f| format!("trace {arch} {case}: {f}"))
        .collect();
    for secret in &SECRETS[1..] {
        let other = trace::record(program, &["trace", case, secret], arch)?;
        if let Some((at, what)) = reference.divergence(&other) {
            found.push(format!(
                "trace {arch} {case}: secret {secret} against {}: {what}, at {}",
                SECRETS[0],
                code.locate(at)
            ));
        }
    }
    println!(
        "trace {arch:<8} {case:<24} {} instructions, {} accesses, vectors of {} bytes, {} secrets, {} differences{}",
        reference.instructions(),
        reference.memory_accesses(),
        reference.vector_bytes(),
        SECRETS.len(),
        found.len(),
        note(planted)
    );
    if planted {
        return Ok(if found.is_empty() {
            vec![format!(
                "trace {arch} {case}: the planted leak was not found"
            )]
        } else {
            Vec::new()
        });
    }
    gathers.extend(reference.gathers());
    Ok(found)
}

fn check_code(code: &Program, gathers: &BTreeSet<u64>) -> Vec<String> {
    let checked = code.check(gathers);
    println!(
        "code: {} marked functions, {} conditional jumps, {} violations; \
         {} of {} planted functions found",
        checked.marked,
        checked.conditional_jumps,
        checked.violations.len(),
        checked.planted - checked.overlooked.len(),
        checked.planted,
    );
    let mut problems: Vec<String> = checked
        .violations
        .iter()
        .map(|v| format!("code: {v}"))
        .collect();
    for name in &checked.overlooked {
        problems.push(format!("code: nothing was found in {name}"));
    }
    if checked.planted == 0 {
        problems.push("code: the probe holds no planted function".to_owned());
    }
    problems
}

fn note(planted: bool) -> &'static str {
    if planted {
        " (planted, must be found)"
    } else {
        ""
    }
}
