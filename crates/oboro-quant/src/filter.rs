//! Filters by tags: which vectors a search may find.

use crate::QuantError;
use oboro_simd::Arch;
use oboro_simd::mask::{self, Wanted};
use std::fmt;
use zeroize::Zeroize;

/// What the tags of a vector must be like; zeros, the default, let all pass.
///
/// Tags are a bit set of 64; `t` passes when it has one of the bits of `any`
/// (or `any` is zero), all bits of `all`, and no bit of `none`.
///
/// # Security
/// Which tags are asked for is a secret: it is not printed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// At least one of these tags, unless this is zero.
    pub any: u64,
    /// All of these tags.
    pub all: u64,
    /// None of these tags.
    pub none: u64,
}

impl Filter {
    /// Bytes of an encoded filter.
    pub const BYTES: usize = 24;

    /// Whether every vector passes, whatever its tags.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a vector of these tags passes. Not oblivious; see [`passing`].
    #[must_use]
    pub const fn passes(&self, tags: u64) -> bool {
        (self.any == 0 || tags & self.any != 0)
            && tags & self.all == self.all
            && tags & self.none == 0
    }

    /// `any`, `all` and `none` as little-endian numbers: the same number of
    /// bytes for every filter.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        for (bytes, word) in bytes
            .chunks_exact_mut(8)
            .zip([self.any, self.all, self.none])
        {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// When there are not exactly [`Self::BYTES`] bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, QuantError> {
        let (words, rest) = bytes.as_chunks::<8>();
        match (words, rest) {
            ([any, all, none], []) => Ok(Self {
                any: u64::from_le_bytes(*any),
                all: u64::from_le_bytes(*all),
                none: u64::from_le_bytes(*none),
            }),
            _ => Err(QuantError::Mismatch {
                what: "the number of bytes of a filter",
                actual: bytes.len(),
                expected: Self::BYTES,
            }),
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter(..)")
    }
}

impl Zeroize for Filter {
    fn zeroize(&mut self) {
        self.any.zeroize();
        self.all.zeroize();
        self.none.zeroize();
    }
}

/// The mask of a search, as [`crate::Scanner::search_masked`] takes it: into
/// `out` a word for each 64 vectors, rounded up, whose bit `i` is set when
/// vector `i` of them is alive and its tags pass.
///
/// `alive` has the same form; `None` stands for all.
///
/// # Errors
/// When `alive` is not one word for each 64 tags, rounded up.
///
/// # Security
/// Instructions and addresses depend on the number of vectors and on whether
/// there is `alive`, not on tags or filter. The result tells which vectors
/// have the tags: wipe it.
pub fn passing(
    arch: Arch,
    tags: &[u64],
    alive: Option<&[u64]>,
    filter: &Filter,
    out: &mut Vec<u64>,
) -> Result<(), QuantError> {
    let words = tags.len().div_ceil(64);
    out.clear();
    match alive {
        Some(alive) if alive.len() != words => {
            return Err(QuantError::Mismatch {
                what: "the number of words that say which vectors are alive",
                actual: alive.len(),
                expected: words,
            });
        }
        Some(alive) => out.extend_from_slice(alive),
        None => out.resize(words, u64::MAX),
    }
    let wanted = Wanted {
        any: filter.any,
        all: filter.all,
        none: filter.none,
    };
    mask::passing(arch, tags, &wanted, out);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Words with few, half, or all bits set.
    fn word() -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(0),
            (0u32..64).prop_map(|bit| 1 << bit),
            any::<u64>(),
            Just(u64::MAX),
        ]
    }

    proptest! {
        #[test]
        fn masks_are_what_the_conditions_say(
            tags in prop::collection::vec(word(), 0..300),
            (any_of, all, none) in (word(), word(), word()),
            seed in prop::option::of(any::<u64>()),
        ) {
            let filter = Filter { any: any_of, all, none };
            let alive: Option<Vec<u64>> = seed.map(|seed| {
                (0..tags.len().div_ceil(64) as u64)
                    .map(|i| seed.rotate_left(i as u32 * 7))
                    .collect()
            });
            for arch in Arch::available() {
                let mut out = vec![7; 3];
                passing(arch, &tags, alive.as_deref(), &filter, &mut out).unwrap();
                prop_assert_eq!(out.len(), tags.len().div_ceil(64));
                for (i, &t) in tags.iter().enumerate() {
                    let alive = alive.as_ref().is_none_or(|a| a[i / 64] >> (i % 64) & 1 == 1);
                    prop_assert_eq!(out[i / 64] >> (i % 64) & 1 == 1, alive && filter.passes(t));
                }
                // No bit stands for a vector that is not there.
                let set: u32 = out.iter().map(|word| word.count_ones()).sum();
                prop_assert!(set as usize <= tags.len());
                if let (Some(last), false) = (out.last(), tags.len() % 64 == 0) {
                    prop_assert_eq!(last >> (tags.len() % 64), 0);
                }
            }
        }

        #[test]
        fn bytes_round_trip((any, all, none) in (word(), word(), word())) {
            let filter = Filter { any, all, none };
            prop_assert_eq!(Filter::from_bytes(&filter.to_bytes()), Ok(filter));
        }
    }

    #[test]
    fn no_filter_lets_all_pass_and_is_not_printed() {
        let filter = Filter::default();
        assert!(filter.is_empty() && filter.passes(0) && filter.passes(u64::MAX));
        assert_eq!(filter.to_bytes(), [0; 24]);
        assert_eq!(
            format!(
                "{:?}",
                Filter {
                    any: 77,
                    all: 77,
                    none: 77
                }
            ),
            "Filter(..)"
        );
    }

    #[test]
    fn fail_bytes_of_another_length() {
        for len in (0..80).filter(|&len| len != Filter::BYTES) {
            assert!(Filter::from_bytes(&vec![0; len]).is_err(), "{len}");
        }
    }

    #[test]
    fn fail_alive_of_another_length() {
        let (tags, mut out) = ([0; 65], Vec::new());
        for words in [0, 1, 3] {
            let alive = vec![u64::MAX; words];
            let filter = Filter::default();
            assert!(passing(Arch::detect(), &tags, Some(&alive), &filter, &mut out).is_err());
        }
    }
}
