//! The index as far as it is: a hidden folder beside the place where it will be.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use oboro_ckks::EncryptedCodebook;
use oboro_index::{
    Change, EpochKey, IndexError, IndexHead, IndexWriter, LiveIndex, NewSegment, OnExisting, Staged,
};
use oboro_protocol::Reason;
use rand_core::CryptoRng;

use super::refused;
use crate::{SearcherError, folder};

/// The folder in which an index will lie, and the one in which it is made.
pub(super) struct Place {
    target: PathBuf,
    building: PathBuf,
    /// While it is held, nobody else makes an index for the same place.
    lock: Mutex<Option<File>>,
}

impl Place {
    /// Claims `target`, and removes what a killed generation left beside it.
    pub(super) fn claim(target: &Path) -> Result<Self, SearcherError> {
        let at = |path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| SearcherError::Disk(format!("{path}: {error}"))
        };
        let occupied = match fs::read_dir(target) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(at(target)(error)),
        };
        if occupied {
            return Err(SearcherError::Index(format!(
                "{} is not empty; name a folder that is empty or does not exist, or serve the index that lies there",
                target.display()
            )));
        }
        let name = target.file_name().ok_or_else(|| {
            SearcherError::Index("the folder of the new index has no name; name one".to_owned())
        })?;
        let beside = |ending: &str| {
            let mut hidden = OsString::from(".");
            hidden.push(name);
            hidden.push(ending);
            target.with_file_name(hidden)
        };
        let path = beside(".generating.lock");
        let lock = File::create(&path).map_err(at(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SearcherError::Index(format!(
                    "another searcher makes an index for {}; stop it, or name another folder",
                    target.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(at(&path)(error)),
        }
        let place = Self {
            target: target.to_owned(),
            building: beside(".generating"),
            lock: Mutex::new(Some(lock)),
        };
        place.clean()?;
        Ok(place)
    }

    /// Lets go of the place, and removes what is not whole. Connections that end later
    /// find that nothing is theirs any more.
    pub(super) fn release(&self) {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_some() {
            let _ = self.clean();
        }
        *lock = None;
    }

    /// Removes an index that did not become whole.
    fn clean(&self) -> Result<(), SearcherError> {
        match fs::remove_dir_all(&self.building) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SearcherError::Disk(
                format!("{}: {error}", self.building.display()),
            )),
            _ => Ok(()),
        }
    }

    /// Begins the index, without a vector.
    pub(super) fn begin(
        &self,
        keys: impl Fn() -> EpochKey,
        descriptor: &[u8],
        codebook: &EncryptedCodebook,
        rng: &mut impl CryptoRng,
    ) -> Result<Draft, SearcherError> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            return Err(SearcherError::Stopping);
        }
        self.clean()?;
        let mut writer = IndexWriter::create_under(&self.building, keys(), false)?;
        writer.set_codebook(codebook, rng);
        writer.commit_described(descriptor, rng)?;
        let live = LiveIndex::open(&self.building, keys())?;
        Ok(Draft {
            live,
            staged: Mutex::default(),
        })
    }

    /// Gives the whole index its name, in one step.
    fn publish(&self) -> io::Result<()> {
        // Held until the end: what is being renamed must not be cleaned away.
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            return Err(io::Error::other(
                "the searcher stops, and what it was making is gone; begin again",
            ));
        }
        fs::rename(&self.building, &self.target)?;
        let parent = match self.target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        File::open(parent)?.sync_all()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.release();
    }
}

/// An index that nobody sees yet.
pub(super) struct Draft {
    live: LiveIndex,
    staged: Mutex<BTreeMap<u32, Staged>>,
}

impl Draft {
    /// Writes a segment; durable, and not yet part of the index.
    pub(super) fn stage(&self, number: u32, segment: &NewSegment<'_>) -> Result<(), SearcherError> {
        let staged = self.live.stage(segment).map_err(folder::refused)?;
        let mut all = self.staged.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(number, staged);
        Ok(())
    }

    /// Makes the index whole and visible.
    pub(super) fn commit(
        mut self,
        place: &Place,
        rng: &mut impl CryptoRng,
    ) -> Result<Made, SearcherError> {
        let staged = std::mem::take(&mut self.staged);
        let staged = staged.into_inner().unwrap_or_else(PoisonError::into_inner);
        let change = Change {
            stages: staged.into_values().collect(),
            deletes: Vec::new(),
            on_existing: OnExisting::Refuse,
            strict: true,
        };
        let outcome = self.live.commit(change, rng).map_err(|error| match error {
            IndexError::Refused { refused: ids, .. } => refused(
                Reason::Conflict,
                format!("{ids} ids come twice; every vector needs an id of its own"),
            ),
            error => folder::refused(error),
        })?;
        let head = outcome.index.head();
        let files = files(self.live.folder());
        drop(self.live);
        place.publish().map_err(|error| {
            SearcherError::Index(format!("{}: {error}", place.target.display()))
        })?;
        Ok(Made {
            head,
            vectors: outcome.index.vectors(),
            files,
        })
    }
}

/// An index that is visible.
pub(super) struct Made {
    pub(super) head: IndexHead,
    pub(super) vectors: u64,
    /// Names and sizes.
    pub(super) files: Vec<(String, u64)>,
}

/// Names and sizes, the manifest first.
fn files(folder: &Path) -> Vec<(String, u64)> {
    let mut files: Vec<(String, u64)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            Some((name, entry.metadata().ok()?.len()))
        })
        .filter(|(name, _)| name != "LOCK")
        .collect();
    files.sort_by(|a, b| (a.0 != "MANIFEST", &a.0).cmp(&(b.0 != "MANIFEST", &b.0)));
    files
}
