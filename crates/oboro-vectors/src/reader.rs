use crate::{Column, Format, Matrix, RecordOptions, RecordSource, VectorsError, npy};
use half::f16;
use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// No file may declare a larger dimension.
pub const MAX_DIMENSION: usize = 1 << 16;

/// How many bytes `read_f32` asks the file for at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// The type of a stored value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    U8,
    F16,
    F32,
    F64,
}

impl Element {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// Reads a file of vectors a few rows at a time, as finite `f32`.
///
/// The size of the file is checked against its header when it is opened, so
/// [`rows`](Self::rows) is exact; the rows themselves are checked as they are
/// read.
pub struct VectorReader {
    path: PathBuf,
    file: File,
    element: Element,
    /// Bytes before each row: 4 in `.fvecs` and `.bvecs`, otherwise none.
    row_header: usize,
    dimension: usize,
    rows: u64,
    next: u64,
    buffer: Vec<u8>,
}

impl VectorReader {
    /// Opens `path`, whose extension says what it is. Parquet and Arrow are
    /// read by [`RecordSource`] only.
    ///
    /// # Errors
    /// If the file cannot be read, is empty, truncated, ragged in size, of
    /// dimension zero, or holds ids instead of vectors.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, VectorsError> {
        let path = path.as_ref();
        let layout = Layout::of(path, Format::of(path)?, Uneven::Refuse)?;
        Ok(Self {
            path: path.to_owned(),
            file: layout.file,
            element: layout.element,
            row_header: layout.row_header,
            dimension: layout.dimension,
            rows: layout.rows,
            next: 0,
            buffer: Vec::new(),
        })
    }

    /// The number of rows in the file.
    #[must_use]
    pub fn rows(&self) -> usize {
        usize::try_from(self.rows).unwrap_or(usize::MAX)
    }

    /// The number of values in a row.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// The next rows, at most `max_rows`, one after the other; `None` at the
    /// end.
    ///
    /// # Errors
    /// If the file cannot be read or a row is wrong.
    pub fn read_chunk(&mut self, max_rows: usize) -> Result<Option<Vec<f32>>, VectorsError> {
        let mut out = Vec::new();
        let rows = self.read_into(max_rows, &mut out)?;
        Ok((rows > 0).then_some(out))
    }

    /// Appends the next rows, at most `max_rows`, to `out` and says how many
    /// there were; 0 at the end.
    ///
    /// # Errors
    /// If the file cannot be read or a row is wrong; `out` may then hold some
    /// of the rows.
    pub fn read_into(
        &mut self,
        max_rows: usize,
        out: &mut Vec<f32>,
    ) -> Result<usize, VectorsError> {
        let rows = self.rows.saturating_sub(self.next).min(max_rows as u64) as usize;
        if rows == 0 {
            return Ok(0);
        }
        let stride = self.row_header + self.dimension * self.element.bytes();
        self.buffer.resize(rows * stride, 0);
        self.file
            .read_exact(&mut self.buffer)
            .map_err(VectorsError::io(&self.path))?;
        out.reserve(rows * self.dimension);
        for (index, row) in self.buffer.chunks_exact(stride).enumerate() {
            let number = self.next + index as u64;
            let (header, values) = row.split_at(self.row_header);
            if let Ok(declared) = <[u8; 4]>::try_from(header) {
                let found = i64::from(i32::from_le_bytes(declared));
                if found != self.dimension as i64 {
                    return Err(VectorsError::Ragged {
                        path: self.path.clone(),
                        row: number,
                        found,
                        expected: self.dimension,
                    });
                }
            }
            let start = out.len();
            decode(self.element, values, out);
            // Without early exit, so that the compiler can vectorize it.
            if !out[start..]
                .iter()
                .fold(true, |ok, value| ok & value.is_finite())
            {
                return Err(VectorsError::NotFinite {
                    path: self.path.clone(),
                    row: number,
                });
            }
        }
        self.next += rows as u64;
        Ok(rows)
    }

    /// Goes back to the first row, for a second pass.
    ///
    /// # Errors
    /// If the file cannot be positioned.
    pub fn rewind(&mut self) -> Result<(), VectorsError> {
        let stride = (self.row_header + self.dimension * self.element.bytes()) as u64;
        let back = i64::try_from(self.next * stride).unwrap_or(i64::MAX);
        self.file
            .seek(SeekFrom::Current(-back))
            .map_err(VectorsError::io(&self.path))?;
        self.next = 0;
        Ok(())
    }
}

pub(crate) fn decode(element: Element, bytes: &[u8], out: &mut Vec<f32>) {
    match element {
        Element::U8 => out.extend(bytes.iter().map(|&b| f32::from(b))),
        Element::F16 => out.extend(
            bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&b| f16::from_le_bytes(b).to_f32()),
        ),
        Element::F32 => out.extend(
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b)),
        ),
        Element::F64 => out.extend(
            bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|&b| f64::from_le_bytes(b) as f32),
        ),
    }
}

/// All vectors of the file at `path`.
///
/// # Errors
/// As [`VectorReader::open`] and [`VectorReader::read_chunk`]; for Parquet and
/// Arrow as [`RecordSource::open`] and [`RecordSource::read`], and if a row is
/// no vector.
pub fn read_f32(path: impl AsRef<Path>) -> Result<Matrix<f32>, VectorsError> {
    let path = path.as_ref();
    if matches!(Format::of(path)?, Format::Parquet | Format::Arrow) {
        return read_columnar(path);
    }
    let mut reader = VectorReader::open(path)?;
    // The size was checked against the length of the file, so this allocates
    // no more than a small multiple of it.
    let mut data = Vec::with_capacity(reader.rows() * reader.dimension());
    let step = (CHUNK_BYTES / (reader.dimension() * reader.element.bytes())).max(1);
    while reader.read_into(step, &mut data)? > 0 {}
    Matrix::new(reader.dimension(), data)
}

/// What to do with an `.fvecs` or `.bvecs` file whose length is no whole
/// number of rows of the first dimension.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uneven {
    /// It is an error.
    Refuse,
    /// Its rows are counted one by one; they may differ in dimension.
    Count,
}

/// Where the rows of a file are, checked against the length of the file.
pub(crate) struct Layout {
    /// Positioned at the first row.
    pub(crate) file: File,
    /// Bytes of the file.
    pub(crate) length: u64,
    pub(crate) element: Element,
    /// Bytes before each row: 4 in `.fvecs` and `.bvecs`, otherwise none.
    pub(crate) row_header: usize,
    pub(crate) dimension: usize,
    pub(crate) rows: u64,
    /// Where the first row begins.
    pub(crate) start: u64,
}

impl Layout {
    pub(crate) fn of(path: &Path, format: Format, uneven: Uneven) -> Result<Self, VectorsError> {
        let mut file = File::open(path).map_err(VectorsError::io(path))?;
        let metadata = file.metadata().map_err(VectorsError::io(path))?;
        if metadata.is_dir() {
            return Err(VectorsError::Io {
                path: path.to_owned(),
                source: ErrorKind::IsADirectory.into(),
            });
        }
        let length = metadata.len();
        if length == 0 {
            return Err(VectorsError::Empty {
                path: path.to_owned(),
            });
        }
        let wrong = |found: &str| {
            Err(VectorsError::WrongContent {
                path: path.to_owned(),
                found: found.to_owned(),
                expected: "vectors",
            })
        };
        let (element, row_header, dimension, rows) = match format {
            Format::Fvecs | Format::Bvecs => {
                let element = if format == Format::Fvecs {
                    Element::F32
                } else {
                    Element::U8
                };
                let (dimension, rows) = match vecs_shape(path, &mut file, length, element.bytes()) {
                    Err(VectorsError::Ragged { expected, .. }) if uneven == Uneven::Count => {
                        let rows = count_vecs(path, &mut file, length, element.bytes())?;
                        (expected, rows)
                    }
                    shape => shape?,
                };
                (element, 4, dimension, rows)
            }
            Format::Fbin | Format::U8bin => {
                let element = if format == Format::Fbin {
                    Element::F32
                } else {
                    Element::U8
                };
                let (dimension, rows) = bin_shape(path, &mut file, length, element.bytes())?;
                (element, 0, dimension, rows)
            }
            Format::Npy => {
                let header = npy::read_header(path, &mut file)?;
                let element = match header.descr.as_str() {
                    "<f4" => Element::F32,
                    "<f8" => Element::F64,
                    "<f2" => Element::F16,
                    "|u1" | "<u1" | "u1" => Element::U8,
                    other => {
                        return Err(VectorsError::npy(
                            path,
                            format!(
                                "holds values of type {other:?}; little-endian f2, f4, f8 and u1 can be read, convert with numpy.astype('float32')"
                            ),
                        ));
                    }
                };
                let dimension = declared_shape(
                    path,
                    header.shape,
                    header.data_offset,
                    length,
                    element.bytes(),
                )?;
                (element, 0, dimension, header.shape[0])
            }
            Format::Ivecs => {
                return wrong("ids (.ivecs), which go with vectors as --ids or as a ground truth,");
            }
            Format::Parquet | Format::Arrow => return wrong("records (Parquet or Arrow)"),
        };
        let start = file.stream_position().map_err(VectorsError::io(path))?;
        Ok(Self {
            file,
            length,
            element,
            row_header,
            dimension,
            rows,
            start,
        })
    }
}

/// Counts the rows of an `.fvecs` or `.bvecs` file whose rows differ in
/// dimension; leaves it at its beginning.
pub(crate) fn count_vecs(
    path: &Path,
    file: &mut File,
    length: u64,
    value_bytes: usize,
) -> Result<u64, VectorsError> {
    file.rewind().map_err(VectorsError::io(path))?;
    let mut reader = BufReader::with_capacity(1 << 18, &mut *file);
    let (mut rows, mut at) = (0_u64, 0_u64);
    while at < length {
        let mut bytes = [0_u8; 4];
        let truncated = |expected| VectorsError::Truncated {
            path: path.to_owned(),
            rows: rows + 1,
            expected,
            found: length,
        };
        if length - at < 4 {
            return Err(truncated(at + 4));
        }
        reader
            .read_exact(&mut bytes)
            .map_err(VectorsError::io(path))?;
        let dimension = check_dimension(path, rows, i64::from(i32::from_le_bytes(bytes)))?;
        let values = dimension * value_bytes;
        at += 4 + values as u64;
        if at > length {
            return Err(truncated(at));
        }
        reader
            .seek_relative(values as i64)
            .map_err(VectorsError::io(path))?;
        rows += 1;
    }
    drop(reader);
    file.rewind().map_err(VectorsError::io(path))?;
    Ok(rows)
}

fn read_columnar(path: &Path) -> Result<Matrix<f32>, VectorsError> {
    let options = RecordOptions {
        ids: Column::Unused,
        tags: Column::Unused,
        payloads: Column::Unused,
        ..RecordOptions::default()
    };
    let mut source = RecordSource::open(path, &options)?;
    let mut data = Vec::new();
    while let Some(records) = source.read(8_192)? {
        if let Some(refusal) = records.refused.first() {
            return Err(source.error(refusal));
        }
        data.extend_from_slice(&records.vectors);
    }
    Matrix::new(source.dimension(), data)
}

pub(crate) fn check_dimension(
    path: &Path,
    row: u64,
    dimension: i64,
) -> Result<usize, VectorsError> {
    match usize::try_from(dimension) {
        Ok(d) if (1..=MAX_DIMENSION).contains(&d) => Ok(d),
        _ => Err(VectorsError::Dimension {
            path: path.to_owned(),
            row,
            dimension,
        }),
    }
}

/// Dimension and rows of a `.fvecs`, `.bvecs` or `.ivecs` file; leaves it at
/// its beginning.
pub(crate) fn vecs_shape(
    path: &Path,
    file: &mut File,
    length: u64,
    value_bytes: usize,
) -> Result<(usize, u64), VectorsError> {
    let mut first = [0_u8; 4];
    file.read_exact(&mut first)
        .map_err(|_| VectorsError::Truncated {
            path: path.to_owned(),
            rows: 1,
            expected: 4,
            found: length,
        })?;
    let dimension = check_dimension(path, 0, i64::from(i32::from_le_bytes(first)))?;
    let stride = (4 + dimension * value_bytes) as u64;
    if !length.is_multiple_of(stride) {
        return Err(why_uneven(path, file, length, dimension, value_bytes));
    }
    file.rewind().map_err(VectorsError::io(path))?;
    Ok((dimension, length / stride))
}

/// The file is no whole number of equal rows: is a row of another dimension
/// to blame, or a missing end?
fn why_uneven(
    path: &Path,
    file: &mut File,
    length: u64,
    dimension: usize,
    value_bytes: usize,
) -> VectorsError {
    let stride = (4 + dimension * value_bytes) as u64;
    let mut bytes = [0_u8; 4];
    for row in 0..length / stride + 1 {
        if length - row * stride < 4 {
            break;
        }
        if let Err(source) = file
            .seek(SeekFrom::Start(row * stride))
            .and_then(|_| file.read_exact(&mut bytes))
        {
            return VectorsError::io(path)(source);
        }
        let found = i64::from(i32::from_le_bytes(bytes));
        if found != dimension as i64 {
            return VectorsError::Ragged {
                path: path.to_owned(),
                row,
                found,
                expected: dimension,
            };
        }
    }
    let rows = length.div_ceil(stride);
    VectorsError::Truncated {
        path: path.to_owned(),
        rows,
        expected: rows * stride,
        found: length,
    }
}

/// Dimension and rows of a `.fbin` or `.u8bin` file; leaves it at the first
/// value.
fn bin_shape(
    path: &Path,
    file: &mut File,
    length: u64,
    value_bytes: usize,
) -> Result<(usize, u64), VectorsError> {
    let mut header = [0_u8; 8];
    file.read_exact(&mut header)
        .map_err(|_| VectorsError::Truncated {
            path: path.to_owned(),
            rows: 0,
            expected: 8,
            found: length,
        })?;
    let [r0, r1, r2, r3, d0, d1, d2, d3] = header;
    let rows = u64::from(u32::from_le_bytes([r0, r1, r2, r3]));
    let dimension = u64::from(u32::from_le_bytes([d0, d1, d2, d3]));
    let dimension = declared_shape(path, [rows, dimension], 8, length, value_bytes)?;
    Ok((dimension, rows))
}

/// Checks a declared shape against the length of the file; the dimension.
pub(crate) fn declared_shape(
    path: &Path,
    [rows, dimension]: [u64; 2],
    offset: u64,
    length: u64,
    value_bytes: usize,
) -> Result<usize, VectorsError> {
    if rows == 0 {
        return Err(VectorsError::Empty {
            path: path.to_owned(),
        });
    }
    let dimension = check_dimension(path, 0, i64::try_from(dimension).unwrap_or(i64::MAX))?;
    let row_bytes = (dimension * value_bytes) as u64;
    let expected = rows
        .checked_mul(row_bytes)
        .and_then(|b| b.checked_add(offset))
        .unwrap_or(u64::MAX);
    if length < expected {
        return Err(VectorsError::Truncated {
            path: path.to_owned(),
            rows,
            expected,
            found: length,
        });
    }
    if length > expected {
        return Err(VectorsError::Trailing {
            path: path.to_owned(),
            rows,
            extra: length - expected,
        });
    }
    Ok(dimension)
}
