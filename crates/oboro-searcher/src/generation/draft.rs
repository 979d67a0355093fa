//! The index as far as it is: a hidden folder beside the place where it will be.

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use oboro_index::{
    Change, EpochKey, Index, IndexError, IndexHead, IndexWriter, LiveIndex, NewSegment, OnExisting,
    SealedBlind,
};
use oboro_protocol::{Reason, generation::SESSION_LIFETIME};
use rand_core::CryptoRng;

use super::{refused, training::Fresh};
use crate::{SearcherError, folder};

/// The folder in which an index will lie, and the one in which it is made.
pub(super) struct Place {
    target: PathBuf,
    building: PathBuf,
    /// While it is held, nobody else makes an index for the same place.
    lock: Mutex<Option<File>>,
}

impl Place {
    /// Claims `target`. What an interrupted generation left beside it stays while its
    /// owner may come back.
    pub(super) fn claim(target: &Path, now: SystemTime) -> Result<Self, SearcherError> {
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
        if place.draft(now).is_none() {
            place.clean()?;
        }
        Ok(place)
    }

    /// Lets go of the place. A draft stays, for its owner to come back to; anything less
    /// goes. Connections that end later find that nothing is theirs any more.
    pub(super) fn release(&self) {
        let mut lock = self.lock();
        if lock.is_some() && self.draft(SystemTime::now()).is_none() {
            let _ = self.clean();
        }
        *lock = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of the generation whose draft lies here, if it is whole and not older
    /// than a generation may be.
    pub(super) fn draft(&self, now: SystemTime) -> Option<SealedBlind> {
        let manifest = self.building.join("MANIFEST");
        let changed = fs::metadata(manifest).ok()?.modified().ok()?;
        // A clock that was put back makes nothing old.
        let age = now.duration_since(changed).unwrap_or_default();
        if age >= SESSION_LIFETIME {
            return None;
        }
        SealedBlind::read(&self.building).ok()?
    }

    /// Removes a draft that nobody has come back to.
    pub(super) fn expire(&self, now: SystemTime) {
        let lock = self.lock();
        if lock.is_some() && self.building.exists() && self.draft(now).is_none() {
            tracing::warn!("nobody came back to the draft of an index; it is removed");
            let _ = self.clean();
        }
    }

    /// Removes whatever was made so far.
    pub(super) fn discard(&self) {
        let lock = self.lock();
        if lock.is_some() {
            let _ = self.clean();
        }
    }

    /// Opens the draft that lies here.
    pub(super) fn open(&self, key: EpochKey) -> Result<Draft, SearcherError> {
        let lock = self.lock();
        if lock.is_none() {
            return Err(SearcherError::Stopping);
        }
        Ok(Draft {
            live: Mutex::new(LiveIndex::open(&self.building, key)?),
        })
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
        fresh: &Fresh,
        rng: &mut impl CryptoRng,
    ) -> Result<Draft, SearcherError> {
        let lock = self.lock();
        if lock.is_none() {
            return Err(SearcherError::Stopping);
        }
        self.clean()?;
        let mut writer = IndexWriter::create_under(&self.building, keys(), false)?;
        writer.set_codebook(&fresh.search, rng);
        writer.commit_described(descriptor, rng)?;
        // Last: a folder without it is no draft, and is removed.
        fresh.sealed.write(&self.building)?;
        let live = LiveIndex::open(&self.building, keys())?;
        Ok(Draft {
            live: Mutex::new(live),
        })
    }

    /// Gives the whole index its name, in one step.
    fn publish(&self) -> io::Result<()> {
        // Held until the end: what is being renamed must not be cleaned away.
        let lock = self.lock();
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
    live: Mutex<LiveIndex>,
}

impl Draft {
    fn live(&self) -> MutexGuard<'_, LiveIndex> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ids and sizes of the segments that are in it, in their order.
    pub(super) fn segments(&self) -> Vec<([u8; 16], u64)> {
        let live = self.live();
        let segments = live.index().segments().iter();
        segments
            .map(|segment| (*segment.id(), segment.len() as u64))
            .collect()
    }

    /// The index as it is.
    pub(super) fn index(&self) -> Index {
        self.live().index().clone()
    }

    /// Adds a segment, durably: whoever goes on after an interruption finds it.
    pub(super) fn add(
        &self,
        rng: &mut impl CryptoRng,
        segment: &NewSegment<'_>,
    ) -> Result<(), SearcherError> {
        let mut live = self.live();
        let staged = live.stage(segment).map_err(folder::refused)?;
        let change = Change {
            stages: vec![staged],
            deletes: Vec::new(),
            on_existing: OnExisting::Refuse,
            strict: true,
        };
        match live.commit(change, rng) {
            Ok(_) => Ok(()),
            Err(IndexError::Refused { refused: ids, .. }) => Err(refused(
                Reason::Conflict,
                format!("{ids} ids come twice; every vector needs an id of its own"),
            )),
            Err(error) => Err(folder::refused(error)),
        }
    }

    /// Makes the index visible.
    pub(super) fn commit(self, place: &Place) -> Result<Made, SearcherError> {
        let live = self
            .live
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let index = live.index().clone();
        let files = files(live.folder());
        drop(live);
        place.publish().map_err(|error| {
            SearcherError::Index(format!("{}: {error}", place.target.display()))
        })?;
        Ok(Made {
            head: index.head(),
            vectors: index.vectors(),
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use oboro_index::{BlindHead, StorageKey};

    use super::*;

    fn leave_a_draft(folder: &Path) -> PathBuf {
        let building = folder.join(".made.generating");
        fs::create_dir_all(&building).unwrap();
        fs::write(building.join("MANIFEST"), b"of a draft").unwrap();
        let key = StorageKey::from_text(
            &oboro_index::OwnerKey::generate(&mut rand())
                .storage_key()
                .to_text(),
        )
        .unwrap();
        let head = BlindHead {
            index_id: [1; 16],
            owner: [2; 32],
            plan: [3; 32],
        };
        SealedBlind::seal(&key, &[4; 32], head, b"share", b"kept")
            .write(&building)
            .unwrap();
        building
    }

    fn rand() -> impl CryptoRng {
        use rand_core::SeedableRng;
        chacha20::ChaCha20Rng::from_seed([1; 32])
    }

    #[test]
    fn a_draft_waits_a_day_for_its_owner_and_is_removed_then() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("made");
        let now = SystemTime::now();
        let building = leave_a_draft(folder.path());
        let place = Place::claim(&target, now).unwrap();
        assert_eq!(place.draft(now).unwrap().head().index_id, [1; 16]);
        place.expire(now + SESSION_LIFETIME - Duration::from_secs(60));
        assert!(building.exists());
        // A searcher that stops leaves it there, and the next one finds it.
        drop(place);
        let place = Place::claim(&target, now).unwrap();
        assert!(place.draft(now).is_some());
        place.expire(now + SESSION_LIFETIME + Duration::from_secs(60));
        assert!(!building.exists());
        drop(place);
        leave_a_draft(folder.path());
        let late = now + SESSION_LIFETIME + Duration::from_secs(60);
        let place = Place::claim(&target, late).unwrap();
        assert!(!building.exists());
        // What is no draft is removed at once.
        fs::create_dir(&building).unwrap();
        drop(place);
        assert!(!building.exists());
    }
}
