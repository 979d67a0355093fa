//! Reading an index whole, to find any damage.

use crate::index::{Index, of_a_state, open_sealed};
use crate::keys::{ClientKey, EpochKey};
use crate::layout::{FileKind, LOCK, MANIFEST};
use crate::live::Checkpoint;
use crate::manifest::{FileEntry, Manifest};
use crate::record::WIRE_HEADER;
use crate::segment::origin_len;
use crate::{
    Descriptor, IndexError, RecordOpener, Segment, SegmentSummary, segment_writer, summary,
};
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
    /// Number of vectors that can be found.
    pub vectors: u64,
    /// Number of vectors that are deleted and still in files.
    pub deleted: u64,
    /// Each segment.
    pub segments: Vec<SegmentSummary>,
    /// Whether there is a model to encode new vectors with.
    pub model: bool,
    /// Number of originals opened under the client key that are of vectors
    /// that can be found; 0 without a key. Those of deleted ones must open,
    /// too.
    pub records_opened: u64,
    /// Files in the folder that the manifest does not list. They are ignored.
    pub unlisted: Vec<String>,
    /// Bytes of originals that a compaction made durable which is under way, or was
    /// stopped and can be gone on with. Its files are not among the unlisted.
    pub compaction: Option<u64>,
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
/// seal that the epoch's key opens, that the parts belong together and no two
/// vectors have one id; with a client key also the descriptor's origin and
/// every original. No lock is taken: should the index change meanwhile, the
/// state is checked that came to be.
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
    let last = std::cell::RefCell::new(None);
    // A report with problems is an error here, so that it is made once more if
    // the state that it is of was replaced meanwhile.
    let result = of_a_state(folder, |bytes| {
        // Of the state that is there now nothing has been said yet: should the key not
        // open it, that is the answer, and not what was wrong with the one before.
        last.replace(None);
        let report = verify_state(folder, bytes, key, client)?;
        let sound = report.is_sound();
        last.replace(Some(report));
        match sound {
            true => Ok(()),
            false => Err(IndexError::damaged(MANIFEST, "a file it lists is damaged")),
        }
    });
    match (last.into_inner(), result) {
        (Some(report), _) => Ok(report),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => unreachable!("a success leaves a report"),
    }
}

fn verify_state(
    folder: &Path,
    bytes: &[u8],
    key: &EpochKey,
    client: Option<&ClientKey>,
) -> Result<Report, IndexError> {
    let manifest = Manifest::from_bytes(Some(key), bytes)?;
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
        vectors: manifest.alive(),
        deleted: manifest.deleted(),
        segments: summary::segments(&manifest),
        model: manifest.model.is_some(),
        records_opened: 0,
        unlisted: unlisted(folder, &files)?,
        compaction: None,
        problems: Vec::new(),
        files,
    };
    if report.is_sound() {
        match Index::open_state(folder, bytes, key) {
            Err(error) => report.problems.push(error.to_string()),
            Ok(index) => {
                if let Some(begun) = Checkpoint::find(folder, key, &index) {
                    report.unlisted.retain(|name| !begun.owns(name));
                    report.compaction = Some(begun.written());
                }
                if has_duplicates(&index) {
                    report.problems.push(
                        "two vectors that are not deleted have the same id; build the index again"
                            .into(),
                    );
                }
                if let Some(client) = client {
                    open_query_model(&index, client, &mut report);
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
    if kind.is_of_epoch() {
        open_sealed(folder, manifest, kind, entry)?.read(key)?;
    }
    Ok(())
}

fn unlisted(folder: &Path, files: &[FileStatus]) -> Result<Vec<String>, IndexError> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(IndexError::io(folder))? {
        let entry = entry.map_err(IndexError::io(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != MANIFEST && name != LOCK && files.iter().all(|file| file.name != name) {
            out.push(name);
        }
    }
    out.sort();
    Ok(out)
}

/// Opens what clients apply to queries.
fn open_query_model(index: &Index, client: &ClientKey, report: &mut Report) {
    let descriptor = index.descriptor();
    if let (Some(shape), Some(bytes)) = (&descriptor.query_model, index.query_model_bytes())
        && let Err(error) = client.descriptor_key().open_query_model(
            &descriptor.index_id,
            descriptor.dimension as usize,
            shape,
            bytes,
        )
    {
        report.problems.push(error.to_string());
    }
}

/// Opens every original and compares its id with the list of ids.
fn open_all(index: &Index, client: &ClientKey, report: &mut Report) {
    let bytes = index.descriptor_bytes();
    let descriptor = match Descriptor::from_bytes(client.descriptor_key(), bytes) {
        Ok(descriptor) => descriptor,
        Err(error) => return report.problems.push(error.to_string()),
    };
    let layout = descriptor.record_layout();
    let opener = RecordOpener::new(client.record_key(), descriptor.index_id, layout);
    for segment in index.segments() {
        match open_segment(segment, &opener, layout.dimension) {
            Ok(()) => report.records_opened += segment.alive_len() as u64,
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
            let slots = segment
                .slots(first, ids.len())
                .map_err(|_| IndexError::Record { position: first })?;
            let (mut scratch, mut vector) = (Vec::new(), vec![0.0; dimension]);
            for ((position, slot), &id) in (first..)
                .zip(slots.chunks_exact(segment.slot_len()))
                .zip(ids)
            {
                let (header, stored) = slot.split_at(origin_len(segment.origins()));
                let (segment_id, origin) = match header.split_first_chunk::<16>() {
                    Some((segment_id, rest)) => {
                        let mut origin = [0; WIRE_HEADER - 16];
                        origin.copy_from_slice(rest);
                        (segment_id, u32::from_le_bytes(origin))
                    }
                    None => (segment.id(), position),
                };
                let found = opener
                    .open_stored(segment_id, origin, stored, &mut scratch, &mut vector)
                    .and_then(|found| opener.extra(&scratch).map(|_| found));
                if found.ok() != Some(id) {
                    return Err(IndexError::Record { position });
                }
            }
            Ok(())
        })
}

/// Whether an id is there twice.
fn has_duplicates(index: &Index) -> bool {
    let mut ids: Vec<u64> = Vec::with_capacity(index.vectors() as usize);
    for segment in index.segments() {
        let positions = (0..).zip(segment.ids());
        ids.extend(
            positions
                .filter(|&(position, _)| segment.is_alive(position))
                .map(|(_, id)| id),
        );
    }
    ids.par_sort_unstable();
    ids.windows(2).any(|pair| pair[0] == pair[1])
}
