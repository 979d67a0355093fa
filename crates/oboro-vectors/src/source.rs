//! One way to read records out of every kind of file.

#[cfg(feature = "columnar")]
use crate::columnar::ColumnarRows;
use crate::id_file::{Id, IdFile};
use crate::plain::PlainRows;
use crate::{Format, IdKind, Ids, Records, Refusal, VectorsError};
use std::path::{Path, PathBuf};

/// Which column of a Parquet or Arrow file holds something.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Column {
    /// For vectors the one column of lists of numbers; otherwise the column
    /// named `id`, `tags` or `payload`, if there is one.
    #[default]
    Auto,
    /// The column of this name.
    Named(String),
    /// None, whatever the columns are called.
    Unused,
}

/// How much of a Parquet or Arrow file is read at once; a file that declares
/// more is refused before memory is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one batch of an Arrow file, or of one page of a Parquet file,
    /// after decompression.
    pub bytes: u64,
    /// Values of one page of a Parquet file, missing ones included.
    pub page_values: u64,
    /// Values of a column in one row group of a Parquet file.
    pub group_values: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: 1 << 30,
            page_values: 1 << 26,
            group_values: 1 << 32,
        }
    }
}

/// How to read a file of records.
#[derive(Debug, Clone, Default)]
pub struct RecordOptions {
    /// The kind of file; told by the extension if `None`.
    pub format: Option<Format>,
    /// The dimension that vectors must have; that of the first vector if
    /// `None`.
    pub dimension: Option<usize>,
    /// A file of ids (`.npy` or `.ivecs` of one id a row, or text of one id a
    /// line), used instead of a column.
    pub id_file: Option<PathBuf>,
    /// Take ids as text even where all are numbers.
    pub text_ids: bool,
    /// The column of vectors. It cannot be [`Column::Unused`].
    pub vectors: Column,
    /// The column of ids: whole numbers or text.
    pub ids: Column,
    /// The column of tags: text, or lists of text.
    pub tags: Column,
    /// The column of payloads: bytes or text.
    pub payloads: Column,
    /// How much is read at once.
    pub limits: Limits,
}

/// A file of records, read some at a time and as often as wanted.
///
/// A row that is no record (a vector of another dimension, NaN, no id) is
/// told in [`Records::refused`] and reading goes on. Only where a file cannot
/// be followed any further does reading end with an error.
///
/// Memory is that of the records asked for, and of one batch or page of the
/// file; numbers from a file of ids take eight bytes each.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use oboro_vectors::{Ids, RecordOptions, RecordSource, Why};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("base.fvecs");
/// # let mut bytes = Vec::new();
/// # for row in [&[1.0_f32, 2.0][..], &[f32::NAN, 0.0], &[3.0, 4.0]] {
/// #     bytes.extend((row.len() as i32).to_le_bytes());
/// #     row.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
/// # }
/// # std::fs::write(&path, bytes)?;
/// # std::fs::write(folder.path().join("ids.txt"), "ant\nbee\ncow\n")?;
/// let options = RecordOptions {
///     id_file: Some(folder.path().join("ids.txt")),
///     ..RecordOptions::default()
/// };
/// let mut source = RecordSource::open(&path, &options)?;
/// while let Some(records) = source.read(1_000)? {
///     assert_eq!(records.vectors, [1.0, 2.0, 3.0, 4.0]);
///     assert_eq!(records.ids, Ids::Text(vec!["ant".into(), "cow".into()]));
///     assert_eq!(records.refused[0].row, 1);
///     assert_eq!(records.refused[0].why, Why::NotFinite);
/// }
/// source.rewind()?;
/// # Ok(())
/// # }
/// ```
pub struct RecordSource {
    path: PathBuf,
    input: Input,
    id_file: Option<IdFile>,
    /// Ids taken from the file of ids.
    ids_read: u64,
}

enum Input {
    Plain(Box<PlainRows>),
    #[cfg(feature = "columnar")]
    Columnar(Box<ColumnarRows>),
}

impl RecordSource {
    /// Opens `path`.
    ///
    /// # Errors
    /// If the file cannot be read, is empty, ends early, has no vectors of
    /// the wanted dimension, or its columns do not tell what is what; if a
    /// file of ids cannot be read or does not hold one id for each row.
    pub fn open(path: impl AsRef<Path>, options: &RecordOptions) -> Result<Self, VectorsError> {
        let path = path.as_ref();
        let format = match options.format {
            Some(format) => format,
            None => Format::of(path)?,
        };
        let mut input = match format {
            #[cfg(feature = "columnar")]
            Format::Parquet | Format::Arrow => {
                Input::Columnar(Box::new(ColumnarRows::open(path, format, options)?))
            }
            #[cfg(not(feature = "columnar"))]
            Format::Parquet | Format::Arrow => {
                return Err(VectorsError::Columns {
                    path: path.to_owned(),
                    reason: "this build reads neither Parquet nor Arrow; build it with the feature \"columnar\" or convert the file to .npy".to_owned(),
                });
            }
            _ => Input::Plain(Box::new(PlainRows::open(path, format, options.dimension)?)),
        };
        let id_file = options
            .id_file
            .as_deref()
            .map(|ids| IdFile::open(ids, options.text_ids))
            .transpose()?;
        if let Some(ids) = &id_file
            && ids.count() != input.rows()
            && ids.count() != input.count()?
        {
            return Err(VectorsError::IdCount {
                path: ids.path().to_owned(),
                ids: ids.count(),
                rows: input.rows(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            input,
            id_file,
            ids_read: 0,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Values of a vector.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.input.dimension()
    }

    /// The number of rows, refused ones included. Exact, save for an `.fvecs`
    /// or `.bvecs` file with rows of another dimension whose length happens
    /// to be a whole number of rows of the first.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.input.rows()
    }

    /// Which ids the records have.
    #[must_use]
    pub fn id_kind(&self) -> IdKind {
        match &self.id_file {
            Some(ids) => ids.kind(),
            None => self.input.id_kind(),
        }
    }

    /// Whether records have tags.
    #[must_use]
    pub fn has_tags(&self) -> bool {
        match &self.input {
            Input::Plain(_) => false,
            #[cfg(feature = "columnar")]
            Input::Columnar(rows) => rows.has_tags(),
        }
    }

    /// Whether records have payloads.
    #[must_use]
    pub fn has_payloads(&self) -> bool {
        match &self.input {
            Input::Plain(_) => false,
            #[cfg(feature = "columnar")]
            Input::Columnar(rows) => rows.has_payloads(),
        }
    }

    /// The tags met so far, in the order of their first appearance; at most
    /// [`MAX_TAG_NAMES`](crate::MAX_TAG_NAMES). [`rewind`](Self::rewind)
    /// keeps them.
    #[must_use]
    pub fn tag_names(&self) -> &[String] {
        match &self.input {
            Input::Plain(_) => &[],
            #[cfg(feature = "columnar")]
            Input::Columnar(rows) => rows.tag_names(),
        }
    }

    /// The records among the next rows, at most `most` rows; `None` at the
    /// end. All of these rows may be refused: the records are then empty.
    ///
    /// # Errors
    /// If the file cannot be read or followed any further.
    pub fn read(&mut self, most: usize) -> Result<Option<Records>, VectorsError> {
        let ids = match self.id_kind() {
            IdKind::Rows => Ids::Rows,
            IdKind::Numbers => Ids::Numbers(Vec::new()),
            IdKind::Text => Ids::Text(Vec::new()),
        };
        let mut records = Records::new(self.dimension(), ids);
        let read = match &mut self.input {
            Input::Plain(rows) => rows.read(most, &mut records)?,
            #[cfg(feature = "columnar")]
            Input::Columnar(rows) => rows.read(most, &mut records)?,
        };
        if self.id_file.is_some() {
            self.add_ids(read, &mut records)?;
        }
        Ok((read > 0).then_some(records))
    }

    /// Takes an id for each of the `read` rows that `records` came from.
    fn add_ids(&mut self, read: usize, records: &mut Records) -> Result<(), VectorsError> {
        let Some(file) = &mut self.id_file else {
            return Ok(());
        };
        let rows = std::mem::take(&mut records.rows);
        let mut wrong = Vec::new();
        let (mut kept, mut next) = (Vec::with_capacity(rows.len()), rows.iter().peekable());
        for row in self.ids_read..self.ids_read + read as u64 {
            let Some(id) = file.next()? else {
                return Err(VectorsError::IdCount {
                    path: file.path().to_owned(),
                    ids: row,
                    rows: row + 1,
                });
            };
            if next.next_if(|&&wanted| wanted == row).is_none() {
                continue; // refused already
            }
            match (id, &mut records.ids) {
                (Ok(Id::Number(id)), Ids::Numbers(ids)) => ids.push(id),
                (Ok(Id::Text(id)), Ids::Text(ids)) => ids.push(id),
                (Err(why), _) => {
                    wrong.push(Refusal { row, why });
                    kept.push(false);
                    continue;
                }
                // A file of ids holds one kind.
                _ => unreachable!("{:?}", file.kind()),
            }
            kept.push(true);
        }
        self.ids_read += read as u64;
        records.rows = rows;
        if !wrong.is_empty() {
            records.retain(&kept);
            records.refused.extend(wrong);
            records.refused.sort_by_key(|refusal| refusal.row);
        }
        if read == 0 && file.next()?.is_some() {
            return Err(VectorsError::IdCount {
                path: file.path().to_owned(),
                ids: file.count(),
                rows: self.ids_read,
            });
        }
        Ok(())
    }

    /// Goes back to the first row, for another pass.
    ///
    /// # Errors
    /// If the file cannot be positioned.
    pub fn rewind(&mut self) -> Result<(), VectorsError> {
        self.ids_read = 0;
        if let Some(ids) = &mut self.id_file {
            ids.rewind()?;
        }
        match &mut self.input {
            Input::Plain(rows) => rows.rewind(),
            #[cfg(feature = "columnar")]
            Input::Columnar(rows) => rows.rewind(),
        }
    }

    /// The error for a refused row, where every row must be a record.
    #[must_use]
    pub fn error(&self, refusal: &Refusal) -> VectorsError {
        VectorsError::Refused {
            path: self.path.clone(),
            row: refusal.row,
            why: refusal.why.clone(),
        }
    }
}

impl Input {
    fn dimension(&self) -> usize {
        match self {
            Self::Plain(rows) => rows.dimension(),
            #[cfg(feature = "columnar")]
            Self::Columnar(rows) => rows.dimension(),
        }
    }

    fn rows(&self) -> u64 {
        match self {
            Self::Plain(rows) => rows.rows(),
            #[cfg(feature = "columnar")]
            Self::Columnar(rows) => rows.rows(),
        }
    }

    fn id_kind(&self) -> IdKind {
        match self {
            Self::Plain(_) => IdKind::Rows,
            #[cfg(feature = "columnar")]
            Self::Columnar(rows) => rows.id_kind(),
        }
    }

    fn count(&mut self) -> Result<u64, VectorsError> {
        match self {
            Self::Plain(rows) => rows.count(),
            #[cfg(feature = "columnar")]
            Self::Columnar(rows) => Ok(rows.rows()),
        }
    }
}
