//! Arrow's files (`ARROW1`, also Feather of version 2) and streams.
//!
//! The library decodes one message at a time. What the messages declare (where
//! they lie, how long they and their buffers are, how large after
//! decompression) is checked here before memory is taken for it.

use super::columns::Columns;
use super::{Batches, library};
use crate::{Limits, RecordOptions, VectorsError};
use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::try_fb_to_schema;
use arrow_ipc::reader::FileDecoder;
use arrow_ipc::{Block, CompressionType, MessageHeader, MetadataVersion};
use arrow_schema::SchemaRef;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 6] = b"ARROW1";
/// The magic, the length of the footer, and the footer's end.
const TRAILER: u64 = 10;
const CONTINUATION: u32 = 0xffff_ffff;
/// Longest description of a message or of a whole file.
const MAX_DESCRIPTION: u64 = 64 << 20;

/// A message of the file.
#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    /// Bytes of its description, the length before it included.
    description: u64,
    /// Bytes of its body.
    body: u64,
    dictionary: bool,
}

pub(super) struct Reader {
    file: Input,
    schema: SchemaRef,
    version: MetadataVersion,
    used: Vec<usize>,
    places: Vec<Place>,
    rows: u64,
    limits: Limits,
    decoder: FileDecoder,
    next: usize,
    /// Bytes of the dictionaries read so far.
    dictionaries: u64,
}

impl Reader {
    pub(super) fn open(
        path: &Path,
        options: &RecordOptions,
    ) -> Result<(Columns, Self), VectorsError> {
        let mut file = Input::open(path)?;
        let mut magic = [0_u8; 6];
        let found = magic.len().min(usize::try_from(file.length).unwrap_or(6));
        file.read_at(0, &mut magic[..found])?;
        if magic.starts_with(b"FEA1") {
            return Err(file.damaged(
                "is a Feather file of version 1, which is not read; write it again as version 2",
            ));
        }
        let index = if &magic == MAGIC {
            file.index_of_file()?
        } else {
            file.index_of_stream()?
        };
        let columns = Columns::choose(path, &index.schema, options)?;
        let used = columns.used();
        let decoder =
            FileDecoder::new(index.schema.clone(), index.version).with_projection(used.clone());
        let reader = Self {
            file,
            schema: index.schema,
            version: index.version,
            used,
            places: index.places,
            rows: index.rows,
            limits: options.limits,
            decoder,
            next: 0,
            dictionaries: 0,
        };
        Ok((columns.projected(), reader))
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }
}

impl Batches for Reader {
    fn next(&mut self) -> Result<Option<RecordBatch>, VectorsError> {
        while let Some(&place) = self.places.get(self.next) {
            self.next += 1;
            let (buffer, bytes) = self.file.message(place, self.limits.bytes)?;
            // The sizes were bounded when the message was found.
            let block = Block::new(0, place.description as i32, place.body as i64);
            let path = &self.file.path;
            if place.dictionary {
                // Later dictionaries may be added to earlier ones.
                self.dictionaries += bytes;
                check_bytes(path, self.dictionaries, self.limits.bytes)?;
                let decoder = &mut self.decoder;
                library(path, || decoder.read_dictionary(&block, &buffer))?;
            } else {
                let decoder = &self.decoder;
                let batch = library(path, || decoder.read_record_batch(&block, &buffer))?;
                if let Some(batch) = batch.filter(|batch| batch.num_rows() > 0) {
                    return Ok(Some(batch));
                }
            }
        }
        Ok(None)
    }

    fn rewind(&mut self) -> Result<(), VectorsError> {
        self.next = 0;
        self.dictionaries = 0;
        self.decoder =
            FileDecoder::new(self.schema.clone(), self.version).with_projection(self.used.clone());
        Ok(())
    }
}

/// What a file holds and where.
struct Index {
    schema: SchemaRef,
    version: MetadataVersion,
    places: Vec<Place>,
    rows: u64,
}

/// The file, never read beyond its length.
struct Input {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Input {
    fn open(path: &Path) -> Result<Self, VectorsError> {
        let file = File::open(path).map_err(VectorsError::io(path))?;
        let length = file.metadata().map_err(VectorsError::io(path))?.len();
        if length == 0 {
            return Err(VectorsError::Empty {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
        })
    }

    fn damaged(&self, reason: impl Into<String>) -> VectorsError {
        VectorsError::Columnar {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    fn short(&self) -> VectorsError {
        self.damaged("ends early or is damaged; copy or write it again")
    }

    fn read_at(&mut self, offset: u64, out: &mut [u8]) -> Result<(), VectorsError> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(self.short());
        }
        self.file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| self.file.read_exact(out))
            .map_err(VectorsError::io(&self.path))
    }

    /// `length` bytes from `offset` on; the length is checked first.
    fn bytes_at(&mut self, offset: u64, length: u64) -> Result<Vec<u8>, VectorsError> {
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.length) {
            return Err(self.short());
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| self.short())?];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The description of a message, without the length before it.
    fn description(&mut self, place: Place) -> Result<Vec<u8>, VectorsError> {
        if place.description > MAX_DESCRIPTION {
            return Err(self.short());
        }
        let bytes = self.bytes_at(place.offset, place.description)?;
        let prefix = match bytes.first_chunk::<4>() {
            Some(&first) if u32::from_le_bytes(first) == CONTINUATION => 8,
            _ => 4,
        };
        bytes
            .get(prefix..)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| self.short())
    }

    /// Reads the footer of a file and the descriptions of its messages.
    fn index_of_file(&mut self) -> Result<Index, VectorsError> {
        let end = self
            .length
            .checked_sub(TRAILER)
            .ok_or_else(|| self.short())?;
        let mut trailer = [0_u8; 10];
        self.read_at(end, &mut trailer)?;
        let [a, b, c, d, magic @ ..] = trailer;
        if &magic != MAGIC {
            return Err(self.short());
        }
        let length = u64::from(u32::from_le_bytes([a, b, c, d]));
        let start = end.checked_sub(length).ok_or_else(|| self.short())?;
        if length > MAX_DESCRIPTION {
            return Err(self.short());
        }
        let bytes = self.bytes_at(start, length)?;
        let path = self.path.clone();
        let footer = library(&path, || arrow_ipc::root_as_footer(&bytes))?;
        let schema = footer.schema().ok_or_else(|| self.short())?;
        let schema = Arc::new(self.schema(schema)?);
        let (mut places, mut rows) = (Vec::new(), 0_u64);
        let blocks = [
            (footer.dictionaries(), true),
            (footer.recordBatches(), false),
        ];
        for (blocks, dictionary) in blocks {
            for block in blocks.into_iter().flatten() {
                let place = self.place(
                    block.offset(),
                    block.metaDataLength().into(),
                    block.bodyLength(),
                    dictionary,
                )?;
                if !dictionary {
                    let bytes = self.description(place)?;
                    rows = self.more_rows(rows, &bytes)?;
                }
                places.push(place);
            }
        }
        Ok(Index {
            schema,
            version: footer.version(),
            places,
            rows,
        })
    }

    /// Goes through the messages of a stream, whose bodies are not read.
    fn index_of_stream(&mut self) -> Result<Index, VectorsError> {
        let (mut found, mut places, mut rows) = (None, Vec::new(), 0_u64);
        let mut offset = 0;
        while offset < self.length {
            let mut word = [0_u8; 4];
            self.read_at(offset, &mut word)?;
            let (mut length, mut prefix) = (u32::from_le_bytes(word), 4);
            if length == CONTINUATION {
                self.read_at(offset + 4, &mut word)?;
                (length, prefix) = (u32::from_le_bytes(word), 8);
            }
            if length == 0 {
                break; // the stream's own end
            }
            let description = self.place(
                i64::try_from(offset).unwrap_or(i64::MAX),
                prefix + i64::from(length),
                0,
                false,
            )?;
            let bytes = self.description(description)?;
            let path = self.path.clone();
            let message = library(&path, || arrow_ipc::root_as_message(&bytes))?;
            let body = message.bodyLength();
            match message.header_type() {
                MessageHeader::Schema if found.is_none() => {
                    let schema = message.header_as_schema().ok_or_else(|| self.short())?;
                    let schema = Arc::new(self.schema(schema)?);
                    found = Some((schema, message.version()));
                }
                kind @ (MessageHeader::RecordBatch | MessageHeader::DictionaryBatch)
                    if found.is_some() =>
                {
                    let dictionary = kind == MessageHeader::DictionaryBatch;
                    if !dictionary {
                        rows = self.more_rows(rows, &bytes)?;
                    }
                    places.push(self.place(
                        description.offset as i64,
                        description.description as i64,
                        body,
                        dictionary,
                    )?);
                }
                _ => return Err(self.short()),
            }
            let body = u64::try_from(body).map_err(|_| self.short())?;
            offset = (offset + description.description)
                .checked_add(body)
                .ok_or_else(|| self.short())?;
        }
        let (schema, version) = found.ok_or_else(|| self.short())?;
        if offset > self.length {
            return Err(self.short());
        }
        Ok(Index {
            schema,
            version,
            places,
            rows,
        })
    }

    /// A message, checked to lie in the file.
    fn place(
        &self,
        offset: i64,
        description: i64,
        body: i64,
        dictionary: bool,
    ) -> Result<Place, VectorsError> {
        let number = |value: i64| u64::try_from(value).map_err(|_| self.short());
        let (offset, description, body) = (number(offset)?, number(description)?, number(body)?);
        let end = offset
            .checked_add(description)
            .and_then(|end| end.checked_add(body));
        if !(8..=MAX_DESCRIPTION).contains(&description) || end.is_none_or(|end| end > self.length)
        {
            return Err(self.short());
        }
        Ok(Place {
            offset,
            description,
            body,
            dictionary,
        })
    }

    fn schema(&self, schema: arrow_ipc::Schema<'_>) -> Result<arrow_schema::Schema, VectorsError> {
        if !schema.endianness().equals_to_target_endianness() {
            return Err(self.damaged("holds numbers of another byte order than this machine's; write it again on a machine like this"));
        }
        library(&self.path, || try_fb_to_schema(schema))
    }

    /// `rows` and those that the described batch declares.
    fn more_rows(&self, rows: u64, description: &[u8]) -> Result<u64, VectorsError> {
        let message = library(&self.path, || arrow_ipc::root_as_message(description))?;
        message
            .header_as_record_batch()
            .and_then(|batch| u64::try_from(batch.length()).ok())
            .filter(|&more| more <= u64::from(u32::MAX))
            .and_then(|more| rows.checked_add(more))
            .ok_or_else(|| self.short())
    }

    /// A message with its body, after its sizes have been checked; also the
    /// bytes of its buffers after decompression.
    fn message(&mut self, place: Place, limit: u64) -> Result<(Buffer, u64), VectorsError> {
        check_bytes(&self.path, place.body, limit)?;
        let bytes = self.bytes_at(place.offset, place.description + place.body)?;
        let description = self.description(place)?;
        let path = self.path.clone();
        let message = library(&path, || arrow_ipc::root_as_message(&description))?;
        let batch = if place.dictionary {
            message
                .header_as_dictionary_batch()
                .and_then(|dictionary| dictionary.data())
        } else {
            message.header_as_record_batch()
        };
        let batch = batch.ok_or_else(|| self.short())?;
        let body = &bytes[place.description as usize..];
        let mut total = 0_u64;
        let compressed = match batch.compression().map(|compression| compression.codec()) {
            None => false,
            Some(CompressionType::LZ4_FRAME) => true,
            Some(_) => return Err(self.damaged("is compressed with Zstandard, which is not read; write it again with LZ4 or without compression")),
        };
        for buffer in batch.buffers().into_iter().flatten() {
            let part = usize::try_from(buffer.offset())
                .ok()
                .zip(usize::try_from(buffer.length()).ok())
                .and_then(|(start, length)| body.get(start..start.checked_add(length)?))
                .ok_or_else(|| self.short())?;
            let size = match part.first_chunk::<8>() {
                // -1: stored as it is.
                Some(&size) if compressed => {
                    u64::try_from(i64::from_le_bytes(size)).unwrap_or(part.len() as u64)
                }
                None if compressed && !part.is_empty() => return Err(self.short()),
                _ => part.len() as u64,
            };
            total = total.saturating_add(size);
        }
        check_bytes(&self.path, total, limit)?;
        for node in batch.nodes().into_iter().flatten() {
            let possible = (0..=i64::from(i32::MAX)).contains(&node.length())
                && (0..=node.length()).contains(&node.null_count());
            if !possible {
                return Err(self.short());
            }
        }
        Ok((Buffer::from_vec(bytes), total))
    }
}

fn check_bytes(path: &Path, found: u64, limit: u64) -> Result<(), VectorsError> {
    if found <= limit {
        return Ok(());
    }
    Err(VectorsError::TooLarge {
        path: path.to_owned(),
        what: "a batch in bytes",
        found,
        limit,
        smaller: "batches, of 65,536 rows for example",
    })
}
