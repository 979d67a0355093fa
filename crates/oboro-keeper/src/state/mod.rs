//! What a keeper must not forget: keys, newest states of indexes, open rotations.
//!
//! The state is one sealed file, replaced as a whole before any answer that depends on
//! the change goes out. [`file`] holds the bytes, [`counter`] tells an old copy from the
//! newest, [`keys`], [`versions`] and [`rotations`] hold one concern each.

mod contents;
mod counter;
mod cursor;
mod file;
mod keys;
mod rotations;
mod versions;

pub use file::StateKey;
pub use versions::{Descent, IndexState};

pub(crate) use keys::KeyPair;

use crate::KeeperError;
use contents::Contents;
use counter::Protection;
use file::StateFile;
use keys::KeySet;
use oboro_ckks::{MaskedCodebook, Packing, ParameterSet, PublicKey, SecretKey};
use oboro_index::{ReleaseKey, ReleaseShare};
use oboro_protocol::{Failure, Reason};
use oboro_tpm::MonotonicCounter;
use rand_core::CryptoRng;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// The secrets that a new state begins with; `oboro keygen` makes them.
pub struct KeeperSecrets {
    /// The CKKS secret key.
    pub secret_key: SecretKey,
    /// Its public key.
    pub public_key: PublicKey,
    /// The keeper's part in the storage keys of this owner.
    pub release_key: ReleaseKey,
}

/// A keeper's state in its directory. Its methods may block: they write and flush files,
/// and ask the counter.
///
/// # Security
/// Sealed with AES-256-GCM-SIV; format, version, store and write number are
/// authenticated. Whoever copies the directory back to an earlier state is found out
/// where there is a [`MonotonicCounter`], at start and before every answer that rests on
/// what is newest; a state that was begun with a counter opens with one only. Without
/// one the keeper believes whatever complete state it finds, and
/// [`is_rollback_protected`](Self::is_rollback_protected) says so.
///
/// A counter alone cannot tell two keepers apart that a host runs at the same moment on
/// two copies of one state and stops at chosen instants: it can then lose the last change
/// of one of them, once. Nor does it notice a directory that is removed as a whole:
/// [`create`](Self::create) is for an owner to ask for, never a fallback at start.
pub struct KeeperState {
    /// What holds now. Replaced as a whole, so that readers wait for no disk.
    contents: RwLock<Arc<Contents>>,
    store: Mutex<Store>,
    protected: bool,
}

/// The state on disk, and the means to replace it.
struct Store {
    file: StateFile,
    protection: Option<Protection>,
    /// The number of the last write.
    written: u64,
    /// A write failed half-way: what is on disk is known after a restart only.
    failed: bool,
}

/// Both decoders of a state on bytes that anyone made; for the fuzz targets.
pub(crate) fn decode_untrusted(bytes: &[u8]) {
    let _ = file::header(bytes);
    if let Ok(contents) = Contents::decode(bytes) {
        let _ = contents.encode();
    }
}

impl KeeperState {
    /// Whether `directory` holds a state.
    #[must_use]
    pub fn exists(directory: &Path) -> bool {
        StateFile::exists(directory)
    }

    /// Begins a state in `directory`, which is made where it is missing.
    ///
    /// # Errors
    /// Where a state exists already or another keeper holds the directory, for keys of
    /// two pairs, and when disk or counter fail.
    pub fn create(
        directory: &Path,
        key: &StateKey,
        counter: Option<Arc<dyn MonotonicCounter>>,
        secrets: KeeperSecrets,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, KeeperError> {
        let pair = KeyPair::new(secrets.secret_key, secrets.public_key)?;
        let contents = Contents::new(pair, secrets.release_key);
        let file = StateFile::create(directory, key, counter.is_some(), rng)?;
        let protection = counter.map(Protection::new);
        let written = match &protection {
            Some(protection) => protection.value()?,
            None => 0,
        };
        Self::begin(file, protection, contents, written, rng)
    }

    /// Opens the state in `directory`.
    ///
    /// # Errors
    /// Where there is none, another keeper holds the directory, the key is another or
    /// the file altered, the state is older than the counter says, a state that was
    /// begun with a counter is opened without or the other way round, and when disk or
    /// counter fail.
    pub fn open(
        directory: &Path,
        key: &StateKey,
        counter: Option<Arc<dyn MonotonicCounter>>,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, KeeperError> {
        let (file, written, payload) = StateFile::open(directory, key)?;
        let contents = Contents::decode(&payload)?;
        match (counter.map(Protection::new), file.counted()) {
            (Some(protection), true) => {
                protection.admit(written)?;
                // Moves the counter past whatever was written but not answered for, so
                // that no such file is ever taken for the newest again.
                Self::begin(file, Some(protection), contents, written, rng)
            }
            (None, false) => Ok(Self::new(file, None, contents, written)),
            (None, true) => Err(KeeperError::CounterMissing),
            (Some(_), false) => Err(KeeperError::CounterUnknown),
        }
    }

    fn begin(
        file: StateFile,
        protection: Option<Protection>,
        contents: Contents,
        written: u64,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, KeeperError> {
        let state = Self::new(file, protection, contents, written);
        let contents = state.contents();
        state.store().write(&contents, rng)?;
        Ok(state)
    }

    fn new(
        file: StateFile,
        protection: Option<Protection>,
        contents: Contents,
        written: u64,
    ) -> Self {
        Self {
            contents: RwLock::new(Arc::new(contents)),
            protected: protection.is_some(),
            store: Mutex::new(Store {
                file,
                protection,
                written,
                failed: false,
            }),
        }
    }

    /// A counter tells old copies of this state.
    #[must_use]
    pub fn is_rollback_protected(&self) -> bool {
        self.protected
    }

    /// One sentence on what protects this state from being put back, for people.
    #[must_use]
    pub fn protection(&self) -> String {
        match &self.store().protection {
            Some(protection) => format!("older copies of the state are refused: {protection}"),
            None => "the host can put back an older copy of this keeper's state: there is no monotonic counter; give it a TPM".to_owned(),
        }
    }

    /// The CKKS public keys whose secret halves are here, oldest first.
    #[must_use]
    pub fn public_keys(&self) -> Vec<PublicKey> {
        let contents = self.contents();
        contents
            .keys
            .iter()
            .map(|pair| pair.public.clone())
            .collect()
    }

    /// Their fingerprints, oldest first.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<[u8; 32]> {
        self.contents().keys.fingerprints()
    }

    /// The newest recorded state of an index.
    #[must_use]
    pub fn newest(&self, index_id: &[u8; 16]) -> Option<IndexState> {
        self.contents().versions.newest(index_id)
    }

    pub(crate) fn keys(&self) -> KeySet {
        self.contents().keys.clone()
    }

    pub(crate) fn key(&self, fingerprint: &[u8; 32]) -> Result<Arc<KeyPair>, Failure> {
        self.contents().keys.find(fingerprint)
    }

    /// The keeper's part in the storage key of a state that is not older than the newest.
    pub(crate) fn release(&self, state: &IndexState) -> Result<ReleaseShare, Failure> {
        let store = self.store();
        store.current()?;
        let contents = self.contents();
        contents.versions.check(state)?;
        Ok(contents.release.share(&state.index_id, state.epoch))
    }

    /// The keeper's part in keys of this owner's indexes.
    pub(crate) fn release_key(&self) -> Arc<ReleaseKey> {
        Arc::clone(&self.contents().release)
    }

    /// Makes the directory for a new state, durably. [`create`](Self::create) does it as
    /// well; a process that locks itself down first cannot do it there any more.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_directory(directory: &Path) -> Result<(), KeeperError> {
        file::make_directory(directory).map_err(KeeperError::io(directory))
    }

    /// Records a state that is not older than the newest and came of it. `ancestors` are
    /// the manifests of the generations before it, the newest first; a state that is later
    /// than they reach is believed by its number.
    ///
    /// # Errors
    /// For an older state or a fork, more indexes than a keeper remembers, and when disk
    /// or counter fail.
    pub fn register(
        &self,
        state: &IndexState,
        ancestors: &[[u8; 32]],
        rng: &mut impl CryptoRng,
    ) -> Result<Descent, Failure> {
        self.change(rng, |contents| {
            let before = contents.versions.newest(&state.index_id);
            let (changed, descent) = contents.versions.record(state, ancestors)?;
            let epoch = before.map(|state| state.epoch);
            contents.rotations.committed(state, epoch);
            Ok((changed, descent))
        })
    }

    /// A codebook of this epoch may be prepared: it is the newest, or the one before,
    /// which is served while a rotation cuts over.
    pub(crate) fn check_served(&self, index_id: &[u8; 16], epoch: u64) -> Result<(), Failure> {
        let store = self.store();
        store.current()?;
        self.contents().versions.check_served(index_id, epoch)
    }

    /// A key pair to which the codebook of an index may be re-encrypted. Asked again
    /// before the rotation is through, the same one.
    pub(crate) fn new_key(
        &self,
        set: &str,
        index_id: &[u8; 16],
        from: &[u8; 32],
        rng: &mut impl CryptoRng,
    ) -> Result<Arc<KeyPair>, Failure> {
        let found = self.contents().keys.find(from)?;
        let set = ParameterSet::from_name(set)
            .filter(|set| *set == found.public.parameter_set())
            .ok_or_else(|| {
                Failure::new(
                    Reason::BadRequest,
                    format!(
                        "a codebook keeps its parameter set; ask for a key of {}",
                        found.public.parameter_set().name()
                    ),
                )
            })?;
        let secret = SecretKey::generate(set, rng);
        let public = secret.public_key(rng);
        let fresh = Arc::new(KeyPair::new(secret, public).map_err(internal)?);
        self.change(rng, |contents| {
            contents.keys.find(from)?;
            contents.versions.check_rotations(index_id)?;
            if let Some(open) = contents.rotations.renew(index_id, from) {
                return Ok((true, contents.keys.find(&open)?));
            }
            contents.keys.add(fresh.clone())?;
            contents
                .rotations
                .open(index_id, from, &fresh.fingerprint)?;
            Ok((true, fresh.clone()))
        })
    }

    /// The owner has opened this rotation.
    pub(crate) fn check_open(
        &self,
        index_id: &[u8; 16],
        from: &[u8; 32],
        to: &[u8; 32],
    ) -> Result<(), Failure> {
        self.contents().rotations.check_open(index_id, from, to)
    }

    /// Re-encrypts a masked codebook within an open rotation, of which this is one
    /// attempt.
    pub(crate) fn reencrypt(
        &self,
        index_id: &[u8; 16],
        from: &[u8; 32],
        to: &[u8; 32],
        masked: &MaskedCodebook,
        rng: &mut impl CryptoRng,
    ) -> Result<MaskedCodebook, Failure> {
        let packing: Packing = *masked.packing();
        let (old, new) = self.change(rng, |contents| {
            contents.rotations.attempt(index_id, from, to, &packing)?;
            Ok((true, (contents.keys.find(from)?, contents.keys.find(to)?)))
        })?;
        oboro_ckks::reencrypt(
            old.decryptor.key(),
            new.decryptor.key(),
            &packing,
            masked,
            rng,
        )
        .map_err(|error| Failure::new(Reason::BadRequest, error.to_string()))
    }

    /// Forgets a key pair for ever, and the rotations it is part of.
    pub(crate) fn retire(
        &self,
        fingerprint: &[u8; 32],
        rng: &mut impl CryptoRng,
    ) -> Result<(), Failure> {
        self.change(rng, |contents| {
            contents.keys.retire(fingerprint)?;
            contents.rotations.retired(fingerprint);
            Ok((true, ()))
        })
    }

    /// Makes a change to a copy, writes it, and lets it be seen once it is on disk. The
    /// change says whether there is something to write.
    fn change<T>(
        &self,
        rng: &mut impl CryptoRng,
        make: impl FnOnce(&mut Contents) -> Result<(bool, T), Failure>,
    ) -> Result<T, Failure> {
        let mut store = self.store();
        store.current()?;
        let mut contents = Contents::clone(&self.contents());
        let (changed, answer) = make(&mut contents)?;
        if changed {
            store.write(&contents, rng).map_err(internal)?;
            *self
                .contents
                .write()
                .unwrap_or_else(PoisonError::into_inner) = Arc::new(contents);
        }
        Ok(answer)
    }

    fn contents(&self) -> Arc<Contents> {
        self.contents
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn store(&self) -> std::sync::MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// This is still the newest state: no other keeper has gone on from a copy of it.
    fn current(&self) -> Result<(), Failure> {
        if self.failed {
            return Err(internal(KeeperError::StateUnsure));
        }
        match &self.protection {
            Some(protection) => protection.check(self.written).map_err(internal),
            None => Ok(()),
        }
    }

    /// Writes the state under the next number, then moves the counter to it. A crash in
    /// between leaves a state one ahead of the counter, which is accepted at start: what
    /// it says beyond the one before was never answered for.
    fn write(&mut self, contents: &Contents, rng: &mut impl CryptoRng) -> Result<(), KeeperError> {
        let number = self.written + 1;
        let prepared = self.file.prepare(number, &contents.encode(), rng)?;
        self.failed = true;
        prepared.commit()?;
        if let Some(protection) = &self.protection {
            protection.advance(number)?;
        }
        self.failed = false;
        self.written = number;
        Ok(())
    }
}

fn internal(error: KeeperError) -> Failure {
    tracing::error!(%error, "the keeper's state cannot be used");
    Failure::new(
        Reason::Internal,
        "the keeper cannot use its state; see its log",
    )
}

#[cfg(test)]
mod tests;
