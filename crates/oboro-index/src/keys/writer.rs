//! The key of clients that may change an index.

use super::{ClientKey, DescriptorKey, OwnerKey, file, text};
use crate::{IndexError, derive};
use std::path::Path;
use zeroize::{ZeroizeOnDrop, Zeroizing};

/// Seals the owner's model: what new vectors are encoded with.
#[derive(ZeroizeOnDrop)]
pub struct ModelKey([u8; 32]);

impl ModelKey {
    pub(crate) const fn secret(&self) -> &[u8; 32] {
        &self.0
    }
}

impl OwnerKey {
    /// Seals the models of the owner's indexes.
    #[must_use]
    pub fn model_key(&self) -> ModelKey {
        ModelKey(*derive::key(self.secret(), "model", b""))
    }

    /// What a client needs that may insert and delete.
    #[must_use]
    pub fn writer_key(&self) -> WriterKey {
        WriterKey {
            client: self.client_key(),
            model: self.model_key(),
        }
    }
}

/// What lets a client query, insert and delete; the file `writer.key`.
pub struct WriterKey {
    client: ClientKey,
    model: ModelKey,
}

impl WriterKey {
    /// The client's part.
    #[must_use]
    pub const fn client_key(&self) -> &ClientKey {
        &self.client
    }

    /// The key that authenticates descriptors, on its own, for a connection to
    /// a searcher.
    #[must_use]
    pub fn descriptor_key(&self) -> DescriptorKey {
        DescriptorKey(self.client.descriptor.0)
    }

    /// Opens models.
    #[must_use]
    pub const fn model_key(&self) -> &ModelKey {
        &self.model
    }

    pub(super) fn bytes(&self) -> Zeroizing<[u8; 128]> {
        let mut out = Zeroizing::new([0; 128]);
        out[..96].copy_from_slice(&self.client.bytes()[..]);
        out[96..].copy_from_slice(&self.model.0);
        out
    }

    pub(super) fn from_secret(bytes: &[u8; 128]) -> Self {
        let mut client = Zeroizing::new([0; 96]);
        client.copy_from_slice(&bytes[..96]);
        let mut model = [0; 32];
        model.copy_from_slice(&bytes[96..]);
        Self {
            client: ClientKey::from_secret(&client),
            model: ModelKey(model),
        }
    }
}

text_key!(
    WriterKey,
    "OBORO-WRITER-KEY-",
    "a writer key",
    "Oboro writer key. Opens the originals that a search returns and the codebook that new vectors are encoded with; give it only to those who may change indexes."
);
