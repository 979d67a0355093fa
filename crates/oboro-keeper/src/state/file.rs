//! The sealed file that holds a keeper's state, and its directory.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic `OBOROKEP` |
//! | 2 | format version |
//! | 2 | 1 where a counter stands behind the write number, 0 where none does |
//! | 4 | bytes of the payload |
//! | 16 | store id, drawn when the state was begun |
//! | 8 | number of this write |
//! | 12 | nonce |
//! | then | ciphertext of the payload, 16-byte tag |
//!
//! One chunk: the whole state changes at once. All that stands before the ciphertext is
//! authenticated with it. The key derives from the [`StateKey`] and the store id.
//!
//! A new state is written beside the old one, flushed, and renamed over it; then the
//! directory is flushed. Whatever stops the keeper leaves the old or the new one whole.
//! A locked file keeps a second keeper out of the directory.

use crate::KeeperError;
use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use oboro_attest::Sealer;
use oboro_ckks::SecretKey;
use oboro_index::ReleaseKey;
use rand_core::CryptoRng;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const MAGIC: &[u8; 8] = b"OBOROKEP";
const VERSION: u16 = 1;
const HEADER: usize = 8 + 2 + 2 + 4 + 16 + 8 + 12;
const TAG: usize = 16;
/// Above every state: 64 key pairs of the largest set and 65,536 indexes take 8 MB.
const MAX_PAYLOAD: usize = 16 << 20;

const STATE: &str = "keeper.state";
const NEXT: &str = "keeper.state.next";
const LOCK: &str = "lock";

/// Opens a keeper's state.
///
/// # Security
/// Zeroized on drop; has no `Debug` and no `Clone`.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct StateKey([u8; 32]);

impl StateKey {
    /// The key that the platform gives to this program on this machine only.
    ///
    /// # Errors
    /// Where the platform derives no keys.
    pub fn sealed(sealer: &dyn Sealer) -> Result<Self, KeeperError> {
        let key = sealer.sealing_key("oboro keeper state v1")?;
        Ok(Self(*key))
    }

    /// The key that follows from the keeper's two key files, for machines without a
    /// sealer.
    ///
    /// # Security
    /// Whoever reads these files can read and rewrite the state. It then keeps apart
    /// states of different owners, and finds damage.
    #[must_use]
    pub fn derived(secret_key: &SecretKey, release_key: &ReleaseKey) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("oboro keeper state key v1");
        let secret = secret_key.to_bytes();
        hasher.update(&(secret.len() as u64).to_le_bytes());
        hasher.update(&secret);
        hasher.update(release_key.to_text().as_bytes());
        let key = Self(*hasher.finalize().as_bytes());
        hasher.zeroize();
        key
    }

    fn cipher(&self, store_id: &[u8; 16]) -> Aes256GcmSiv {
        let mut hasher = blake3::Hasher::new_derive_key("oboro keeper state file v1");
        hasher.update(&self.0);
        hasher.update(store_id);
        let key = Zeroizing::new(*hasher.finalize().as_bytes());
        hasher.zeroize();
        Aes256GcmSiv::new((&*key).into())
    }
}

/// The state's place on disk, held by this keeper alone.
pub(super) struct StateFile {
    directory: PathBuf,
    cipher: Aes256GcmSiv,
    store_id: [u8; 16],
    counted: bool,
    /// Locked as long as it is open.
    _lock: File,
}

impl StateFile {
    pub(super) fn exists(directory: &Path) -> bool {
        directory.join(STATE).exists()
    }

    /// A place for a new state; the first [`prepare`](Self::prepare) fills it.
    pub(super) fn create(
        directory: &Path,
        key: &StateKey,
        counted: bool,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, KeeperError> {
        match make_directory(directory) {
            // A process that is locked down may not open what is above its directory, and
            // has made that before (`KeeperState::make_directory`).
            Err(error) if error.kind() == ErrorKind::PermissionDenied && directory.is_dir() => {}
            made => made.map_err(KeeperError::io(directory))?,
        }
        let lock = lock(directory)?;
        if Self::exists(directory) {
            return Err(KeeperError::StateExists(directory.to_owned()));
        }
        let mut store_id = [0; 16];
        rng.fill_bytes(&mut store_id);
        Ok(Self {
            directory: directory.to_owned(),
            cipher: key.cipher(&store_id),
            store_id,
            counted,
            _lock: lock,
        })
    }

    /// The place of an existing state, its write number and its payload.
    pub(super) fn open(
        directory: &Path,
        key: &StateKey,
    ) -> Result<(Self, u64, Zeroizing<Vec<u8>>), KeeperError> {
        let path = directory.join(STATE);
        if !Self::exists(directory) {
            return Err(KeeperError::StateMissing(directory.to_owned()));
        }
        let lock = lock(directory)?;
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| {
                file.take((HEADER + MAX_PAYLOAD + TAG + 1) as u64)
                    .read_to_end(&mut bytes)
            })
            .map_err(KeeperError::io(&path))?;
        let header = header(&bytes)?;
        let cipher = key.cipher(&header.store_id);
        let payload = unseal(&cipher, &bytes)?;
        let file = Self {
            directory: directory.to_owned(),
            cipher,
            store_id: header.store_id,
            counted: header.counted,
            _lock: lock,
        };
        match std::fs::remove_file(directory.join(NEXT)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(KeeperError::io(directory)(error));
            }
            _ => {}
        }
        Ok((file, header.number, payload))
    }

    /// The state was begun with a counter.
    pub(super) const fn counted(&self) -> bool {
        self.counted
    }

    /// Writes a state beside the present one, durable when this returns.
    pub(super) fn prepare(
        &self,
        number: u64,
        payload: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Prepared<'_>, KeeperError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(KeeperError::StateFormat("it would be too large"));
        }
        let mut bytes = vec![0; HEADER + payload.len() + TAG];
        let (header, rest) = bytes.split_at_mut(HEADER);
        header[..8].copy_from_slice(MAGIC);
        header[8..10].copy_from_slice(&VERSION.to_le_bytes());
        header[10] = u8::from(self.counted);
        header[12..16].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        header[16..32].copy_from_slice(&self.store_id);
        header[32..40].copy_from_slice(&number.to_le_bytes());
        let mut nonce = [0; 12];
        rng.fill_bytes(&mut nonce);
        header[40..].copy_from_slice(&nonce);
        let (body, tag) = rest.split_at_mut(payload.len());
        body.copy_from_slice(payload);
        let sealed = self
            .cipher
            .encrypt_inout_detached(&Nonce::from(nonce), header, body.into())
            .expect("a state is far below the cipher's limit of 64 GiB");
        tag.copy_from_slice(&sealed);
        let path = self.directory.join(NEXT);
        write_synced(&path, &bytes).map_err(KeeperError::io(&path))?;
        Ok(Prepared { file: self })
    }
}

/// A state that is on disk but does not hold yet.
pub(super) struct Prepared<'a> {
    file: &'a StateFile,
}

impl Prepared<'_> {
    /// Puts it in the place of the present one, durable when this returns.
    pub(super) fn commit(self) -> Result<(), KeeperError> {
        let directory = &self.file.directory;
        std::fs::rename(directory.join(NEXT), directory.join(STATE))
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(KeeperError::io(directory))
    }
}

/// What stands before the ciphertext.
pub(super) struct Header {
    store_id: [u8; 16],
    number: u64,
    counted: bool,
}

/// Lengths are checked, authenticity is not.
pub(super) fn header(bytes: &[u8]) -> Result<Header, KeeperError> {
    let cut = || KeeperError::StateFormat("it is cut short");
    let header = bytes.first_chunk::<HEADER>().ok_or_else(cut)?;
    if &header[..8] != MAGIC {
        return Err(KeeperError::StateFormat("it is no keeper's state"));
    }
    if header[8..10] != VERSION.to_le_bytes() || header[10] > 1 || header[11] != 0 {
        return Err(KeeperError::StateFormat(
            "it is of another version than this program's",
        ));
    }
    let mut length = [0; 4];
    length.copy_from_slice(&header[12..16]);
    let payload = u32::from_le_bytes(length) as usize;
    if payload > MAX_PAYLOAD || bytes.len() != HEADER + payload + TAG {
        return Err(KeeperError::StateFormat("its length is not what it says"));
    }
    let (mut store_id, mut number) = ([0; 16], [0; 8]);
    store_id.copy_from_slice(&header[16..32]);
    number.copy_from_slice(&header[32..40]);
    Ok(Header {
        store_id,
        number: u64::from_le_bytes(number),
        counted: header[10] == 1,
    })
}

/// The payload; [`header`] has checked the lengths.
fn unseal(cipher: &Aes256GcmSiv, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeeperError> {
    let (header, rest) = bytes.split_at(HEADER);
    let (body, tag_bytes) = rest.split_at(rest.len() - TAG);
    let (mut nonce, mut tag) = ([0; 12], [0; TAG]);
    nonce.copy_from_slice(&header[40..]);
    tag.copy_from_slice(tag_bytes);
    let mut payload = Zeroizing::new(body.to_vec());
    cipher
        .decrypt_inout_detached(
            &Nonce::from(nonce),
            header,
            payload.as_mut_slice().into(),
            &Tag::from(tag),
        )
        .map_err(|_| KeeperError::StateForeign)?;
    Ok(payload)
}

/// Makes the directory and those above it where they are missing, and makes their names
/// durable: what is synced within is lost with the directory's own name.
pub(super) fn make_directory(directory: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let missing = directory
        .ancestors()
        .take_while(|path| *path != Path::new("") && !path.exists())
        .count();
    builder.create(directory)?;
    // At least one, for whoever made the directory may have been stopped before this.
    for path in directory.ancestors().take(missing.max(1)) {
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            Some(_) => Path::new("."),
            None => continue,
        };
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = private().create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn lock(directory: &Path) -> Result<File, KeeperError> {
    let path = directory.join(LOCK);
    let file = private()
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(KeeperError::io(&path))?;
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => KeeperError::StateLocked(directory.to_owned()),
        std::fs::TryLockError::Error(source) => KeeperError::io(&path)(source),
    })?;
    Ok(file)
}

#[cfg(test)]
pub(super) fn opens(key: &StateKey, bytes: &[u8]) -> Result<(), KeeperError> {
    let store_id = header(bytes)?.store_id;
    unseal(&key.cipher(&store_id), bytes).map(|_| ())
}
