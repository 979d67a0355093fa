//! The vectors of one segment, as they come from the source and as they leave.

use oboro_ckks::BatchEncryptor;
use oboro_index::{Descriptor, Extra, RecordKey, SegmentSealer, permutation};
use oboro_quant::Subspaces;
use rand_core::{CryptoRng, SeedableRng};
use rayon::prelude::*;

use super::BlindSegment;
use crate::ids::extras_and_ids;
use crate::prepare::Prepare;
use crate::tags::{self, NewTags};
use crate::{OwnerError, VectorSource};

/// Vectors in the order of the source.
pub(super) struct Chunk {
    ids: Vec<u64>,
    extras: Vec<Extra>,
    tags: Vec<u64>,
    vectors: Vec<f32>,
}

impl Chunk {
    /// The next `most` records of the source, or what is left.
    pub(super) fn read(
        source: &mut dyn VectorSource,
        most: usize,
        key: &RecordKey,
        new_tags: &NewTags,
    ) -> Result<Self, OwnerError> {
        let mut chunk = Self {
            ids: Vec::with_capacity(most),
            extras: Vec::with_capacity(most),
            tags: Vec::new(),
            vectors: Vec::with_capacity(most * source.dimension()),
        };
        while chunk.ids.len() < most {
            let Some(mut records) = source.read(most - chunk.ids.len())? else {
                break;
            };
            if !records.refused.is_empty() {
                return Err(OwnerError::SourceChanged);
            }
            chunk.vectors.append(&mut records.vectors);
            let rows = std::mem::take(&mut records.rows);
            for (tags, &row) in std::mem::take(&mut records.tags).iter().zip(&rows) {
                let set = tags::set(tags, &new_tags.bits)
                    .ok_or(OwnerError::UnknownTag { row: row as usize })?;
                chunk.tags.push(set);
            }
            for (id, extra) in extras_and_ids(records, &rows, key) {
                chunk.ids.push(id);
                chunk.extras.push(extra);
            }
        }
        if new_tags.hashes.is_empty() {
            chunk.tags.clear();
        } else {
            // A source without tags, for an index that has some.
            chunk.tags.resize(chunk.ids.len(), 0);
        }
        Ok(chunk)
    }

    pub(super) const fn len(&self) -> usize {
        self.ids.len()
    }

    /// Seals the originals in a random order; the vectors, prepared and padded, in the
    /// same one.
    pub(super) fn seal(
        self,
        descriptor: &Descriptor,
        key: &RecordKey,
        prepare: &Prepare<'_>,
        subspaces: &Subspaces,
        rng: &mut impl CryptoRng,
    ) -> Result<(BlindSegment, Vec<f32>), OwnerError> {
        let mut segment_id = [0; 16];
        rng.fill_bytes(&mut segment_id);
        let positions = permutation(self.len(), rng);
        let extras = if self.extras.iter().all(Extra::is_empty) {
            &[][..]
        } else {
            &self.extras
        };
        let records = SegmentSealer::new(key, descriptor, segment_id).seal(
            &positions,
            &self.ids,
            &self.vectors,
            extras,
        )?;
        let mut ids = vec![0; self.ids.len()];
        let mut tags = vec![0; self.tags.len()];
        for (row, &position) in positions.iter().enumerate() {
            ids[position as usize] = self.ids[row];
            if let Some(tag) = self.tags.get(row) {
                tags[position as usize] = *tag;
            }
        }
        let mut vectors = self.vectors;
        prepare.rows(&mut vectors)?;
        let length = descriptor.packing.subquantizers() * subspaces.width();
        let mut padded = vec![0.0; positions.len() * length];
        for (vector, &position) in vectors.chunks_exact(prepare.dimension).zip(&positions) {
            subspaces.pad_into(vector, &mut padded[position as usize * length..][..length]);
        }
        let segment = BlindSegment {
            segment_id,
            ids,
            tags,
            records,
        };
        Ok((segment, padded))
    }
}

/// Encrypts padded vectors batch by batch, on rayon's current pool; the bytes do not
/// depend on it.
pub(super) fn encrypt<'a>(
    encryptor: &BatchEncryptor,
    batches: impl Iterator<Item = &'a [f32]>,
    rng: &mut impl CryptoRng,
) -> Result<Vec<Vec<u8>>, OwnerError> {
    let seeded: Vec<(&[f32], zeroize::Zeroizing<[u8; 32]>)> = batches
        .map(|batch| {
            let mut seed = zeroize::Zeroizing::new([0; 32]);
            rng.fill_bytes(&mut *seed);
            (batch, seed)
        })
        .collect();
    seeded
        .into_par_iter()
        .map(|(batch, seed)| {
            let mut rng = chacha20::ChaCha20Rng::from_seed(*seed);
            Ok(encryptor.encrypt(batch, &mut rng)?.to_bytes())
        })
        .collect()
}
