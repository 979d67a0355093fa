//! The folders of `oboro keygen`: one for each role, with that role's secrets
//! and no other's.
//!
//! | folder | holds | goes to |
//! |---|---|---|
//! | `owner/` | `owner.key`, `authority.pem`, `issued.txt`, `keeper.pub`, TLS identity | stays where the vectors are |
//! | `client/` | `client.key`, TLS identity | everyone who may search |
//! | `searcher/` | `storage.key`, TLS identity | the machine with the index |
//! | `generator/` | TLS identity, no other secret | the machine of a build enclave |
//! | `keeper/` | `keeper.key`, `release.key`, `keeper.pub`, TLS identity; later `state/` | another machine, best of another vendor |
//!
//! Each holds the owner's revocation list, too, `revoked.crl`; running roles watch theirs.

use std::path::{Path, PathBuf};

use oboro_channel::{Identity, Role, Trust};
use oboro_ckks::{PublicKey, SecretKey};
use oboro_index::keys::{self, ClientKey, OwnerKey, ReleaseKey, StorageKey};

use crate::failure::{Failure, Outcome};

/// The owner's root key.
pub const OWNER_KEY: &str = "owner.key";
/// The owner's certificate authority.
pub const AUTHORITY: &str = "authority.pem";
/// The clients' key.
pub const CLIENT_KEY: &str = "client.key";
/// The searcher's root key.
pub const STORAGE_KEY: &str = "storage.key";
/// The first CKKS secret key.
pub const KEEPER_KEY: &str = "keeper.key";
/// The first CKKS public key.
pub const KEEPER_PUBLIC: &str = "keeper.pub";
/// The keeper's part in the keys of indexes.
pub const RELEASE_KEY: &str = "release.key";
/// The owner's list of revoked certificates.
pub const REVOKED: &str = "revoked.crl";
/// The keeper's own records.
pub const STATE: &str = "state";
/// A role's TLS key and certificate.
pub const IDENTITY: &str = "identity.pem";
/// The certificate of the owner's authority.
pub const TRUST: &str = "trust.pem";

/// The folder of one role.
pub struct Folder {
    path: PathBuf,
    role: Role,
}

impl Folder {
    /// `keys` may be the folder of all roles or the role's own.
    ///
    /// # Errors
    /// If it is no folder.
    pub fn of(keys: &Path, role: Role) -> Outcome<Self> {
        let below = keys.join(role.name());
        let path = if below.is_dir() {
            below
        } else {
            keys.to_owned()
        };
        if !path.is_dir() {
            return Err(Failure::input(format_args!(
                "{} is no folder of keys; make one with `oboro keygen --out DIR` and name it with --keys",
                keys.display()
            )));
        }
        Ok(Self { path, role })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of one of its files, which must be there.
    ///
    /// # Errors
    /// If it is not there.
    pub fn file(&self, name: &str) -> Outcome<PathBuf> {
        let path = self.path.join(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(Failure::input(format_args!(
            "{} has no {name}; give the {}'s folder of `oboro keygen` with --keys",
            self.path.display(),
            self.role
        )))
    }

    /// The TLS identity.
    ///
    /// # Errors
    /// If the file is missing, damaged or readable by others.
    pub fn identity(&self) -> Outcome<Identity> {
        let path = self.file(IDENTITY)?;
        let identity = Identity::read_file(&path)?;
        if identity.role() != self.role {
            return Err(Failure::input(format_args!(
                "{} is the identity of the {}, not of the {}; give the {}'s folder with --keys",
                path.display(),
                identity.role(),
                self.role,
                self.role
            )));
        }
        Ok(identity)
    }

    /// Whose certificates are believed, and which of them are revoked: the list is watched
    /// where there is one.
    ///
    /// # Errors
    /// If the file is missing, damaged or readable by others.
    pub fn trust(&self) -> Outcome<Trust> {
        let trust = Trust::read_file(&self.file(TRUST)?)?;
        let revoked = self.path.join(REVOKED);
        if revoked.is_file() {
            return Ok(trust.with_revocation_file(&revoked)?);
        }
        Ok(trust)
    }

    /// The owner's root key.
    ///
    /// # Errors
    /// If the file is missing, damaged or readable by others.
    pub fn owner_key(&self) -> Outcome<OwnerKey> {
        Ok(OwnerKey::read(self.file(OWNER_KEY)?)?)
    }

    /// The clients' key.
    ///
    /// # Errors
    /// If the file is missing, damaged or readable by others.
    pub fn client_key(&self) -> Outcome<ClientKey> {
        Ok(ClientKey::read(self.file(CLIENT_KEY)?)?)
    }

    /// The searcher's root key.
    ///
    /// # Errors
    /// If the file is missing, damaged or readable by others.
    pub fn storage_key(&self) -> Outcome<StorageKey> {
        Ok(StorageKey::read(self.file(STORAGE_KEY)?)?)
    }

    /// The keeper's part in the keys of indexes.
    ///
    /// # Errors
    /// If the file is missing, damaged or readable by others.
    pub fn release_key(&self) -> Outcome<ReleaseKey> {
        Ok(ReleaseKey::read(self.file(RELEASE_KEY)?)?)
    }

    /// The first CKKS secret key.
    ///
    /// # Errors
    /// If the file is missing, damaged or readable by others.
    pub fn keeper_secret(&self) -> Outcome<SecretKey> {
        Ok(keys::read_keeper_secret(self.file(KEEPER_KEY)?)?)
    }

    /// The first CKKS public key.
    ///
    /// # Errors
    /// If the file is missing, damaged or readable by others.
    pub fn keeper_public(&self) -> Outcome<PublicKey> {
        Ok(keys::read_keeper_public(self.file(KEEPER_PUBLIC)?)?)
    }
}

/// A generator for secrets, seeded by the operating system.
///
/// # Errors
/// If the operating system has no random numbers.
pub fn os_rng() -> Outcome<chacha20::ChaCha20Rng> {
    Ok(rand_core::SeedableRng::from_seed(os_seed()?))
}

/// 32 bytes of the operating system's generator.
///
/// # Errors
/// If the operating system has no random numbers.
pub fn os_seed() -> Outcome<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        Failure::failed(format_args!(
            "the operating system gives no random numbers: {error}"
        ))
    })?;
    Ok(seed)
}
