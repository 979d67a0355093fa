//! What anybody can see of an index.

use crate::IndexError;
use crate::index::read_manifest;
use crate::manifest::Manifest;
use std::path::Path;

/// What anybody can see of an index without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Names the index.
    pub index_id: [u8; 16],
    /// Its epoch.
    pub epoch: u64,
    /// Its number of commits.
    pub generation: u64,
    /// BLAKE3 of its manifest.
    pub manifest_digest: [u8; 32],
    /// Whether the keeper's share is needed to open it.
    pub released: bool,
    /// Number of vectors that can be found.
    pub vectors: u64,
    /// Number of vectors that are deleted and still in files.
    pub deleted: u64,
    /// Whether it has the model that new vectors are encoded with.
    pub model: bool,
    /// Each segment.
    pub segments: Vec<SegmentSummary>,
    /// Every file with its size in bytes, the manifest first.
    pub files: Vec<(String, u64)>,
}

/// What anybody can see of a segment without a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentSummary {
    /// Number of vectors, deleted ones included.
    pub vectors: u32,
    /// Number of deleted vectors.
    pub deleted: u32,
    /// Number of sub-quantizers.
    pub subquantizers: u32,
    /// Bits of a code.
    pub bits: u8,
    /// Whether vectors have tags.
    pub tags: bool,
    /// Whether vectors are in lists.
    pub lists: bool,
    /// Whether a compaction made it.
    pub compacted: bool,
}

impl SegmentSummary {
    /// Bytes of memory that a searcher keeps for it: codes, ids and tags, and the
    /// order of the ids for changes. Originals stay on disk.
    ///
    /// How full lists are cannot be seen without a key: where vectors are in lists, codes
    /// and tags count once more, as if all lists were of one length.
    /// [`Segment::resident_bytes`](crate::Segment::resident_bytes) counts what is there.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let bits = u64::from(self.subquantizers) * u64::from(self.bits);
        let scanned = bits.div_ceil(8) + if self.tags { 8 } else { 0 };
        // A list and a place are two and four bytes.
        let in_lists = if self.lists { scanned + 2 + 4 } else { 0 };
        u64::from(self.vectors) * (scanned + 8 + 4 + in_lists)
    }
}

impl Summary {
    /// Reads the manifest in the folder `path` without a key, so that its
    /// origin is not checked.
    ///
    /// # Errors
    /// If there is no index or its manifest is damaged.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, IndexError> {
        Self::from_bytes(&read_manifest(path.as_ref())?)
    }

    /// As [`read`](Self::read), from the bytes of a manifest.
    ///
    /// # Errors
    /// If they are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IndexError> {
        let manifest = Manifest::from_bytes(None, bytes)?;
        Ok(Self {
            index_id: manifest.index_id,
            epoch: manifest.epoch,
            generation: manifest.generation,
            manifest_digest: manifest.head(bytes).manifest_digest,
            released: manifest.released,
            vectors: manifest.alive(),
            deleted: manifest.deleted(),
            model: manifest.model.is_some(),
            segments: segments(&manifest),
            files: manifest.list(bytes.len() as u64),
        })
    }
}

pub(crate) fn segments(manifest: &Manifest) -> Vec<SegmentSummary> {
    manifest
        .segments
        .iter()
        .map(|segment| SegmentSummary {
            vectors: segment.vectors,
            deleted: segment.deleted.map_or(0, |(count, _)| count),
            subquantizers: segment.subquantizers,
            bits: segment.bits,
            tags: segment.tags.is_some(),
            lists: segment.lists.is_some(),
            compacted: segment.origins,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_a_segment() {
        let plain = SegmentSummary {
            vectors: 1000,
            deleted: 10,
            subquantizers: 16,
            bits: 8,
            tags: false,
            lists: false,
            compacted: true,
        };
        assert_eq!(plain.resident_bytes(), 1000 * (16 + 8 + 4));
        let half = SegmentSummary { bits: 4, ..plain };
        assert_eq!(half.resident_bytes(), 1000 * (8 + 8 + 4));
        let tags = SegmentSummary {
            tags: true,
            ..plain
        };
        assert_eq!(tags.resident_bytes(), 1000 * (16 + 8 + 4 + 8));
        let lists = SegmentSummary {
            lists: true,
            ..tags
        };
        assert_eq!(
            lists.resident_bytes(),
            1000 * (2 * (16 + 8) + 8 + 4 + 2 + 4)
        );
    }
}
