//! Which column holds what.

use super::is_value;
use crate::{Column, IdKind, RecordOptions, VectorsError};
use arrow_schema::{DataType, Schema};
use std::path::Path;

/// The places of the chosen columns, first in the schema and then, by
/// [`Columns::projected`], in batches that hold these columns only.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    pub(super) vectors: usize,
    pub(super) ids: Option<usize>,
    pub(super) tags: Option<usize>,
    pub(super) payloads: Option<usize>,
    vector_type: DataType,
    id_type: Option<DataType>,
}

impl Columns {
    pub(super) fn choose(
        path: &Path,
        schema: &Schema,
        options: &RecordOptions,
    ) -> Result<Self, VectorsError> {
        let choose = Choose { path, schema };
        let vectors = choose.vectors(&options.vectors)?;
        // A file of ids goes before any column.
        let unused = Column::Unused;
        let ids = match &options.id_file {
            Some(_) => &unused,
            None => &options.ids,
        };
        let ids = choose.other(ids, "id", is_id, "whole numbers or text")?;
        let tags = choose.other(&options.tags, "tags", is_tags, "text or lists of text")?;
        let payloads = choose.other(&options.payloads, "payload", is_payload, "bytes or text")?;
        Ok(Self {
            vectors,
            ids,
            tags,
            payloads,
            vector_type: schema.field(vectors).data_type().clone(),
            id_type: ids.map(|column| schema.field(column).data_type().clone()),
        })
    }

    /// The chosen columns, ascending, each once.
    pub(super) fn used(&self) -> Vec<usize> {
        let mut used: Vec<usize> = [Some(self.vectors), self.ids, self.tags, self.payloads]
            .into_iter()
            .flatten()
            .collect();
        used.sort_unstable();
        used.dedup();
        used
    }

    /// The places of these columns among themselves.
    pub(super) fn projected(&self) -> Self {
        let used = self.used();
        let place = |column: usize| used.partition_point(|&other| other < column);
        Self {
            vectors: place(self.vectors),
            ids: self.ids.map(place),
            tags: self.tags.map(place),
            payloads: self.payloads.map(place),
            ..self.clone()
        }
    }

    /// The dimension, if the type of the vectors says it.
    pub(super) fn fixed_dimension(&self) -> Option<usize> {
        match self.vector_type {
            DataType::FixedSizeList(_, size) => Some(usize::try_from(size).unwrap_or(0)),
            _ => None,
        }
    }

    pub(super) fn id_kind(&self, text: bool) -> IdKind {
        match &self.id_type {
            None => IdKind::Rows,
            Some(kind) if kind.is_integer() && !text => IdKind::Numbers,
            Some(_) => IdKind::Text,
        }
    }
}

struct Choose<'a> {
    path: &'a Path,
    schema: &'a Schema,
}

impl Choose<'_> {
    fn vectors(&self, choice: &Column) -> Result<usize, VectorsError> {
        match choice {
            Column::Named(name) => self.named(name, is_vectors, "lists of numbers"),
            Column::Auto | Column::Unused => {
                let fields = self.schema.fields().iter().enumerate();
                let lists: Vec<usize> = fields
                    .filter(|(_, field)| is_vectors(field.data_type()))
                    .map(|(column, _)| column)
                    .collect();
                match lists[..] {
                    [column] => Ok(column),
                    [] => Err(self.wrong(format!(
                        "no column holds lists of float16, float32, float64, int8 or uint8; the columns are {}",
                        self.names(|_| true)
                    ))),
                    _ => Err(self.wrong(format!(
                        "the columns {} hold lists of numbers; name the one that holds the vectors",
                        self.names(is_vectors)
                    ))),
                }
            }
        }
    }

    fn other(
        &self,
        choice: &Column,
        usual: &str,
        fits: impl Fn(&DataType) -> bool,
        what: &str,
    ) -> Result<Option<usize>, VectorsError> {
        match choice {
            Column::Unused => Ok(None),
            Column::Named(name) => self.named(name, fits, what).map(Some),
            Column::Auto if self.schema.index_of(usual).is_err() => Ok(None),
            Column::Auto => self.named(usual, fits, what).map(Some),
        }
    }

    fn named(
        &self,
        name: &str,
        fits: impl Fn(&DataType) -> bool,
        what: &str,
    ) -> Result<usize, VectorsError> {
        let Ok(column) = self.schema.index_of(name) else {
            return Err(self.wrong(format!(
                "there is no column {name:?}; the columns are {}",
                self.names(|_| true)
            )));
        };
        let kind = self.schema.field(column).data_type();
        if fits(kind) {
            Ok(column)
        } else {
            Err(self.wrong(format!(
                "column {name:?} holds {} where {what} are expected; name another or say that none is used",
                shown(kind)
            )))
        }
    }

    fn wrong(&self, reason: String) -> VectorsError {
        VectorsError::Columns {
            path: self.path.to_owned(),
            reason,
        }
    }

    /// Names of columns for a message, the first few of them.
    fn names(&self, of: impl Fn(&DataType) -> bool) -> String {
        const MOST: usize = 12;
        let mut names: Vec<String> = self
            .schema
            .fields()
            .iter()
            .filter(|field| of(field.data_type()))
            .map(|field| format!("{:?}", clipped(field.name())))
            .collect();
        let more = names.len().saturating_sub(MOST);
        names.truncate(MOST);
        match (names.is_empty(), more) {
            (true, _) => "none".to_owned(),
            (_, 0) => names.join(", "),
            _ => format!("{} and {more} more", names.join(", ")),
        }
    }
}

fn clipped(name: &str) -> String {
    name.chars().take(64).collect()
}

/// A type for a message, clipped: types nest.
fn shown(kind: &DataType) -> String {
    clipped(&kind.to_string())
}

fn is_vectors(kind: &DataType) -> bool {
    match kind {
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => {
            is_value(item.data_type())
        }
        _ => false,
    }
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, value) => matches!(
            **value,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        ),
        _ => false,
    }
}

fn is_id(kind: &DataType) -> bool {
    kind.is_integer() || is_text(kind)
}

fn is_tags(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) => is_text(item.data_type()),
        _ => is_text(kind),
    }
}

fn is_payload(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
    )
}
