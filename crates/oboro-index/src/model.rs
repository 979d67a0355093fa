//! The owner's model: what new vectors are encoded with.
//!
//! The searcher has the codebook encrypted only, and whoever inserts needs it in
//! the clear. So a build seals it for the owner and for clients that may write,
//! and the searcher keeps the sealed bytes. Rotations of the keeper's key leave
//! it as it is.
//!
//! It is a note of the index (`index_note`), magic `OBOROMOD`, with the content
//!
//! | bytes | content |
//! |---|---|
//! | 1, 1, 9 | metric, rotation, record encoding |
//! | 8 | norm bound |
//! | 4 | length of the query model |
//! | then | query model, codebook |
//!
//! Version 1 has no query model, and is read all the same.

use crate::cursor::Cursor;
use crate::descriptor::{metric_code, metric_from_code};
use crate::index_note::IndexNote;
use crate::keys::ModelKey;
use crate::layout::FileKind;
use crate::query_model::{MAX_QUERY_MODEL_BYTES, QueryModel};
use crate::{IndexError, RecordEncoding, Rotation};
use oboro_quant::{Codebook, Metric};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

const VERSION: u16 = 2;
/// The oldest version that is read.
const OLD: u16 = 1;
const NAME: &str = "the model";

/// How it lies beside the index.
pub(crate) const NOTE: IndexNote = IndexNote {
    kind: FileKind::Model,
    magic: b"OBOROMOD",
    version: VERSION,
    oldest: OLD,
    name: NAME,
    opener: "writer key",
    purpose: "model-sealing",
    // The largest codebook (K 256, D 65,536 in single precision), query model, and some.
    most: (64 << 20) + 4096 + MAX_QUERY_MODEL_BYTES,
};

/// What new vectors of an index are encoded with.
///
/// # Security
/// Centroids are means of the owner's vectors. They are secret towards both
/// servers.
pub struct Model {
    /// The centroids, of rotated vectors.
    pub codebook: Codebook,
    /// How nearness is measured.
    pub metric: Metric,
    /// The secret rotation in use.
    pub rotation: Rotation,
    /// How originals are stored.
    pub encoding: RecordEncoding,
    /// Length up to which queries are searched as they are.
    pub norm_bound: f64,
    /// What comes after the rotation; empty for nothing.
    pub query: QueryModel,
}

impl Model {
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let codebook = Zeroizing::new(self.codebook.to_bytes());
        let mut out = Zeroizing::new(Vec::with_capacity(codebook.len() + 64));
        out.push(metric_code(self.metric));
        out.push(self.rotation.code());
        out.extend_from_slice(&self.encoding.to_bytes());
        out.extend_from_slice(&self.norm_bound.to_le_bytes());
        let query = self.query.to_bytes();
        out.extend_from_slice(&(query.len() as u32).to_le_bytes());
        out.extend_from_slice(&query);
        out.extend_from_slice(&codebook);
        out
    }

    fn from_bytes(bytes: &[u8], version: u16) -> Result<Self, IndexError> {
        let damaged = |what| IndexError::damaged(NAME, what);
        let mut cursor = Cursor::new(NAME, bytes);
        let metric =
            metric_from_code(cursor.u8()?).ok_or_else(|| damaged("its metric is unknown"))?;
        let rotation =
            Rotation::from_code(cursor.u8()?).ok_or_else(|| damaged("its rotation is unknown"))?;
        let encoding = RecordEncoding::from_bytes(cursor.take(RecordEncoding::ENCODED_LEN)?)?;
        let norm_bound = f64::from_le_bytes(cursor.array()?);
        if !norm_bound.is_finite() || norm_bound <= 0.0 {
            return Err(damaged("its bound is wrong"));
        }
        let query = match version {
            OLD => QueryModel::default(),
            _ => {
                let length = cursor.u32()? as usize;
                QueryModel::from_bytes(cursor.take(length)?)?
            }
        };
        let codebook = Codebook::from_bytes(cursor.take(cursor.remaining())?)?;
        Ok(Self {
            codebook,
            metric,
            rotation,
            encoding,
            norm_bound,
            query,
        })
    }
}

impl ModelKey {
    /// Seals the model of the index `index_id`.
    #[must_use]
    pub fn seal(&self, index_id: &[u8; 16], model: &Model, rng: &mut impl CryptoRng) -> Vec<u8> {
        NOTE.seal(self.secret(), index_id, &model.to_bytes(), rng)
    }

    /// Opens what [`seal`](Self::seal) made for the index `index_id`.
    ///
    /// # Errors
    /// If the bytes are damaged, of another version or index, or sealed under
    /// another owner's key.
    pub fn open(&self, index_id: &[u8; 16], bytes: &[u8]) -> Result<Model, IndexError> {
        let (version, content) = NOTE.open(self.secret(), index_id, bytes)?;
        Model::from_bytes(&content, version)
    }
}

/// For the fuzz targets: whatever the bytes are.
pub(crate) fn parse(bytes: &[u8]) {
    for version in [OLD, VERSION] {
        let _ = Model::from_bytes(bytes, version);
    }
    let _ = NOTE.check(&[0; 16], bytes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::index_note::assert_only_whole;
    use crate::keys::OwnerKey;
    use chacha20::ChaCha20Rng;
    use oboro_quant::{OpqTransform, Subspaces};
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    fn key(seed: u8) -> ModelKey {
        OwnerKey::generate(&mut ChaCha20Rng::from_seed([seed; 32])).model_key()
    }

    fn model() -> Model {
        let values = (0..2 * 3 * 2).map(|i| i as f32 / 4.0).collect();
        Model {
            codebook: Codebook::from_values(Subspaces::new(4, 2).unwrap(), 3, values).unwrap(),
            metric: Metric::Cosine,
            rotation: Rotation::Subspace,
            encoding: RecordEncoding::INTEGERS,
            norm_bound: 2.5,
            query: QueryModel {
                opq: Some(OpqTransform::identity(4).unwrap()),
                coarse: None,
            },
        }
    }

    #[test]
    fn fail_every_flip_cut_and_foreign_key() {
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let sealed = key(1).seal(&[4; 16], &model(), &mut rng);
        let opened = key(1).open(&[4; 16], &sealed).unwrap();
        assert_eq!(opened.codebook.values(), model().codebook.values());
        assert_eq!(
            (opened.metric, opened.rotation),
            (Metric::Cosine, Rotation::Subspace)
        );
        assert_eq!(
            (opened.encoding, opened.norm_bound),
            (RecordEncoding::INTEGERS, 2.5)
        );
        assert!(opened.query.opq == model().query.opq && opened.query.coarse.is_none());
        // Sealed again it is other bytes; its centroids lie nowhere in them.
        assert_ne!(sealed, key(1).seal(&[4; 16], &model(), &mut rng));
        assert_only_whole(&sealed, |bytes| key(1).open(&[4; 16], bytes).is_ok());
        assert!(key(1).open(&[5; 16], &sealed).is_err());
        let error = key(2).open(&[4; 16], &sealed).err().unwrap();
        assert!(error.to_string().contains("writer key"), "{error}");
        assert!(NOTE.check(&[4; 16], &sealed).is_ok());
        assert!(NOTE.check(&[5; 16], &sealed).is_err());
        assert!(NOTE.check(&[4; 16], &[]).is_err());
    }

    proptest! {
        #[test]
        fn fail_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), at in 0_usize..40, to: u8) {
            parse(&bytes);
            let mut plain = model().to_bytes().to_vec();
            plain[at] = to;
            let _ = Model::from_bytes(&plain, VERSION);
            prop_assert!(key(1).open(&[4; 16], &bytes).is_err());
        }
    }
}
