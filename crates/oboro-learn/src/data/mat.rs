//! A reader of MATLAB 5 files, as far as Cars-196's annotations need it:
//! little-endian, structure arrays, cells, numbers and text.

use flate2::read::ZlibDecoder;
use std::io::Read;

/// Most bytes of a file once unpacked; the annotations have 12 million.
const MAX_BYTES: u64 = 64 << 20;

/// Arrays within arrays that are followed.
const MAX_DEPTH: usize = 8;

/// An array of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Numbers(Vec<f64>),
    Text(String),
    Cells(Vec<Value>),
    /// The names of the fields, and the values of element after element.
    Structures {
        fields: Vec<String>,
        values: Vec<Value>,
    },
    /// Of a class that we have no use for.
    Other,
}

impl Value {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Numbers(values) => values.first().copied(),
            _ => None,
        }
    }
}

/// The named arrays of a file; what is wrong with it otherwise.
pub(super) fn parse(file: &[u8]) -> Result<Vec<(String, Value)>, String> {
    let body = file.get(128..).ok_or("it is shorter than a header")?;
    if &file[126..128] != b"IM" {
        return Err("it is not a little-endian MATLAB 5 file".to_owned());
    }
    let mut arrays = Vec::new();
    let mut budget = MAX_BYTES;
    let mut rest = Bytes(body);
    while !rest.0.is_empty() {
        let (kind, data) = rest.element(false)?;
        match kind {
            MATRIX => arrays.push(matrix(data, 0)?),
            COMPRESSED => {
                let mut unpacked = Vec::new();
                ZlibDecoder::new(data)
                    .take(budget + 1)
                    .read_to_end(&mut unpacked)
                    .map_err(|e| format!("an array does not unpack ({e})"))?;
                budget = budget
                    .checked_sub(unpacked.len() as u64)
                    .ok_or_else(|| format!("it unpacks to more than {MAX_BYTES} bytes"))?;
                let (kind, data) = Bytes(&unpacked).element(true)?;
                if kind == MATRIX {
                    arrays.push(matrix(data, 0)?);
                }
            }
            _ => {}
        }
    }
    Ok(arrays)
}

const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or("an element is cut short")?;
        self.0 = rest;
        Ok(taken)
    }

    fn word(&mut self) -> Result<u32, String> {
        let mut word = [0; 4];
        word.copy_from_slice(self.take(4)?);
        Ok(u32::from_le_bytes(word))
    }

    /// The type and data of the next element; with `padded`, what follows
    /// begins at a multiple of eight bytes.
    fn element(&mut self, padded: bool) -> Result<(u32, &'a [u8]), String> {
        let first = self.word()?;
        // Up to four bytes may sit in the tag itself.
        let small = first >> 16;
        if small != 0 {
            if small > 4 {
                return Err("a short element claims more than 4 bytes".to_owned());
            }
            return Ok((first & 0xffff, &self.take(4)?[..small as usize]));
        }
        let length = self.word()? as usize;
        let data = self.take(length)?;
        if padded {
            // The last element of a file may lack its padding.
            let padding = (length.next_multiple_of(8) - length).min(self.0.len());
            self.take(padding)?;
        }
        Ok((first, data))
    }
}

fn matrix(data: &[u8], depth: usize) -> Result<(String, Value), String> {
    if depth > MAX_DEPTH {
        return Err(format!("arrays are nested deeper than {MAX_DEPTH}"));
    }
    let mut rest = Bytes(data);
    if data.is_empty() {
        // How an empty element of a cell is written.
        return Ok((String::new(), Value::Numbers(Vec::new())));
    }
    let (_, flags) = rest.element(true)?;
    let class = *flags.first().ok_or("an array has no class")?;
    let (kind, sizes) = rest.element(true)?;
    let mut count = 1usize;
    for size in numbers(kind, sizes)? {
        count = count.saturating_mul(size.max(0.0) as usize);
    }
    let (_, name) = rest.element(true)?;
    let name = String::from_utf8_lossy(name).into_owned();
    let value = match class {
        1 => Value::Cells(elements(&mut rest, count, depth)?),
        2 => {
            let (kind, width) = rest.element(true)?;
            let width = numbers(kind, width)?.first().map_or(0, |&w| w as usize);
            let (_, names) = rest.element(true)?;
            if width == 0 || names.len() % width != 0 {
                return Err("the names of a structure's fields are cut short".to_owned());
            }
            let fields: Vec<String> = names
                .chunks(width)
                .map(|name| {
                    let end = name.iter().position(|&b| b == 0).unwrap_or(width);
                    String::from_utf8_lossy(&name[..end]).into_owned()
                })
                .collect();
            let values = elements(&mut rest, count.saturating_mul(fields.len()), depth)?;
            Value::Structures { fields, values }
        }
        4 => {
            let (kind, text) = rest.element(true)?;
            let units = numbers(kind, text)?;
            let text = units
                .iter()
                .map(|&u| char::from_u32(u as u32).unwrap_or(char::REPLACEMENT_CHARACTER));
            Value::Text(text.collect())
        }
        6..=15 => {
            let (kind, values) = rest.element(true)?;
            Value::Numbers(numbers(kind, values)?)
        }
        _ => Value::Other,
    };
    Ok((name, value))
}

fn elements(rest: &mut Bytes<'_>, count: usize, depth: usize) -> Result<Vec<Value>, String> {
    // Each takes eight bytes at least, so a claim cannot ask for more memory
    // than the file's length allows.
    if count > rest.0.len() / 8 {
        return Err("an array claims more elements than the file holds".to_owned());
    }
    (0..count)
        .map(|_| match rest.element(true)? {
            (MATRIX, data) => Ok(matrix(data, depth + 1)?.1),
            (kind, _) => Err(format!(
                "an element of type {kind} stands where an array is due"
            )),
        })
        .collect()
}

fn numbers(kind: u32, data: &[u8]) -> Result<Vec<f64>, String> {
    fn each<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.as_chunks()
            .0
            .iter()
            .map(|&bytes| read(bytes))
            .collect()
    }
    Ok(match kind {
        1 => each(data, |b| f64::from(i8::from_le_bytes(b))),
        2 | 16 => each(data, |[b]| f64::from(b)),
        3 => each(data, |b| f64::from(i16::from_le_bytes(b))),
        4 | 17 => each(data, |b| f64::from(u16::from_le_bytes(b))),
        5 => each(data, |b| f64::from(i32::from_le_bytes(b))),
        6 | 18 => each(data, |b| f64::from(u32::from_le_bytes(b))),
        7 => each(data, |b| f64::from(f32::from_le_bytes(b))),
        9 => each(data, f64::from_le_bytes),
        12 => each(data, |b| i64::from_le_bytes(b) as f64),
        13 => each(data, |b| u64::from_le_bytes(b) as f64),
        other => return Err(format!("numbers of type {other} are unknown")),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FILE: &[u8] = include_bytes!("../../tests/fixtures/cars_annos_small.mat");

    #[test]
    fn a_file_of_scipy_is_read() {
        let arrays = parse(FILE).unwrap();
        let (_, annotations) = arrays.iter().find(|(n, _)| n == "annotations").unwrap();
        let Value::Structures { fields, values } = annotations else {
            panic!("{annotations:?}");
        };
        assert_eq!(fields[0], "relative_im_path");
        assert_eq!(values[0].text(), Some("car_ims/000001.jpg"));
        let class = fields.iter().position(|f| f == "class").unwrap();
        assert_eq!(values[class].number(), Some(1.0));
        let (_, names) = arrays.iter().find(|(n, _)| n == "class_names").unwrap();
        let Value::Cells(names) = names else {
            panic!("{names:?}");
        };
        assert_eq!(names.len(), 196);
        assert_eq!(names[1].text(), Some("Make 2 Sedan 2012"));
    }

    #[test]
    fn fail_truncated_and_flipped() {
        for length in 0..FILE.len() {
            // Arrays end where the file does: those before may be whole.
            if let Ok(arrays) = parse(&FILE[..length]) {
                assert!(arrays.len() < 2, "{length}");
            }
        }
        for at in 0..FILE.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut file = FILE.to_vec();
                file[at] ^= mask;
                // Any answer, but no panic and no endless allocation.
                let _ = parse(&file);
            }
        }
    }

    #[test]
    fn fail_truncated_and_flipped_when_not_compressed() {
        let mut plain = FILE[..128].to_vec();
        let mut rest = Bytes(&FILE[128..]);
        while !rest.0.is_empty() {
            let (kind, data) = rest.element(false).unwrap();
            assert_eq!(kind, COMPRESSED);
            ZlibDecoder::new(data).read_to_end(&mut plain).unwrap();
        }
        assert_eq!(parse(&plain), parse(FILE));
        for length in 0..plain.len() {
            if let Ok(arrays) = parse(&plain[..length]) {
                assert!(arrays.len() < 2, "{length}");
            }
        }
        // Each byte of the first structures, some of the many names.
        for at in (0..2000).chain((2000..plain.len()).step_by(11)) {
            for mask in [0x01, 0x80, 0xff] {
                let mut file = plain.clone();
                file[at] ^= mask;
                let _ = parse(&file);
            }
        }
    }
}
