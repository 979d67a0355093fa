//! What a descriptor says of the query model of its index.

use crate::IndexError;
use crate::cursor::Cursor;
use crate::query_model::{NAME, QueryModel};
use oboro_quant::Metric;
use oboro_quant::ivf::MAX_LISTS;

/// Most lists that one search looks at.
pub const MAX_PROBES: u32 = 1024;

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
}
