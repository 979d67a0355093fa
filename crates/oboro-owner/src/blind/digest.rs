//! What a build is made of, in one number: an interrupted one goes on with the same only.

use blake3::Hasher;
use oboro_vectors::{Ids, Records, Refusal, VectorsError};

use crate::VectorSource;

/// A source that is hashed while it is read.
pub(super) struct Digesting<'a> {
    source: &'a mut dyn VectorSource,
    hasher: Hasher,
}

impl<'a> Digesting<'a> {
    pub(super) fn new(source: &'a mut dyn VectorSource) -> Self {
        Self {
            source,
            hasher: Hasher::new_derive_key("oboro 2026 input of a blind build v1"),
        }
    }

    /// Of everything that was read since the source was last rewound, and of `settings`;
    /// and of that with the fingerprint of the keeper's key.
    pub(super) fn finish(mut self, settings: &[&[u8]], key: &[u8; 32]) -> ([u8; 32], [u8; 32]) {
        for part in settings {
            self.piece(part);
        }
        let apart_from_key = *self.hasher.finalize().as_bytes();
        self.piece(key);
        (apart_from_key, *self.hasher.finalize().as_bytes())
    }

    fn piece(&mut self, bytes: &[u8]) {
        self.hasher.update(&(bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    fn take(&mut self, records: &Records) {
        self.hasher
            .update(&(records.rows.len() as u64).to_le_bytes());
        for row in &records.rows {
            self.hasher.update(&row.to_le_bytes());
        }
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(4 * records.vectors.len()));
        for value in &records.vectors {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        self.piece(&bytes);
        match &records.ids {
            Ids::Rows => self.piece(b"rows"),
            Ids::Numbers(ids) => {
                for id in ids {
                    self.hasher.update(&id.to_le_bytes());
                }
            }
            Ids::Text(ids) => ids.iter().for_each(|id| self.piece(id.as_bytes())),
        }
        for tags in &records.tags {
            self.hasher.update(&(tags.len() as u64).to_le_bytes());
            for tag in tags {
                self.hasher.update(&tag.to_le_bytes());
            }
        }
        for payload in &records.payloads {
            self.piece(payload);
        }
    }
}

impl VectorSource for Digesting<'_> {
    fn rows(&self) -> usize {
        self.source.rows()
    }

    fn dimension(&self) -> usize {
        self.source.dimension()
    }

    fn tag_names(&self) -> &[String] {
        self.source.tag_names()
    }

    fn read(&mut self, most: usize) -> Result<Option<Records>, VectorsError> {
        let records = self.source.read(most)?;
        if let Some(records) = &records {
            self.take(records);
        }
        Ok(records)
    }

    fn rewind(&mut self) -> Result<(), VectorsError> {
        self.hasher.reset();
        self.source.rewind()
    }

    fn error(&self, refusal: &Refusal) -> VectorsError {
        self.source.error(refusal)
    }
}
