//! The header of NumPy's `.npy` files, versions 1.0 to 3.0.

use crate::VectorsError;
use std::io::Read;
use std::path::Path;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// NumPy's headers are about a hundred bytes; nothing honest needs more.
const MAX_HEADER: usize = 65_536;

/// What a `.npy` header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The element type, as `<f4`.
    pub(crate) descr: String,
    /// Rows and dimension.
    pub(crate) shape: [u64; 2],
    /// Where the values begin.
    pub(crate) data_offset: u64,
}

/// Reads the header from the beginning of `file`.
pub(crate) fn read_header(path: &Path, file: &mut impl Read) -> Result<Header, VectorsError> {
    let mut prefix = [0_u8; 8];
    file.read_exact(&mut prefix)
        .map_err(|_| VectorsError::npy(path, "is too short for a .npy file; copy it again"))?;
    if &prefix[..6] != MAGIC {
        return Err(VectorsError::npy(
            path,
            "does not begin as a .npy file does; write it with numpy.save",
        ));
    }
    let short = |_| VectorsError::npy(path, "ends inside its header; copy the file again");
    let (length, prefix_length) = match prefix[6] {
        1 => {
            let mut bytes = [0_u8; 2];
            file.read_exact(&mut bytes).map_err(short)?;
            (usize::from(u16::from_le_bytes(bytes)), 10)
        }
        2 | 3 => {
            let mut bytes = [0_u8; 4];
            file.read_exact(&mut bytes).map_err(short)?;
            (u32::from_le_bytes(bytes) as usize, 12)
        }
        other => {
            return Err(VectorsError::npy(
                path,
                format!("has .npy version {other}; versions 1 to 3 can be read"),
            ));
        }
    };
    if length > MAX_HEADER {
        return Err(VectorsError::npy(
            path,
            format!("declares a header of {length} bytes; at most {MAX_HEADER} are accepted"),
        ));
    }
    let mut text = vec![0_u8; length];
    file.read_exact(&mut text).map_err(short)?;
    let text = std::str::from_utf8(&text)
        .map_err(|_| VectorsError::npy(path, "has a header that is not text; copy it again"))?;
    let (descr, shape) = parse(path, text)?;
    Ok(Header {
        descr,
        shape,
        data_offset: (prefix_length + length) as u64,
    })
}

fn parse(path: &Path, text: &str) -> Result<(String, [u64; 2]), VectorsError> {
    let value_of = |key: &str| -> Option<&str> {
        let at = text
            .find(&format!("'{key}'"))
            .or_else(|| text.find(&format!("\"{key}\"")))?;
        let rest = &text[at + key.len() + 2..];
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let damaged = || VectorsError::npy(path, "has a damaged header; write it with numpy.save");

    let descr = value_of("descr").ok_or_else(damaged)?;
    let quote = descr.chars().next().ok_or_else(damaged)?;
    if quote != '\'' && quote != '"' {
        return Err(VectorsError::npy(
            path,
            "holds records of several fields; save one plain two-dimensional array",
        ));
    }
    let descr = descr[1..].split(quote).next().ok_or_else(damaged)?;

    if value_of("fortran_order")
        .ok_or_else(damaged)?
        .starts_with("True")
    {
        return Err(VectorsError::npy(
            path,
            "is stored column by column; save numpy.ascontiguousarray of it",
        ));
    }

    let shape = value_of("shape")
        .and_then(|s| s.strip_prefix('('))
        .and_then(|s| s.split(')').next())
        .ok_or_else(damaged)?;
    let mut sizes = Vec::new();
    for part in shape.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        sizes.push(part.parse::<u64>().map_err(|_| damaged())?);
    }
    let shape = <[u64; 2]>::try_from(sizes).map_err(|sizes| {
        VectorsError::npy(
            path,
            format!(
                "has {} axes where 2 (rows, dimension) are needed; use numpy.reshape",
                sizes.len()
            ),
        )
    })?;
    Ok((descr.to_owned(), shape))
}

/// A version 1.0 header for an array of `rows` x `dimension`, padded so that
/// the values begin at a multiple of 64.
pub(crate) fn header(descr: &str, rows: usize, dimension: usize) -> Vec<u8> {
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {dimension}), }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let length = u16::try_from(text.len()).expect("the header is about a hundred bytes");
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
