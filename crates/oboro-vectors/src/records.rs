//! What comes out of a file of vectors when ids, tags and payloads may come
//! along, and what was wrong with the rows that do not come out.

use std::fmt;

/// Longest id in text, in bytes of UTF-8.
pub const MAX_TEXT_ID: usize = u16::MAX as usize;

/// Longest payload, in bytes.
pub const MAX_PAYLOAD: usize = 1 << 16;

/// Longest name of a tag, in bytes of UTF-8.
pub const MAX_TAG_NAME: usize = 255;

/// Most different tags that one source may name.
pub const MAX_TAG_NAMES: usize = 4_096;

/// Some records of a source, one after the other. Record `i` has
/// `vectors[i * dimension..][..dimension]`, `rows[i]` and so on.
///
/// `Debug` shows sizes, never the contents.
#[derive(Clone, PartialEq)]
pub struct Records {
    /// Values of a vector.
    pub dimension: usize,
    /// The row of each record in its source, counted from 0.
    pub rows: Vec<u64>,
    /// The vectors, all finite, one after the other.
    pub vectors: Vec<f32>,
    /// The ids.
    pub ids: Ids,
    /// The tags of each record, ascending indices into
    /// [`RecordSource::tag_names`](crate::RecordSource::tag_names); empty if
    /// the source has no tags.
    pub tags: Vec<Vec<u32>>,
    /// The payload of each record; empty if the source has no payloads.
    pub payloads: Vec<Vec<u8>>,
    /// Rows between these that cannot be records, ascending.
    pub refused: Vec<Refusal>,
}

impl fmt::Debug for Records {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, refused) = (self.rows.len(), self.refused.len());
        write!(
            formatter,
            "Records({records} x {}, {:?}, {refused} refused)",
            self.dimension, self.ids
        )
    }
}

impl Records {
    pub(crate) fn new(dimension: usize, ids: Ids) -> Self {
        Self {
            dimension,
            rows: Vec::new(),
            vectors: Vec::new(),
            ids,
            tags: Vec::new(),
            payloads: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// How many records there are, refused rows not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no record; rows may have been refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The vector of record `index`.
    ///
    /// # Panics
    /// If there is no such record.
    #[must_use]
    pub fn vector(&self, index: usize) -> &[f32] {
        &self.vectors[index * self.dimension..][..self.dimension]
    }

    /// Keeps the records whose `kept` is true. Ids are not touched.
    pub(crate) fn retain(&mut self, kept: &[bool]) {
        let mut to = 0;
        for from in kept
            .iter()
            .enumerate()
            .filter_map(|(i, &kept)| kept.then_some(i))
        {
            let start = from * self.dimension;
            self.vectors
                .copy_within(start..start + self.dimension, to * self.dimension);
            self.rows[to] = self.rows[from];
            if !self.tags.is_empty() {
                self.tags.swap(to, from);
            }
            if !self.payloads.is_empty() {
                self.payloads.swap(to, from);
            }
            to += 1;
        }
        self.tags.truncate(to);
        self.payloads.truncate(to);
        self.vectors.truncate(to * self.dimension);
        self.rows.truncate(to);
    }

    pub(crate) fn refuse(&mut self, row: u64, why: Why) {
        self.refused.push(Refusal { row, why });
    }
}

/// The ids of [`Records`]. `Debug` shows how many.
#[derive(Clone, PartialEq, Eq)]
pub enum Ids {
    /// The source has none: a record's id is its row.
    Rows,
    /// A number for each record.
    Numbers(Vec<u64>),
    /// A text for each record, not empty, at most [`MAX_TEXT_ID`] bytes.
    Text(Vec<String>),
}

impl fmt::Debug for Ids {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows => write!(formatter, "Rows"),
            Self::Numbers(ids) => write!(formatter, "Numbers({})", ids.len()),
            Self::Text(ids) => write!(formatter, "Text({})", ids.len()),
        }
    }
}

/// Which ids a source has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    /// None: a record's id is its row.
    Rows,
    /// Numbers.
    Numbers,
    /// Text.
    Text,
}

/// A row that is no record, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The row in its source, counted from 0.
    pub row: u64,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a row. Shown, it completes the sentence "row 7 ..." and
/// repeats no value, id or tag.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The vector has another dimension than the others.
    Dimension {
        /// Its dimension.
        found: usize,
        /// The dimension that is needed.
        expected: usize,
    },
    /// The vector holds NaN or infinity.
    NotFinite,
    /// There is no vector.
    NoVector,
    /// Some values of the vector are missing.
    MissingValue,
    /// There is no id where others have one, or an empty text.
    NoId,
    /// The id is below zero.
    NegativeId,
    /// The id is a text of too many bytes.
    LongId {
        /// Its length.
        bytes: usize,
    },
    /// A tag is a text of too many bytes.
    LongTag {
        /// Its length.
        bytes: usize,
    },
    /// The payload has too many bytes.
    LongPayload {
        /// Its length.
        bytes: usize,
    },
    /// The source names too many different tags before this row.
    TagNames,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dimension { found, expected } => {
                write!(f, "has dimension {found} where {expected} is needed")
            }
            Self::NotFinite => f.write_str("holds NaN or infinity"),
            Self::NoVector => f.write_str("has no vector"),
            Self::MissingValue => f.write_str("has a vector with missing values"),
            Self::NoId => f.write_str("has no id"),
            Self::NegativeId => f.write_str("has an id below zero"),
            Self::LongId { bytes } => {
                write!(
                    f,
                    "has an id of {bytes} bytes where {MAX_TEXT_ID} are the most"
                )
            }
            Self::LongTag { bytes } => write!(
                f,
                "has a tag of {bytes} bytes where {MAX_TAG_NAME} are the most"
            ),
            Self::LongPayload { bytes } => write!(
                f,
                "has a payload of {bytes} bytes where {MAX_PAYLOAD} are the most"
            ),
            Self::TagNames => {
                write!(f, "names one more than {MAX_TAG_NAMES} different tags")
            }
        }
    }
}
