//! What a record carries besides its vector: a string id and a payload.
//!
//! Every record of an index has a region of the same size for it, so that the
//! length of a record tells nothing. The region is sealed with the vector;
//! searcher and keeper never see it.
//!
//! | bytes | content |
//! |---|---|
//! | 2 | length of the string id |
//! | | the string id, UTF-8 |
//! | 4 | length of the payload |
//! | | the payload |
//! | rest | zeros |

use crate::IndexError;
use crate::cursor::Cursor;
use std::fmt;

const NAME: &str = "the extra bytes of a record";
/// The two lengths.
const LENGTHS: usize = 2 + 4;

/// The largest region of a record.
pub const MAX_EXTRA_BYTES: u32 = 1 << 16;

/// A string id and a payload, each optional.
///
/// `Debug` shows sizes, never the contents.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Extra {
    /// The id that its owner knows the vector by; inside, a number stands for
    /// it ([`RecordKey::id_of`](crate::RecordKey::id_of)). Never empty.
    pub id: Option<String>,
    /// Whatever the owner wants to come with the vector.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Extra {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = if self.id.is_some() { "an id" } else { "no id" };
        write!(formatter, "Extra({id}, {} bytes)", self.payload.len())
    }
}

impl Extra {
    /// Whether there is neither id nor payload.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.id.is_none() && self.payload.is_empty()
    }

    /// Bytes of the smallest region that holds it; 0 if it is empty.
    #[must_use]
    pub fn needed(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        LENGTHS + self.id.as_ref().map_or(0, String::len) + self.payload.len()
    }

    /// Fills `region`.
    ///
    /// # Errors
    /// If it does not fit, or the string id is empty or longer than 65,535
    /// bytes.
    pub fn encode(&self, region: &mut [u8]) -> Result<(), IndexError> {
        self.check(region.len())?;
        region.fill(0);
        if self.is_empty() {
            return Ok(());
        }
        let id = self.id.as_deref().unwrap_or_default().as_bytes();
        let mut rest = region;
        let parts: [&[u8]; 4] = [
            &(id.len() as u16).to_le_bytes(),
            id,
            &(self.payload.len() as u32).to_le_bytes(),
            &self.payload,
        ];
        for part in parts {
            let (out, after) = rest.split_at_mut(part.len());
            out.copy_from_slice(part);
            rest = after;
        }
        Ok(())
    }

    /// Whether it fits a region of `available` bytes.
    pub(crate) fn check(&self, available: usize) -> Result<(), IndexError> {
        match &self.id {
            Some(id) if id.is_empty() => {
                return Err(IndexError::Invalid(
                    "a string id is empty; give every vector an id of at least one character"
                        .into(),
                ));
            }
            Some(id) if id.len() > usize::from(u16::MAX) => {
                return Err(IndexError::Mismatch {
                    what: "the longest length of a string id in bytes",
                    found: id.len() as u64,
                    expected: u64::from(u16::MAX),
                });
            }
            _ => {}
        }
        if self.needed() > available {
            return Err(IndexError::ExtraTooLong {
                needed: self.needed(),
                available,
            });
        }
        Ok(())
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If a length does not fit, the id is not UTF-8, or something other than
    /// zeros follows.
    pub fn decode(region: &[u8]) -> Result<Self, IndexError> {
        if region.is_empty() {
            return Ok(Self::default());
        }
        let damaged = |what| IndexError::damaged(NAME, what);
        let mut cursor = Cursor::new(NAME, region);
        let length = usize::from(cursor.u16()?);
        let id = std::str::from_utf8(cursor.take(length)?)
            .map_err(|_| damaged("its string id is no UTF-8"))?;
        let length = cursor.u32()? as usize;
        let payload = cursor.take(length)?;
        let rest = cursor.take(cursor.remaining())?;
        if rest.iter().any(|&byte| byte != 0) {
            return Err(damaged("it has bytes after its end"));
        }
        Ok(Self {
            id: (!id.is_empty()).then(|| id.to_owned()),
            payload: payload.to_vec(),
        })
    }
}

/// Whether a region may have this size: none, or room for the two lengths.
pub(crate) const fn is_region(bytes: u32) -> bool {
    bytes == 0 || (bytes as usize >= LENGTHS && bytes <= MAX_EXTRA_BYTES)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fail_debug_output_shows_no_contents() {
        let extra = Extra {
            id: Some("patient 17".into()),
            payload: b"diagnosis".to_vec(),
        };
        assert_eq!(format!("{extra:?}"), "Extra(an id, 9 bytes)");
    }
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let extra = Extra {
            id: Some("né".into()),
            payload: vec![7, 8],
        };
        assert_eq!(extra.needed(), 11);
        let mut region = [0xff; 13];
        extra.encode(&mut region).unwrap();
        assert_eq!(region, [3, 0, b'n', 0xc3, 0xa9, 2, 0, 0, 0, 7, 8, 0, 0]);
        assert_eq!(Extra::decode(&region).unwrap(), extra);
        assert_eq!(Extra::decode(&[]).unwrap(), Extra::default());
        assert_eq!(Extra::decode(&[0; 6]).unwrap(), Extra::default());
        assert_eq!(Extra::default().needed(), 0);
    }

    #[test]
    fn fail_what_does_not_fit_and_what_is_no_region() {
        let extra = Extra {
            id: Some("abc".into()),
            payload: vec![1; 10],
        };
        let error = extra.encode(&mut [0; 18]).unwrap_err();
        assert!(error.to_string().contains("19"), "{error}");
        let empty = Extra {
            id: Some(String::new()),
            payload: Vec::new(),
        };
        assert!(empty.encode(&mut [0; 18]).is_err());
        let long = Extra {
            id: Some("x".repeat(70_000)),
            payload: Vec::new(),
        };
        assert!(long.encode(&mut vec![0; 80_000]).is_err());
        let mut good = [0; 19];
        extra.encode(&mut good).unwrap();
        for cut in 1..19 {
            assert!(Extra::decode(&good[..cut]).is_err(), "{cut}");
        }
        assert!(Extra::decode(&[&good[..], &[1]].concat()).is_err());
        assert!(Extra::decode(&[&good[..], &[0]].concat()).is_ok());
        assert!(Extra::decode(&[1, 0, 0xff, 0, 0, 0, 0]).is_err());
        assert!(is_region(0) && is_region(6) && is_region(MAX_EXTRA_BYTES));
        assert!(!is_region(1) && !is_region(5) && !is_region(MAX_EXTRA_BYTES + 1));
    }

    proptest! {
        #[test]
        fn round_trip(id in proptest::option::of(".{1,30}"), payload in proptest::collection::vec(any::<u8>(), 0..60), room in 0_usize..20) {
            let extra = Extra { id, payload };
            let mut region = vec![0xaa; extra.needed() + room];
            if region.len() >= 6 || region.is_empty() {
                extra.encode(&mut region).unwrap();
                prop_assert_eq!(Extra::decode(&region).unwrap(), extra);
            }
        }

        #[test]
        fn fail_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(extra) = Extra::decode(&bytes) {
                let mut again = vec![0; bytes.len()];
                extra.encode(&mut again).unwrap();
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
