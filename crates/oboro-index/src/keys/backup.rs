//! Key folders as one text that can be printed, mailed to oneself or put into a
//! safe, and back.
//!
//! With a passphrase the text is an age file (version 1, armoured): `age
//! --decrypt` opens it as well. Without one it is
//!
//! ```text
//! # Oboro backup WITHOUT a passphrase. ...
//! -----BEGIN OBORO PLAIN BACKUP-----
//! Base64, 64 columns, of the files and the first 16 bytes of their BLAKE3 hash
//! -----END OBORO PLAIN BACKUP-----
//! ```
//!
//! Either holds the files one after the other, so that they can be taken out by
//! hand should this program be lost:
//!
//! ```text
//! OBORO-BACKUP-1
//! owner.key 137
//! (137 bytes, then an end of line)
//! authority.pem 241
//! (241 bytes, then an end of line)
//! end
//! ```
//!
//! # Security
//! Whoever opens a backup has every key in it. The passphrase is stretched by
//! scrypt with 2^18 rounds (256 MiB, about a second), which makes guessing dear
//! but a short passphrase no good one.

use super::{age, file, pem};
use crate::IndexError;
use rand_core::CryptoRng;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const LABEL: &str = "OBORO PLAIN BACKUP";
const WARNING: &str = "# Oboro backup WITHOUT a passphrase: whoever reads this text has every key in it.\n# Keep it where you would keep the keys themselves.\n";
const MAGIC: &[u8] = b"OBORO-BACKUP-1\n";
const END: &[u8] = b"end\n";
const CHECKSUM: usize = 16;
/// What errors call it.
const NAME: &str = "a backup";

/// Files of one backup.
pub const MAX_FILES: usize = 64;
/// Bytes of one backup's files and their names.
pub const MAX_BYTES: usize = 1 << 20;
/// A text is larger than its content by a third and its lines' ends.
const MAX_TEXT: usize = 2 * MAX_BYTES;
const MAX_NAME: usize = 100;

/// A file of a backup.
pub struct BackupFile {
    name: String,
    content: Zeroizing<Vec<u8>>,
}

impl BackupFile {
    /// A file to back up. Its name may have one folder before it, as in
    /// `owner/owner.key`.
    ///
    /// # Errors
    /// If the name is not made of letters, digits, `.`, `_` and `-`, begins
    /// with a point, or is longer than 100 characters.
    pub fn new(name: &str, content: Zeroizing<Vec<u8>>) -> Result<Self, IndexError> {
        if !is_name(name) {
            return Err(IndexError::Invalid(format!(
                "a file named {name:?} cannot be backed up; use letters, digits, points, lines and one folder at most"
            )));
        }
        Ok(Self {
            name: name.to_owned(),
            content,
        })
    }

    /// Every plain file in `folder`, by name, each with `prefix` (such as
    /// `owner/`, or nothing) before its name. Folders inside are left out.
    ///
    /// # Errors
    /// If a file cannot be read, is no plain file, is larger than a backup may
    /// be, or has a name that cannot be backed up.
    pub fn all_in(folder: impl AsRef<Path>, prefix: &str) -> Result<Vec<Self>, IndexError> {
        let folder = folder.as_ref();
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(IndexError::io(folder))? {
            let entry = entry.map_err(IndexError::io(folder))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(IndexError::io(&path))?;
            if kind.is_dir() {
                continue;
            }
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            files.push(Self::new(&name, read(&path, kind.is_file())?)?);
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its content.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.content
    }
}

fn read(path: &Path, plain: bool) -> Result<Zeroizing<Vec<u8>>, IndexError> {
    let refused = |reason: &str| IndexError::KeyFile {
        path: path.to_owned(),
        reason: reason.into(),
    };
    if !plain {
        return Err(refused("is no plain file, and a backup holds only those"));
    }
    let file = File::open(path).map_err(IndexError::io(path))?;
    let length = file.metadata().map_err(IndexError::io(path))?.len();
    if length > MAX_BYTES as u64 {
        return Err(refused("is larger than a backup may be; leave it out"));
    }
    let mut content = Zeroizing::new(Vec::with_capacity(length as usize + 1));
    file.take(MAX_BYTES as u64)
        .read_to_end(&mut content)
        .map_err(IndexError::io(path))?;
    Ok(content)
}

fn is_name(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    name.len() <= MAX_NAME
        && match name.split_once('/') {
            Some((folder, file)) => part(folder) && part(file),
            None => part(name),
        }
}

/// One text of all `files`, encrypted if there is a passphrase.
///
/// # Errors
/// If there are no files, too many, or two of one name, if they are too large,
/// or if the passphrase is empty.
pub fn backup_owner(
    files: &[BackupFile],
    passphrase: Option<&str>,
    rng: &mut impl CryptoRng,
) -> Result<Zeroizing<String>, IndexError> {
    seal(files, passphrase, age::WORK_FACTOR, rng)
}

fn seal(
    files: &[BackupFile],
    passphrase: Option<&str>,
    work_factor: u8,
    rng: &mut impl CryptoRng,
) -> Result<Zeroizing<String>, IndexError> {
    let mut content = pack(files)?;
    match passphrase {
        Some(passphrase) => {
            refuse_empty(passphrase)?;
            Ok(age::encrypt(&content, passphrase, work_factor, rng))
        }
        None => {
            let checksum = blake3::hash(&content);
            content.extend_from_slice(&checksum.as_bytes()[..CHECKSUM]);
            let text = pem::write(LABEL, &content);
            let mut out = Zeroizing::new(String::with_capacity(WARNING.len() + text.len()));
            out.push_str(WARNING);
            out.push_str(&text);
            Ok(out)
        }
    }
}

pub(super) fn refuse_empty(passphrase: &str) -> Result<(), IndexError> {
    if passphrase.is_empty() {
        return Err(IndexError::Invalid(
            "the passphrase is empty; give one, or say that there shall be none".into(),
        ));
    }
    Ok(())
}

/// Whether `text` is a backup that needs a passphrase.
#[must_use]
pub fn is_protected(text: &str) -> bool {
    age::is(text)
}

/// The files of a text that [`backup_owner`] made.
///
/// # Errors
/// If the text is none or damaged, the passphrase is missing or another, or
/// one was given and the text needs none.
pub fn restore(text: &str, passphrase: Option<&str>) -> Result<Vec<BackupFile>, IndexError> {
    if text.len() > MAX_TEXT {
        return Err(IndexError::KeyText(format!(
            "has {} bytes and a backup at most {MAX_TEXT}; give the text that a backup made",
            text.len()
        )));
    }
    let content = if age::is(text) {
        let passphrase = passphrase.ok_or_else(|| {
            IndexError::KeyText("holds a backup under a passphrase; give the passphrase".into())
        })?;
        age::decrypt(NAME, text, passphrase)?
    } else if pem::is(LABEL, text) {
        if passphrase.is_some() {
            // Somebody expects protection that is not there.
            return Err(IndexError::KeyText(
                "holds a backup without a passphrase, but one was given; leave it out".into(),
            ));
        }
        plain(text).ok_or_else(damaged)?
    } else {
        return Err(IndexError::KeyText(
            "holds no backup; give the text that a backup made".into(),
        ));
    };
    unpack(&content).ok_or_else(damaged)
}

fn damaged() -> IndexError {
    IndexError::KeyText("holds a backup with a changed or missing character; copy it again".into())
}

fn plain(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = pem::read(LABEL, text)?;
    let (content, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
    if blake3::hash(content).as_bytes()[..CHECKSUM] != checksum[..] {
        return None;
    }
    let length = content.len();
    bytes.truncate(length);
    Some(bytes)
}

fn pack(files: &[BackupFile]) -> Result<Zeroizing<Vec<u8>>, IndexError> {
    if files.is_empty() || files.len() > MAX_FILES {
        return Err(IndexError::Mismatch {
            what: "the number of files of a backup",
            found: files.len() as u64,
            expected: MAX_FILES.min(files.len().max(1)) as u64,
        });
    }
    let bytes: usize = files
        .iter()
        .map(|file| file.name.len() + file.content.len() + 16)
        .sum();
    if bytes > MAX_BYTES {
        return Err(IndexError::Invalid(format!(
            "the files are {bytes} bytes and a backup holds at most {MAX_BYTES}; leave some out"
        )));
    }
    let mut out = Zeroizing::new(Vec::with_capacity(
        MAGIC.len() + bytes + END.len() + CHECKSUM,
    ));
    out.extend_from_slice(MAGIC);
    for (i, file) in files.iter().enumerate() {
        if files[..i].iter().any(|other| other.name == file.name) {
            return Err(IndexError::Invalid(format!(
                "two files of the backup are named {}; give each a name of its own",
                file.name
            )));
        }
        out.extend_from_slice(format!("{} {}\n", file.name, file.content.len()).as_bytes());
        out.extend_from_slice(&file.content);
        out.push(b'\n');
    }
    out.extend_from_slice(END);
    Ok(out)
}

/// The files, or `None` if anything is not as [`pack`] makes it.
fn unpack(bytes: &[u8]) -> Option<Vec<BackupFile>> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut files: Vec<BackupFile> = Vec::new();
    while rest != END {
        let limit = rest.len().min(MAX_NAME + 16);
        let end = rest[..limit].iter().position(|&byte| byte == b'\n')?;
        let (name, length) = std::str::from_utf8(&rest[..end]).ok()?.split_once(' ')?;
        let count: usize = length.parse().ok()?;
        // One way to write each number.
        if count.to_string() != length
            || files.len() == MAX_FILES
            || files.iter().any(|file| file.name == name)
        {
            return None;
        }
        let (content, after) = rest[end + 1..].split_at_checked(count)?;
        rest = after.strip_prefix(b"\n")?;
        files.push(BackupFile::new(name, Zeroizing::new(content.to_vec())).ok()?);
    }
    (!files.is_empty()).then_some(files)
}

/// Writes restored files into `folder`, with mode 0600, and makes it and the
/// folders in it, with mode 0700, where they do not exist. All or none.
///
/// # Errors
/// If one of the files exists, for none is ever overwritten, or cannot be
/// written: nothing is then left of those that could.
pub fn write_files(files: &[BackupFile], folder: impl AsRef<Path>) -> Result<(), IndexError> {
    let folder = folder.as_ref();
    let places: Vec<PathBuf> = files.iter().map(|file| folder.join(&file.name)).collect();
    // Before the first is written, so that the usual mistake costs nothing.
    if let Some(path) = places.iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(file::exists(path));
    }
    let mut written = Vec::new();
    let result = files
        .iter()
        .zip(&places)
        .try_for_each(|(file, path)| write(path, &file.content, &mut written));
    if result.is_err() {
        for path in written {
            let _ = fs::remove_file(path);
        }
    }
    result
}

fn write(path: &Path, content: &[u8], written: &mut Vec<PathBuf>) -> Result<(), IndexError> {
    if let Some(folder) = path.parent() {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(IndexError::io(folder))?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => file::exists(path),
        _ => IndexError::io(path)(source),
    })?;
    written.push(path.to_owned());
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(IndexError::io(path))
}

#[cfg(test)]
mod tests;
