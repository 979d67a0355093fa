//! Reading fixed-size little-endian fields from untrusted bytes.

use crate::IndexError;

pub(crate) struct Cursor<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(name: &'a str, bytes: &'a [u8]) -> Self {
        Self { name, bytes }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], IndexError> {
        let (taken, rest) = self
            .bytes
            .split_at_checked(count)
            .ok_or_else(|| IndexError::damaged(self.name, "it ends early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, IndexError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, IndexError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, IndexError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, IndexError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn f32(&mut self) -> Result<f32, IndexError> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn end(self) -> Result<(), IndexError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(IndexError::damaged(self.name, "it has bytes after its end"))
        }
    }

    /// Checks `magic` and a format version that must be `supported`.
    pub(crate) fn magic(&mut self, magic: &[u8; 8], supported: u16) -> Result<(), IndexError> {
        if &self.array::<8>()? != magic {
            return Err(IndexError::damaged(
                self.name,
                "it does not begin as it should",
            ));
        }
        let found = self.u16()?;
        if found != supported {
            return Err(IndexError::Version {
                file: self.name.to_owned(),
                found,
                supported,
            });
        }
        Ok(())
    }
}
