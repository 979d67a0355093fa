//! Encoding of new vectors for an index that exists.

use std::collections::HashSet;
use std::fmt;

use chacha20::ChaCha20Rng;
use oboro_index::{
    Descriptor, Extra, IndexError, Model, RecordEncoding, RotationMatrix, SegmentSealer, WriterKey,
    permutation,
};
use oboro_quant::Metric;
use oboro_vectors::{Ids, Records};
use rand_core::CryptoRng;

use crate::ids::extras_and_ids;
use crate::prepare::{LARGEST_NORM, Prepare, norm};
use crate::refusals::{Reason, Refusals};
use crate::{OwnerError, Unencoded, tags};

/// Encodes and seals new vectors as the build of an index did.
///
/// # Security
/// It holds the codebook in the clear and the key of the originals: only owners and
/// clients with a writer's key can make one. What comes out of
/// [`segment`](Self::segment) are codes, which the searcher sees, and sealed originals.
pub struct Encoder {
    model: Model,
    rotation: RotationMatrix,
    descriptor: Descriptor,
    key: WriterKey,
}

/// The vectors of one new segment as the searcher takes them, by position.
///
/// `Debug` shows how many there are, never ids or codes.
#[derive(Clone, Default, PartialEq)]
pub struct EncodedSegment {
    /// Its random id, which the records are bound to.
    pub segment_id: [u8; 16],
    /// Ids.
    pub ids: Vec<u64>,
    /// Codes, M bytes a vector.
    pub codes: Vec<u8>,
    /// Tags, one set a vector; empty where the index has none.
    pub tags: Vec<u64>,
    /// The list of each vector; empty where the index has none.
    pub lists: Vec<u16>,
    /// Sealed originals as they rest.
    pub records: Vec<u8>,
    /// Rows that were left out.
    pub refused: Refusals,
    /// Where searcher and keeper are to encode the vectors: these, and no codes yet.
    pub unencoded: Option<Unencoded>,
}

impl fmt::Debug for EncodedSegment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "EncodedSegment({} vectors)", self.ids.len())
    }
}

impl EncodedSegment {
    /// How many vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether every row was left out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

impl Encoder {
    /// Opens the sealed `model` of the index that `descriptor` describes.
    ///
    /// # Errors
    /// If the model is damaged, of another index or owner, or does not fit the
    /// descriptor.
    pub fn open(key: WriterKey, model: &[u8], descriptor: &Descriptor) -> Result<Self, OwnerError> {
        let model = key.model_key().open(&descriptor.index_id, model)?;
        let subspaces = *model.codebook.subspaces();
        let fits = model.metric == descriptor.metric
            && model.rotation == descriptor.rotation
            && model.encoding == descriptor.record_encoding
            && subspaces == descriptor.subspaces()?
            && model.codebook.centroids() == descriptor.centroids()
            && model.query.lists() == descriptor.lists()
            && model.query.opq.is_some() == descriptor.query_model.is_some_and(|shape| shape.opq);
        if !fits {
            return Err(IndexError::Invalid(
                "the model does not fit the descriptor of the index; build the index again".into(),
            )
            .into());
        }
        let rotation = RotationMatrix::derive(
            key.client_key().rotation_seed(),
            &subspaces,
            model.rotation,
            model.metric,
        );
        Ok(Self {
            model,
            rotation,
            descriptor: descriptor.clone(),
            key,
        })
    }

    /// The index that it encodes for.
    #[must_use]
    pub const fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The number that stands for a text id inside the index.
    #[must_use]
    pub fn id_of(&self, text: &str) -> u64 {
        self.key.client_key().record_key().id_of(text)
    }

    /// Encodes and seals records, in a random order that `rng` decides. `tag_names` is
    /// what their tags are places in. `seen` holds the ids of the rows before, of which
    /// none may come again; those of these rows are added. Rows that the index cannot
    /// take are left out and told.
    ///
    /// Runs on rayon's current pool; the bytes do not depend on it.
    ///
    /// # Errors
    /// If sealing fails, which whole records never do.
    pub fn segment(
        &self,
        records: Records,
        tag_names: &[String],
        seen: &mut HashSet<u64>,
        rng: &mut impl CryptoRng,
    ) -> Result<EncodedSegment, OwnerError> {
        let (segment, _) = self.encode(records, tag_names, &Skip::default(), seen, rng)?;
        Ok(segment)
    }

    /// As [`segment`](Self::segment), without the rows to `skip`; and how many of those
    /// were there already.
    pub(crate) fn encode(
        &self,
        records: Records,
        tag_names: &[String],
        skip: &Skip<'_>,
        seen: &mut HashSet<u64>,
        rng: &mut impl CryptoRng,
    ) -> Result<(EncodedSegment, u64), OwnerError> {
        let key = self.key.client_key().descriptor_key();
        let bits = tags::bits(&self.descriptor, key, tag_names);
        let (vectors, good) = self.intake().check(records, &bits, skip, seen);
        let mut segment_id = [0; 16];
        rng.fill_bytes(&mut segment_id);
        let positions = permutation(good.ids.len(), rng);
        if good.ids.is_empty() {
            let nothing = EncodedSegment {
                segment_id,
                refused: good.refused,
                ..EncodedSegment::default()
            };
            return Ok((nothing, good.present));
        }
        let mut prepared = vectors.clone();
        self.prepare().rows(&mut prepared)?;
        let rows = self.model.codebook.encode(&prepared)?;
        // The nearest: lists have room to grow.
        let assigned = match &self.model.query.coarse {
            Some(coarse) => coarse.assign(&prepared)?,
            None => Vec::new(),
        };
        let sealer = SegmentSealer::new(
            self.key.client_key().record_key(),
            &self.descriptor,
            segment_id,
        );
        let records = sealer.seal(&positions, &good.ids, &vectors, &good.extras)?;
        let width = self.descriptor.subquantizers();
        let mut codes = vec![0; rows.len()];
        let mut ids = vec![0; good.ids.len()];
        let mut tags = vec![0; good.tags.len()];
        let mut lists = vec![0; assigned.len()];
        for (row, &position) in positions.iter().enumerate() {
            let position = position as usize;
            codes[position * width..][..width].copy_from_slice(&rows[row * width..][..width]);
            ids[position] = good.ids[row];
            if let Some(&set) = good.tags.get(row) {
                tags[position] = set;
            }
            if let Some(&list) = assigned.get(row) {
                lists[position] = list as u16;
            }
        }
        let segment = EncodedSegment {
            segment_id,
            ids,
            codes,
            tags,
            lists,
            records,
            refused: good.refused,
            unencoded: None,
        };
        Ok((segment, good.present))
    }

    fn prepare(&self) -> Prepare<'_> {
        Prepare {
            metric: self.model.metric,
            rotation: &self.rotation,
            query: Some(&self.model.query),
            dimension: self.descriptor.dimension as usize,
        }
    }

    const fn intake(&self) -> Intake<'_> {
        Intake {
            descriptor: &self.descriptor,
            key: &self.key,
        }
    }
}

impl Encodes for Encoder {
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
        Self::encode(self, records, tag_names, skip, seen, rng)
    }
}

/// Makes segments of new records: with the owner's model, or for searcher and keeper to
/// encode.
pub trait Encodes: Sync {
    /// The index that it encodes for.
    fn descriptor(&self) -> &Descriptor;

    /// A segment of some records, in a random order, and how many were there already; as
    /// [`Encoder::segment`].
    ///
    /// # Errors
    /// As [`Encoder::segment`].
    fn encode(
        &self,
        records: Records,
        tag_names: &[String],
        skip: &Skip<'_>,
        seen: &mut HashSet<u64>,
        rng: &mut ChaCha20Rng,
    ) -> Result<(EncodedSegment, u64), OwnerError>;
}

/// Decides which records an index can take.
pub(crate) struct Intake<'a> {
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) key: &'a WriterKey,
}

impl Intake<'_> {
    /// What the index can take of some records: their vectors and all else.
    pub(crate) fn check(
        &self,
        mut records: Records,
        bits: &[Option<u32>],
        skip: &Skip<'_>,
        seen: &mut HashSet<u64>,
    ) -> (Vec<f32>, Good) {
        let dimension = self.descriptor.dimension as usize;
        let mut good = Good::default();
        good.refused.add_input(std::mem::take(&mut records.refused));
        if records.dimension != dimension {
            // A source that was opened without saying which dimension is needed.
            for &row in &records.rows {
                good.refused.add(
                    row,
                    Reason::Input(oboro_vectors::Why::Dimension {
                        found: records.dimension,
                        expected: dimension,
                    }),
                );
            }
            return (Vec::new(), good);
        }
        let has_tags = self.descriptor.has_tags();
        let available = self.descriptor.extra_bytes as usize;
        let with_extras = matches!(records.ids, Ids::Text(_)) || !records.payloads.is_empty();
        let mut kept = Vec::with_capacity(records.rows.len());
        let tags = std::mem::take(&mut records.tags);
        let (rows, vectors) = (
            std::mem::take(&mut records.rows),
            std::mem::take(&mut records.vectors),
        );
        let each = extras_and_ids(records, &rows, self.key.client_key().record_key());
        for (index, (id, extra)) in each.enumerate() {
            if rows[index] < skip.from_row {
                continue;
            }
            if skip.present.is_some_and(|present| present(id)) {
                good.present += 1;
                continue;
            }
            let vector = &vectors[index * dimension..][..dimension];
            let set = tags::set(tags.get(index).map_or(&[][..], Vec::as_slice), bits);
            let needed = extra.needed();
            let reason = match self.wrong(vector) {
                Some(reason) => Some(reason),
                None if needed > available => Some(Reason::ExtraTooLong { needed, available }),
                None if set.is_none() => Some(Reason::UnknownTag),
                // Last, so that only rows that are taken count as seen.
                None if !seen.insert(id) => Some(Reason::DuplicateId),
                None => None,
            };
            if let Some(reason) = reason {
                good.refused.add(rows[index], reason);
                continue;
            }
            kept.push(index);
            good.ids.push(id);
            if has_tags {
                good.tags.push(set.unwrap_or_default());
            }
            if with_extras {
                good.extras.push(extra);
            }
        }
        if kept.len() == rows.len() {
            return (vectors, good);
        }
        let kept = kept
            .iter()
            .flat_map(|&index| &vectors[index * dimension..][..dimension])
            .copied()
            .collect();
        (kept, good)
    }

    /// What the index cannot take of a vector.
    fn wrong(&self, vector: &[f32]) -> Option<Reason> {
        let norm = norm(vector);
        if norm.is_nan() || norm > LARGEST_NORM {
            return Some(Reason::TooLong);
        }
        if norm == 0.0 && self.descriptor.metric == Metric::Cosine {
            return Some(Reason::NoDirection);
        }
        let (least, greatest) = range(self.descriptor.record_encoding);
        // Whole numbers as bytes, which a build takes for exact data only: others would be
        // rounded, the smallest of them to nothing.
        let whole = self.descriptor.record_encoding == RecordEncoding::INTEGERS;
        // Without early exit, so that the compiler can vectorize it.
        let within = vector.iter().fold(true, |ok, &value| {
            ok & (value >= least) & (value <= greatest) & (!whole | (value.trunc() == value))
        });
        (!within).then_some(Reason::BeyondEncoding)
    }
}

/// Rows that are passed over.
#[derive(Default)]
pub struct Skip<'a> {
    /// Those before this one.
    pub from_row: u64,
    /// Those whose id this knows.
    pub present: Option<&'a (dyn Fn(u64) -> bool + Sync)>,
}

/// Rows that passed.
#[derive(Default)]
pub(crate) struct Good {
    pub(crate) present: u64,
    pub(crate) ids: Vec<u64>,
    pub(crate) tags: Vec<u64>,
    pub(crate) extras: Vec<Extra>,
    pub(crate) refused: Refusals,
}

/// The values that an encoding holds without cutting them off.
fn range(encoding: RecordEncoding) -> (f32, f32) {
    match encoding {
        // Half a step beyond the ends is still rounded to them.
        RecordEncoding::U8 { scale, offset } => (offset - scale / 2.0, offset + scale * 255.5),
        RecordEncoding::F16 => (-65_504.0, 65_504.0),
        RecordEncoding::F32 => (f32::MIN, f32::MAX),
    }
}
