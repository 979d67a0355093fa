//! A new index, and one in the place of another.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oboro_index::Index;

use super::fixture::{self, Content, INDEX};
use super::{Durable, Scenario};
use crate::Outcome;

/// `build`, `build --force`.
pub(super) struct Build {
    pub(super) force: bool,
}

const OLD: u8 = 1;
const NEW: u8 = 2;

fn content(number: u8) -> Content {
    let first = 1000 * u64::from(number);
    fixture::fresh(first..first + 100 + 10 * u64::from(number))
}

impl Build {
    fn open(&self, folder: &Path) -> Outcome<(usize, Option<Index>)> {
        let path = folder.join(INDEX);
        if !path.exists() {
            return if self.force {
                Err("there is no index, neither the old nor the new".to_owned())
            } else {
                Ok((0, None))
            };
        }
        let head = Index::peek(&path).map_err(fixture::words)?;
        let number = head.index_id[0];
        let key = fixture::epoch_key(number, 1);
        let index = fixture::whole(folder, &key, &content(number))?;
        Ok((usize::from(number == NEW), Some(index)))
    }
}

impl Scenario for Build {
    fn name(&self) -> String {
        if self.force { "build-force" } else { "build" }.to_owned()
    }

    fn prepare(&self, folder: &Path) -> Outcome<()> {
        if self.force {
            fixture::build(folder, OLD, &content(OLD), false)?;
        }
        Ok(())
    }

    fn steps(&self) -> usize {
        1
    }

    fn run(&self, folder: &Path, durable: Durable<'_>) -> Outcome<()> {
        if self.state(folder)? == 0 {
            fixture::build(folder, NEW, &content(NEW), self.force)?;
        }
        durable(1)
    }

    fn state(&self, folder: &Path) -> Outcome<usize> {
        Ok(self.open(folder)?.0)
    }

    fn settle(&self, folder: &Path) -> Outcome<()> {
        // A build that is given up.
        fixture::begin(folder, 3, true)
            .map(drop)
            .map_err(fixture::words)
    }

    fn is_turned_away(&self, said: &str, other: u32) -> Option<bool> {
        // Two builds are both let begin; the first that is complete stays.
        // Their hidden folders have one name here, which indexes elsewhere, of random
        // ids, have not: so one may find the other's, or lose its own.
        let hidden = said.contains(".index.building-");
        // With force, the index that one looks at may be exchanged under its eyes.
        let exchanged = said.contains("derived for another index");
        // With force, the old index is locked while the new one takes its place.
        let held = self.force && super::names_the_holder(said, other);
        Some(hidden || exchanged || held || said.contains("exists already"))
    }

    fn belongs(&self, folder: &Path) -> Outcome<BTreeSet<PathBuf>> {
        Ok(self
            .open(folder)?
            .1
            .map(|index| fixture::files(&index))
            .unwrap_or_default())
    }
}
