//! Writers. `encode_*` writes to anything; `write_*` writes a file under a
//! temporary name beside `path` and renames it, so that a killed process
//! leaves no half-written result under the wanted name.

use crate::{Matrix, VectorsError, npy};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes `rows` as `.fvecs`.
///
/// # Errors
/// If `writer` refuses.
pub fn encode_fvecs(writer: &mut impl Write, rows: &Matrix<f32>) -> io::Result<()> {
    encode_vecs(writer, rows, |v| v.to_le_bytes())
}

/// Writes `rows` as `.ivecs`.
///
/// # Errors
/// If `writer` refuses.
pub fn encode_ivecs(writer: &mut impl Write, rows: &Matrix<i32>) -> io::Result<()> {
    encode_vecs(writer, rows, |v| v.to_le_bytes())
}

/// Writes `rows` as `.npy` of type `<f4`.
///
/// # Errors
/// If `writer` refuses.
pub fn encode_npy_f32(writer: &mut impl Write, rows: &Matrix<f32>) -> io::Result<()> {
    writer.write_all(&npy::header("<f4", rows.rows(), rows.dimension()))?;
    rows.data()
        .iter()
        .try_for_each(|v| writer.write_all(&v.to_le_bytes()))
}

/// Writes `rows` as `.npy` of type `<i8`.
///
/// # Errors
/// If `writer` refuses.
pub fn encode_npy_i64(writer: &mut impl Write, rows: &Matrix<i64>) -> io::Result<()> {
    writer.write_all(&npy::header("<i8", rows.rows(), rows.dimension()))?;
    rows.data()
        .iter()
        .try_for_each(|v| writer.write_all(&v.to_le_bytes()))
}

/// Writes `rows` to the `.fvecs` file `path`, replacing it whole.
///
/// # Errors
/// If the file cannot be written; `path` is then as before.
pub fn write_fvecs(path: impl AsRef<Path>, rows: &Matrix<f32>) -> Result<(), VectorsError> {
    replace(path.as_ref(), |w| encode_fvecs(w, rows))
}

/// Writes `rows` to the `.ivecs` file `path`, replacing it whole.
///
/// # Errors
/// If the file cannot be written; `path` is then as before.
pub fn write_ivecs(path: impl AsRef<Path>, rows: &Matrix<i32>) -> Result<(), VectorsError> {
    replace(path.as_ref(), |w| encode_ivecs(w, rows))
}

/// Writes `rows` to the `.npy` file `path`, replacing it whole.
///
/// # Errors
/// If the file cannot be written; `path` is then as before.
pub fn write_npy_f32(path: impl AsRef<Path>, rows: &Matrix<f32>) -> Result<(), VectorsError> {
    replace(path.as_ref(), |w| encode_npy_f32(w, rows))
}

/// Writes `rows` to the `.npy` file `path`, replacing it whole.
///
/// # Errors
/// If the file cannot be written; `path` is then as before.
pub fn write_npy_i64(path: impl AsRef<Path>, rows: &Matrix<i64>) -> Result<(), VectorsError> {
    replace(path.as_ref(), |w| encode_npy_i64(w, rows))
}

fn encode_vecs<T: Copy>(
    writer: &mut impl Write,
    rows: &Matrix<T>,
    bytes_of: impl Fn(T) -> [u8; 4],
) -> io::Result<()> {
    let dimension = i32::try_from(rows.dimension())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "dimension too large"))?;
    for row in rows {
        writer.write_all(&dimension.to_le_bytes())?;
        for &value in row {
            writer.write_all(&bytes_of(value))?;
        }
    }
    Ok(())
}

fn replace(
    path: &Path,
    encode: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), VectorsError> {
    let Some(name) = path.file_name() else {
        return Err(VectorsError::UnknownFormat {
            path: path.to_owned(),
        });
    };
    let mut partial = OsString::from(".");
    partial.push(name);
    partial.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(partial);
    let result = (|| {
        let mut writer = BufWriter::with_capacity(1 << 18, File::create(&partial)?);
        encode(&mut writer)?;
        writer
            .into_inner()
            .map_err(|e| e.into_error())?
            .sync_all()?;
        std::fs::rename(&partial, path)
    })();
    result.map_err(|source| {
        let _ = std::fs::remove_file(&partial);
        VectorsError::io(path)(source)
    })
}
