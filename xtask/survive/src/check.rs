//! What must hold of a folder after a crash.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::Outcome;
use crate::disk::Disk;
use crate::scenario::Scenario;

/// Finds out at which step the folder is, goes on from there to the end, and looks for
/// what is left behind. The step, or what is wrong.
pub(crate) fn recover(scenario: &dyn Scenario, folder: &Path) -> Outcome<usize> {
    catch_unwind(AssertUnwindSafe(|| attempt(scenario, folder)))
        .unwrap_or_else(|_| Err("the program panics".to_owned()))
}

fn attempt(scenario: &dyn Scenario, folder: &Path) -> Outcome<usize> {
    let step = scenario
        .state(folder)
        .map_err(|error| format!("it does not open: {error}"))?;
    scenario
        .run(folder, &mut |_| Ok(()))
        .map_err(|error| format!("it cannot go on from step {step}: {error}"))?;
    let last = scenario
        .state(folder)
        .map_err(|error| format!("gone on from step {step}, it does not open: {error}"))?;
    if last != scenario.steps() {
        return Err(format!(
            "gone on from step {step}, it is at step {last} and not at {}",
            scenario.steps()
        ));
    }
    scenario
        .settle(folder)
        .map_err(|error| format!("the next writer fails: {error}"))?;
    let left = left_behind(scenario, folder)?;
    if left.is_empty() {
        return Ok(step);
    }
    let names: Vec<String> = left
        .iter()
        .filter(|path| {
            !path
                .parent()
                .is_some_and(|above| left.contains(&above.to_owned()))
        })
        .map(|path| path.display().to_string())
        .collect();
    Err(format!("left behind for ever: {}", names.join(", ")))
}

fn left_behind(scenario: &dyn Scenario, folder: &Path) -> Outcome<Vec<PathBuf>> {
    let belongs = scenario.belongs(folder)?;
    let disk = Disk::read(folder)?;
    Ok(disk
        .tree()
        .into_keys()
        .filter(|path| !belongs.iter().any(|known| known.starts_with(path)))
        .collect())
}

/// Whether a folder that is at `step` may be so when `told` was called durable last.
pub(crate) fn allowed(step: usize, told: usize) -> Outcome<()> {
    if step == told || step == told + 1 {
        return Ok(());
    }
    let what = if step < told { "lost" } else { "came early" };
    Err(format!(
        "step {told} was called durable and the folder is at step {step}: something {what}"
    ))
}

/// Kinds of faults that are printed.
const SHOWN: usize = 12;

/// Faults that were found, each kind once with its count.
#[derive(Default)]
pub(crate) struct Faults(BTreeMap<String, (usize, String)>);

impl Faults {
    /// `what` is wrong; `when` tells one of the cases.
    pub(crate) fn add(&mut self, what: &str, when: impl FnOnce() -> String) {
        self.0
            .entry(what.to_owned())
            .or_insert_with(|| (0, when()))
            .0 += 1;
    }

    pub(crate) fn count(&self) -> usize {
        self.0.values().map(|(count, _)| count).sum()
    }

    pub(crate) fn print(&self, scenario: &str) {
        for (what, (count, when)) in self.0.iter().take(SHOWN) {
            println!("survive: {scenario}: FAULT in {count} cases: {what}\n    such as: {when}");
        }
        if let Some(more) = self.0.len().checked_sub(SHOWN + 1) {
            println!("survive: {scenario}: and {} more kinds of faults", more + 1);
        }
    }
}
