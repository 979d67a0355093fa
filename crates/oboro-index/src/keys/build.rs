//! What a build of one index needs of its owner's keys, and nothing more.

use super::{DescriptorKey, EpochKey, ModelKey, OwnerKey, RecordKey, RotationSeed, WriterKey};
use crate::IndexError;
use zeroize::Zeroizing;

/// The epoch that a build makes.
const FIRST_EPOCH: u64 = 1;

/// The keys with which one index is built.
///
/// # Security
/// Whoever has them can do with this index what a client with a writer's key can, and
/// open its files at rest. The epoch's key is this index's alone. Record, rotation,
/// descriptor and model keys are those of all indexes of the owner, as in
/// every `writer.key`: whoever reads them opens originals of the other indexes, too, where
/// it gets at their sealed records. What they do not contain: the owner's key, the storage
/// key and the keeper's release key, so no other index's codes and no other epoch's.
pub struct BuildKeys {
    writer: WriterKey,
    epoch: EpochKey,
}

impl OwnerKey {
    /// The keys for building the index `index_id`, with a keeper's part in them if
    /// `released`.
    #[must_use]
    pub fn build_keys(&self, index_id: &[u8; 16], released: bool) -> BuildKeys {
        BuildKeys {
            writer: self.writer_key(),
            epoch: self.epoch_key(index_id, FIRST_EPOCH, released),
        }
    }
}

impl BuildKeys {
    /// Bytes of encoded keys.
    pub const LEN: usize = 128 + 32 + 16 + 1;

    /// Seals originals.
    #[must_use]
    pub const fn record_key(&self) -> &RecordKey {
        self.writer.client_key().record_key()
    }

    /// Seeds the secret rotation.
    #[must_use]
    pub const fn rotation_seed(&self) -> &RotationSeed {
        self.writer.client_key().rotation_seed()
    }

    /// Authenticates the descriptor.
    #[must_use]
    pub const fn descriptor_key(&self) -> &DescriptorKey {
        self.writer.client_key().descriptor_key()
    }

    /// Seals the model.
    #[must_use]
    pub const fn model_key(&self) -> &ModelKey {
        self.writer.model_key()
    }

    /// Seals what the searcher reads.
    #[must_use]
    pub const fn epoch_key(&self) -> &EpochKey {
        &self.epoch
    }

    /// The index that they are for.
    #[must_use]
    pub const fn index_id(&self) -> &[u8; 16] {
        self.epoch.index_id()
    }

    /// The keys as they travel, inside a channel to an attested program.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::LEN]> {
        let mut out = Zeroizing::new([0; Self::LEN]);
        out[..128].copy_from_slice(&self.writer.bytes()[..]);
        out[128..160].copy_from_slice(self.epoch.secret());
        out[160..176].copy_from_slice(self.epoch.index_id());
        out[176] = u8::from(self.epoch.released());
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) gave.
    ///
    /// # Errors
    /// On another length or an unknown flag. Wrong keys show when something does not
    /// open with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IndexError> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().map_err(|_| IndexError::Mismatch {
            what: "the length of a build's keys",
            found: bytes.len() as u64,
            expected: Self::LEN as u64,
        })?;
        let released = match bytes[176] {
            0 => false,
            1 => true,
            _ => {
                return Err(IndexError::damaged(
                    "a build's keys",
                    "their flag is unknown",
                ));
            }
        };
        let mut writer = Zeroizing::new([0; 128]);
        writer.copy_from_slice(&bytes[..128]);
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(&bytes[128..160]);
        let mut index_id = [0; 16];
        index_id.copy_from_slice(&bytes[160..176]);
        Ok(Self {
            writer: WriterKey::from_secret(&writer),
            epoch: EpochKey::of_secret(&secret, index_id, FIRST_EPOCH, released),
        })
    }

    /// The epoch's key once more, for whoever writes the index.
    #[must_use]
    pub fn to_epoch_key(&self) -> EpochKey {
        EpochKey::of_secret(
            self.epoch.secret(),
            *self.epoch.index_id(),
            FIRST_EPOCH,
            self.epoch.released(),
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn keys_travel() {
        let owner = OwnerKey::generate(&mut ChaCha20Rng::from_seed([1; 32]));
        for released in [true, false] {
            let keys = owner.build_keys(&[7; 16], released);
            let bytes = keys.to_bytes();
            let again = BuildKeys::from_bytes(&bytes[..]).unwrap();
            assert!(again.to_bytes() == bytes);
            let epoch = owner.epoch_key(&[7; 16], 1, released);
            assert!(again.epoch_key().secret() == epoch.secret());
            assert_eq!(again.epoch_key().epoch(), 1);
            assert_eq!(again.index_id(), &[7; 16]);
            assert!(again.record_key().secret() == owner.record_key().secret());
            assert!(again.model_key().secret() == owner.model_key().secret());
        }
    }

    #[test]
    fn fail_keys_of_another_length_or_with_another_flag() {
        let owner = OwnerKey::generate(&mut ChaCha20Rng::from_seed([1; 32]));
        let mut bytes = owner.build_keys(&[7; 16], true).to_bytes().to_vec();
        for length in 0..bytes.len() {
            assert!(BuildKeys::from_bytes(&bytes[..length]).is_err());
        }
        bytes.push(0);
        assert!(BuildKeys::from_bytes(&bytes).is_err());
        bytes.pop();
        bytes[176] = 2;
        assert!(BuildKeys::from_bytes(&bytes).is_err());
    }

    /// Neither the owner's key nor those that open other indexes are among them.
    #[test]
    fn keys_of_a_build_hold_no_root() {
        let owner = OwnerKey::generate(&mut ChaCha20Rng::from_seed([1; 32]));
        let bytes = owner.build_keys(&[7; 16], true).to_bytes();
        let has = |secret: &[u8]| bytes.windows(32).any(|window| window == secret);
        assert!(!has(owner.secret()));
        assert!(!has(owner.storage_key().secret()));
        assert!(!has(&owner.release_key().bytes()[..]));
        assert!(!has(&owner.release_key().share(&[7; 16], 1).to_bytes()[..]));
        assert!(has(owner.record_key().secret()));
    }
}
