//! Sealing the originals of one segment in memory, to be sent or staged.

use crate::keys::RecordKey;
use crate::record::RecordSealer;
use crate::{Descriptor, Extra, IndexError};
use rayon::prelude::*;

/// Seals the originals of one new segment of an index: the owner's or a
/// writer's part of an insert.
///
/// # Security
/// A segment id must be random and new: see [`RecordSealer`]. One sealer seals
/// one segment, once.
pub struct SegmentSealer(RecordSealer);

impl SegmentSealer {
    /// A sealer for the segment `segment_id` of the index that `descriptor`
    /// describes.
    #[must_use]
    pub fn new(key: &RecordKey, descriptor: &Descriptor, segment_id: [u8; 16]) -> Self {
        Self(RecordSealer::new(
            key,
            descriptor.index_id,
            segment_id,
            descriptor.record_layout(),
        ))
    }

    /// Bytes of one record.
    #[must_use]
    pub const fn record_len(&self) -> usize {
        self.0.record_len()
    }

    /// The records of a segment by position: row i of `vectors`, with `ids[i]`
    /// and `extras[i]`, comes to `positions[i]`. No extras at all are as empty
    /// ones. Runs on rayon's current pool; the bytes do not depend on it.
    ///
    /// # Errors
    /// If the lengths disagree, the positions are no permutation
    /// ([`crate::permutation`]), or an extra does not fit.
    pub fn seal(
        self,
        positions: &[u32],
        ids: &[u64],
        vectors: &[f32],
        extras: &[Extra],
    ) -> Result<Vec<u8>, IndexError> {
        let (count, dimension) = (positions.len(), self.0.layout().dimension);
        for (what, found, expected) in [
            ("the number of ids", ids.len(), count),
            ("the number of values", vectors.len(), count * dimension),
            (
                "the number of extras",
                extras.len(),
                if extras.is_empty() { 0 } else { count },
            ),
        ] {
            if found != expected {
                return Err(IndexError::Mismatch {
                    what,
                    found: found as u64,
                    expected: expected as u64,
                });
            }
        }
        let rows = rows_by_position(positions)?;
        let length = self.record_len();
        let mut out = vec![0; count * length];
        out.par_chunks_exact_mut(length)
            .zip(&rows)
            .enumerate()
            .with_min_len(64)
            .try_for_each(|(position, (out, &row))| {
                let row = row as usize;
                let vector = &vectors[row * dimension..(row + 1) * dimension];
                match extras.get(row) {
                    Some(extra) => {
                        self.0
                            .seal_extra_into(position as u32, ids[row], vector, extra, out)
                    }
                    None => {
                        self.0.seal_into(position as u32, ids[row], vector, out);
                        Ok(())
                    }
                }
            })?;
        Ok(out)
    }
}

/// The inverse of a permutation.
fn rows_by_position(positions: &[u32]) -> Result<Vec<u32>, IndexError> {
    let mut rows = vec![u32::MAX; positions.len()];
    for (row, &position) in positions.iter().enumerate() {
        match rows.get_mut(position as usize) {
            Some(free) if *free == u32::MAX => *free = row as u32,
            _ => {
                return Err(IndexError::Invalid(format!(
                    "position {position} of a segment does not exist or was given twice; use a permutation"
                )));
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::record::{RecordLayout, RecordOpener};
    use crate::{OwnerKey, RecordEncoding};
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn records_lie_at_their_positions_on_any_number_of_threads() {
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let key = OwnerKey::generate(&mut rng).record_key();
        let layout = RecordLayout {
            encoding: RecordEncoding::F32,
            dimension: 2,
            extra_bytes: 16,
        };
        let positions = crate::permutation(500, &mut rng);
        let ids: Vec<u64> = (0..500).map(|i| i * 7).collect();
        let vectors: Vec<f32> = (0..1000).map(|v| v as f32).collect();
        let extras: Vec<Extra> = (0..500)
            .map(|i| Extra {
                id: Some(format!("{i}")),
                payload: vec![i as u8],
            })
            .collect();
        let sealer = || SegmentSealer(RecordSealer::new(&key, [1; 16], [2; 16], layout));
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let seal = || sealer().seal(&positions, &ids, &vectors, &extras).unwrap();
            pool.build().unwrap().install(seal)
        };
        let records = with_threads(1);
        assert!(records == with_threads(3));
        let opener = RecordOpener::new(&key, [1; 16], layout);
        for (row, &position) in positions.iter().enumerate() {
            let mut wire = Vec::new();
            crate::record::append_wire_header(&[2; 16], position, &mut wire);
            let length = layout.stored_len();
            wire.extend_from_slice(&records[position as usize * length..][..length]);
            let record = opener.open(&wire).unwrap();
            assert_eq!((record.id, &record.extra), (ids[row], &extras[row]));
            assert_eq!(record.vector, vectors[2 * row..2 * row + 2]);
        }
        // Refusals.
        assert!(sealer().seal(&[0, 0], &[1, 2], &[0.0; 4], &[]).is_err());
        assert!(sealer().seal(&[0, 2], &[1, 2], &[0.0; 4], &[]).is_err());
        assert!(sealer().seal(&[0, 1], &[1], &[0.0; 4], &[]).is_err());
        assert!(sealer().seal(&[0, 1], &[1, 2], &[0.0; 3], &[]).is_err());
        assert!(
            sealer()
                .seal(&[0, 1], &[1, 2], &[0.0; 4], &extras[..1])
                .is_err()
        );
        let long = Extra {
            id: None,
            payload: vec![0; 11],
        };
        assert!(sealer().seal(&[0], &[1], &[0.0; 2], &[long]).is_err());
    }
}
