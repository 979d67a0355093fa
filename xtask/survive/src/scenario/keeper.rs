//! A keeper's state: begun, then newer states of an index registered.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oboro_index::ReleaseKey;
use oboro_keeper::{IndexState, KeeperSecrets, KeeperState, StateKey};
use oboro_tpm::{MonotonicCounter, TpmError};

use super::fixture;
use super::{Durable, Scenario};
use crate::Outcome;
use crate::record::HARDWARE;

/// With or without a counter that tells old copies.
pub(super) struct Keeper {
    pub(super) counted: bool,
}

const STATE: &str = "state";
const STEPS: usize = 4;

/// A counter in a file that no loss of power takes back.
struct Counter(PathBuf);

impl MonotonicCounter for Counter {
    fn read(&self) -> Result<u64, TpmError> {
        fs::read(&self.0)
            .ok()
            .and_then(|bytes| bytes.first_chunk().copied())
            .map(u64::from_le_bytes)
            .ok_or_else(|| TpmError::Io("the counter's file is damaged".to_owned()))
    }

    fn increment(&self) -> Result<u64, TpmError> {
        let next = self.read()? + 1;
        // One call, so that it happens or does not.
        File::options()
            .write(true)
            .open(&self.0)
            .and_then(|mut file| file.write_all(&next.to_le_bytes()))
            .map_err(|error| TpmError::Io(error.to_string()))?;
        Ok(next)
    }

    fn describe(&self) -> String {
        "a counter in a file".to_owned()
    }
}

fn newer(generation: usize) -> IndexState {
    IndexState {
        index_id: [7; 16],
        epoch: 1,
        generation: generation as u64,
        manifest_digest: [generation as u8; 32],
    }
}

impl Keeper {
    fn counter(&self, folder: &Path) -> Option<Arc<dyn MonotonicCounter>> {
        let path = folder.join(HARDWARE).join("counter");
        self.counted
            .then(|| Arc::new(Counter(path)) as Arc<dyn MonotonicCounter>)
    }

    fn key() -> StateKey {
        StateKey::derived(&fixture::keeper(1).0, &Self::release_key())
    }

    fn release_key() -> ReleaseKey {
        fixture::owner().release_key()
    }

    /// The state, or none where none was begun.
    fn open(&self, folder: &Path) -> Outcome<Option<KeeperState>> {
        let directory = folder.join(STATE);
        if !KeeperState::exists(&directory) {
            return Ok(None);
        }
        let counter = self.counter(folder);
        KeeperState::open(&directory, &Self::key(), counter, &mut fixture::rng(9))
            .map(Some)
            .map_err(fixture::words)
    }

    /// 0: none; 1: begun; then one for each registered state.
    fn step(state: Option<&KeeperState>) -> Outcome<usize> {
        let Some(state) = state else { return Ok(0) };
        if state.fingerprints() != [fixture::keeper(1).1.fingerprint()] {
            return Err("the keeper has another key".to_owned());
        }
        match state.newest(&newer(1).index_id) {
            None => Ok(1),
            Some(found) if found == newer(found.generation as usize) => {
                Ok(1 + found.generation as usize)
            }
            Some(_) => Err("the keeper remembers a state that nobody registered".to_owned()),
        }
    }
}

impl Scenario for Keeper {
    fn name(&self) -> String {
        if self.counted {
            "keeper-counter"
        } else {
            "keeper"
        }
        .to_owned()
    }

    fn prepare(&self, folder: &Path) -> Outcome<()> {
        if self.counted {
            let hardware = folder.join(HARDWARE);
            fs::create_dir(&hardware).map_err(fixture::words)?;
            fs::write(hardware.join("counter"), 40_u64.to_le_bytes()).map_err(fixture::words)?;
        }
        Ok(())
    }

    fn steps(&self) -> usize {
        STEPS
    }

    fn run(&self, folder: &Path, durable: Durable<'_>) -> Outcome<()> {
        let mut rng = fixture::rng(8);
        let state = match self.open(folder)? {
            Some(state) => state,
            None => {
                let (secret_key, public_key) = fixture::keeper(1);
                let secrets = KeeperSecrets {
                    secret_key,
                    public_key,
                    release_key: Self::release_key(),
                };
                let counter = self.counter(folder);
                let directory = folder.join(STATE);
                let state =
                    KeeperState::create(&directory, &Self::key(), counter, secrets, &mut rng)
                        .map_err(fixture::words)?;
                durable(1)?;
                state
            }
        };
        for generation in Self::step(Some(&state))?..STEPS {
            state
                .register(&newer(generation), &[], &mut rng)
                .map_err(|failure| failure.message)?;
            durable(1 + generation)?;
        }
        Ok(())
    }

    fn state(&self, folder: &Path) -> Outcome<usize> {
        Self::step(self.open(folder)?.as_ref())
    }

    fn is_turned_away(&self, said: &str, _other: u32) -> Option<bool> {
        Some(
            said.contains("another keeper runs on the state")
                || said.contains("holds a keeper's state already"),
        )
    }

    fn belongs(&self, _folder: &Path) -> Outcome<BTreeSet<PathBuf>> {
        Ok(["state/keeper.state", "state/lock", "hardware/counter"]
            .map(PathBuf::from)
            .into())
    }
}
