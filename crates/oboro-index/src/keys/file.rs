//! Files that hold keys.

use crate::IndexError;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// No key file is larger; a public key of the largest set takes 70 KB.
const MAX_BYTES: u64 = 1 << 20;

pub(crate) fn create_secret(path: &Path, remark: &str, text: &str) -> Result<(), IndexError> {
    create(path, remark, text, 0o600)
}

pub(crate) fn create_public(path: &Path, remark: &str, text: &str) -> Result<(), IndexError> {
    create(path, remark, text, 0o644)
}

/// The refusal to overwrite a key.
pub(crate) fn exists(path: &Path) -> IndexError {
    IndexError::KeyFile {
        path: path.to_owned(),
        reason: "exists already; a key is never overwritten, so choose another path".into(),
    }
}

fn create(path: &Path, remark: &str, text: &str, mode: u32) -> Result<(), IndexError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut file = options.open(path).map_err(|source| {
        if source.kind() == ErrorKind::AlreadyExists {
            exists(path)
        } else {
            IndexError::io(path)(source)
        }
    })?;
    let content = Zeroizing::new(format!("# {remark}\n{text}\n"));
    let written = file
        .write_all(content.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|source| {
        // Half a key must not look like one.
        let _ = std::fs::remove_file(path);
        IndexError::io(path)(source)
    })
}

pub(crate) fn read_secret(path: &Path) -> Result<Zeroizing<String>, IndexError> {
    let file = File::open(path).map_err(IndexError::io(path))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let mode = file.metadata().map_err(IndexError::io(path))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(IndexError::KeyMode {
                path: path.to_owned(),
                mode,
            });
        }
    }
    read(path, &file)
}

pub(crate) fn read_public(path: &Path) -> Result<Zeroizing<String>, IndexError> {
    let file = File::open(path).map_err(IndexError::io(path))?;
    read(path, &file)
}

fn read(path: &Path, file: &File) -> Result<Zeroizing<String>, IndexError> {
    let reason = |reason: &str| IndexError::KeyFile {
        path: path.to_owned(),
        reason: reason.into(),
    };
    // Reserved in one piece, so that no copy of the secret stays behind in
    // memory that growing gave back.
    let length = file.metadata().map_err(IndexError::io(path))?.len();
    if length > MAX_BYTES {
        return Err(reason("is too large for a key file"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(length as usize + 64));
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(IndexError::io(path))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(reason("is no text, so it is no key file")),
    }
}

/// Puts the path before an error about a key's text.
pub(crate) fn within(path: &Path) -> impl FnOnce(IndexError) -> IndexError {
    let path = path.to_owned();
    move |error| match error {
        IndexError::KeyText(reason) => IndexError::KeyFile { path, reason },
        other => other,
    }
}
