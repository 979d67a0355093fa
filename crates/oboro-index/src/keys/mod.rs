//! Keys and their files.
//!
//! | key | held by | can |
//! |---|---|---|
//! | [`OwnerKey`] | owner | everything: all others below derive from it |
//! | [`ClientKey`] | client | open records, rotate queries, check the descriptor |
//! | [`WriterKey`] | client that inserts | as a client key, and open the owner's model |
//! | [`StorageKey`] | searcher | its half of what opens codes, ids and the encrypted codebook at rest |
//! | [`ReleaseKey`] | keeper | the other half |
//! | [`BuildKeys`] | program that builds one index for its owner | as a writer key, and seal this index at rest |
//! | keeper's secret ([`read_keeper_secret`]) | keeper | decrypt masked tables |
//! | keeper's public key ([`read_keeper_public`]) | everyone | encrypt |
//!
//! Derivation is HKDF-SHA256 with one label per purpose. A client key and a
//! storage key derived from one owner key tell nothing about each other.
//!
//! ```text
//! owner key ┬─ record key, rotation seed, descriptor key: the client key ┬ the writer key
//!           ├─ model key ─────────────────────────────────────────────────┘
//!           ├─ storage key ────────────────────────┐
//!           └─ release key ── share(index, epoch) ─┴─ epoch key ┬─ key of each sealed file
//!                                                               └─ key of the manifest's MAC
//! ```
//!
//! The keeper releases its [`ReleaseShare`] to a searcher that it has appraised
//! and for the newest state of an index only, so that the searcher's disk and
//! its storage key are not enough to open an index, and an older copy of it
//! cannot be served. An index for a client that holds the decryption key has
//! no keeper: its [`EpochKey`] comes from the storage key alone, and the
//! manifest says so.
//!
//! A key file is text: lines that begin with `#` are remarks, one line is the
//! key. Short keys are Bech32m, upper case, so that a mistyped character is
//! noticed and the prefix tells what the key is. The keeper's keys are longer
//! and armoured in Base64 with a BLAKE3 checksum. Secret files are created
//! with mode 0600, never overwritten, and refused when others can read them.

mod age;
mod armour;
pub mod backup;
mod build;
mod epoch;
mod file;
mod pem;
mod protected;
mod text;

pub use armour::{
    keeper_public_from_text, keeper_public_to_text, keeper_secret_from_text, keeper_secret_to_text,
    read_keeper_public, read_keeper_secret, write_keeper_public, write_keeper_secret,
};

pub use build::BuildKeys;
pub use epoch::{EpochKey, ReleaseKey, ReleaseShare};
pub use writer::{ModelKey, WriterKey};

use crate::{IndexError, derive};
use rand_core::CryptoRng;
use std::path::Path;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Implements text and file forms of a key made of `$len` secret bytes.
macro_rules! text_key {
    ($type:ident, $prefix:literal, $name:literal, $remark:literal) => {
        impl $type {
            #[doc = concat!("The key as text, beginning with `", $prefix, "1`.")]
            #[must_use]
            pub fn to_text(&self) -> Zeroizing<String> {
                text::encode($prefix, &self.bytes()[..])
            }

            /// Reads what [`to_text`](Self::to_text) wrote; lines beginning
            /// with `#` around it are remarks.
            ///
            /// # Errors
            /// If the text holds no key, another kind of key, more than one,
            /// or a mistyped one.
            pub fn from_text(text: &str) -> Result<Self, IndexError> {
                text::decode($prefix, $name, text).map(|bytes| Self::from_secret(&bytes))
            }

            /// Creates the file `path` with mode 0600.
            ///
            /// # Errors
            /// If the file exists already or cannot be written.
            pub fn write(&self, path: impl AsRef<Path>) -> Result<(), IndexError> {
                file::create_secret(path.as_ref(), $remark, &self.to_text())
            }

            /// Reads a key file.
            ///
            /// # Errors
            /// If others can read the file, or as [`from_text`](Self::from_text).
            pub fn read(path: impl AsRef<Path>) -> Result<Self, IndexError> {
                let path = path.as_ref();
                let text = file::read_secret(path)?;
                Self::from_text(&text).map_err(file::within(path))
            }
        }
    };
}

mod writer;

/// 32 secret bytes for one purpose.
macro_rules! single_key {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(ZeroizeOnDrop)]
        pub struct $type([u8; 32]);

        impl $type {
            pub(crate) const fn secret(&self) -> &[u8; 32] {
                &self.0
            }
        }
    };
}

single_key! {
    /// Seals the original vectors; the searcher does not have it.
    RecordKey
}
impl RecordKey {
    /// The number that stands for a string id inside an index. Two strings
    /// have the same with probability 2^-64, and the second is then refused
    /// like any id that is there already.
    ///
    /// # Security
    /// Keyed, so that whoever sees the numbers cannot try strings.
    #[must_use]
    pub fn id_of(&self, id: &str) -> u64 {
        let key = derive::key(&self.0, "string-id", b"");
        u64::from_le_bytes(first_eight(&key, id))
    }
}

impl DescriptorKey {
    /// What stands for the name of a tag in the descriptor of `index_id`.
    ///
    /// # Security
    /// Keyed, so that the searcher, which reads descriptors, cannot try names.
    #[must_use]
    pub fn tag_hash(&self, index_id: &[u8; 16], name: &str) -> [u8; 8] {
        first_eight(&derive::key(&self.0, "tag-name", index_id), name)
    }
}

fn first_eight(key: &[u8; 32], text: &str) -> [u8; 8] {
    let hash = blake3::keyed_hash(key, text.as_bytes());
    let mut out = [0; 8];
    out.copy_from_slice(&hash.as_bytes()[..8]);
    out
}

single_key! {
    /// From which the secret rotation is drawn.
    RotationSeed
}
single_key! {
    /// Authenticates the descriptor of an index towards clients.
    DescriptorKey
}
single_key! {
    /// The searcher's key: with what the keeper releases, it opens codes, ids
    /// and the encrypted codebook at rest.
    StorageKey
}

/// The owner's master key.
///
/// # Security
/// Whoever has it can open every original and make indexes that clients
/// accept. It never leaves the owner.
#[derive(ZeroizeOnDrop)]
pub struct OwnerKey([u8; 32]);

impl OwnerKey {
    /// A fresh key.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut key = Self([0; 32]);
        rng.fill_bytes(&mut key.0);
        key
    }

    /// Seals originals.
    #[must_use]
    pub fn record_key(&self) -> RecordKey {
        RecordKey(*derive::key(&self.0, "record", b""))
    }

    /// The searcher's key.
    #[must_use]
    pub fn storage_key(&self) -> StorageKey {
        StorageKey(*derive::key(&self.0, "storage", b""))
    }

    /// Seeds the secret rotation.
    #[must_use]
    pub fn rotation_seed(&self) -> RotationSeed {
        RotationSeed(*derive::key(&self.0, "rotation", b""))
    }

    /// Authenticates descriptors.
    #[must_use]
    pub fn descriptor_key(&self) -> DescriptorKey {
        DescriptorKey(*derive::key(&self.0, "descriptor", b""))
    }

    /// What a client needs.
    #[must_use]
    pub fn client_key(&self) -> ClientKey {
        ClientKey {
            record: self.record_key(),
            rotation: self.rotation_seed(),
            descriptor: self.descriptor_key(),
        }
    }

    pub(crate) const fn secret(&self) -> &[u8; 32] {
        &self.0
    }

    fn bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }

    fn from_secret(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }
}

text_key!(
    OwnerKey,
    "OBORO-OWNER-KEY-",
    "an owner key",
    "Oboro owner key. Opens every original and derives every other key; there is no way to recover it. It never leaves the owner."
);

impl StorageKey {
    fn bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }

    fn from_secret(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }
}

text_key!(
    StorageKey,
    "OBORO-STORAGE-KEY-",
    "a storage key",
    "Oboro storage key, for the searcher. With what the keeper releases, opens codes, ids and the encrypted codebook of the owner's indexes."
);

text_key!(
    ReleaseKey,
    "OBORO-RELEASE-KEY-",
    "a release key",
    "Oboro release key, for the keeper. Its part in the storage keys of the owner's indexes; alone it opens nothing."
);

/// What lets a client query and read results.
pub struct ClientKey {
    record: RecordKey,
    rotation: RotationSeed,
    descriptor: DescriptorKey,
}

impl ClientKey {
    /// Opens originals.
    #[must_use]
    pub const fn record_key(&self) -> &RecordKey {
        &self.record
    }

    /// Seeds the secret rotation.
    #[must_use]
    pub const fn rotation_seed(&self) -> &RotationSeed {
        &self.rotation
    }

    /// Authenticates descriptors.
    #[must_use]
    pub const fn descriptor_key(&self) -> &DescriptorKey {
        &self.descriptor
    }

    fn bytes(&self) -> Zeroizing<[u8; 96]> {
        let mut out = Zeroizing::new([0; 96]);
        out[..32].copy_from_slice(&self.record.0);
        out[32..64].copy_from_slice(&self.rotation.0);
        out[64..].copy_from_slice(&self.descriptor.0);
        out
    }

    fn from_secret(bytes: &[u8; 96]) -> Self {
        let part = |at: usize| {
            let mut out = [0; 32];
            out.copy_from_slice(&bytes[at..at + 32]);
            out
        };
        Self {
            record: RecordKey(part(0)),
            rotation: RotationSeed(part(32)),
            descriptor: DescriptorKey(part(64)),
        }
    }
}

text_key!(
    ClientKey,
    "OBORO-CLIENT-KEY-",
    "a client key",
    "Oboro client key. Opens the originals that a search returns; give it only to those who may query."
);
