//! The folders of `oboro keygen`: one for each role, with that role's secrets
//! and no other's.
//!
//! | folder | holds | goes to |
//! |---|---|---|
//! | `owner/` | `owner.key`, `authority.pem`, `keeper.pub`, TLS identity | stays where the vectors are |
//! | `client/` | `client.key`, TLS identity | everyone who may search |
//! | `searcher/` | `storage.key`, TLS identity | the machine with the index |
//! | `keeper/` | `keeper.key`, `keeper.pub`, TLS identity | another machine, best of another vendor |

use std::path::{Path, PathBuf};

use oboro_channel::{Identity, Role, Trust};
use oboro_ckks::{PublicKey, SecretKey};
use oboro_index::keys::{self, ClientKey, OwnerKey, StorageKey};

use crate::failure::{Failure, Outcome};

pub(crate) const OWNER_KEY: &str = "owner.key";
pub(crate) const AUTHORITY: &str = "authority.pem";
pub(crate) const CLIENT_KEY: &str = "client.key";
pub(crate) const STORAGE_KEY: &str = "storage.key";
pub(crate) const KEEPER_KEY: &str = "keeper.key";
pub(crate) const KEEPER_PUBLIC: &str = "keeper.pub";
pub(crate) const IDENTITY: &str = "identity.pem";
pub(crate) const TRUST: &str = "trust.pem";

/// The folder of one role.
pub(crate) struct Folder {
    path: PathBuf,
    role: Role,
}

impl Folder {
    /// `keys` may be the folder of all roles or the role's own.
    pub(crate) fn of(keys: &Path, role: Role) -> Outcome<Self> {
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

    /// The path of one of its files, which must be there.
    fn file(&self, name: &str) -> Outcome<PathBuf> {
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

    pub(crate) fn identity(&self) -> Outcome<Identity> {
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

    pub(crate) fn trust(&self) -> Outcome<Trust> {
        Ok(Trust::read_file(&self.file(TRUST)?)?)
    }

    pub(crate) fn owner_key(&self) -> Outcome<OwnerKey> {
        Ok(OwnerKey::read(self.file(OWNER_KEY)?)?)
    }

    pub(crate) fn client_key(&self) -> Outcome<ClientKey> {
        Ok(ClientKey::read(self.file(CLIENT_KEY)?)?)
    }

    pub(crate) fn storage_key(&self) -> Outcome<StorageKey> {
        Ok(StorageKey::read(self.file(STORAGE_KEY)?)?)
    }

    pub(crate) fn keeper_secret(&self) -> Outcome<SecretKey> {
        Ok(keys::read_keeper_secret(self.file(KEEPER_KEY)?)?)
    }

    pub(crate) fn keeper_public(&self) -> Outcome<PublicKey> {
        Ok(keys::read_keeper_public(self.file(KEEPER_PUBLIC)?)?)
    }
}

/// A generator for secrets, seeded by the operating system.
pub(crate) fn os_rng() -> Outcome<chacha20::ChaCha20Rng> {
    Ok(rand_core::SeedableRng::from_seed(os_seed()?))
}

/// 32 bytes of the operating system's generator.
pub(crate) fn os_seed() -> Outcome<[u8; 32]> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| {
        Failure::failed(format_args!(
            "the operating system gives no random numbers: {error}"
        ))
    })?;
    Ok(seed)
}
