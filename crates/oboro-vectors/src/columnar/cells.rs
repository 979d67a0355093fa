//! The cells of one column of a batch, row by row.

use crate::{Ids, MAX_PAYLOAD, MAX_TEXT_ID, Why};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BinaryViewArray, LargeBinaryArray, LargeStringArray,
    PrimitiveArray, StringArray, StringViewArray,
};
use arrow_schema::DataType;
use std::ops::Range;

/// Lists: which rows are missing and where in the items a row lies.
struct Lists<'a> {
    list: &'a ArrayRef,
    ranges: Ranges<'a>,
}

enum Ranges<'a> {
    Fixed(usize),
    Small(&'a [i32]),
    Large(&'a [i64]),
}

impl<'a> Lists<'a> {
    fn of(list: &'a ArrayRef) -> Option<(Self, &'a ArrayRef)> {
        let (ranges, items) = match list.data_type() {
            DataType::FixedSizeList(_, _) => {
                let array = list.as_fixed_size_list_opt()?;
                let size = usize::try_from(array.value_length()).ok()?;
                (Ranges::Fixed(size), array.values())
            }
            DataType::List(_) => {
                let array = list.as_list_opt::<i32>()?;
                (Ranges::Small(array.value_offsets()), array.values())
            }
            DataType::LargeList(_) => {
                let array = list.as_list_opt::<i64>()?;
                (Ranges::Large(array.value_offsets()), array.values())
            }
            _ => return None,
        };
        Some((Self { list, ranges }, items))
    }

    /// The items of row `row`; `None` if the row is missing.
    fn range(&self, row: usize) -> Option<Range<usize>> {
        if self.list.is_null(row) {
            return None;
        }
        // Offsets ascend from zero on; the library checked it.
        Some(match self.ranges {
            Ranges::Fixed(size) => row * size..(row + 1) * size,
            Ranges::Small(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
            Ranges::Large(offsets) => offsets[row] as usize..offsets[row + 1] as usize,
        })
    }
}

/// A column of vectors.
pub(super) struct VectorCells<'a> {
    lists: Lists<'a>,
    values: Values<'a>,
    items: &'a ArrayRef,
}

enum Values<'a> {
    F16(&'a PrimitiveArray<Float16Type>),
    F32(&'a PrimitiveArray<Float32Type>),
    F64(&'a PrimitiveArray<Float64Type>),
    U8(&'a PrimitiveArray<UInt8Type>),
    I8(&'a PrimitiveArray<Int8Type>),
}

impl<'a> VectorCells<'a> {
    pub(super) fn of(column: &'a ArrayRef) -> Option<Self> {
        let (lists, items) = Lists::of(column)?;
        let values = match items.data_type() {
            DataType::Float16 => Values::F16(items.as_primitive_opt()?),
            DataType::Float32 => Values::F32(items.as_primitive_opt()?),
            DataType::Float64 => Values::F64(items.as_primitive_opt()?),
            DataType::UInt8 => Values::U8(items.as_primitive_opt()?),
            DataType::Int8 => Values::I8(items.as_primitive_opt()?),
            _ => return None,
        };
        Some(Self {
            lists,
            values,
            items,
        })
    }

    /// How many values row `row` has; `None` if it is missing.
    pub(super) fn length(&self, row: usize) -> Option<usize> {
        self.lists.range(row).map(|range| range.len())
    }

    /// Appends the values of row `row`.
    pub(super) fn append(
        &self,
        row: usize,
        dimension: usize,
        out: &mut Vec<f32>,
    ) -> Result<(), Why> {
        let range = self.lists.range(row).ok_or(Why::NoVector)?;
        if range.len() != dimension {
            return Err(Why::Dimension {
                found: range.len(),
                expected: dimension,
            });
        }
        if let Some(nulls) = self.items.nulls()
            && range.clone().any(|item| nulls.is_null(item))
        {
            return Err(Why::MissingValue);
        }
        match self.values {
            Values::F16(array) => out.extend(array.values()[range].iter().map(|v| v.to_f32())),
            Values::F32(array) => out.extend_from_slice(&array.values()[range]),
            Values::F64(array) => out.extend(array.values()[range].iter().map(|&v| v as f32)),
            Values::U8(array) => out.extend(array.values()[range].iter().map(|&v| f32::from(v))),
            Values::I8(array) => out.extend(array.values()[range].iter().map(|&v| f32::from(v))),
        }
        Ok(())
    }
}

/// A column of text, in whichever way it is stored.
enum Text<'a> {
    Small(&'a StringArray),
    Large(&'a LargeStringArray),
    View(&'a StringViewArray),
    /// The value of each row, and the values.
    Dictionary(&'a dyn Array, Vec<usize>, Box<Text<'a>>),
}

impl<'a> Text<'a> {
    fn of(column: &'a ArrayRef) -> Option<Self> {
        Some(match column.data_type() {
            DataType::Utf8 => Self::Small(column.as_string_opt()?),
            DataType::LargeUtf8 => Self::Large(column.as_string_opt()?),
            DataType::Utf8View => Self::View(column.as_string_view_opt()?),
            DataType::Dictionary(_, value) if !matches!(**value, DataType::Dictionary(_, _)) => {
                let dictionary = column.as_any_dictionary_opt()?;
                // Keys are brought into range by the size of the dictionary,
                // so there must be a value; without one all rows are missing.
                let keys = if dictionary.values().is_empty() {
                    Vec::new()
                } else {
                    dictionary.normalized_keys()
                };
                let values = Self::of(dictionary.values())?;
                Self::Dictionary(dictionary.keys(), keys, Box::new(values))
            }
            _ => return None,
        })
    }

    fn at(&self, row: usize) -> Option<&'a str> {
        match self {
            Self::Small(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Large(array) => array.is_valid(row).then(|| array.value(row)),
            Self::View(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Dictionary(column, keys, values) => {
                if column.is_null(row) {
                    return None;
                }
                values.at(*keys.get(row)?)
            }
        }
    }
}

/// A column of ids.
pub(super) enum IdCells<'a> {
    /// Signed or unsigned, as wide as may be.
    Numbers(&'a ArrayRef, Box<dyn Fn(usize) -> i128 + 'a>),
    /// Text.
    Text(IdText<'a>),
}

/// Text as ids.
pub(super) struct IdText<'a>(Text<'a>);

impl<'a> IdCells<'a> {
    pub(super) fn of(column: &'a ArrayRef) -> Option<Self> {
        macro_rules! numbers {
            ($kind:ty) => {{
                let array = column.as_primitive_opt::<$kind>()?;
                Box::new(move |row| i128::from(array.value(row)))
            }};
        }
        let numbers: Box<dyn Fn(usize) -> i128 + 'a> = match column.data_type() {
            DataType::Int8 => numbers!(Int8Type),
            DataType::Int16 => numbers!(Int16Type),
            DataType::Int32 => numbers!(Int32Type),
            DataType::Int64 => numbers!(Int64Type),
            DataType::UInt8 => numbers!(UInt8Type),
            DataType::UInt16 => numbers!(UInt16Type),
            DataType::UInt32 => numbers!(UInt32Type),
            DataType::UInt64 => numbers!(UInt64Type),
            _ => return Text::of(column).map(|text| Self::Text(IdText(text))),
        };
        Some(Self::Numbers(column, numbers))
    }

    /// Appends the id of row `row`; how many bytes it takes.
    pub(super) fn append(&self, row: usize, ids: &mut Ids) -> Result<usize, Why> {
        match (self, ids) {
            (Self::Numbers(column, number), ids) => {
                if column.is_null(row) {
                    return Err(Why::NoId);
                }
                let id = u64::try_from(number(row)).map_err(|_| Why::NegativeId)?;
                match ids {
                    Ids::Rows => {}
                    Ids::Numbers(ids) => ids.push(id),
                    Ids::Text(ids) => ids.push(id.to_string()),
                }
                Ok(8)
            }
            (Self::Text(IdText(text)), Ids::Text(ids)) => {
                let id = text.at(row).filter(|id| !id.is_empty()).ok_or(Why::NoId)?;
                if id.len() > MAX_TEXT_ID {
                    return Err(Why::LongId { bytes: id.len() });
                }
                ids.push(id.to_owned());
                Ok(id.len())
            }
            (Self::Text(_), _) => Err(Why::NoId),
        }
    }
}

/// A column of tags: one of text has one tag a row, one of lists several.
/// Missing and empty text is no tag.
pub(super) struct TagCells<'a> {
    lists: Option<Lists<'a>>,
    text: Text<'a>,
}

impl<'a> TagCells<'a> {
    pub(super) fn of(column: &'a ArrayRef) -> Option<Self> {
        let (lists, text) = match Lists::of(column) {
            Some((lists, items)) => (Some(lists), Text::of(items)?),
            None => (None, Text::of(column)?),
        };
        Some(Self { lists, text })
    }

    pub(super) fn at(&self, row: usize) -> impl Iterator<Item = &'a str> + '_ {
        let items = match &self.lists {
            Some(lists) => lists.range(row).unwrap_or(0..0),
            None => row..row + 1,
        };
        items
            .filter_map(|item| self.text.at(item))
            .filter(|tag| !tag.is_empty())
    }
}

/// A column of payloads.
pub(super) enum PayloadCells<'a> {
    Small(&'a BinaryArray),
    Large(&'a LargeBinaryArray),
    View(&'a BinaryViewArray),
    Text(PayloadText<'a>),
}

/// Text as payloads.
pub(super) struct PayloadText<'a>(Text<'a>);

impl<'a> PayloadCells<'a> {
    pub(super) fn of(column: &'a ArrayRef) -> Option<Self> {
        Some(match column.data_type() {
            DataType::Binary => Self::Small(column.as_binary_opt()?),
            DataType::LargeBinary => Self::Large(column.as_binary_opt()?),
            DataType::BinaryView => Self::View(column.as_binary_view_opt()?),
            _ => Self::Text(PayloadText(Text::of(column)?)),
        })
    }

    /// The payload of row `row`, empty if it is missing.
    pub(super) fn at(&self, row: usize) -> Result<&'a [u8], Why> {
        let payload = match self {
            Self::Small(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Large(array) => array.is_valid(row).then(|| array.value(row)),
            Self::View(array) => array.is_valid(row).then(|| array.value(row)),
            Self::Text(PayloadText(text)) => text.at(row).map(str::as_bytes),
        }
        .unwrap_or_default();
        if payload.len() > MAX_PAYLOAD {
            return Err(Why::LongPayload {
                bytes: payload.len(),
            });
        }
        Ok(payload)
    }
}
