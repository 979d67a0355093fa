//! The second pass over the vectors: codes, sealed originals, true neighbours of the
//! trial queries.

use oboro_index::{Extra, RecordKey, SegmentWriter};
use oboro_quant::ivf::{Choices, CoarseCentroids};
use oboro_quant::{BlockedCodes, Codebook, code_bits};
use oboro_vectors::Records;

use crate::ids::extras_and_ids;
use crate::lists::SLACK;
use crate::nearest::Nearest;
use crate::prepare::Prepare;
use crate::shape::Shape;
use crate::survey::{CHUNK, Survey};
use crate::tags::{self, NewTags};
use crate::trial::NEIGHBOURS;
use crate::{BuildOptions, OwnerError, Stage, VectorSource};

/// The second pass over the vectors.
pub(crate) struct SecondPass<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) codebook: &'a Codebook,
    /// The centres of lists, if there are any.
    pub(crate) coarse: Option<&'a CoarseCentroids>,
    pub(crate) prepare: &'a Prepare<'a>,
    /// The position of each row.
    pub(crate) order: Vec<u32>,
    pub(crate) record_key: &'a RecordKey,
    pub(crate) tags: &'a NewTags,
}

/// What it leaves.
pub(crate) struct Encoded {
    pub(crate) codes: BlockedCodes,
    /// By position; empty where the index has no tags.
    pub(crate) tags: Vec<u64>,
    /// By position; empty where the index has no lists.
    pub(crate) lists: Vec<u16>,
    pub(crate) segment: SegmentWriter,
    pub(crate) nearest: Nearest,
}

impl SecondPass<'_> {
    pub(crate) fn run(
        &self,
        source: &mut dyn VectorSource,
        segment: SegmentWriter,
        found: &Survey,
        options: &BuildOptions,
    ) -> Result<Encoded, OwnerError> {
        let Shape {
            rows,
            dimension,
            packing,
            ..
        } = *self.shape;
        let subquantizers = packing.subquantizers();
        let mut done = Partial {
            codes: vec![0; rows * subquantizers],
            tags: vec![0; if self.tags.hashes.is_empty() { 0 } else { rows }],
            choices: self.coarse.map(CoarseCentroids::choices),
            segment,
            nearest: Nearest::new(
                found.trials.clone(),
                dimension,
                options.metric,
                // One more, for the query itself.
                NEIGHBOURS + 1,
            ),
        };
        source.rewind()?;
        let mut next = source.read(CHUNK)?;
        let mut first = 0;
        while let Some(now) = next {
            options.check_cancelled()?;
            options.report(Stage::Encode, first as u64, rows as u64);
            let count = now.len();
            // The next chunk is read while this one is worked on.
            let (read, worked) =
                rayon::join(|| source.read(CHUNK), || self.chunk(now, first, &mut done));
            worked?;
            next = read?;
            first += count;
        }
        if first != rows {
            return Err(OwnerError::SourceChanged);
        }
        options.report(Stage::Encode, rows as u64, rows as u64);
        let lists = match (self.coarse, &done.choices) {
            (Some(coarse), Some(choices)) => self.lists(coarse, choices, &done.codes)?,
            _ => Vec::new(),
        };
        let bits = code_bits(packing.centroids());
        Ok(Encoded {
            codes: BlockedCodes::from_rows(&done.codes, subquantizers, bits)?,
            tags: done.tags,
            lists,
            segment: done.segment,
            nearest: done.nearest,
        })
    }

    /// The list of each position. Vectors for which their nearest lists have no room are
    /// compared with the others by what their codes stand for.
    fn lists(
        &self,
        coarse: &CoarseCentroids,
        choices: &Choices,
        codes: &[u8],
    ) -> Result<Vec<u16>, OwnerError> {
        let width = self.shape.packing.subquantizers();
        let of = choices.balanced(coarse, SLACK, |rows| {
            let code = |&row: &usize| &codes[self.order[row] as usize * width..][..width];
            let codes: Vec<u8> = rows.iter().flat_map(code).copied().collect();
            self.codebook.decode(&codes)
        })?;
        let mut lists = vec![0; of.len()];
        for (list, &position) in of.iter().zip(&self.order) {
            // No index has more than 65,536.
            lists[position as usize] = *list as u16;
        }
        Ok(lists)
    }

    fn chunk(&self, records: Records, first: usize, done: &mut Partial) -> Result<(), OwnerError> {
        let count = records.len();
        // A source that grew between the passes would run past the order.
        let positions = self
            .order
            .get(first..first + count)
            .filter(|_| records.refused.is_empty())
            .ok_or(OwnerError::SourceChanged)?;
        let mut records = records;
        let (rows, vectors, tags) = (
            std::mem::take(&mut records.rows),
            std::mem::take(&mut records.vectors),
            std::mem::take(&mut records.tags),
        );
        for ((tags, &position), &row) in tags.iter().zip(positions).zip(&rows) {
            let set = tags::set(tags, &self.tags.bits)
                .ok_or(OwnerError::UnknownTag { row: row as usize })?;
            if let Some(slot) = done.tags.get_mut(position as usize) {
                *slot = set;
            }
        }
        let (ids, extras): (Vec<u64>, Vec<Extra>) =
            extras_and_ids(records, &rows, self.record_key).unzip();
        let extras = if extras.iter().all(Extra::is_empty) {
            &[][..]
        } else {
            &extras
        };
        done.segment
            .put_with_extras(positions, &ids, &vectors, extras)?;
        done.nearest.add(&vectors, first)?;
        let mut prepared = vectors;
        self.prepare.rows(&mut prepared)?;
        if let (Some(coarse), Some(choices)) = (self.coarse, &mut done.choices) {
            choices.add(coarse, &prepared)?;
        }
        let encoded = self.codebook.encode(&prepared)?;
        let width = self.shape.packing.subquantizers();
        for (row, &position) in encoded.chunks_exact(width).zip(positions) {
            done.codes[position as usize * width..][..width].copy_from_slice(row);
        }
        Ok(())
    }
}

/// What the second pass fills.
struct Partial {
    codes: Vec<u8>,
    tags: Vec<u64>,
    choices: Option<Choices>,
    segment: SegmentWriter,
    nearest: Nearest,
}
