//! Rows of the formats that hold vectors only, read one by one so that a bad
//! one does not end the reading.

use crate::reader::{Element, Layout, Uneven, check_dimension, count_vecs, decode};
use crate::{Format, Records, VectorsError, Why};
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

pub(crate) struct PlainRows {
    path: PathBuf,
    file: BufReader<File>,
    length: u64,
    element: Element,
    row_header: usize,
    stored: usize,
    dimension: usize,
    rows: u64,
    start: u64,
    next: u64,
    /// Bytes of the file before the next row.
    at: u64,
    buffer: Vec<u8>,
}

impl PlainRows {
    pub(crate) fn open(
        path: &Path,
        format: Format,
        dimension: Option<usize>,
    ) -> Result<Self, VectorsError> {
        let layout = Layout::of(path, format, Uneven::Count)?;
        let wanted = dimension.unwrap_or(layout.dimension);
        // Where each row says its own dimension, rows are judged one by one.
        if layout.row_header == 0 && wanted != layout.dimension {
            return Err(VectorsError::WrongDimension {
                path: path.to_owned(),
                found: layout.dimension,
                expected: wanted,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(1 << 18, layout.file),
            length: layout.length,
            element: layout.element,
            row_header: layout.row_header,
            stored: layout.dimension,
            dimension: wanted,
            rows: layout.rows,
            start: layout.start,
            next: 0,
            at: layout.start,
            buffer: Vec::new(),
        })
    }

    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    /// Counts the rows one by one where they may differ in dimension.
    pub(crate) fn count(&mut self) -> Result<u64, VectorsError> {
        if self.row_header > 0 {
            let bytes = self.element.bytes();
            self.rows = count_vecs(&self.path, self.file.get_mut(), self.length, bytes)?;
            self.rewind()?;
        }
        Ok(self.rows)
    }

    /// Reads at most `most` rows; how many, 0 at the end.
    pub(crate) fn read(&mut self, most: usize, out: &mut Records) -> Result<usize, VectorsError> {
        let mut read = 0;
        while read < most {
            let Some(found) = self.next_dimension()? else {
                break;
            };
            self.buffer.resize(found * self.element.bytes(), 0);
            self.at += self.buffer.len() as u64;
            let (path, row) = (&self.path, self.next);
            self.file
                .read_exact(&mut self.buffer)
                .map_err(|source| match source.kind() {
                    ErrorKind::UnexpectedEof => VectorsError::Truncated {
                        path: path.clone(),
                        rows: row + 1,
                        expected: self.at,
                        found: self.length,
                    },
                    _ => VectorsError::io(path)(source),
                })?;
            if found == self.dimension {
                let before = out.vectors.len();
                decode(self.element, &self.buffer, &mut out.vectors);
                if finite(&out.vectors[before..]) {
                    out.rows.push(row);
                } else {
                    out.vectors.truncate(before);
                    out.refuse(row, Why::NotFinite);
                }
            } else {
                let expected = self.dimension;
                out.refuse(row, Why::Dimension { found, expected });
            }
            self.next += 1;
            read += 1;
        }
        Ok(read)
    }

    /// The dimension of the next row; `None` at the end.
    fn next_dimension(&mut self) -> Result<Option<usize>, VectorsError> {
        if self.row_header == 0 {
            return Ok((self.next < self.rows).then_some(self.stored));
        }
        if self.at >= self.length {
            return Ok(None);
        }
        let mut bytes = [0_u8; 4];
        self.at += 4;
        self.file
            .read_exact(&mut bytes)
            .map_err(|source| match source.kind() {
                ErrorKind::UnexpectedEof => VectorsError::Truncated {
                    path: self.path.clone(),
                    rows: self.next + 1,
                    expected: self.at,
                    found: self.length,
                },
                _ => VectorsError::io(&self.path)(source),
            })?;
        let declared = i64::from(i32::from_le_bytes(bytes));
        check_dimension(&self.path, self.next, declared).map(Some)
    }

    pub(crate) fn rewind(&mut self) -> Result<(), VectorsError> {
        self.file
            .seek(SeekFrom::Start(self.start))
            .map_err(VectorsError::io(&self.path))?;
        self.next = 0;
        self.at = self.start;
        Ok(())
    }
}

/// Without early exit, so that the compiler can vectorize it.
pub(crate) fn finite(values: &[f32]) -> bool {
    values.iter().fold(true, |ok, value| ok & value.is_finite())
}
