//! What is done to a query, and to every vector, after the secret rotation: the learned
//! matrix of OPQ, and the centres of the lists that a search looks at.
//!
//! Both are learned from the owner's vectors and are secret towards both servers, but
//! every client needs them. So a build seals them for clients, the searcher keeps the
//! sealed bytes and gives them to whoever may search, and the descriptor names them by
//! their digest. Rotations of the keeper's key leave them as they are.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | magic `OBOROQMD` |
//! | 2 | format version |
//! | 16 | index id |
//! | 12 | nonce |
//! | then | sealed: parts (1), dimension (4), lists (4); the matrix; the centres, f32 |
//! | 16 | tag |

use crate::cursor::Cursor;
use crate::keys::DescriptorKey;
use crate::layout::FileKind;
use crate::manifest::FileEntry;
use crate::{IndexError, derive};
use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use oboro_quant::ivf::{CoarseCentroids, MAX_LISTS};
use oboro_quant::{Metric, OpqTransform};
use rand_core::CryptoRng;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"OBOROQMD";
const VERSION: u16 = 1;
const NAME: &str = "the query model";
const HEADER: usize = 8 + 2 + 16;
const NONCE: usize = 12;
const TAG: usize = 16;

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

/// Most lists that one search looks at.
pub const MAX_PROBES: u32 = 1024;

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

/// What a descriptor says of the query model of its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryShape {
    /// BLAKE3 of the sealed query model.
    pub digest: [u8; 32],
    /// It has a matrix.
    pub opq: bool,
    /// Lists that vectors are in; 0 for none.
    pub lists: u32,
    /// Most lists that one search looks at; every request has room for as many.
    pub probes_max: u32,
}

impl QueryShape {
    /// What there is to say of a sealed model of whose lists a search may look at
    /// `probes_max`.
    #[must_use]
    pub fn of(model: &QueryModel, sealed: &[u8], probes_max: u32) -> Self {
        Self {
            digest: *blake3::hash(sealed).as_bytes(),
            opq: model.opq.is_some(),
            lists: model.lists() as u32,
            probes_max,
        }
    }

    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.digest);
        out.push(u8::from(self.opq));
        out.extend_from_slice(&self.lists.to_le_bytes());
        out.extend_from_slice(&self.probes_max.to_le_bytes());
    }

    pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, IndexError> {
        Ok(Self {
            digest: cursor.array()?,
            opq: match cursor.u8()? {
                0 => false,
                1 => true,
                _ => return Err(IndexError::damaged(NAME, "its parts are unknown")),
            },
            lists: cursor.u32()?,
            probes_max: cursor.u32()?,
        })
    }

    /// Whether the numbers agree with each other.
    pub(crate) fn check(&self, metric: Metric) -> Result<(), IndexError> {
        let Self {
            opq,
            lists,
            probes_max,
            ..
        } = *self;
        if metric == Metric::Lorentz {
            return Err(IndexError::Invalid(
                "the Lorentz metric tells time from space, which a learned matrix and lists do not; build without --opq and --lists"
                    .into(),
            ));
        }
        if lists as usize > MAX_LISTS {
            return Err(IndexError::Invalid(format!(
                "{lists} lists are more than the {MAX_LISTS} that an index can have; choose fewer"
            )));
        }
        let most = lists.min(MAX_PROBES);
        if (lists == 0 && (probes_max != 0 || !opq))
            || (lists > 0 && !(1..=most).contains(&probes_max))
        {
            return Err(IndexError::Invalid(format!(
                "a search cannot look at {probes_max} of {lists} lists; let it look at 1 to {most}"
            )));
        }
        Ok(())
    }
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
        HEADER + NONCE + PREFIX + matrix + 4 * dimension * lists + TAG
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

fn cipher(key: &DescriptorKey, index_id: &[u8; 16]) -> Aes256GcmSiv {
    let key = derive::key(key.secret(), "query-model-sealing", index_id);
    Aes256GcmSiv::new((&*key).into())
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
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(index_id);
        let header: [u8; HEADER] = out[..].try_into().expect("the parts of a header");
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        out.extend_from_slice(&nonce);
        let mut body = model.to_bytes();
        check_len(HEADER + NONCE + body.len() + TAG)?;
        let tag = cipher(self, index_id)
            .encrypt_inout_detached(&Nonce::from(nonce), &header, body.as_mut_slice().into())
            .expect("a query model is far below the cipher's limit of 64 GiB");
        out.extend_from_slice(&body);
        out.extend_from_slice(&tag);
        Ok(out)
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
        let mut cursor = Cursor::new(NAME, &bytes[HEADER..]);
        let nonce = cursor.array::<NONCE>()?;
        let length = cursor
            .remaining()
            .checked_sub(TAG)
            .ok_or_else(|| IndexError::damaged(NAME, "it ends early"))?;
        let mut body = Zeroizing::new(cursor.take(length)?.to_vec());
        let tag = cursor.array::<TAG>()?;
        cipher(self, index_id)
            .decrypt_inout_detached(
                &Nonce::from(nonce),
                &bytes[..HEADER],
                body.as_mut_slice().into(),
                &Tag::from(tag),
            )
            .map_err(|_| IndexError::ForeignKey {
                file: NAME.to_owned(),
                key: "client key",
            })?;
        let model = QueryModel::from_bytes(&body)?;
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
    let mut cursor = Cursor::new(NAME, bytes);
    cursor.magic(MAGIC, VERSION)?;
    if cursor.array::<16>()? != *index_id {
        return Err(IndexError::damaged(NAME, "it belongs to another index"));
    }
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

/// Reads the sealed query model and compares it with what the manifest lists.
pub(crate) fn read_file(folder: &Path, entry: &FileEntry) -> Result<Vec<u8>, IndexError> {
    let name = FileKind::QueryModel.file_name(0, &entry.id);
    let path = folder.join(&name);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| {
            file.take(MAX_QUERY_MODEL_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .map_err(IndexError::io(&path))?;
    if bytes.len() as u64 != entry.bytes {
        return Err(IndexError::damaged(name, "its length is wrong"));
    }
    if *blake3::hash(&bytes).as_bytes() != entry.hash {
        return Err(IndexError::damaged(name, "its checksum is wrong"));
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
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
        assert!(open(&key(1), 4, &good, &sealed).is_none());
        let described = |bytes: &[u8]| shape(bytes, true, 5);
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // With the digest of the true one, and with its own.
            assert!(open(&key(1), 4, &good, &bad).is_some(), "bit {bit}");
            assert!(
                open(&key(1), 4, &described(&bad), &bad).is_some(),
                "bit {bit}"
            );
        }
        for cut in 0..sealed.len() {
            let bad = &sealed[..cut];
            assert!(open(&key(1), 4, &described(bad), bad).is_some(), "{cut}");
        }
        let longer = [&sealed[..], &[0]].concat();
        assert!(open(&key(1), 4, &described(&longer), &longer).is_some());
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
    fn fail_shapes_that_contradict_themselves() {
        let good = QueryShape {
            digest: [0; 32],
            opq: true,
            lists: 100,
            probes_max: 8,
        };
        good.check(Metric::L2).unwrap();
        let refused = |metric, change: fn(&mut QueryShape)| {
            let mut shape = good;
            change(&mut shape);
            shape.check(metric).unwrap_err().to_string()
        };
        assert!(refused(Metric::Lorentz, |_| {}).contains("Lorentz"));
        assert!(refused(Metric::L2, |s| s.probes_max = 0).contains("1 to 100"));
        assert!(refused(Metric::L2, |s| s.probes_max = 101).contains("101"));
        assert!(refused(Metric::L2, |s| s.lists = 1 << 17).contains("65536"));
        refused(Metric::L2, |s| s.lists = 0);
        refused(Metric::L2, |s| {
            (s.lists, s.probes_max, s.opq) = (0, 0, false)
        });
        refused(Metric::L2, |s| (s.lists, s.probes_max) = (5000, 1025));
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
