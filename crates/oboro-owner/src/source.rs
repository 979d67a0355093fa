//! Where vectors come from: once to insert them, twice to build an index, once to look
//! and once to encode.

use oboro_vectors::{Ids, RecordSource, Records, Refusal, VectorsError};

/// Records that can be read from the first to the last, more than once.
pub trait VectorSource: Send {
    /// How many rows there are, those that are no record included.
    fn rows(&self) -> usize;

    /// Values of a vector.
    fn dimension(&self) -> usize;

    /// The names of the tags met so far; [`Records::tags`] are places in this list.
    fn tag_names(&self) -> &[String];

    /// The records among the next rows, at most `most` rows; `None` at the end.
    ///
    /// # Errors
    /// If the source cannot be read or followed any further. A row that is no record is
    /// no error but one of [`Records::refused`].
    fn read(&mut self, most: usize) -> Result<Option<Records>, VectorsError>;

    /// Goes back to the first row.
    ///
    /// # Errors
    /// If the source cannot be positioned.
    fn rewind(&mut self) -> Result<(), VectorsError>;

    /// The error that a refused row is where every row must be a record.
    fn error(&self, refusal: &Refusal) -> VectorsError;
}

impl VectorSource for RecordSource {
    fn rows(&self) -> usize {
        usize::try_from(Self::rows(self)).unwrap_or(usize::MAX)
    }

    fn dimension(&self) -> usize {
        Self::dimension(self)
    }

    fn tag_names(&self) -> &[String] {
        Self::tag_names(self)
    }

    fn read(&mut self, most: usize) -> Result<Option<Records>, VectorsError> {
        Self::read(self, most)
    }

    fn rewind(&mut self) -> Result<(), VectorsError> {
        Self::rewind(self)
    }

    fn error(&self, refusal: &Refusal) -> VectorsError {
        Self::error(self, refusal)
    }
}

/// Rows that lie in memory already.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use oboro_owner::Rows;
/// use oboro_vectors::Ids;
///
/// let values = [1.0, 2.0, 3.0, 4.0];
/// let rows = Rows::new(&values, 2)?
///     .with_ids(Ids::Text(vec!["ant".into(), "bee".into()]))?
///     .with_tags(vec!["insect".into()], vec![vec![0], vec![]])?;
/// # drop(rows);
/// # Ok(())
/// # }
/// ```
pub struct Rows<'a> {
    values: &'a [f32],
    dimension: usize,
    ids: Ids,
    tag_names: Vec<String>,
    tags: Vec<Vec<u32>>,
    payloads: Vec<Vec<u8>>,
    next: usize,
}

/// How a source without a file is called in messages.
const MEMORY: &str = "vectors in memory";

impl<'a> Rows<'a> {
    /// Rows of `dimension` values each, one after the other.
    ///
    /// # Errors
    /// If there is no row, a part of a row, or NaN or infinity.
    pub fn new(values: &'a [f32], dimension: usize) -> Result<Self, VectorsError> {
        if dimension == 0 || values.is_empty() || !values.len().is_multiple_of(dimension) {
            return Err(VectorsError::Shape {
                values: values.len(),
                dimension,
            });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(VectorsError::NotFinite {
                path: MEMORY.into(),
                row: (at / dimension) as u64,
            });
        }
        Ok(Self {
            values,
            dimension,
            ids: Ids::Rows,
            tag_names: Vec::new(),
            tags: Vec::new(),
            payloads: Vec::new(),
            next: 0,
        })
    }

    /// With an id for each row.
    ///
    /// # Errors
    /// If there are more or fewer ids than rows.
    pub fn with_ids(mut self, ids: Ids) -> Result<Self, VectorsError> {
        match &ids {
            Ids::Rows => {}
            Ids::Numbers(ids) => self.one_each(ids.len())?,
            Ids::Text(ids) => self.one_each(ids.len())?,
        }
        self.ids = ids;
        Ok(self)
    }

    /// With tags for each row, given as places in the list of their `names`.
    ///
    /// # Errors
    /// If there are more or fewer lists of tags than rows, or a place is not in the list.
    pub fn with_tags(
        mut self,
        names: Vec<String>,
        tags: Vec<Vec<u32>>,
    ) -> Result<Self, VectorsError> {
        self.one_each(tags.len())?;
        if let Some(&place) = tags
            .iter()
            .flatten()
            .find(|&&place| place as usize >= names.len())
        {
            return Err(VectorsError::Shape {
                values: place as usize,
                dimension: names.len(),
            });
        }
        self.tag_names = names;
        self.tags = tags;
        Ok(self)
    }

    /// With a payload for each row.
    ///
    /// # Errors
    /// If there are more or fewer payloads than rows.
    pub fn with_payloads(mut self, payloads: Vec<Vec<u8>>) -> Result<Self, VectorsError> {
        self.one_each(payloads.len())?;
        self.payloads = payloads;
        Ok(self)
    }

    fn one_each(&self, count: usize) -> Result<(), VectorsError> {
        let rows = self.values.len() / self.dimension;
        if count == rows {
            return Ok(());
        }
        Err(VectorsError::IdCount {
            path: MEMORY.into(),
            ids: count as u64,
            rows: rows as u64,
        })
    }
}

impl VectorSource for Rows<'_> {
    fn rows(&self) -> usize {
        self.values.len() / self.dimension
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn tag_names(&self) -> &[String] {
        &self.tag_names
    }

    fn read(&mut self, most: usize) -> Result<Option<Records>, VectorsError> {
        let range = self.next..self.next.saturating_add(most).min(self.rows());
        if range.is_empty() {
            return Ok(None);
        }
        self.next = range.end;
        Ok(Some(Records {
            dimension: self.dimension,
            rows: (range.start as u64..range.end as u64).collect(),
            vectors: self.values[range.start * self.dimension..range.end * self.dimension].to_vec(),
            ids: match &self.ids {
                Ids::Rows => Ids::Rows,
                Ids::Numbers(ids) => Ids::Numbers(ids[range.clone()].to_vec()),
                Ids::Text(ids) => Ids::Text(ids[range.clone()].to_vec()),
            },
            tags: self.tags.get(range.clone()).unwrap_or_default().to_vec(),
            payloads: self.payloads.get(range).unwrap_or_default().to_vec(),
            refused: Vec::new(),
        }))
    }

    fn rewind(&mut self) -> Result<(), VectorsError> {
        self.next = 0;
        Ok(())
    }

    fn error(&self, refusal: &Refusal) -> VectorsError {
        VectorsError::Refused {
            path: MEMORY.into(),
            row: refusal.row,
            why: refusal.why.clone(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_order_and_again() {
        let values: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let mut rows = Rows::new(&values, 3)
            .unwrap()
            .with_ids(Ids::Numbers(vec![9, 8, 7, 6]))
            .unwrap()
            .with_tags(vec!["a".into()], vec![vec![0], vec![], vec![0], vec![]])
            .unwrap()
            .with_payloads(vec![vec![1], vec![], vec![2, 3], vec![4]])
            .unwrap();
        for _ in 0..2 {
            let first = rows.read(3).unwrap().unwrap();
            assert_eq!((first.rows, first.vectors.len()), (vec![0, 1, 2], 9));
            assert_eq!(first.tags, [vec![0], vec![], vec![0]]);
            let last = rows.read(3).unwrap().unwrap();
            assert_eq!((last.rows, last.ids), (vec![3], Ids::Numbers(vec![6])));
            assert_eq!(last.payloads, [[4]]);
            assert!(rows.read(3).unwrap().is_none());
            rows.rewind().unwrap();
        }
    }

    #[test]
    fn fail_wrong_shapes_and_values() {
        assert!(Rows::new(&[], 3).is_err());
        assert!(Rows::new(&[1.0; 4], 3).is_err());
        assert!(Rows::new(&[1.0; 4], 0).is_err());
        assert!(Rows::new(&[1.0, f32::NAN], 2).is_err());
        let rows = || Rows::new(&[1.0; 4], 2).unwrap();
        assert!(rows().with_ids(Ids::Numbers(vec![1])).is_err());
        assert!(rows().with_payloads(vec![vec![]; 3]).is_err());
        assert!(rows().with_tags(vec![], vec![vec![0], vec![]]).is_err());
    }
}
