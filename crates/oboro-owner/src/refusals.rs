//! Rows that are left out of a change, and why.

use std::collections::BTreeMap;
use std::fmt;

use oboro_vectors::{Refusal, Why};

use crate::prepare::LARGEST_NORM;

/// Rows that a report names.
const NAMED: usize = 10;

/// Why a row is left out. Shown, it completes the sentence "row 7 ..." and repeats no
/// value, id or tag.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is no record at all.
    Input(Why),
    /// A value is beyond what the index's encoding of originals can hold.
    BeyondEncoding,
    /// Its norm is so large that products would overflow.
    TooLong,
    /// It is all zeros, which has no direction for the cosine metric.
    NoDirection,
    /// An earlier row has the same id.
    DuplicateId,
    /// Text id and payload are longer than the index's room for them.
    ExtraTooLong {
        /// Bytes that they need.
        needed: usize,
        /// Bytes that there are.
        available: usize,
    },
    /// It has a tag that the index has not.
    UnknownTag,
}

impl Reason {
    /// One word for programs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Input(Why::Dimension { .. }) => "dimension",
            Self::Input(Why::NotFinite) => "not_finite",
            Self::Input(_) => "no_record",
            Self::BeyondEncoding => "beyond_encoding",
            Self::TooLong => "too_long",
            Self::NoDirection => "no_direction",
            Self::DuplicateId => "duplicate_id",
            Self::ExtraTooLong { .. } => "extra_too_long",
            Self::UnknownTag => "unknown_tag",
        }
    }

    /// What to do about such rows, where it does not go without saying.
    #[must_use]
    pub const fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Input(_) | Self::NoDirection | Self::DuplicateId => None,
            Self::BeyondEncoding => Some(
                "bring the values into the range of the indexed ones, or build the index anew with --originals f32",
            ),
            Self::TooLong => Some("scale the vectors as the indexed ones are"),
            Self::ExtraTooLong { .. } => Some(
                "leave text ids and payloads away (--ids-column \"\", --payload-column \"\"), or build the index anew with more --extra-bytes",
            ),
            Self::UnknownTag => Some(
                "leave tags away (--tags-column \"\"), or build the index anew with --tags that name them all",
            ),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Input(why) => why.fmt(f),
            Self::BeyondEncoding => {
                f.write_str("holds a value that the index's encoding of originals cannot hold")
            }
            Self::TooLong => write!(f, "has a norm beyond {LARGEST_NORM:e}"),
            Self::NoDirection => f.write_str(
                "is all zeros, or as good as that in single precision, and has no direction for the cosine metric",
            ),
            Self::DuplicateId => f.write_str("has the id of an earlier row"),
            Self::ExtraTooLong { needed, available } => write!(
                f,
                "needs {needed} bytes for text id and payload where the index was built with {available} (--extra-bytes)"
            ),
            Self::UnknownTag => f.write_str("has a tag that the index has not"),
        }
    }
}

/// The rows that were left out: how many for each reason, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    counts: BTreeMap<&'static str, u64>,
    first: Vec<(u64, Reason)>,
}

impl Refusals {
    pub(crate) fn add(&mut self, row: u64, reason: Reason) {
        *self.counts.entry(reason.name()).or_default() += 1;
        if self.first.len() < NAMED {
            self.first.push((row, reason));
        }
    }

    pub(crate) fn add_input(&mut self, refused: Vec<Refusal>) {
        for refusal in refused {
            self.add(refusal.row, Reason::Input(refusal.why));
        }
    }

    pub(crate) fn merge(&mut self, other: Self) {
        for (name, count) in other.counts {
            *self.counts.entry(name).or_default() += count;
        }
        let room = NAMED.saturating_sub(self.first.len());
        self.first.extend(other.first.into_iter().take(room));
    }

    /// How many rows.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    /// How many rows for each reason ([`Reason::name`]).
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(&name, &count)| (name, count))
    }

    /// The first rows, counted from 0, each with its reason.
    #[must_use]
    pub fn first(&self) -> &[(u64, Reason)] {
        &self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_the_first_rows() {
        let mut refusals = Refusals::default();
        for row in 0..30 {
            refusals.add(row, Reason::DuplicateId);
        }
        let mut more = Refusals::default();
        more.add(40, Reason::UnknownTag);
        refusals.merge(more);
        assert_eq!(refusals.total(), 31);
        assert_eq!(refusals.first().len(), NAMED);
        let counts: Vec<_> = refusals.counts().collect();
        assert_eq!(counts, [("duplicate_id", 30), ("unknown_tag", 1)]);
    }
}
