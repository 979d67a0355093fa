//! Files of vectors and ids as arguments, `-` for standard input.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use oboro_vectors::{Matrix, VectorReader};
use tempfile::TempDir;

use crate::failure::{Failure, Named, Outcome};

/// The formats that `--format` takes.
const FORMATS: [&str; 5] = ["fvecs", "bvecs", "npy", "fbin", "u8bin"];

/// A file of vectors; standard input is copied to a private temporary file,
/// since an index is built in two passes.
pub(crate) struct Input {
    path: PathBuf,
    shown: String,
    // Removed with everything in it when the input is dropped.
    _copy: Option<TempDir>,
}

impl Input {
    pub(crate) fn open(path: &Path, format: Option<&str>) -> Outcome<Self> {
        if let Some(format) = format.filter(|format| !FORMATS.contains(format)) {
            return Err(Failure::usage(format_args!(
                "the format \"{format}\" is none of {}",
                FORMATS.join(", ")
            )));
        }
        let standard_input = path == Path::new("-");
        if !standard_input && format.is_none() {
            return Ok(Self {
                path: path.to_owned(),
                shown: path.display().to_string(),
                _copy: None,
            });
        }
        // The readers go by the extension, so the vectors get one.
        let folder = tempfile::tempdir().named("make", "a temporary folder")?;
        let copy = folder
            .path()
            .join(format!("vectors.{}", format.unwrap_or("fvecs")));
        if standard_input {
            let mut file = std::fs::File::create_new(&copy).named("make", copy.display())?;
            std::io::copy(&mut std::io::stdin().lock(), &mut file)
                .named("copy", "standard input to a temporary file")?;
        } else {
            let target = path.canonicalize().named("read", path.display())?;
            std::os::unix::fs::symlink(target, &copy).named("make", copy.display())?;
        }
        Ok(Self {
            path: copy,
            shown: if standard_input {
                "standard input".to_owned()
            } else {
                path.display().to_string()
            },
            _copy: Some(folder),
        })
    }

    /// A reader of the vectors.
    pub(crate) fn reader(&self) -> Outcome<VectorReader> {
        VectorReader::open(&self.path).map_err(|error| self.failure(error))
    }

    /// All vectors.
    pub(crate) fn read(&self) -> Outcome<Matrix<f32>> {
        oboro_vectors::read_f32(&self.path).map_err(|error| self.failure(error))
    }

    /// A failure that names the input as the user did.
    pub(crate) fn failure(&self, error: impl std::fmt::Display) -> Failure {
        let text = error.to_string();
        Failure::input(text.replace(&self.path.display().to_string(), &self.shown))
    }
}

/// Ids from a text file, one whole number a line, or from `.npy`.
pub(crate) fn ids(path: &Path) -> Outcome<Vec<u64>> {
    if path.extension().is_some_and(|extension| extension == "npy") {
        let rows = oboro_vectors::read_ids(path).map_err(Failure::input)?;
        return rows
            .data()
            .iter()
            .enumerate()
            .map(|(row, &id)| {
                u64::try_from(id).map_err(|_| {
                    Failure::input(format_args!(
                        "{}: id {} is negative; ids are whole numbers from 0",
                        path.display(),
                        row
                    ))
                })
            })
            .collect();
    }
    let reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).named("read", path.display())?)
    };
    let mut ids = Vec::new();
    for (number, line) in BufReader::new(reader).lines().enumerate() {
        let line = line.named("read", path.display())?;
        let text = line.trim();
        if text.is_empty() {
            continue;
        }
        ids.push(text.parse().map_err(|_| {
            Failure::input(format_args!(
                "{}: line {} is no whole number from 0 to 2^64 - 1",
                path.display(),
                number + 1
            ))
        })?);
    }
    Ok(ids)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_one_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ids.txt");
        std::fs::write(&path, "3\n 18446744073709551615 \n\n7\n").unwrap();
        assert_eq!(ids(&path).unwrap(), [3, u64::MAX, 7]);
        std::fs::write(&path, "3\n-1\n").unwrap();
        assert!(
            ids(&path)
                .unwrap_err()
                .message
                .ends_with("line 2 is no whole number from 0 to 2^64 - 1")
        );
    }

    #[test]
    fn a_format_may_be_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vectors");
        std::fs::write(&path, [2, 0, 0, 0, 0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
        let input = Input::open(&path, Some("fvecs")).unwrap();
        assert_eq!(input.read().unwrap().data(), [1.0, 2.0]);
        assert!(Input::open(&path, Some("csv")).is_err());
        let wrong = Input::open(&path, Some("npy")).unwrap();
        let message = wrong.reader().err().unwrap().message;
        assert!(
            message.starts_with(&path.display().to_string()),
            "{message}"
        );
    }
}
