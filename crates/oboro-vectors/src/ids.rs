//! Files of ids: neighbours, ground truth.

use crate::reader::{declared_shape, vecs_shape};
use crate::{Format, Matrix, VectorsError, npy};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The rows of an `.ivecs` file.
///
/// # Errors
/// If the file cannot be read, is empty, truncated or ragged.
pub fn read_ivecs(path: impl AsRef<Path>) -> Result<Matrix<i32>, VectorsError> {
    let path = path.as_ref();
    if Format::of(path)? != Format::Ivecs {
        return Err(not_ids(path));
    }
    let (mut file, length) = open(path)?;
    let (dimension, rows) = vecs_shape(path, &mut file, length, 4)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)
        .map_err(VectorsError::io(path))?;
    let mut data = Vec::with_capacity(bytes.len() / 4);
    for (row, values) in (0..rows).zip(bytes.chunks_exact(4 + 4 * dimension)) {
        let mut values = values
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&b| i32::from_le_bytes(b));
        let found = values.next().map_or(0, i64::from);
        if found != dimension as i64 {
            return Err(VectorsError::Ragged {
                path: path.to_owned(),
                row,
                found,
                expected: dimension,
            });
        }
        data.extend(values);
    }
    Matrix::new(dimension, data)
}

/// The rows of ids in an `.ivecs` file, or in a `.npy` file of `i4`, `i8`,
/// `u4` or `u8`. Negative ids (search libraries mark a missing neighbour with
/// -1) are kept.
///
/// # Errors
/// As [`read_ivecs`], and for `u8` values that an `i64` cannot hold.
pub fn read_ids(path: impl AsRef<Path>) -> Result<Matrix<i64>, VectorsError> {
    let path = path.as_ref();
    match Format::of(path)? {
        Format::Ivecs => {
            let ids = read_ivecs(path)?;
            let dimension = ids.dimension();
            Matrix::new(
                dimension,
                ids.into_data().into_iter().map(i64::from).collect(),
            )
        }
        Format::Npy => {
            let (mut file, length) = open(path)?;
            let header = npy::read_header(path, &mut file)?;
            let value_bytes = match header.descr.as_str() {
                "<i4" | "<u4" => 4,
                "<i8" | "<u8" => 8,
                other => {
                    return Err(VectorsError::npy(
                        path,
                        format!(
                            "holds values of type {other:?} where ids (i4, i8, u4 or u8) are expected"
                        ),
                    ));
                }
            };
            let dimension =
                declared_shape(path, header.shape, header.data_offset, length, value_bytes)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)
                .map_err(VectorsError::io(path))?;
            let (words, longs) = (bytes.as_chunks::<4>().0, bytes.as_chunks::<8>().0);
            let data = match header.descr.as_str() {
                "<i4" => words
                    .iter()
                    .map(|&b| i32::from_le_bytes(b).into())
                    .collect(),
                "<u4" => words
                    .iter()
                    .map(|&b| u32::from_le_bytes(b).into())
                    .collect(),
                "<i8" => longs.iter().map(|&b| i64::from_le_bytes(b)).collect(),
                _ => longs
                    .iter()
                    .map(|&b| i64::try_from(u64::from_le_bytes(b)))
                    .collect::<Result<_, _>>()
                    .map_err(|_| {
                        VectorsError::npy(path, "holds an id above 9223372036854775807")
                    })?,
            };
            Matrix::new(dimension, data)
        }
        _ => Err(not_ids(path)),
    }
}

fn not_ids(path: &Path) -> VectorsError {
    VectorsError::WrongContent {
        path: path.to_owned(),
        found: "vectors".into(),
        expected: "ids (.ivecs or .npy)",
    }
}

fn open(path: &Path) -> Result<(File, u64), VectorsError> {
    let file = File::open(path).map_err(VectorsError::io(path))?;
    let length = file.metadata().map_err(VectorsError::io(path))?.len();
    if length == 0 {
        return Err(VectorsError::Empty {
            path: path.to_owned(),
        });
    }
    Ok((file, length))
}
