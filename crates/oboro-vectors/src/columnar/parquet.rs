//! Parquet files, one row group after the other.

use super::columns::Columns;
use super::{Batches, batch_rows, library, pages};
use crate::{Limits, RecordOptions, VectorsError};
use arrow_array::RecordBatch;
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Compression;
use parquet::file::metadata::RowGroupMetaData;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) struct Reader {
    path: PathBuf,
    file: File,
    length: u64,
    metadata: ArrowReaderMetadata,
    used: Vec<usize>,
    /// The column of vectors in the file, and their dimension if its type
    /// says it.
    vectors: usize,
    dimension: Option<usize>,
    rows: u64,
    limits: Limits,
    group: usize,
    current: Option<ParquetRecordBatchReader>,
}

impl Reader {
    pub(super) fn open(
        path: &Path,
        options: &RecordOptions,
    ) -> Result<(Columns, Self), VectorsError> {
        let file = File::open(path).map_err(VectorsError::io(path))?;
        let length = file.metadata().map_err(VectorsError::io(path))?.len();
        if length == 0 {
            return Err(VectorsError::Empty {
                path: path.to_owned(),
            });
        }
        let metadata = library(path, || {
            ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())
        })?;
        let columns = Columns::choose(path, metadata.schema(), options)?;
        // As views, text and bytes of a dictionary are not copied row by row,
        // which a small hostile file could make gigabytes of.
        let schema = Arc::new(with_views(metadata.schema()));
        let metadata = library(path, || {
            let options = ArrowReaderOptions::new().with_schema(schema);
            ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)
        })?;
        let rows = metadata
            .metadata()
            .row_groups()
            .iter()
            .try_fold(0_u64, |rows, group| {
                rows.checked_add(u64::try_from(group.num_rows()).ok()?)
            })
            .ok_or_else(|| VectorsError::Columnar {
                path: path.to_owned(),
                reason: "declares a number of rows that cannot be; write it again".to_owned(),
            })?;
        let reader = Self {
            path: path.to_owned(),
            file,
            length,
            metadata,
            used: columns.used(),
            vectors: columns.vectors,
            dimension: columns.fixed_dimension(),
            rows,
            limits: options.limits,
            group: 0,
            current: None,
        };
        Ok((columns.projected(), reader))
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Opens row group `index`, whose pages are looked at first.
    fn open_group(&self, index: usize) -> Result<ParquetRecordBatchReader, VectorsError> {
        let group = self.metadata.metadata().row_group(index);
        let descriptor = group.schema_descr();
        for (leaf, chunk) in group.columns().iter().enumerate() {
            let column = descriptor.get_column_root_idx(leaf);
            if !self.used.contains(&column) {
                continue;
            }
            check_codec(
                &self.path,
                chunk.column_path().string(),
                chunk.compression(),
            )?;
            let place = pages::Place {
                path: &self.path,
                file: &self.file,
                length: self.length,
            };
            place.check(chunk, group.num_rows(), &self.limits)?;
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.file
                .try_clone()
                .map_err(VectorsError::io(&self.path))?,
            self.metadata.clone(),
        );
        let mask = ProjectionMask::roots(builder.parquet_schema(), self.used.iter().copied());
        let rows = batch_rows(self.dimension.unwrap_or_else(|| self.mean_dimension(group)));
        library(&self.path, || {
            builder
                .with_projection(mask)
                .with_row_groups(vec![index])
                .with_batch_size(rows)
                .build()
        })
    }

    /// Values a row in the column of vectors of `group`, on the average.
    fn mean_dimension(&self, group: &RowGroupMetaData) -> usize {
        let descriptor = group.schema_descr();
        let values = group
            .columns()
            .iter()
            .enumerate()
            .find(|&(leaf, _)| descriptor.get_column_root_idx(leaf) == self.vectors)
            .map_or(0, |(_, chunk)| chunk.num_values());
        usize::try_from(values / group.num_rows().max(1)).unwrap_or(1)
    }
}

impl Batches for Reader {
    fn next(&mut self) -> Result<Option<RecordBatch>, VectorsError> {
        loop {
            if let Some(current) = &mut self.current {
                let batch = library(&self.path, || current.next().transpose())?;
                match batch.filter(|batch| batch.num_rows() > 0) {
                    Some(batch) => return Ok(Some(batch)),
                    None => self.current = None,
                }
            }
            if self.group == self.metadata.metadata().num_row_groups() {
                return Ok(None);
            }
            self.current = Some(self.open_group(self.group)?);
            self.group += 1;
        }
    }

    fn rewind(&mut self) -> Result<(), VectorsError> {
        self.group = 0;
        self.current = None;
        Ok(())
    }
}

/// The schema with top-level text and bytes as views.
fn with_views(schema: &Schema) -> Schema {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| {
            let field = field.as_ref().clone();
            match field.data_type() {
                DataType::Utf8 | DataType::LargeUtf8 => field.with_data_type(DataType::Utf8View),
                DataType::Binary | DataType::LargeBinary => {
                    field.with_data_type(DataType::BinaryView)
                }
                _ => field,
            }
        })
        .collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn check_codec(path: &Path, column: String, codec: Compression) -> Result<(), VectorsError> {
    match codec {
        Compression::UNCOMPRESSED
        | Compression::SNAPPY
        | Compression::GZIP(_)
        | Compression::LZ4
        | Compression::LZ4_RAW => Ok(()),
        other => {
            let column: String = column.chars().take(64).collect();
            Err(VectorsError::Columnar {
                path: path.to_owned(),
                reason: format!(
                    "column {column:?} is compressed with {other}, which is not read; write it again with SNAPPY, GZIP, LZ4 or no compression"
                ),
            })
        }
    }
}
