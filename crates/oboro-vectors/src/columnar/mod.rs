//! Records out of Parquet files and Arrow files and streams: which column is
//! what, and rows out of batches of columns.

mod cells;
mod columns;
mod ipc;
mod pages;
mod parquet;

use crate::columnar::cells::{IdCells, PayloadCells, TagCells, VectorCells};
use crate::columnar::columns::Columns;
use crate::plain::finite;
use crate::reader::check_dimension;
use crate::{Format, IdKind, RecordOptions, Records, VectorsError, Why};
use arrow_array::RecordBatch;
use arrow_schema::DataType;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Values of vectors that are decoded at a time, where the file allows it.
const BATCH_VALUES: usize = 1 << 21;

/// Bytes of ids and payloads after which a chunk of records ends early.
const CHUNK_BYTES: usize = 64 << 20;

/// The record batches of a file, in order, with the chosen columns only, in
/// the order of the file.
trait Batches: Send {
    fn next(&mut self) -> Result<Option<RecordBatch>, VectorsError>;
    fn rewind(&mut self) -> Result<(), VectorsError>;
}

pub(crate) struct ColumnarRows {
    path: PathBuf,
    batches: Box<dyn Batches>,
    columns: Columns,
    id_kind: IdKind,
    dimension: usize,
    rows: u64,
    current: Option<RecordBatch>,
    /// Rows of `current` that are done with.
    done: usize,
    /// The number of the next row.
    row: u64,
    tags: TagNames,
}

impl ColumnarRows {
    pub(crate) fn open(
        path: &Path,
        format: Format,
        options: &RecordOptions,
    ) -> Result<Self, VectorsError> {
        let (columns, mut batches, rows): (_, Box<dyn Batches>, _) = match format {
            Format::Parquet => {
                let (columns, batches) = parquet::Reader::open(path, options)?;
                let rows = batches.rows();
                (columns, Box::new(batches), rows)
            }
            _ => {
                let (columns, batches) = ipc::Reader::open(path, options)?;
                let rows = batches.rows();
                (columns, Box::new(batches), rows)
            }
        };
        if rows == 0 {
            return Err(VectorsError::Empty {
                path: path.to_owned(),
            });
        }
        let stored = match columns.fixed_dimension() {
            Some(dimension) => dimension,
            None => first_dimension(path, batches.as_mut(), &columns)?,
        };
        let declared = i64::try_from(stored).unwrap_or(i64::MAX);
        let stored = check_dimension(path, 0, declared)?;
        let dimension = options.dimension.unwrap_or(stored);
        if columns.fixed_dimension().is_some() && dimension != stored {
            return Err(VectorsError::WrongDimension {
                path: path.to_owned(),
                found: stored,
                expected: dimension,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            id_kind: columns.id_kind(options.text_ids),
            batches,
            columns,
            dimension,
            rows,
            current: None,
            done: 0,
            row: 0,
            tags: TagNames::default(),
        })
    }

    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn id_kind(&self) -> IdKind {
        self.id_kind
    }

    pub(crate) fn has_tags(&self) -> bool {
        self.columns.tags.is_some()
    }

    pub(crate) fn has_payloads(&self) -> bool {
        self.columns.payloads.is_some()
    }

    pub(crate) fn tag_names(&self) -> &[String] {
        &self.tags.names
    }

    /// Reads at most `most` rows; how many, 0 at the end.
    pub(crate) fn read(&mut self, most: usize, out: &mut Records) -> Result<usize, VectorsError> {
        let (mut read, mut bytes) = (0, 0);
        while read < most && bytes < CHUNK_BYTES {
            let batch = match self.current.take() {
                Some(batch) => batch,
                None => match self.batches.next()? {
                    Some(batch) => batch,
                    None => break,
                },
            };
            let rows = batch.num_rows();
            let take = (rows - self.done).min(most - read);
            let to = self.done + take;
            let taken = self.read_rows(&batch, to, &mut bytes, out)?;
            read += taken;
            if self.done < rows {
                self.current = Some(batch);
            } else {
                self.done = 0;
            }
        }
        if read == 0 && most > 0 && self.row != self.rows {
            return Err(VectorsError::Columnar {
                path: self.path.clone(),
                reason: format!(
                    "declares {} rows but holds {}; write it again",
                    self.rows, self.row
                ),
            });
        }
        Ok(read)
    }

    /// Reads rows of `batch` up to `to`, or until `bytes` is enough.
    fn read_rows(
        &mut self,
        batch: &RecordBatch,
        to: usize,
        bytes: &mut usize,
        out: &mut Records,
    ) -> Result<usize, VectorsError> {
        let vectors = VectorCells::of(batch.column(self.columns.vectors));
        let ids = self.columns.ids.map(|i| IdCells::of(batch.column(i)));
        let tags = self.columns.tags.map(|i| TagCells::of(batch.column(i)));
        let payloads = self
            .columns
            .payloads
            .map(|i| PayloadCells::of(batch.column(i)));
        let (Some(vectors), true, true, true) = (
            vectors,
            !matches!(ids, Some(None)),
            !matches!(tags, Some(None)),
            !matches!(payloads, Some(None)),
        ) else {
            return Err(VectorsError::Columnar {
                path: self.path.clone(),
                reason: "holds columns of other types than its schema says; write it again".into(),
            });
        };
        let (ids, tags, payloads) = (ids.flatten(), tags.flatten(), payloads.flatten());
        let first = self.done;
        while self.done < to && *bytes < CHUNK_BYTES {
            let (at, row) = (self.done, self.row);
            self.done += 1;
            self.row += 1;
            let before = out.vectors.len();
            let result = vectors
                .append(at, self.dimension, &mut out.vectors)
                .and_then(|()| {
                    if finite(&out.vectors[before..]) {
                        Ok(())
                    } else {
                        Err(Why::NotFinite)
                    }
                })
                .and_then(|()| tags.as_ref().map(|tags| self.tags.of(tags, at)).transpose())
                .and_then(|tags| {
                    let payload = payloads.as_ref().map(|cells| cells.at(at)).transpose()?;
                    if let Some(ids) = &ids {
                        *bytes += ids.append(at, &mut out.ids)?;
                    }
                    Ok((tags, payload))
                });
            match result {
                Ok((tags, payload)) => {
                    out.rows.push(row);
                    out.tags.extend(tags);
                    *bytes += payload.map_or(0, <[u8]>::len);
                    out.payloads.extend(payload.map(<[u8]>::to_vec));
                }
                Err(why) => {
                    out.vectors.truncate(before);
                    out.refuse(row, why);
                }
            }
        }
        Ok(self.done - first)
    }

    pub(crate) fn rewind(&mut self) -> Result<(), VectorsError> {
        self.current = None;
        self.done = 0;
        self.row = 0;
        self.batches.rewind()
    }
}

/// The dimension of the first vector of a column of lists.
fn first_dimension(
    path: &Path,
    batches: &mut dyn Batches,
    columns: &Columns,
) -> Result<usize, VectorsError> {
    while let Some(batch) = batches.next()? {
        let vectors = VectorCells::of(batch.column(columns.vectors));
        let mut lengths = (0..batch.num_rows())
            .filter_map(|row| vectors.as_ref()?.length(row))
            .filter(|&length| length > 0);
        if let Some(dimension) = lengths.next() {
            batches.rewind()?;
            return Ok(dimension);
        }
    }
    Err(VectorsError::Empty {
        path: path.to_owned(),
    })
}

/// Tags by number, in the order of their first appearance.
#[derive(Default)]
struct TagNames {
    names: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl TagNames {
    /// The tags of row `row`, ascending, each once.
    fn of(&mut self, cells: &TagCells<'_>, row: usize) -> Result<Vec<u32>, Why> {
        let mut numbers = Vec::new();
        for name in cells.at(row) {
            let number = match self.numbers.get(name) {
                Some(&number) => number,
                None if name.len() > crate::MAX_TAG_NAME => {
                    return Err(Why::LongTag { bytes: name.len() });
                }
                None if self.names.len() == crate::MAX_TAG_NAMES => return Err(Why::TagNames),
                None => {
                    let number = self.names.len() as u32;
                    self.names.push(name.to_owned());
                    self.numbers.insert(name.to_owned(), number);
                    number
                }
            };
            numbers.push(number);
        }
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }
}

/// Calls the Parquet or Arrow library. What it says of a damaged file is told
/// in one sentence, and so is a panic of it.
fn library<T, E: std::fmt::Display>(
    path: &Path,
    call: impl FnOnce() -> Result<T, E>,
) -> Result<T, VectorsError> {
    let reason = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => {
            let text = error.to_string();
            let text: Vec<&str> = text.split_whitespace().collect();
            format!("cannot be decoded ({}); write it again", text.join(" "))
        }
        Err(_) => "is damaged in a way that its reader did not expect; write it again".to_owned(),
    };
    Err(VectorsError::Columnar {
        path: path.to_owned(),
        reason,
    })
}

/// Rows to decode at a time.
fn batch_rows(dimension: usize) -> usize {
    (BATCH_VALUES / dimension.max(1)).clamp(1, 8_192)
}

/// Whether values of this type can be those of a vector.
fn is_value(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Float16
            | DataType::Float32
            | DataType::Float64
            | DataType::UInt8
            | DataType::Int8
    )
}
