//! Ids as an index has them, and what travels with them.

use oboro_index::{Extra, RecordKey};
use oboro_vectors::{Ids, Records};

use crate::OwnerError;

/// The number and the extra of each of some records, whose `rows` are given.
pub(crate) fn extras_and_ids(
    records: Records,
    rows: &[u64],
    key: &RecordKey,
) -> impl Iterator<Item = (u64, Extra)> {
    let mut payloads = records.payloads.into_iter();
    let (mut numbers, mut texts) = (Vec::new().into_iter(), Vec::new().into_iter());
    match records.ids {
        Ids::Rows => numbers = Vec::from(rows).into_iter(),
        Ids::Numbers(ids) => numbers = ids.into_iter(),
        Ids::Text(ids) => texts = ids.into_iter(),
    }
    std::iter::from_fn(move || {
        let payload = payloads.next().unwrap_or_default();
        if let Some(text) = texts.next() {
            let id = key.id_of(&text);
            return Some((
                id,
                Extra {
                    id: Some(text),
                    payload,
                },
            ));
        }
        Some((numbers.next()?, Extra { id: None, payload }))
    })
}

/// Checks that no id comes twice. `rows` are those of the ids.
pub(crate) fn check_unique(ids: &[u64], rows: impl Fn(usize) -> u64) -> Result<(), OwnerError> {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_unstable_by_key(|&at| (ids[at as usize], at));
    match order
        .windows(2)
        .find(|pair| ids[pair[0] as usize] == ids[pair[1] as usize])
    {
        Some(pair) => Err(OwnerError::DuplicateId {
            first: rows(pair[0] as usize) as usize,
            second: rows(pair[1] as usize) as usize,
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fail_ids_that_come_twice() {
        assert!(check_unique(&[3, 1, 2], |at| at as u64).is_ok());
        assert!(matches!(
            check_unique(&[7, 1, 7], |at| 10 + at as u64),
            Err(OwnerError::DuplicateId {
                first: 10,
                second: 12
            })
        ));
    }
}
