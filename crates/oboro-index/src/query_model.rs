//! What is done to a query, and to every vector, after the secret rotation: the learned
//! matrix of OPQ, and the centres of the lists that a search looks at.
//!
//! Both are learned from the owner's vectors and are secret towards both servers, but
//! every client needs them. So a build seals them for clients, the searcher keeps the
//! sealed bytes and gives them to whoever may search, and the descriptor names them by
//! their digest. Rotations of the keeper's key leave them as they are.
//!
//! It is a note of the index (`index_note`), magic `OBOROQMD`, with the content
//!
//! | bytes | content |
//! |---|---|
//! | 1 | parts |
//! | 4, 4 | dimension, lists |
//! | then | the matrix; the centres, f32 |

use crate::cursor::Cursor;
use crate::index_note::IndexNote;
use crate::keys::DescriptorKey;
use crate::layout::FileKind;
use crate::{IndexError, QueryShape};
use oboro_quant::ivf::{CoarseCentroids, MAX_LISTS};
use oboro_quant::{Metric, OpqTransform};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

const VERSION: u16 = 1;
pub(crate) const NAME: &str = "the query model";

/// How it lies beside the index.
pub(crate) const NOTE: IndexNote = IndexNote {
    kind: FileKind::QueryModel,
    magic: b"OBOROQMD",
    version: VERSION,
    oldest: VERSION,
    name: NAME,
    opener: "client key",
    purpose: "query-model-sealing",
    most: MAX_QUERY_MODEL_BYTES,
};

/// Bytes of parts, dimension and lists.
const PREFIX: usize = 1 + 4 + 4;
/// Bytes of an encoded matrix before its values.
const MATRIX_HEADER: usize = 12;
/// Larger dimensions have no query model.
const MAX_DIMENSION: u32 = 4096;

const OPQ: u8 = 1;
const COARSE: u8 = 2;

/// Most bytes of a sealed query model: a matrix of 4,096 dimensions, or as many bytes
/// of centres.
pub const MAX_QUERY_MODEL_BYTES: usize = (64 << 20) + (1 << 16);

/// What is done to queries and vectors after the secret rotation; either may be missing.
///
/// # Security
/// Matrix and centres tell how and where the owner's vectors lie. For owner and clients
/// only; wiped when dropped.
#[derive(Default)]
pub struct QueryModel {
    /// An orthogonal map after which codes are better.
    pub opq: Option<OpqTransform>,
    /// Centres of the lists that vectors are in.
    pub coarse: Option<CoarseCentroids>,
}

impl QueryModel {
    /// Whether there is nothing to be done.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.opq.is_none() && self.coarse.is_none()
    }

    /// Number of lists; 0 without any.
    #[must_use]
    pub fn lists(&self) -> usize {
        self.coarse.as_ref().map_or(0, CoarseCentroids::lists)
    }

    /// Applies the matrix, if there is one, to a prepared and rotated vector.
    ///
    /// # Errors
    /// If the vector has another dimension.
    pub fn apply(&self, vector: &mut [f32]) -> Result<(), IndexError> {
        match &self.opq {
            Some(opq) => Ok(opq.apply(vector)?),
            None => Ok(()),
        }
    }

    /// The same for many vectors, row after row, on rayon's current pool.
    ///
    /// # Errors
    /// If the values are no whole number of vectors.
    pub fn apply_rows(&self, rows: &mut [f32]) -> Result<(), IndexError> {
        match &self.opq {
            Some(opq) => Ok(opq.apply_rows(rows)?),
            None => Ok(()),
        }
    }

    /// The `probes` lists nearest to a query to which all else was applied, in
    /// ascending order; none without lists.
    ///
    /// # Errors
    /// If the query has another dimension, or there are not so many lists.
    ///
    /// # Security
    /// Whoever gets the numbers learns the query's neighbourhood. Their order would
    /// tell more, so it is not kept.
    pub fn probes(
        &self,
        query: &[f32],
        metric: Metric,
        probes: usize,
    ) -> Result<Vec<u32>, IndexError> {
        let Some(coarse) = &self.coarse else {
            return Ok(Vec::new());
        };
        let mut lists = coarse.probes(query, metric, probes)?;
        lists.sort_unstable();
        Ok(lists)
    }

    /// Bytes of it, sealed, for matrix and lists of these sizes.
    #[must_use]
    pub const fn sealed_len(dimension: usize, opq: bool, lists: usize) -> usize {
        let matrix = if opq {
            MATRIX_HEADER + 4 * dimension * dimension
        } else {
            0
        };
        IndexNote::OVERHEAD + PREFIX + matrix + 4 * dimension * lists
    }

    pub(crate) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let dimension = match (&self.opq, &self.coarse) {
            (Some(opq), _) => opq.dimension(),
            (None, Some(coarse)) => coarse.dimension(),
            (None, None) => 0,
        };
        let length = Self::sealed_len(dimension, self.opq.is_some(), self.lists());
        let mut out = Zeroizing::new(Vec::with_capacity(length));
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.push(flag(self.opq.is_some(), OPQ) | flag(self.coarse.is_some(), COARSE));
        out.extend_from_slice(&(dimension as u32).to_le_bytes());
        out.extend_from_slice(&(self.lists() as u32).to_le_bytes());
        if let Some(opq) = &self.opq {
            out.extend_from_slice(&Zeroizing::new(opq.to_bytes()));
        }
        if let Some(coarse) = &self.coarse {
            for value in coarse.values() {
                out.extend_from_slice(&value.to_le_bytes());
            }
        }
        out
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, IndexError> {
        let damaged = |what| Err(IndexError::damaged(NAME, what));
        let mut cursor = Cursor::new(NAME, bytes);
        let parts = cursor.u8()?;
        let (dimension, lists) = (cursor.u32()?, cursor.u32()?);
        if parts > (OPQ | COARSE) || (parts & COARSE == 0) != (lists == 0) {
            return damaged("its parts are unknown");
        }
        if dimension > MAX_DIMENSION
            || lists as usize > MAX_LISTS
            || (parts == 0) != (dimension == 0)
        {
            return damaged("its numbers are out of range");
        }
        let (dimension, lists) = (dimension as usize, lists as usize);
        let opq = match parts & OPQ {
            0 => None,
            _ => {
                let matrix = cursor.take(MATRIX_HEADER + 4 * dimension * dimension)?;
                Some(OpqTransform::from_bytes(matrix)?)
            }
        };
        if opq.as_ref().is_some_and(|opq| opq.dimension() != dimension) {
            return damaged("its parts are of different dimensions");
        }
        let centres = cursor.take(4 * dimension * lists)?.as_chunks::<4>().0;
        cursor.end()?;
        let coarse = match lists {
            0 => None,
            _ => {
                let values = centres.iter().map(|&word| f32::from_le_bytes(word));
                Some(CoarseCentroids::from_values(values.collect(), dimension)?)
            }
        };
        Ok(Self { opq, coarse })
    }

    /// Whether it is what a descriptor says.
    fn fits(&self, dimension: usize, shape: &QueryShape) -> bool {
        let of = |found: Option<usize>| found.is_none_or(|found| found == dimension);
        self.opq.is_some() == shape.opq
            && self.lists() == shape.lists as usize
            && of(self.opq.as_ref().map(OpqTransform::dimension))
            && of(self.coarse.as_ref().map(CoarseCentroids::dimension))
    }
}

impl DescriptorKey {
    /// Seals the query model of the index `index_id`.
    ///
    /// # Errors
    /// If it is larger than [`MAX_QUERY_MODEL_BYTES`].
    pub fn seal_query_model(
        &self,
        index_id: &[u8; 16],
        model: &QueryModel,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, IndexError> {
        let content = model.to_bytes();
        check_len(IndexNote::OVERHEAD + content.len())?;
        Ok(NOTE.seal(self.secret(), index_id, &content, rng))
    }

    /// Opens what [`seal_query_model`](Self::seal_query_model) made for the index
    /// `index_id` of this dimension, if it is the one that the descriptor names.
    ///
    /// # Errors
    /// If the bytes are another model's than `shape` says, damaged, of another version or
    /// index, or sealed under another owner's key.
    pub fn open_query_model(
        &self,
        index_id: &[u8; 16],
        dimension: usize,
        shape: &QueryShape,
        bytes: &[u8],
    ) -> Result<QueryModel, IndexError> {
        check(index_id, shape, bytes)?;
        let (_, content) = NOTE.open(self.secret(), index_id, bytes)?;
        let model = QueryModel::from_bytes(&content)?;
        if !model.fits(dimension, shape) {
            return Err(IndexError::damaged(
                NAME,
                "it is not what the descriptor says",
            ));
        }
        Ok(model)
    }
}

fn check_len(length: usize) -> Result<(), IndexError> {
    if length > MAX_QUERY_MODEL_BYTES {
        return Err(IndexError::Invalid(format!(
            "the learned matrix and the centres of the lists take {length} bytes and may take {MAX_QUERY_MODEL_BYTES}, which every client fetches; choose fewer lists"
        )));
    }
    Ok(())
}

/// Whether bytes to be written, or that came, are the query model that a descriptor names.
pub(crate) fn check(
    index_id: &[u8; 16],
    shape: &QueryShape,
    bytes: &[u8],
) -> Result<(), IndexError> {
    check_len(bytes.len())?;
    NOTE.check(index_id, bytes)?;
    if *blake3::hash(bytes).as_bytes() != shape.digest {
        return Err(IndexError::damaged(
            NAME,
            "it is not the one that the descriptor names",
        ));
    }
    Ok(())
}

/// For the fuzz targets: whatever the bytes are.
pub(crate) fn parse(bytes: &[u8]) {
    if let Ok(model) = QueryModel::from_bytes(bytes) {
        let again = model.to_bytes();
        assert_eq!(again[..], *bytes, "a query model has one encoding");
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::index_note::assert_only_whole;
    use crate::keys::OwnerKey;
    use chacha20::ChaCha20Rng;
    use proptest::prelude::*;
    use rand_core::SeedableRng;

    fn key(seed: u8) -> DescriptorKey {
        OwnerKey::generate(&mut ChaCha20Rng::from_seed([seed; 32])).descriptor_key()
    }

    fn model(opq: bool, lists: usize) -> QueryModel {
        let values = (0..3 * lists).map(|v| v as f32 / 4.0).collect();
        QueryModel {
            opq: opq.then(|| OpqTransform::identity(3).unwrap()),
            coarse: (lists > 0).then(|| CoarseCentroids::from_values(values, 3).unwrap()),
        }
    }

    fn shape(bytes: &[u8], opq: bool, lists: u32) -> QueryShape {
        QueryShape {
            digest: *blake3::hash(bytes).as_bytes(),
            opq,
            lists,
            probes_max: lists.min(2),
        }
    }

    #[test]
    fn both_parts_come_back() {
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        for (opq, lists) in [(true, 0), (false, 5), (true, 5)] {
            let before = model(opq, lists);
            let sealed = key(1)
                .seal_query_model(&[4; 16], &before, &mut rng)
                .unwrap();
            assert_eq!(sealed.len(), QueryModel::sealed_len(3, opq, lists));
            let shape = shape(&sealed, opq, lists as u32);
            let after = key(1)
                .open_query_model(&[4; 16], 3, &shape, &sealed)
                .unwrap();
            assert!(before.to_bytes() == after.to_bytes());
            assert_eq!((after.opq.is_some(), after.lists()), (opq, lists));
        }
        // In ascending order, so that they do not tell which is the nearest.
        let probes = model(false, 5).probes(&[9.0, 9.0, 9.0], Metric::L2, 3);
        assert_eq!(probes.unwrap(), [2, 3, 4]);
        assert!(
            model(true, 0)
                .probes(&[0.0; 3], Metric::L2, 3)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn fail_every_flip_cut_and_foreign_key() {
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let before = model(true, 5);
        let sealed = key(1)
            .seal_query_model(&[4; 16], &before, &mut rng)
            .unwrap();
        let good = shape(&sealed, true, 5);
        let open = |key: &DescriptorKey, id: u8, shape: &QueryShape, bytes: &[u8]| {
            key.open_query_model(&[id; 16], 3, shape, bytes).err()
        };
        // With the digest of the true one, and with its own.
        assert_only_whole(&sealed, |bytes| open(&key(1), 4, &good, bytes).is_none());
        assert_only_whole(&sealed, |bytes| {
            open(&key(1), 4, &shape(bytes, true, 5), bytes).is_none()
        });
        assert!(open(&key(1), 5, &good, &sealed).is_some());
        let error = open(&key(2), 4, &good, &sealed).unwrap().to_string();
        assert!(error.contains("client key"), "{error}");
        // A true model that the descriptor does not describe.
        for (opq, lists) in [(false, 5), (true, 4), (true, 0)] {
            let other = shape(&sealed, opq, lists);
            assert!(open(&key(1), 4, &other, &sealed).is_some());
        }
        assert!(
            key(1)
                .open_query_model(&[4; 16], 4, &good, &sealed)
                .is_err()
        );
    }

    #[test]
    fn fail_models_too_large_for_clients() {
        let lists = MAX_QUERY_MODEL_BYTES / 4 / 4096 + 1;
        let values = vec![0.0; 4096 * lists];
        let model = QueryModel {
            opq: None,
            coarse: Some(CoarseCentroids::from_values(values, 4096).unwrap()),
        };
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let error = key(1).seal_query_model(&[4; 16], &model, &mut rng);
        assert!(error.unwrap_err().to_string().contains("fewer lists"));
    }

    proptest! {
        #[test]
        fn fail_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..160), at in 0_usize..9, to: u8) {
            parse(&bytes);
            let mut plain = model(true, 5).to_bytes().to_vec();
            plain[at] = to;
            let _ = QueryModel::from_bytes(&plain);
            let shape = shape(&bytes, true, 5);
            prop_assert!(key(1).open_query_model(&[4; 16], 3, &shape, &bytes).is_err());
        }
    }
}
