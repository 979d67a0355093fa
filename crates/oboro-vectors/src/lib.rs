//! Reading and writing files of vectors.
//!
//! | extension | layout (little-endian) | values |
//! |---|---|---|
//! | `.fvecs` | per row: `i32` dimension, then that many `f32` | `f32` |
//! | `.bvecs` | per row: `i32` dimension, then that many bytes | `u8` |
//! | `.ivecs` | per row: `i32` dimension, then that many `i32` | ids |
//! | `.npy` | NumPy 1.0 to 3.0, C order, two-dimensional | `f2 f4 f8 u1` or `i4 i8 u4 u8` ids |
//! | `.fbin` | `u32` rows, `u32` dimension, then the values | `f32` |
//! | `.u8bin` | `u32` rows, `u32` dimension, then the values | `u8` |
//! | `.parquet` | columns; Snappy, GZIP, LZ4 or no compression | lists of `f16 f32 f64 i8 u8` |
//! | `.arrow`, `.feather` (2), `.arrows` | Arrow's files and streams; LZ4 or no compression | likewise |
//!
//! [`RecordSource`] reads all of them (but `.ivecs`) as records: vectors with
//! ids, and from Parquet and Arrow with tags and payloads. It refuses bad rows
//! one by one. [`VectorReader`] and [`read_f32`] read vectors only and stop at
//! the first bad row.
//!
//! Every reader hands out finite `f32` values, row after row. Files that
//! cannot be right (truncated, empty, of dimension zero) are refused with one
//! sentence that names the file and the row, and never repeats a value.
//!
//! Parquet and Arrow come with the feature `columnar`, which is on unless
//! `default-features = false`. Their libraries panic on some damaged files;
//! this is caught and told as an error, unless the program is built with
//! `panic = "abort"`.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("base.fvecs");
//! let base = oboro_vectors::Matrix::new(3, vec![0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0])?;
//! oboro_vectors::write_fvecs(&path, &base)?;
//! let again = oboro_vectors::read_f32(&path)?;
//! assert_eq!(again.rows(), 2);
//! assert_eq!(again.row(1), &[3.0, 4.0, 5.0]);
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "columnar")]
mod columnar;
mod error;
mod format;
mod id_file;
mod ids;
mod matrix;
mod npy;
mod plain;
mod reader;
mod records;
mod source;
mod write;

pub use error::VectorsError;
pub use format::Format;
pub use id_file::number_of_id;
pub use ids::{read_ids, read_ivecs};
pub use matrix::Matrix;
pub use reader::{MAX_DIMENSION, VectorReader, read_f32};
pub use records::{
    IdKind, Ids, MAX_PAYLOAD, MAX_TAG_NAME, MAX_TAG_NAMES, MAX_TEXT_ID, Records, Refusal, Why,
};
pub use source::{Column, Limits, RecordOptions, RecordSource};
pub use write::{
    encode_fvecs, encode_ivecs, encode_npy_f32, encode_npy_i64, write_fvecs, write_ivecs,
    write_npy_f32, write_npy_i64,
};
