//! Where found neighbours go: `.ivecs`, `.npy` or `.json`.

use std::io::Write;
use std::path::{Path, PathBuf};

use oboro_vectors::Matrix;
use serde::Serialize;

use crate::failure::{Failure, Named, Outcome};

/// One neighbour as JSON has it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Found {
    /// The number; for a vector with a text id, one that stands for it.
    pub(crate) id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    /// In Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<String>,
    pub(crate) distance: f32,
}

/// The form of a result file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Ivecs,
    Npy,
    Json,
}

/// A result file that can be written: checked before the search, so that no
/// search is lost to a wrong name.
pub(crate) struct ResultFile {
    path: PathBuf,
    form: Form,
}

impl ResultFile {
    /// `None` for standard output.
    pub(crate) fn check(path: &Path, force: bool) -> Outcome<Option<Self>> {
        if path == Path::new("-") {
            return Ok(None);
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        let form = match extension {
            Some("ivecs") => Form::Ivecs,
            Some("npy") => Form::Npy,
            Some("json") => Form::Json,
            _ => {
                return Err(Failure::usage(format_args!(
                    "{} names no known kind of result; end it in .ivecs, .npy or .json, or write - for standard output",
                    path.display()
                )));
            }
        };
        if path.exists() && !force {
            return Err(exists(path));
        }
        if !folder_of(path).is_dir() {
            return Err(Failure::input(format_args!(
                "there is no folder {}; make it first, and the results go into it",
                folder_of(path).display()
            )));
        }
        Ok(Some(Self {
            path: path.to_owned(),
            form,
        }))
    }

    /// Writes all results; the file appears when it is complete.
    pub(crate) fn write(&self, found: &[Vec<Found>]) -> Outcome<()> {
        write_whole(&self.path, |file| match self.form {
            Form::Json => {
                serde_json::to_writer(&mut *file, found).map_err(std::io::Error::from)?;
                file.write_all(b"\n")
            }
            Form::Ivecs => {
                let rows = ids(found, |id| i32::try_from(id).ok())?;
                oboro_vectors::encode_ivecs(file, &rows)
            }
            Form::Npy => {
                let rows = ids(found, |id| i64::try_from(id).ok())?;
                oboro_vectors::encode_npy_i64(file, &rows)
            }
        })
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::refused(format_args!(
        "{} exists already; choose another name or allow replacing it with --force",
        path.display()
    ))
}

fn ids<T>(found: &[Vec<Found>], convert: impl Fn(u64) -> Option<T>) -> std::io::Result<Matrix<T>> {
    let dimension = found.first().map_or(0, Vec::len);
    let mut values = Vec::with_capacity(found.len() * dimension);
    for neighbour in found.iter().flatten() {
        values.push(convert(neighbour.id).ok_or_else(|| {
            std::io::Error::other("an id is too large for this kind of file; write .json")
        })?);
    }
    Matrix::new(dimension, values).map_err(std::io::Error::other)
}

/// Writes a file under a temporary name and renames it when it is complete.
pub(crate) fn write_whole(
    path: &Path,
    content: impl FnOnce(&mut std::io::BufWriter<&mut std::fs::File>) -> std::io::Result<()>,
) -> Outcome<()> {
    let folder = folder_of(path);
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".oboro-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(folder)?;
        let mut writer = std::io::BufWriter::new(file.as_file_mut());
        content(&mut writer)?;
        writer.flush()?;
        drop(writer);
        file.persist(path)?;
        Ok(())
    };
    write().named("write", path.display())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found() -> Vec<Vec<Found>> {
        let one = |id| Found {
            id,
            text: None,
            payload: None,
            distance: 0.5,
        };
        let row = |ids: [u64; 2]| ids.map(one).to_vec();
        vec![row([1, 2]), row([3, 4])]
    }

    #[test]
    fn every_form_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["r.ivecs", "r.npy"] {
            let path = folder.path().join(name);
            ResultFile::check(&path, false)
                .unwrap()
                .unwrap()
                .write(&found())
                .unwrap();
            assert_eq!(oboro_vectors::read_ids(&path).unwrap().data(), [1, 2, 3, 4]);
            assert!(ResultFile::check(&path, false).is_err());
            assert!(ResultFile::check(&path, true).is_ok());
        }
        let path = folder.path().join("r.json");
        ResultFile::check(&path, false)
            .unwrap()
            .unwrap()
            .write(&found())
            .unwrap();
        let value: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(value[1][0]["id"], 3);
        assert!(ResultFile::check(Path::new("-"), false).unwrap().is_none());
    }

    #[test]
    fn fail_names_and_ids() {
        assert!(ResultFile::check(Path::new("r.txt"), false).is_err());
        let folder = tempfile::tempdir().unwrap();
        // Before the search, not after it.
        let nowhere = folder.path().join("nowhere/r.json");
        let refused = ResultFile::check(&nowhere, false).err().unwrap().message;
        assert!(refused.contains("make it first"), "{refused}");
        let path = folder.path().join("r.ivecs");
        let large = vec![vec![Found {
            id: 1 << 40,
            text: None,
            payload: None,
            distance: 0.0,
        }]];
        assert!(
            ResultFile::check(&path, false)
                .unwrap()
                .unwrap()
                .write(&large)
                .is_err()
        );
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }
}
