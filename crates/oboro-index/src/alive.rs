//! Which vectors of a segment are there still: one bit each.
//!
//! In memory a set bit says alive, one `u64` a block of 64 vectors, as the scan
//! takes it; bits beyond the last vector are not set. On disk a set bit says
//! deleted.

use std::sync::Arc;

/// Words of `len` bits.
pub(crate) const fn words(len: usize) -> usize {
    len.div_ceil(64)
}

/// All of `len` bits.
pub(crate) fn all(len: usize) -> Vec<u64> {
    let mut bits = vec![u64::MAX; words(len)];
    if let Some(last) = bits.last_mut()
        && !len.is_multiple_of(64)
    {
        *last >>= 64 - len % 64;
    }
    bits
}

pub(crate) fn is_set(bits: &[u64], position: u32) -> bool {
    bits[position as usize / 64] >> (position % 64) & 1 == 1
}

pub(crate) fn clear(bits: &mut [u64], position: u32) {
    bits[position as usize / 64] &= !(1 << (position % 64));
}

/// Number of set bits.
pub(crate) fn count(bits: &[u64]) -> usize {
    bits.iter().map(|word| word.count_ones() as usize).sum()
}

/// The payload of the file that lists what is deleted.
pub(crate) fn to_bytes(alive: &[u64], len: usize) -> Vec<u8> {
    all(len)
        .iter()
        .zip(alive)
        .flat_map(|(all, alive)| (all & !alive).to_le_bytes())
        .collect()
}

/// Reads what [`to_bytes`] wrote; `None` unless it lists exactly `deleted` of
/// `len` vectors.
pub(crate) fn from_bytes(bytes: &[u8], len: usize, deleted: u32) -> Option<Arc<[u64]>> {
    let (listed, rest) = bytes.as_chunks::<8>();
    if listed.len() != words(len) || !rest.is_empty() {
        return None;
    }
    let all = all(len);
    let listed = listed.iter().map(|&word| u64::from_le_bytes(word));
    if listed
        .clone()
        .zip(&all)
        .any(|(listed, all)| listed & !all != 0)
    {
        return None;
    }
    let alive: Arc<[u64]> = listed
        .zip(&all)
        .map(|(listed, all)| all & !listed)
        .collect();
    (len - count(&alive) == deleted as usize).then_some(alive)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn round_trip(len in 0_usize..200, seed: [u64; 4]) {
            let mut alive = all(len);
            prop_assert_eq!(count(&alive), len);
            for position in 0..len as u32 {
                prop_assert!(is_set(&alive, position));
                if seed[position as usize / 64] >> (position % 64) & 1 == 1 {
                    clear(&mut alive, position);
                    prop_assert!(!is_set(&alive, position));
                }
            }
            let deleted = (len - count(&alive)) as u32;
            let bytes = to_bytes(&alive, len);
            prop_assert_eq!(&*from_bytes(&bytes, len, deleted).unwrap(), &alive[..]);
            prop_assert!(from_bytes(&bytes, len, deleted + 1).is_none());
            prop_assert!(from_bytes(&[&bytes[..], &[0]].concat(), len, deleted).is_none());
            prop_assert!(from_bytes(&bytes, len + 64, deleted).is_none());
        }

        #[test]
        fn fail_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), len in 0_usize..300, deleted: u32) {
            let _ = from_bytes(&bytes, len, deleted);
        }
    }

    #[test]
    fn fail_bits_beyond_the_last_vector() {
        assert!(from_bytes(&[1, 0, 0, 0, 0, 0, 0, 0], 3, 1).is_some());
        assert!(from_bytes(&[8, 0, 0, 0, 0, 0, 0, 0], 3, 1).is_none());
        assert!(from_bytes(&[8, 0, 0, 0, 0, 0, 0, 0], 3, 0).is_none());
    }
}
