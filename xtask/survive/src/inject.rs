//! Kills and errors at every call that writes, in processes that really run.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::Outcome;
use crate::check::{Faults, allowed, recover};
use crate::crash::{self, Fate, told};
use crate::disk::{self, Disk, digest};
use crate::record::{Act, Operation, Recording};
use crate::scenario::Scenario;
use crate::strace::{Blow, Ended, strike};

/// What the disk may say: full, read-only, broken.
pub(crate) const ERRORS: [&str; 3] = ["ENOSPC", "EROFS", "EIO"];

/// Disturbed folders that are kept at a time.
const BATCH: usize = 64;

/// One disturbed run.
struct Case<'a> {
    /// The operation at which the first blow falls.
    at: usize,
    blows: Vec<(&'a str, usize, Blow)>,
}

/// Kills the program before each of its calls; number of kills.
pub(crate) fn kills(
    scenario: &dyn Scenario,
    recording: &Recording,
    stride: usize,
    place: &Path,
    faults: &mut Faults,
) -> Outcome<usize> {
    let cases: Vec<Case<'_>> = points(recording)
        .step_by(stride)
        .map(|(at, operation)| Case {
            at,
            blows: vec![(&operation.call, operation.ordinal, Blow::Kill)],
        })
        .collect();
    all(
        scenario,
        recording,
        &cases,
        place,
        faults,
        &|case, ended, folder| {
            if !ended.killed {
                return Err("the kill did not come: runs are not alike".to_owned());
            }
            if scenario.is_repeatable() {
                // The recording must say what is really there.
                let expected = crash::state(recording, case.at, &|_| Fate::Done);
                let found = Disk::read(folder)?;
                if digest(&expected.tree()) != digest(&found.tree()) {
                    return Err("the folder is not what the recording says".to_owned());
                }
            }
            let step = recover(scenario, folder)?;
            allowed(step, ended.told)?;
            allowed(step, told(recording, case.at))
        },
    )
}

/// Lets calls fail, once and for good; number of runs.
pub(crate) fn errors(
    scenario: &dyn Scenario,
    recording: &Recording,
    stride: usize,
    place: &Path,
    faults: &mut Faults,
) -> Outcome<usize> {
    let mut cases = Vec::new();
    let able = points(recording).filter(|(_, operation)| !matches!(operation.act, Act::Told(_)));
    for (nth, (at, operation)) in able.enumerate() {
        for (kind, error) in ERRORS.into_iter().enumerate() {
            if !(nth * ERRORS.len() + kind).is_multiple_of(stride) || !can_fail(operation, error) {
                continue;
            }
            let call = operation.call.as_str();
            cases.push(Case {
                at,
                blows: vec![(call, operation.ordinal, Blow::Once(error))],
            });
            cases.push(Case {
                at,
                blows: lasting(recording, at, error),
            });
        }
    }
    all(
        scenario,
        recording,
        &cases,
        place,
        faults,
        &|_, ended, folder| {
            plain(ended)?;
            let step = recover(scenario, folder)?;
            if ended.code == Some(0) && step != scenario.steps() {
                return Err(format!(
                    "the program reports success and the folder is at step {step}"
                ));
            }
            allowed(step, ended.told)
        },
    )
}

/// A disk that says `error` to everything from this operation on. Beyond the first call,
/// those that also read or print are left out: `open` and `write`.
fn lasting<'a>(
    recording: &'a Recording,
    at: usize,
    error: &'static str,
) -> Vec<(&'a str, usize, Blow)> {
    let mut out: Vec<(&str, usize, Blow)> = Vec::new();
    for (nth, operation) in recording.operations[at..].iter().enumerate() {
        let call = operation.call.as_str();
        let fails = !matches!(operation.act, Act::Told(_)) && can_fail(operation, error);
        if !fails || call.is_empty() || out.iter().any(|(other, ..)| *other == call) {
            continue;
        }
        if !["open", "openat", "creat", "write"].contains(&call) {
            out.push((call, operation.ordinal, Blow::From(error)));
        } else if nth == 0 {
            out.push((call, operation.ordinal, Blow::Once(error)));
        }
    }
    out
}

/// Whether a disk can say so to this call.
fn can_fail(operation: &Operation, error: &str) -> bool {
    let removes = ["unlink", "unlinkat", "rmdir"].contains(&operation.call.as_str());
    let syncs = matches!(operation.act, Act::Sync(_) | Act::SyncAll);
    match error {
        // A full disk lets files be removed.
        "ENOSPC" => !removes,
        // What was opened for writing stays so; syncs succeed.
        "EROFS" => !syncs,
        _ => true,
    }
}

/// An error is one sentence and exit code 1.
fn plain(ended: &Ended) -> Outcome<()> {
    let said = ended.errors.trim_end();
    match ended.code {
        Some(0) => Ok(()),
        Some(101) => Err(format!(
            "the program panics: {}",
            said.lines().nth(1).unwrap_or_default()
        )),
        Some(1) if said.is_empty() => Err("the program fails without a word".to_owned()),
        Some(1) if said.lines().count() > 1 => {
            Err(format!("the error is more than one sentence: {said}"))
        }
        Some(1) => Ok(()),
        code => Err(format!("the program ends with {code:?}: {said}")),
    }
}

/// The operations that are calls.
fn points(recording: &Recording) -> impl Iterator<Item = (usize, &Operation)> {
    let operations = recording.operations.iter().enumerate();
    operations.filter(|(_, operation)| !operation.call.is_empty())
}

type Judge<'a> = dyn Fn(&Case<'_>, &Ended, &Path) -> Outcome<()> + Sync + 'a;

fn all(
    scenario: &dyn Scenario,
    recording: &Recording,
    cases: &[Case<'_>],
    place: &Path,
    faults: &mut Faults,
    judge: &Judge<'_>,
) -> Outcome<usize> {
    let before = recording.before.tree();
    let mut found: Vec<Outcome<()>> = Vec::with_capacity(cases.len());
    for cases in cases.chunks(BATCH) {
        // First all runs, then all judgements: a process that is being started holds the
        // locks of this one for a moment.
        let ended: Vec<Outcome<(tempfile::TempDir, PathBuf, Ended)>> = cases
            .par_iter()
            .map(|case| {
                let dir = tempfile::tempdir_in(place).map_err(|error| error.to_string())?;
                let folder = dir.path().join("folder");
                disk::write(&before, &folder)?;
                let ended = strike(scenario, &folder, &dir.path().join("log"), &case.blows)?;
                Ok((dir, folder, ended))
            })
            .collect();
        found.par_extend(cases.par_iter().zip(ended).map(|(case, ended)| {
            let (_dir, folder, ended) = ended?;
            // The same words for the same fault, wherever it was found.
            judge(case, &ended, &folder)
                .map_err(|what| what.replace(&folder.display().to_string(), "FOLDER"))
        }));
    }
    for (case, found) in cases.iter().zip(found) {
        if let Err(what) = found {
            faults.add(&what, || {
                let blows: Vec<String> = case
                    .blows
                    .iter()
                    .map(|(call, ordinal, blow)| format!("{blow:?} at {call} {ordinal}"))
                    .collect();
                format!(
                    "{}, which is operation {}: {}",
                    blows.join(", "),
                    case.at + 1,
                    recording.operations[case.at].words
                )
            });
        }
    }
    Ok(cases.len())
}
