//! Reading an index whole, to find any damage.

use crate::index::{Index, Segment, open_sealed, read_manifest};
use crate::keys::{ClientKey, EpochKey};
use crate::layout::FileKind;
use crate::manifest::{FileEntry, Manifest};
use crate::{Descriptor, IndexError, RecordOpener, segment_writer};
use rayon::prelude::*;
use std::fs::File;
use std::path::Path;

/// What was found out about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// Its name within the index.
    pub name: String,
    /// The size it should have, in bytes.
    pub bytes: u64,
    /// What is wrong with it, in one sentence.
    pub problem: Option<String>,
}

/// What was found out about an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Every file the manifest lists.
    pub files: Vec<FileStatus>,
    /// Problems between files, in one sentence each.
    pub problems: Vec<String>,
    /// Number of vectors the manifest lists.
    pub vectors: u64,
    /// Number of originals opened under the client key; 0 without one.
    pub records_opened: u64,
    /// Files in the folder that the manifest does not list. They are ignored.
    pub unlisted: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty() && self.files.iter().all(|file| file.problem.is_none())
    }

    /// All problems, of files and between them.
    pub fn all_problems(&self) -> impl Iterator<Item = &str> {
        self.files
            .iter()
            .filter_map(|file| file.problem.as_deref())
            .chain(self.problems.iter().map(String::as_str))
    }
}

/// Checks the index in the folder `path`: size and hash of every file, every
/// seal that the epoch's key opens, that the parts belong together; with a
/// client key also the descriptor's origin and every original.
///
/// Problems of single files are reported, not returned as errors, so that one
/// call finds them all.
///
/// # Errors
/// If there is no manifest, or it is damaged or the key is not the one of this
/// owner, index and epoch: then
/// nothing can be said of the rest.
pub fn verify(
    path: impl AsRef<Path>,
    key: &EpochKey,
    client: Option<&ClientKey>,
) -> Result<Report, IndexError> {
    let folder = path.as_ref();
    let bytes = read_manifest(folder)?;
    let manifest = Manifest::from_bytes(Some(key), &bytes)?;
    let files: Vec<FileStatus> = manifest
        .files()
        .map(|(kind, entry)| {
            let name = manifest.file_name(kind, &entry);
            let problem = check_file(folder, &manifest, kind, &entry, key)
                .err()
                .map(|error| error.to_string());
            FileStatus {
                name,
                bytes: entry.bytes,
                problem,
            }
        })
        .collect();
    let mut report = Report {
        vectors: manifest.vectors(),
        records_opened: 0,
        unlisted: unlisted(folder, &files)?,
        problems: Vec::new(),
        files,
    };
    if report.is_sound() {
        match Index::open(folder, key) {
            Err(error) => report.problems.push(error.to_string()),
            Ok(index) => {
                if let Some(client) = client {
                    open_all(&index, client, &mut report);
                }
            }
        }
    }
    Ok(report)
}

fn check_file(
    folder: &Path,
    manifest: &Manifest,
    kind: FileKind,
    entry: &FileEntry,
    key: &EpochKey,
) -> Result<(), IndexError> {
    let name = manifest.file_name(kind, entry);
    let path = folder.join(&name);
    let mut file = File::open(&path).map_err(IndexError::io(&path))?;
    let (hash, bytes) = segment_writer::hash(&mut file).map_err(IndexError::io(&path))?;
    if bytes != entry.bytes {
        return Err(IndexError::damaged(name, "its length is wrong"));
    }
    if hash != entry.hash {
        return Err(IndexError::damaged(name, "its checksum is wrong"));
    }
    if kind != FileKind::Records {
        open_sealed(folder, manifest, kind, entry)?.read(key)?;
    }
    Ok(())
}

fn unlisted(folder: &Path, files: &[FileStatus]) -> Result<Vec<String>, IndexError> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(IndexError::io(folder))? {
        let entry = entry.map_err(IndexError::io(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != crate::layout::MANIFEST && files.iter().all(|file| file.name != name) {
            out.push(name);
        }
    }
    out.sort();
    Ok(out)
}

/// Opens every original and compares its id with the list of ids.
fn open_all(index: &Index, client: &ClientKey, report: &mut Report) {
    let bytes = index.descriptor_bytes();
    let descriptor = match Descriptor::from_bytes(client.descriptor_key(), bytes) {
        Ok(descriptor) => descriptor,
        Err(error) => return report.problems.push(error.to_string()),
    };
    let opener = RecordOpener::new(
        client.record_key(),
        descriptor.index_id,
        descriptor.record_encoding,
        descriptor.dimension as usize,
    );
    for segment in index.segments() {
        match open_segment(segment, &opener, descriptor.dimension as usize) {
            Ok(()) => report.records_opened += segment.len() as u64,
            Err(error) => report.problems.push(error.to_string()),
        }
    }
}

fn open_segment(
    segment: &Segment,
    opener: &RecordOpener,
    dimension: usize,
) -> Result<(), IndexError> {
    const BATCH: usize = 4096;
    segment
        .ids()
        .par_chunks(BATCH)
        .enumerate()
        .try_for_each(|(batch, ids)| {
            let first = (batch * BATCH) as u32;
            let stored = segment
                .stored_records(first, ids.len())
                .map_err(|_| IndexError::Record { position: first })?;
            let (mut scratch, mut vector) = (Vec::new(), vec![0.0; dimension]);
            for ((position, record), &id) in (first..)
                .zip(stored.chunks_exact(segment.record_len()))
                .zip(ids)
            {
                let found = opener.open_stored(
                    segment.id(),
                    position,
                    record,
                    &mut scratch,
                    &mut vector,
                )?;
                if found != id {
                    return Err(IndexError::Record { position });
                }
            }
            Ok(())
        })
}
