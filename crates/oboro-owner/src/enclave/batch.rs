//! Some records on their way to the generator.

use std::fmt;

use oboro_vectors::{Ids, Records};

use super::Job;
use crate::prepare::{LARGEST_NORM, norm};
use crate::{OwnerError, tags};

/// Some records, one after the other, as they travel.
///
/// `Debug` shows sizes only.
#[derive(Clone, Default)]
pub struct Batch<V> {
    /// The vectors, packed in the job's form.
    pub vectors: V,
    /// An id for each, where ids are numbers.
    pub ids: Vec<u64>,
    /// An id for each, where ids are text.
    pub text_ids: Vec<String>,
    /// A set of tags for each, bit by bit, where the index has tags.
    pub tags: Vec<u64>,
    /// A payload for each, where there are any.
    pub payloads: Vec<Vec<u8>>,
}

impl<V: AsRef<[u8]>> fmt::Debug for Batch<V> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Batch({} bytes of vectors)",
            self.vectors.as_ref().len()
        )
    }
}

impl Batch<Vec<u8>> {
    /// `bits` are those of the source's tags in the index.
    pub(crate) fn new(
        mut records: Records,
        job: &Job,
        bits: &[Option<u32>],
    ) -> Result<Self, OwnerError> {
        let rows = std::mem::take(&mut records.rows);
        let mut sets = Vec::with_capacity(records.tags.len());
        for (tags, &row) in records.tags.iter().zip(&rows) {
            let set = tags::set(tags, bits).ok_or(OwnerError::UnknownTag { row: row as usize })?;
            sets.push(set);
        }
        if job.tags.is_empty() {
            sets.clear();
        }
        let (mut ids, mut text_ids) = (Vec::new(), Vec::new());
        match records.ids {
            Ids::Rows => {}
            Ids::Numbers(numbers) => ids = numbers,
            Ids::Text(texts) => text_ids = texts,
        }
        Ok(Self {
            vectors: job.form.pack(&records.vectors),
            ids,
            text_ids,
            tags: sets,
            payloads: records.payloads,
        })
    }
}

impl<V: AsRef<[u8]>> Batch<V> {
    /// The records again, the first of which is row `first`.
    ///
    /// # Errors
    /// If one is none that the job announced.
    pub fn into_records(self, job: &Job, first: usize) -> Result<Records, OwnerError> {
        let wrong = |row: usize, what: &str| {
            OwnerError::Generator(format!("row {row} as it arrived {what}"))
        };
        let vectors = job
            .form
            .unpack(self.vectors.as_ref())
            .ok_or_else(|| wrong(first, "or one after it is no finite vector"))?;
        let dimension = job.dimension;
        let count = vectors.len() / dimension;
        let lists = [
            self.ids.len(),
            self.text_ids.len(),
            self.tags.len(),
            self.payloads.len(),
        ];
        let whole = vectors.len() == count * dimension
            && lists.iter().all(|&length| length == 0 || length == count);
        if !whole || count == 0 || first + count > job.vectors {
            return Err(wrong(first, "comes with too little or too much"));
        }
        if !self.ids.is_empty() && !self.text_ids.is_empty() {
            return Err(wrong(first, "has two ids"));
        }
        for (at, vector) in vectors.chunks_exact(dimension).enumerate() {
            if norm(vector) > LARGEST_NORM {
                return Err(wrong(first + at, "is too long"));
            }
        }
        if let Some(at) = self.text_ids.iter().position(String::is_empty) {
            return Err(wrong(first + at, "has an empty id"));
        }
        let known = match job.tags.len() {
            64.. => u64::MAX,
            count => (1 << count) - 1,
        };
        if let Some(at) = self.tags.iter().position(|set| set & !known != 0) {
            return Err(wrong(first + at, "has a tag that the index has not"));
        }
        Ok(Records {
            dimension,
            rows: (first as u64..(first + count) as u64).collect(),
            vectors,
            ids: match (self.ids.is_empty(), self.text_ids.is_empty()) {
                (true, true) => Ids::Rows,
                (false, _) => Ids::Numbers(self.ids),
                (true, false) => Ids::Text(self.text_ids),
            },
            tags: self.tags.iter().map(|&set| places(set)).collect(),
            payloads: self.payloads,
            refused: Vec::new(),
        })
    }
}

/// The bits of a set.
fn places(set: u64) -> Vec<u32> {
    (0..64).filter(|bit| set >> bit & 1 == 1).collect()
}
