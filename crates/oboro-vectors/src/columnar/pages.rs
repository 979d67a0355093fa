//! The headers of a Parquet column's pages, looked at before the library
//! takes memory for what they declare.
//!
//! A header is a Thrift structure in the compact protocol; only sizes and
//! counts are taken out of it.

use crate::{Limits, VectorsError};
use parquet::file::metadata::ColumnChunkMetaData;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Structures in a header nest this deep at most.
const MAX_DEPTH: usize = 8;
/// Longest header: statistics in it hold two values of the column.
const MAX_HEADER: u64 = 16 << 20;

/// The file that a column lies in.
pub(super) struct Place<'a> {
    pub(super) path: &'a Path,
    pub(super) file: &'a File,
    pub(super) length: u64,
}

impl Place<'_> {
    /// Checks the pages of one column of a row group of `rows` rows.
    pub(super) fn check(
        &self,
        chunk: &ColumnChunkMetaData,
        rows: i64,
        limits: &Limits,
    ) -> Result<(), VectorsError> {
        let number = |value: i64| u64::try_from(value).map_err(|_| self.damaged());
        let declared = number(chunk.num_values())?;
        let rows = number(rows)?;
        let flat = chunk.column_descr().max_rep_level() == 0;
        if (flat && declared != rows) || declared < rows {
            return Err(self.damaged());
        }
        self.at_most(
            "a row group in values",
            declared,
            limits.group_values,
            "row groups",
        )?;
        let first = match chunk.dictionary_page_offset() {
            Some(offset) if offset > 0 => offset,
            _ => chunk.data_page_offset(),
        };
        let mut at = number(first)?;
        let end = at
            .checked_add(number(chunk.compressed_size())?)
            .filter(|&end| end <= self.length)
            .ok_or_else(|| self.damaged())?;
        let mut file = BufReader::with_capacity(512, self.file);
        let mut values = 0_u64;
        while at < end && values < declared {
            file.seek(SeekFrom::Start(at))
                .map_err(VectorsError::io(self.path))?;
            let (page, length) =
                PageHeader::read(&mut file, end - at).ok_or_else(|| self.damaged())?;
            self.at_most("a page in bytes", page.bytes, limits.bytes, "pages")?;
            self.at_most("a page in values", page.values, limits.page_values, "pages")?;
            at = at
                .checked_add(length + page.compressed)
                .filter(|&next| next <= end)
                .ok_or_else(|| self.damaged())?;
            if page.data {
                values += page.values;
            }
        }
        if values == declared {
            Ok(())
        } else {
            Err(self.damaged())
        }
    }

    fn at_most(
        &self,
        what: &'static str,
        found: u64,
        limit: u64,
        smaller: &'static str,
    ) -> Result<(), VectorsError> {
        if found <= limit {
            return Ok(());
        }
        Err(VectorsError::TooLarge {
            path: self.path.to_owned(),
            what,
            found,
            limit,
            smaller,
        })
    }

    fn damaged(&self) -> VectorsError {
        VectorsError::Columnar {
            path: self.path.to_owned(),
            reason: "has pages that do not agree with its description; copy or write it again"
                .to_owned(),
        }
    }
}

/// What a page declares.
#[derive(Debug, Default, PartialEq, Eq)]
struct PageHeader {
    /// Bytes after decompression.
    bytes: u64,
    /// Bytes in the file, after the header.
    compressed: u64,
    /// Values, missing ones included.
    values: u64,
    /// Whether it is a page of data, not a dictionary.
    data: bool,
}

impl PageHeader {
    /// Reads a header of at most `most` bytes; also its length.
    fn read(file: &mut (impl Read + Seek), most: u64) -> Option<(Self, u64)> {
        let mut input = Compact {
            file,
            left: most.min(MAX_HEADER),
        };
        let whole = input.left;
        let mut page = Self::default();
        let (mut bytes, mut compressed) = (None, None);
        let mut last = 0;
        while let Some((field, kind)) = input.field(&mut last)? {
            match field {
                2 => bytes = Some(input.size(kind)?),
                3 => compressed = Some(input.size(kind)?),
                // A page of data, a dictionary, a page of data of version 2:
                // the first field is how many values there are.
                5 | 7 | 8 => {
                    page.data |= field != 7;
                    page.values = input.first_field(kind)?;
                }
                _ => input.skip(kind, MAX_DEPTH)?,
            }
        }
        page.bytes = bytes?;
        page.compressed = compressed?;
        Some((page, whole - input.left))
    }
}

/// Thrift's compact protocol. `None` where the bytes are not that, or end.
struct Compact<'a, R> {
    file: &'a mut R,
    left: u64,
}

const STRUCT: u8 = 12;

impl<R: Read + Seek> Compact<'_, R> {
    fn byte(&mut self) -> Option<u8> {
        self.left = self.left.checked_sub(1)?;
        let mut byte = [0];
        self.file.read_exact(&mut byte).ok()?;
        Some(byte[0])
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number that is a size, if `kind` is a 32-bit integer.
    fn size(&mut self, kind: u8) -> Option<u64> {
        if kind != 5 {
            return None;
        }
        let value = i32::try_from(self.integer()?).ok()?;
        u64::try_from(value).ok()
    }

    /// The number and kind of the next field; `Some(None)` at the end.
    fn field(&mut self, last: &mut i64) -> Option<Option<(i64, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Some(None);
        }
        *last = match byte >> 4 {
            0 => self.integer()?,
            delta => last.checked_add(delta.into())?,
        };
        Some(Some((*last, byte & 0x0f)))
    }

    /// Field 1 of a structure, a size; the rest is passed over.
    fn first_field(&mut self, kind: u8) -> Option<u64> {
        if kind != STRUCT {
            return None;
        }
        let (mut last, mut found) = (0, None);
        while let Some((field, kind)) = self.field(&mut last)? {
            match field {
                1 => found = Some(self.size(kind)?),
                _ => self.skip(kind, MAX_DEPTH)?,
            }
        }
        found
    }

    fn skip_bytes(&mut self, count: u64) -> Option<()> {
        self.left = self.left.checked_sub(count)?;
        self.file.seek_relative(i64::try_from(count).ok()?).ok()
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            1 | 2 => Some(()), // true, false
            3 => self.skip_bytes(1),
            4..=6 => self.integer().map(|_| ()),
            7 => self.skip_bytes(8),
            8 => {
                let length = self.varint()?;
                self.skip_bytes(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.varint()?,
                    count => count.into(),
                };
                // Each element has a byte at least; booleans have one, too.
                for _ in 0..count {
                    match head & 0x0f {
                        1 | 2 => self.skip_bytes(1)?,
                        kind => self.skip(kind, depth)?,
                    }
                }
                Some(())
            }
            11 => {
                let count = self.varint()?;
                if count == 0 {
                    return Some(());
                }
                let kinds = self.byte()?;
                for _ in 0..count {
                    for kind in [kinds >> 4, kinds & 0x0f] {
                        match kind {
                            1 | 2 => self.skip_bytes(1)?,
                            kind => self.skip(kind, depth)?,
                        }
                    }
                }
                Some(())
            }
            STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip(kind, depth)?;
                }
                Some(())
            }
            _ => None,
        }
    }
}
