//! A file with a number that is counted up: rightly, and with each of the faults that
//! this program must find.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Durable, Scenario};
use crate::Outcome;
use crate::disk::at;

/// How the file is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Written beside, synced, renamed, folder synced.
    Right,
    NoFileSync,
    NoFolderSync,
    RenameBeforeSync,
    ToldEarly,
    InPlace,
    ErrorsIgnored,
    LeavesFiles,
    Panics,
}

struct Toy(Way);

const VALUE: &str = "value";
const NEXT: &str = "value.next";
const STEPS: usize = 3;
/// Bytes of the file; a number and its repetition.
const REPEATED: usize = 500;

pub(super) fn all() -> Vec<Box<dyn Scenario>> {
    [
        Way::Right,
        Way::NoFileSync,
        Way::NoFolderSync,
        Way::RenameBeforeSync,
        Way::ToldEarly,
        Way::InPlace,
        Way::ErrorsIgnored,
        Way::LeavesFiles,
        Way::Panics,
    ]
    .into_iter()
    .map(|way| Box::new(Toy(way)) as Box<dyn Scenario>)
    .collect()
}

impl Toy {
    fn replace(&self, folder: &Path, step: usize, durable: Durable<'_>) -> Outcome<()> {
        let (value, next) = (folder.join(VALUE), folder.join(NEXT));
        let content = format!("{step} ").repeat(REPEATED);
        let folder_synced = || File::open(folder).and_then(|folder| folder.sync_all());
        match self.0 {
            Way::InPlace => {
                let mut file = File::create(&value).map_err(at(&value))?;
                file.write_all(content.as_bytes()).map_err(at(&value))?;
                file.sync_all().map_err(at(&value))?;
                folder_synced().map_err(at(folder))?;
            }
            Way::RenameBeforeSync => {
                let mut file = File::create(&next).map_err(at(&next))?;
                file.write_all(content.as_bytes()).map_err(at(&next))?;
                fs::rename(&next, &value).map_err(at(&value))?;
                file.sync_all().map_err(at(&value))?;
                folder_synced().map_err(at(folder))?;
            }
            Way::ErrorsIgnored => {
                let _ = fs::write(&next, &content);
                let _ = File::open(&next).and_then(|file| file.sync_all());
                let _ = fs::rename(&next, &value);
                let _ = folder_synced();
            }
            way => {
                let mut file = File::create(&next).map_err(at(&next))?;
                let written = file.write_all(content.as_bytes());
                if way == Way::Panics {
                    written.as_ref().expect("the disk has room");
                }
                written.map_err(at(&next))?;
                if way != Way::NoFileSync {
                    file.sync_all().map_err(at(&next))?;
                }
                if way == Way::LeavesFiles {
                    let kept = folder.join(format!("kept-{step}"));
                    fs::write(&kept, b"").map_err(at(&kept))?;
                }
                fs::rename(&next, &value).map_err(at(&value))?;
                if way == Way::ToldEarly {
                    durable(step)?;
                }
                if way != Way::NoFolderSync {
                    folder_synced().map_err(at(folder))?;
                }
                if way == Way::LeavesFiles {
                    let kept = folder.join(format!("kept-{step}"));
                    fs::remove_file(&kept).map_err(at(&kept))?;
                }
            }
        }
        durable(step)
    }
}

impl Scenario for Toy {
    fn name(&self) -> String {
        format!("toy-{:?}", self.0)
    }

    fn steps(&self) -> usize {
        STEPS
    }

    fn run(&self, folder: &Path, durable: Durable<'_>) -> Outcome<()> {
        for step in self.state(folder)? + 1..=STEPS {
            self.replace(folder, step, durable)?;
        }
        Ok(())
    }

    fn state(&self, folder: &Path) -> Outcome<usize> {
        let path = folder.join(VALUE);
        if !path.exists() {
            return Ok(0);
        }
        let text = fs::read_to_string(&path).map_err(at(&path))?;
        (1..=STEPS)
            .find(|step| text == format!("{step} ").repeat(REPEATED))
            .ok_or_else(|| "the value is half written".to_owned())
    }

    fn settle(&self, folder: &Path) -> Outcome<()> {
        let next = folder.join(NEXT);
        if next.exists() {
            fs::remove_file(&next).map_err(at(&next))?;
        }
        Ok(())
    }

    fn belongs(&self, _folder: &Path) -> Outcome<BTreeSet<PathBuf>> {
        Ok(BTreeSet::from([PathBuf::from(VALUE)]))
    }

    fn is_planted(&self) -> bool {
        self.0 != Way::Right
    }
}
