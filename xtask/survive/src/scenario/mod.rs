//! What is run: something that leads a folder through numbered steps.

mod build;
mod command;
mod fixture;
mod keeper;
mod live;
mod merge;
mod rotate;
mod toy;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) use command::program;

use crate::Outcome;

/// Told each step that is durable from now on.
pub(crate) type Durable<'a> = &'a mut dyn FnMut(usize) -> Outcome<()>;

/// A way of a folder from step 0 to the last.
pub(crate) trait Scenario: Sync {
    /// Its name on the command line.
    fn name(&self) -> String;

    /// Makes what is there before: step 0.
    fn prepare(&self, _folder: &Path) -> Outcome<()> {
        Ok(())
    }

    /// The last step.
    fn steps(&self) -> usize;

    /// Leads the folder from whatever step it is at to the last.
    fn run(&self, folder: &Path, durable: Durable<'_>) -> Outcome<()>;

    /// Reads everything in the folder; the step that it is at.
    fn state(&self, folder: &Path) -> Outcome<usize>;

    /// What the next writer does that has nothing to add.
    fn settle(&self, _folder: &Path) -> Outcome<()> {
        Ok(())
    }

    /// The files that may be there then.
    fn belongs(&self, folder: &Path) -> Outcome<BTreeSet<PathBuf>>;

    /// A program that leads a folder from step 0 to the last, in place of [`run`](Self::run)
    /// in a process of its own.
    fn command(&self, _folder: &Path) -> Outcome<Option<Command>> {
        Ok(None)
    }

    /// Whether this is what one of two that write at once may be told; `other` is the
    /// process that was first. Scenarios that two may not run at once say `None`.
    fn is_turned_away(&self, _said: &str, _other: u32) -> Option<bool> {
        None
    }

    /// Whether two runs write the same bytes under the same names.
    fn is_repeatable(&self) -> bool {
        true
    }

    /// Made with a fault, for the tests of this program.
    fn is_planted(&self) -> bool {
        false
    }

    /// Why it cannot be run here.
    fn available(&self) -> Outcome<()> {
        Ok(())
    }
}

/// Whether this names process `other` as the holder of an index's lock.
///
/// For a moment the lock is held and the number of its holder not yet written.
fn names_the_holder(said: &str, other: u32) -> bool {
    [format!("process {other}"), "another process".to_owned()]
        .iter()
        .any(|holder| said.contains(&format!("is being written by {holder};")))
}

/// Every scenario.
pub(crate) fn all() -> Vec<Box<dyn Scenario>> {
    let mut all: Vec<Box<dyn Scenario>> = vec![
        Box::new(build::Build { force: false }),
        Box::new(build::Build { force: true }),
        Box::new(rotate::Rotate),
        Box::new(live::Live),
        Box::new(merge::Merge),
        Box::new(keeper::Keeper { counted: false }),
        Box::new(keeper::Keeper { counted: true }),
    ];
    for verb in [
        command::Verb::Keygen,
        command::Verb::Grant,
        command::Verb::Revoke,
        command::Verb::Backup,
        command::Verb::Restore,
    ] {
        all.push(Box::new(verb));
    }
    all.extend(toy::all());
    all
}

/// The one of this name.
pub(crate) fn find(name: &str) -> Option<Box<dyn Scenario>> {
    all().into_iter().find(|scenario| scenario.name() == name)
}

/// All names.
pub(crate) fn names() -> Vec<String> {
    all().iter().map(|scenario| scenario.name()).collect()
}
