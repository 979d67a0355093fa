//! Reads the state's payload; lengths are checked before anything is taken.

use crate::KeeperError;

pub(super) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], KeeperError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(KeeperError::StateFormat("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], KeeperError> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self) -> Result<u32, KeeperError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, KeeperError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A count of at most `most` things.
    pub(super) fn count(&mut self, most: usize) -> Result<usize, KeeperError> {
        let count = self.u32()? as usize;
        if count > most {
            return Err(KeeperError::StateFormat(
                "it holds more than any keeper writes",
            ));
        }
        Ok(count)
    }

    /// A length and as many bytes.
    pub(super) fn field(&mut self, most: usize) -> Result<&'a [u8], KeeperError> {
        let length = self.count(most)?;
        self.bytes(length)
    }

    pub(super) fn end(self) -> Result<(), KeeperError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(KeeperError::StateFormat("there are bytes after its end"))
        }
    }
}

/// What [`Cursor::field`] reads.
pub(super) fn append_field(out: &mut Vec<u8>, bytes: &[u8]) {
    append_count(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// What [`Cursor::count`] reads.
pub(super) fn append_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("every part of the state is bounded far below");
    out.extend_from_slice(&count.to_le_bytes());
}
