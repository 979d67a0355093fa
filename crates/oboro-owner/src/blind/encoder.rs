//! New vectors for an index that was made blindly.

use std::collections::HashSet;

use chacha20::ChaCha20Rng;
use oboro_ckks::{BatchEncryptor, BatchPacking, BatchScale};
use oboro_index::{Descriptor, RotationMatrix, SegmentSealer, WriterKey, permutation};
use oboro_quant::Subspaces;
use oboro_vectors::Records;
use rand_core::{CryptoRng, Rng as _};
use zeroize::Zeroizing;

use super::segment::encrypt;
use crate::encoder::{EncodedSegment, Encodes, Intake, Skip};
use crate::prepare::Prepare;
use crate::{OwnerError, tags};

/// Vectors of a segment that searcher and keeper are to encode, prepared and in the order
/// of positions.
///
/// # Security
/// In the clear, and wiped when dropped. They stay with who inserts them: what is sent is
/// [encrypted](BlindEncryptor::encrypt) first, under the key that is in use then.
#[derive(Clone, PartialEq)]
pub struct Unencoded(Zeroizing<Vec<f32>>);

/// Encrypts vectors for searcher and keeper to encode, for one epoch of an index.
pub struct BlindEncryptor {
    encryptor: BatchEncryptor,
    epoch: u64,
}

impl BlindEncryptor {
    /// For the epoch that `descriptor` describes; `scale` is how the searcher wants vectors
    /// encrypted. Those longer than any that the index was built with are shortened for
    /// encoding, not where they are stored.
    ///
    /// # Errors
    /// If the scale does not fit the index.
    pub fn new(scale: &[u8], descriptor: &Descriptor) -> Result<Self, OwnerError> {
        let packing = BatchPacking::of(&descriptor.packing)?;
        let scale = BatchScale::from_bytes(&packing, scale)?;
        Ok(Self {
            encryptor: BatchEncryptor::new(scale, descriptor.public_key.clone())?,
            epoch: descriptor.epoch,
        })
    }

    /// The epoch whose key it encrypts under; the searcher must be told.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The vectors, batch by batch. Runs on rayon's current pool; the bytes do not depend
    /// on it.
    ///
    /// # Errors
    /// If they are of an index of another shape.
    ///
    /// # Security
    /// `rng` must be fresh each time, also for the same vectors: under two keys with the
    /// same randomness they would be told to whoever sees both.
    pub fn encrypt(
        &self,
        vectors: &Unencoded,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<Vec<u8>>, OwnerError> {
        let packing = self.encryptor.packing();
        let batches = vectors.0.chunks(packing.batch() * packing.vector_len());
        encrypt(&self.encryptor, batches, rng)
    }
}

/// Prepares and seals new vectors, for searcher and keeper to encode.
///
/// # Security
/// It holds the key of the originals, but no centroid: nobody has those in the clear.
pub struct BlindEncoder {
    rotation: RotationMatrix,
    subspaces: Subspaces,
    /// Values of a vector with those that fill its sub-vectors up.
    padded: usize,
    descriptor: Descriptor,
    key: WriterKey,
}

impl BlindEncoder {
    /// For the index that `descriptor` describes, in whatever epoch.
    ///
    /// # Errors
    /// If no vectors of its shape can be encoded blindly.
    pub fn new(key: WriterKey, descriptor: &Descriptor) -> Result<Self, OwnerError> {
        let subspaces = descriptor.subspaces()?;
        let rotation = RotationMatrix::derive(
            key.client_key().rotation_seed(),
            &subspaces,
            descriptor.rotation,
            descriptor.metric,
        );
        Ok(Self {
            rotation,
            subspaces,
            padded: BatchPacking::of(&descriptor.packing)?.vector_len(),
            descriptor: descriptor.clone(),
            key,
        })
    }
}

impl Encodes for BlindEncoder {
    fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    fn encode(
        &self,
        records: Records,
        tag_names: &[String],
        skip: &Skip<'_>,
        seen: &mut HashSet<u64>,
        rng: &mut ChaCha20Rng,
    ) -> Result<(EncodedSegment, u64), OwnerError> {
        let client = self.key.client_key();
        let bits = tags::bits(&self.descriptor, client.descriptor_key(), tag_names);
        let intake = Intake {
            descriptor: &self.descriptor,
            key: &self.key,
        };
        let (vectors, good) = intake.check(records, &bits, skip, seen);
        let mut segment = EncodedSegment {
            refused: good.refused,
            ..EncodedSegment::default()
        };
        rng.fill_bytes(&mut segment.segment_id);
        if good.ids.is_empty() {
            return Ok((segment, good.present));
        }
        let positions = permutation(good.ids.len(), rng);
        let sealer = SegmentSealer::new(client.record_key(), &self.descriptor, segment.segment_id);
        segment.records = sealer.seal(&positions, &good.ids, &vectors, &good.extras)?;
        let prepare = Prepare {
            metric: self.descriptor.metric,
            rotation: &self.rotation,
            query: None,
            dimension: self.descriptor.dimension as usize,
        };
        let mut prepared = Zeroizing::new(vectors);
        prepare.rows(&mut prepared)?;
        let length = self.padded;
        let mut padded = Zeroizing::new(vec![0.0; positions.len() * length]);
        segment.ids = vec![0; good.ids.len()];
        segment.tags = vec![0; good.tags.len()];
        let rows = prepared.chunks_exact(prepare.dimension).zip(&positions);
        for (row, (vector, &position)) in rows.enumerate() {
            let position = position as usize;
            let place = &mut padded[position * length..][..length];
            self.subspaces.pad_into(vector, place);
            segment.ids[position] = good.ids[row];
            if let Some(&set) = good.tags.get(row) {
                segment.tags[position] = set;
            }
        }
        segment.unencoded = Some(Unencoded(padded));
        Ok((segment, good.present))
    }
}
