//! The keys of one epoch of one index, and the keeper's part in them.

use super::{OwnerKey, StorageKey};
use crate::{IndexError, derive};
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// The keeper's part in every storage key of one owner; the file
/// `release.key`.
///
/// # Security
/// Alone it opens nothing: a key that opens files needs the searcher's
/// [`StorageKey`] as well.
#[derive(ZeroizeOnDrop)]
pub struct ReleaseKey([u8; 32]);

impl ReleaseKey {
    /// What the keeper gives to a searcher that it trusts, for one epoch of
    /// one index.
    #[must_use]
    pub fn share(&self, index_id: &[u8; 16], epoch: u64) -> ReleaseShare {
        ReleaseShare(*derive::key(
            &self.0,
            "release-share",
            &context(index_id, epoch),
        ))
    }

    pub(crate) fn bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0)
    }

    pub(super) fn from_secret(bytes: &[u8; 32]) -> Self {
        Self(*bytes)
    }
}

/// The keeper's part in the storage key of one epoch of one index.
///
/// # Security
/// It says nothing about the shares of other epochs or indexes, nor about the
/// keeper's [`ReleaseKey`].
#[derive(ZeroizeOnDrop)]
pub struct ReleaseShare([u8; 32]);

impl ReleaseShare {
    /// Bytes of a share.
    pub const LEN: usize = 32;

    /// The share as it travels, inside a channel.
    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::LEN]> {
        Zeroizing::new(self.0)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) gave.
    ///
    /// # Errors
    /// If the length is another. A wrong share shows when an index does not
    /// open with it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IndexError> {
        match bytes.try_into() {
            Ok(bytes) => Ok(Self(bytes)),
            Err(_) => Err(IndexError::Mismatch {
                what: "the length of a release share",
                found: bytes.len() as u64,
                expected: Self::LEN as u64,
            }),
        }
    }
}

/// Opens the searcher's files of one epoch of one index.
#[derive(ZeroizeOnDrop)]
pub struct EpochKey {
    secret: [u8; 32],
    #[zeroize(skip)]
    index_id: [u8; 16],
    #[zeroize(skip)]
    epoch: u64,
    #[zeroize(skip)]
    released: bool,
}

impl EpochKey {
    /// The index whose files it opens.
    #[must_use]
    pub const fn index_id(&self) -> &[u8; 16] {
        &self.index_id
    }

    /// The epoch whose files it opens.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a keeper's share is in it.
    #[must_use]
    pub const fn released(&self) -> bool {
        self.released
    }

    pub(crate) const fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// A key that was derived elsewhere.
    pub(super) const fn of_secret(
        secret: &[u8; 32],
        index_id: [u8; 16],
        epoch: u64,
        released: bool,
    ) -> Self {
        Self {
            secret: *secret,
            index_id,
            epoch,
            released,
        }
    }
}

impl StorageKey {
    /// The key of one epoch of one index; `share` is what the keeper released
    /// for it, or `None` for an index that was built without a keeper's part.
    ///
    /// # Security
    /// With a share, neither this key nor the keeper's opens a file without
    /// the other: both are the input of one HKDF. A wrong share gives a key
    /// that opens nothing.
    #[must_use]
    pub fn for_epoch(
        &self,
        share: Option<&ReleaseShare>,
        index_id: &[u8; 16],
        epoch: u64,
    ) -> EpochKey {
        let mut parts = Zeroizing::new([0; 64]);
        parts[..32].copy_from_slice(self.secret());
        let (used, label) = match share {
            Some(share) => {
                parts[32..].copy_from_slice(&share.0);
                (&parts[..], "epoch-released")
            }
            None => (&parts[..32], "epoch"),
        };
        EpochKey {
            secret: *derive::key(used, label, &context(index_id, epoch)),
            index_id: *index_id,
            epoch,
            released: share.is_some(),
        }
    }
}

impl OwnerKey {
    /// The keeper's part in the storage keys of this owner.
    #[must_use]
    pub fn release_key(&self) -> ReleaseKey {
        ReleaseKey(*derive::key(self.secret(), "release", b""))
    }

    /// The key of one epoch of one index, without asking the keeper. `released`
    /// as [`IndexHead`](crate::IndexHead) says it.
    #[must_use]
    pub fn epoch_key(&self, index_id: &[u8; 16], epoch: u64, released: bool) -> EpochKey {
        let share = released.then(|| self.release_key().share(index_id, epoch));
        self.storage_key()
            .for_epoch(share.as_ref(), index_id, epoch)
    }
}

fn context(index_id: &[u8; 16], epoch: u64) -> [u8; 24] {
    let mut out = [0; 24];
    out[..16].copy_from_slice(index_id);
    out[16..].copy_from_slice(&epoch.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As above, and with BLAKE3 after its specification; that one was checked
    /// against the published test vectors.
    #[test]
    fn ids_tags_and_model_key_are_those_of_an_independent_computation() {
        let owner = OwnerKey::from_secret(&std::array::from_fn(|i| i as u8));
        assert_eq!(
            hex(owner.model_key().secret()),
            "2cc02154a74ef95cfdd060ca81056d2b8d9d8bfdcd6556ea3e2713cc4374bfc1"
        );
        assert_eq!(
            owner.record_key().id_of("alpha"),
            10_784_808_186_784_094_849
        );
        assert_eq!(
            hex(&owner.descriptor_key().tag_hash(&[0xa5; 16], "red")),
            "557749773d734683"
        );
    }

    /// Computed with Python's `hmac` and `hashlib`, after RFC 5869.
    #[test]
    fn keys_of_an_epoch_are_those_of_an_independent_computation() {
        let owner = OwnerKey::from_secret(&std::array::from_fn(|i| i as u8));
        let (index, epoch) = ([0xa5; 16], 3);
        assert_eq!(
            hex(&owner.release_key().share(&index, epoch).to_bytes()[..]),
            "494274859dbf4b9c763f250bd3eeed589cc9bb297c5d642078e8b84aee9782ab"
        );
        assert_eq!(
            hex(owner.epoch_key(&index, epoch, true).secret()),
            "31061f50025339785e4cf8eca1938063a8211f9fcb366a2acf1ba12741aedebf"
        );
        assert_eq!(
            hex(owner.epoch_key(&index, epoch, false).secret()),
            "fd1baa737aa5be060f6e18be4dd5919d9064701367f66011a50af1d83f377c97"
        );
    }
}
