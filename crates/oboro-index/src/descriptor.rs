//! What a client must know of an index, authenticated by its owner.

use crate::cursor::Cursor;
use crate::keys::DescriptorKey;
use crate::query_shape::QueryShape;
use crate::record::RecordLayout;
use crate::rotation::Rotation;
use crate::{IndexError, RecordEncoding, derive, extra, trailer};
use oboro_ckks::{MAX_ROTATIONS, Packing, PublicKey, TableScale};
use oboro_quant::{Metric, Subspaces};
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"OBORODSC";
const NAME: &str = "the index descriptor";

/// Most tags of an index: a vector's are one 64-bit set.
pub const MAX_TAGS: usize = 64;

/// Larger dimensions are refused.
const MAX_DIMENSION: u32 = 1 << 16;

/// The format that this crate writes.
pub const FORMAT_VERSION: u16 = 3;

/// The oldest format that it reads: without query models.
const OLD: u16 = 2;

/// The shape of an index, and the key to encrypt for.
///
/// Clients get it from the searcher, which they do not trust: its MAC, under a
/// key that only owner and clients have, says that the owner made it.
#[derive(Clone)]
pub struct Descriptor {
    /// Names the index; random.
    pub index_id: [u8; 16],
    /// Counts the owner's rotations of codebook and keys, from 1.
    pub epoch: u64,
    /// Values of a vector.
    pub dimension: u32,
    /// How nearness is measured.
    pub metric: Metric,
    /// The secret rotation in use.
    pub rotation: Rotation,
    /// The most candidates a search may ask for.
    pub candidates_max: u32,
    /// How originals are stored.
    pub record_encoding: RecordEncoding,
    /// Bytes of each record for string id and payload; 0 for none.
    pub extra_bytes: u32,
    /// The names of the tags that vectors may have, in the order of their bits
    /// ([`DescriptorKey::tag_hash`]); empty if the index has none.
    pub tags: Vec<[u8; 8]>,
    /// What is done to queries beside the rotation; `None` for nothing.
    pub query_model: Option<QueryShape>,
    /// Sub-quantizers, width, centroids, and how they lie in the ring.
    pub packing: Packing,
    /// The fixed-point scales.
    pub scale: TableScale,
    /// [`oboro_ckks::CodebookMasks::digest`] of the encrypted codebook.
    pub codebook_digest: [u8; 32],
    /// The keeper's public key.
    pub public_key: PublicKey,
}

impl Descriptor {
    /// The format that [`to_bytes`](Self::to_bytes) writes.
    #[must_use]
    pub const fn format_version(&self) -> u16 {
        FORMAT_VERSION
    }

    /// Number of sub-quantizers, M.
    #[must_use]
    pub const fn subquantizers(&self) -> usize {
        self.packing.subquantizers()
    }

    /// Number of centroids, K.
    #[must_use]
    pub const fn centroids(&self) -> usize {
        self.packing.centroids()
    }

    /// The cut of a vector into sub-vectors.
    ///
    /// # Errors
    /// If the dimension is below the number of sub-quantizers.
    pub const fn subspaces(&self) -> Result<Subspaces, oboro_quant::QuantError> {
        Subspaces::new(self.dimension as usize, self.packing.subquantizers())
    }

    /// Names the keeper's public key.
    #[must_use]
    pub fn public_key_fingerprint(&self) -> [u8; 32] {
        self.public_key.fingerprint()
    }

    /// Bytes of one record on the wire.
    #[must_use]
    pub const fn record_bytes(&self) -> usize {
        self.record_layout().wire_len()
    }

    /// What all records have in common.
    #[must_use]
    pub const fn record_layout(&self) -> RecordLayout {
        RecordLayout {
            encoding: self.record_encoding,
            dimension: self.dimension as usize,
            extra_bytes: self.extra_bytes,
        }
    }

    /// Lists that vectors are in; 0 for none.
    #[must_use]
    pub fn lists(&self) -> usize {
        self.query_model.map_or(0, |shape| shape.lists as usize)
    }

    /// Most lists that one search looks at; 0 without lists.
    #[must_use]
    pub fn probes_max(&self) -> u32 {
        self.query_model.map_or(0, |shape| shape.probes_max)
    }

    /// Whether vectors have tags.
    #[must_use]
    pub const fn has_tags(&self) -> bool {
        !self.tags.is_empty()
    }

    /// The bit of the tag `name`, if the index has it.
    #[must_use]
    pub fn tag_bit(&self, key: &DescriptorKey, name: &str) -> Option<u32> {
        let hash = key.tag_hash(&self.index_id, name);
        let bit = self.tags.iter().position(|tag| *tag == hash)?;
        Some(bit as u32)
    }

    /// The bits that the tags of a vector may have.
    pub(crate) fn tag_bits(&self) -> u64 {
        match self.tags.len() {
            0 => 0,
            count => u64::MAX >> (MAX_TAGS - count.min(MAX_TAGS)),
        }
    }

    /// The same index one epoch later: its codebook under another key of the
    /// keeper, whose masks have the digest `codebook_digest`.
    ///
    /// # Errors
    /// If the key is of another parameter set: then packing and scale would
    /// not fit any more. Or after [`MAX_ROTATIONS`], for then the noise would
    /// pass what the scale accounts for. Only a new build helps.
    pub fn next_epoch(
        &self,
        public_key: PublicKey,
        codebook_digest: [u8; 32],
    ) -> Result<Self, IndexError> {
        if public_key.parameter_set() != self.packing.set() {
            return Err(IndexError::Invalid(format!(
                "the new key is of the set {} but the index of {}; make a key of the same set, or build the index again",
                public_key.parameter_set().name(),
                self.packing.set().name()
            )));
        }
        Ok(Self {
            epoch: self.following_epoch()?,
            public_key,
            codebook_digest,
            ..self.clone()
        })
    }

    fn following_epoch(&self) -> Result<u64, IndexError> {
        if self.epoch > MAX_ROTATIONS {
            return Err(IndexError::Invalid(format!(
                "the key of this index was rotated {MAX_ROTATIONS} times, and its noise has no room for more; build the index again"
            )));
        }
        Ok(self.epoch + 1)
    }

    /// Whether `next` is this index one epoch later and differs from it in the
    /// keeper's key and the codebook's digest only.
    ///
    /// # Errors
    /// If it does not, naming what differs.
    pub fn check_next(&self, next: &Self) -> Result<(), IndexError> {
        let expected = self.following_epoch()?;
        if next.epoch != expected {
            return Err(IndexError::Mismatch {
                what: "the epoch of the new descriptor",
                found: next.epoch,
                expected,
            });
        }
        let same = [
            ("index", self.index_id == next.index_id),
            ("dimension", self.dimension == next.dimension),
            ("metric", self.metric == next.metric),
            ("rotation of the vectors", self.rotation == next.rotation),
            (
                "limit of candidates",
                self.candidates_max == next.candidates_max,
            ),
            (
                "encoding of originals",
                self.record_encoding == next.record_encoding,
            ),
            ("size of extra bytes", self.extra_bytes == next.extra_bytes),
            ("list of tags", self.tags == next.tags),
            ("query model", self.query_model == next.query_model),
            ("packing", self.packing == next.packing),
            // As stored: floating-point equality has its exceptions.
            ("scale", self.scale.to_bytes() == next.scale.to_bytes()),
        ];
        match same.iter().find(|(_, same)| !same) {
            None => Ok(()),
            Some((what, _)) => Err(IndexError::Invalid(format!(
                "the new descriptor has another {what} than the present one; a new epoch changes keys only, so make it from the present descriptor"
            ))),
        }
    }

    /// Magic, version, the fields, MAC under `key`, checksum.
    #[must_use]
    pub fn to_bytes(&self, key: &DescriptorKey) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.index_id);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.dimension.to_le_bytes());
        out.push(metric_code(self.metric));
        out.push(self.rotation.code());
        out.extend_from_slice(&self.candidates_max.to_le_bytes());
        out.extend_from_slice(&self.record_encoding.to_bytes());
        out.extend_from_slice(&self.extra_bytes.to_le_bytes());
        out.push(self.tags.len() as u8);
        out.extend_from_slice(self.tags.as_flattened());
        out.push(u8::from(self.query_model.is_some()));
        if let Some(shape) = &self.query_model {
            shape.append(&mut out);
        }
        out.extend_from_slice(&self.packing.to_bytes());
        out.extend_from_slice(&self.scale.to_bytes());
        out.extend_from_slice(&self.codebook_digest);
        out.extend_from_slice(&self.public_key.to_bytes());
        trailer::append(&mut out, &mac_key(key));
        out
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote under the same key.
    ///
    /// # Errors
    /// If the bytes are damaged, of another version, or made under another
    /// owner's key.
    pub fn from_bytes(key: &DescriptorKey, bytes: &[u8]) -> Result<Self, IndexError> {
        Self::check_version(bytes)?;
        let body = trailer::authenticated(NAME, bytes, &mac_key(key), "client key")?;
        Self::parse(body)
    }

    /// Reads a descriptor whose origin something else vouches for: the
    /// searcher has no descriptor key, but its copy is sealed by the owner.
    ///
    /// # Errors
    /// If the bytes are damaged or of another version.
    ///
    /// # Security
    /// Whoever can choose the bytes chooses the key that queries are encrypted
    /// under: clients use [`from_bytes`](Self::from_bytes).
    pub fn from_trusted_bytes(bytes: &[u8]) -> Result<Self, IndexError> {
        Self::check_version(bytes)?;
        Self::parse(trailer::checked(NAME, bytes)?)
    }

    /// A later version may end in another way, so its number comes first.
    fn check_version(bytes: &[u8]) -> Result<(), IndexError> {
        version(&mut Cursor::new(NAME, bytes)).map(|_| ())
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, IndexError> {
        let mut cursor = Cursor::new(NAME, body);
        let version = version(&mut cursor)?;
        let index_id = cursor.array()?;
        let epoch = cursor.u64()?;
        let dimension = cursor.u32()?;
        let metric = metric_from_code(cursor.u8()?)
            .ok_or_else(|| IndexError::damaged(NAME, "its metric is unknown"))?;
        let rotation = Rotation::from_code(cursor.u8()?)
            .ok_or_else(|| IndexError::damaged(NAME, "its rotation is unknown"))?;
        let candidates_max = cursor.u32()?;
        let record_encoding =
            RecordEncoding::from_bytes(cursor.take(RecordEncoding::ENCODED_LEN)?)?;
        let extra_bytes = cursor.u32()?;
        let tags = usize::from(cursor.u8()?);
        let tags = cursor.take(8 * tags)?.as_chunks::<8>().0.to_vec();
        let query_model = match version {
            OLD => None,
            _ => match cursor.u8()? {
                0 => None,
                1 => Some(QueryShape::parse(&mut cursor)?),
                _ => return Err(IndexError::damaged(NAME, "its query model is unknown")),
            },
        };
        let packing = Packing::from_bytes(cursor.take(Packing::ENCODED_LEN)?)?;
        let scale = TableScale::from_bytes(&packing, cursor.take(TableScale::ENCODED_LEN)?)?;
        let codebook_digest = cursor.array()?;
        let public_key = PublicKey::from_bytes(cursor.take(cursor.remaining())?)?;
        let descriptor = Self {
            index_id,
            epoch,
            dimension,
            metric,
            rotation,
            candidates_max,
            record_encoding,
            extra_bytes,
            tags,
            query_model,
            packing,
            scale,
            codebook_digest,
            public_key,
        };
        descriptor.check()?;
        Ok(descriptor)
    }

    /// Whether the fields agree with each other.
    pub(crate) fn check(&self) -> Result<(), IndexError> {
        if self.dimension > MAX_DIMENSION {
            return Err(IndexError::damaged(NAME, "its dimension is too large"));
        }
        if !extra::is_region(self.extra_bytes) {
            return Err(IndexError::Invalid(format!(
                "{} extra bytes a record are not possible; choose 0 or 6 to {}",
                self.extra_bytes,
                extra::MAX_EXTRA_BYTES
            )));
        }
        if self.tags.len() > MAX_TAGS {
            return Err(IndexError::Invalid(format!(
                "the index has {} tags and can have {MAX_TAGS}; leave some out",
                self.tags.len()
            )));
        }
        if let Some(shape) = &self.query_model {
            shape.check(self.metric)?;
        }
        let mut tags = self.tags.clone();
        tags.sort_unstable();
        if tags.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(IndexError::Invalid(
                "two tags of the index have the same name; name each once".into(),
            ));
        }
        let subspaces = self.subspaces()?;
        if subspaces.width() != self.packing.width() {
            return Err(IndexError::Mismatch {
                what: "the width of the packing",
                found: self.packing.width() as u64,
                expected: subspaces.width() as u64,
            });
        }
        if self.public_key.parameter_set() != self.packing.set() {
            return Err(IndexError::damaged(
                NAME,
                "its public key is of another parameter set",
            ));
        }
        Ok(())
    }
}

/// The version of a descriptor that can be read.
fn version(cursor: &mut Cursor<'_>) -> Result<u16, IndexError> {
    match cursor.magic(MAGIC, FORMAT_VERSION) {
        Ok(()) => Ok(FORMAT_VERSION),
        Err(IndexError::Version { found: OLD, .. }) => Ok(OLD),
        Err(error) => Err(error),
    }
}

fn mac_key(key: &DescriptorKey) -> Zeroizing<[u8; 32]> {
    derive::key(key.secret(), "descriptor-mac", b"")
}

pub(crate) const fn metric_code(metric: Metric) -> u8 {
    match metric {
        Metric::L2 => 0,
        Metric::InnerProduct => 1,
        Metric::Cosine => 2,
        Metric::Lorentz => 3,
    }
}

pub(crate) fn metric_from_code(code: u8) -> Option<Metric> {
    Metric::ALL
        .into_iter()
        .find(|&metric| metric_code(metric) == code)
}
