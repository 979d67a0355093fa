//! Two processes that write to one folder at the same time.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rayon::prelude::*;

use crate::Outcome;
use crate::check::{Faults, recover};
use crate::disk::{self, Disk};
use crate::drive;
use crate::scenario::Scenario;

/// Starts the scenario twice at once, `rounds` times; how often one was turned away.
///
/// One of the two must get to the end; the other one gets there, too, or is told in one
/// sentence what keeps it; the folder is whole in the end.
pub(crate) fn meet(
    scenario: &dyn Scenario,
    before: &Disk,
    rounds: usize,
    place: &Path,
    faults: &mut Faults,
) -> Outcome<usize> {
    if scenario.is_turned_away("", 0).is_none() {
        return Ok(0);
    }
    let before = before.tree();
    let mut turned_away = 0;
    for round in 0..rounds {
        let dir = tempfile::tempdir_in(place).map_err(|error| error.to_string())?;
        let folder = dir.path().join("folder");
        disk::write(&before, &folder)?;
        let begun = [start(scenario, &folder)?, start(scenario, &folder)?];
        let processes: Vec<u32> = begun.iter().map(Child::id).collect();
        let ended: Vec<(bool, Option<i32>, String)> = begun
            .into_par_iter()
            .map(|child| {
                let output = child
                    .wait_with_output()
                    .map_err(|error| error.to_string())?;
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Ok((output.status.success(), output.status.code(), said))
            })
            .collect::<Outcome<_>>()?;
        let mut wrong = Vec::new();
        if ended.iter().all(|(success, ..)| !success) {
            wrong.push(format!("neither gets to the end: {}", ended[0].2));
        }
        for (number, (success, code, said)) in ended.iter().enumerate() {
            if *success {
                continue;
            }
            turned_away += 1;
            if *code != Some(1) || said.lines().count() != 1 {
                wrong.push(format!("one ends with {code:?}: {said}"));
            } else if scenario.is_turned_away(said, processes[1 - number]) != Some(true) {
                wrong.push(format!("one is not told what keeps it, but: {said}"));
            }
        }
        match recover(scenario, &folder) {
            Ok(step) if step == scenario.steps() => {}
            Ok(step) => wrong.push(format!("two leave the folder at step {step}")),
            Err(what) => wrong.push(format!("after two: {what}")),
        }
        for what in wrong {
            let what = what.replace(&folder.display().to_string(), "FOLDER");
            faults.add(&what, || format!("two at once, round {round}"));
        }
    }
    Ok(turned_away)
}

fn start(scenario: &dyn Scenario, folder: &Path) -> Outcome<Child> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    Command::new(own)
        .arg(drive::WORD)
        .arg(scenario.name())
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())
}
