//! Making an index: everything under a name of its own, visible at the end.

use crate::keys::{DescriptorKey, StorageKey};
use crate::layout::{self, FileKind, MANIFEST};
use crate::manifest::{FileEntry, Manifest, SegmentEntry};
use crate::sealed::{self, Header};
use crate::segment_writer::SegmentWriter;
use crate::{Descriptor, IndexError, RecordEncoding, RecordKey, RecordSealer};
use oboro_ckks::EncryptedCodebook;
use oboro_quant::BlockedCodes;
use rand_core::CryptoRng;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes a new index.
///
/// All files are written and made durable in a hidden folder beside the
/// target; [`commit`](Self::commit) renames it into place in one step. Whoever
/// is killed before that leaves the target as it was, and the next writer
/// removes the hidden folder. With `force` an existing index is exchanged for
/// the new one at the commit and not before.
pub struct IndexWriter {
    target: PathBuf,
    building: PathBuf,
    /// Held while the build lives, so that nobody takes it for a leftover.
    _lock: File,
    key: StorageKey,
    index_id: [u8; 16],
    force: bool,
    codebook: Option<(EncryptedCodebookFile, [u8; 32])>,
    segments: Vec<(SegmentEntry, RecordEncoding, usize)>,
    committed: bool,
}

/// The codebook waits for the descriptor, which tells its epoch.
struct EncryptedCodebookFile {
    bytes: Vec<u8>,
    file_id: [u8; 16],
}

impl IndexWriter {
    /// Begins the index `index_id` (random and new) that will lie at `target`.
    ///
    /// # Errors
    /// If `target` exists and `force` is not given, or is something else than
    /// an index, or the folder beside it cannot be made.
    pub fn create(
        target: impl AsRef<Path>,
        key: &StorageKey,
        index_id: [u8; 16],
        force: bool,
    ) -> Result<Self, IndexError> {
        let target = target.as_ref().to_owned();
        refuse_existing(&target, force)?;
        let prefix = building_prefix(&target)?;
        let folder = layout::parent(&target);
        remove_leftovers(&folder, &prefix)?;
        let mut name = prefix;
        name.push(&layout::hex(&index_id)[..16]);
        let building = folder.join(name);
        fs::create_dir(&building).map_err(IndexError::io(&building))?;
        let lock = File::open(&building).map_err(IndexError::io(&building))?;
        layout::try_lock(&lock);
        Ok(Self {
            target,
            building,
            _lock: lock,
            key: key.duplicate(),
            index_id,
            force,
            codebook: None,
            segments: Vec::new(),
            committed: false,
        })
    }

    /// Begins a segment of `vectors` vectors.
    ///
    /// # Errors
    /// If its file cannot be made, for want of space for example.
    pub fn begin_segment(
        &self,
        key: &RecordKey,
        encoding: RecordEncoding,
        dimension: usize,
        vectors: usize,
        rng: &mut impl CryptoRng,
    ) -> Result<SegmentWriter, IndexError> {
        let mut segment_id = [0; 16];
        rng.fill_bytes(&mut segment_id);
        let sealer = RecordSealer::new(key, self.index_id, segment_id, encoding, dimension);
        SegmentWriter::create(&self.building, sealer, vectors)
    }

    /// Completes a segment with its codes, in the order of positions.
    ///
    /// # Errors
    /// If vectors are missing, two have the same id, the number of codes is
    /// another, or a file cannot be written.
    pub fn add_segment(
        &mut self,
        segment: SegmentWriter,
        codes: &BlockedCodes,
    ) -> Result<(), IndexError> {
        let done = segment.finish()?;
        if codes.len() != done.ids.len() {
            return Err(IndexError::Mismatch {
                what: "the number of codes",
                found: codes.len() as u64,
                expected: done.ids.len() as u64,
            });
        }
        let id = done.segment_id;
        let codes_entry = self.write_sealed(FileKind::Codes, 0, id, codes.as_bytes())?;
        let ids: Vec<u8> = done.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let ids_entry = self.write_sealed(FileKind::Ids, 0, id, &ids)?;
        let entry = SegmentEntry {
            vectors: done.ids.len() as u32,
            subquantizers: codes.subquantizers() as u32,
            bits: codes.bits() as u8,
            codes: codes_entry,
            ids: ids_entry,
            records: FileEntry {
                id,
                bytes: done.bytes,
                hash: done.hash,
            },
        };
        self.segments.push((entry, done.encoding, done.dimension));
        Ok(())
    }

    /// Takes the encrypted codebook.
    pub fn set_codebook(&mut self, codebook: &EncryptedCodebook, rng: &mut impl CryptoRng) {
        let mut file_id = [0; 16];
        rng.fill_bytes(&mut file_id);
        self.codebook = Some((
            EncryptedCodebookFile {
                bytes: codebook.to_bytes(),
                file_id,
            },
            codebook.masks().digest(),
        ));
    }

    /// Makes the index visible. The result lists its files with their sizes.
    ///
    /// # Errors
    /// If descriptor, codebook and segments do not belong together, a file
    /// cannot be written, or the target came into being meanwhile. The target
    /// is then as it was.
    pub fn commit(
        mut self,
        descriptor: &Descriptor,
        key: &DescriptorKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<(String, u64)>, IndexError> {
        let codebook = self.check(descriptor)?;
        let epoch = descriptor.epoch;
        let codebook =
            self.write_sealed(FileKind::Codebook, epoch, codebook.file_id, &codebook.bytes)?;
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let bytes = descriptor.to_bytes(key);
        let descriptor = self.write_sealed(FileKind::Descriptor, epoch, id, &bytes)?;
        let manifest = Manifest {
            index_id: self.index_id,
            epoch,
            generation: 1,
            descriptor,
            codebook,
            segments: self.segments.iter().map(|(entry, ..)| *entry).collect(),
        };
        let bytes = manifest.to_bytes(&self.key);
        let path = self.building.join(MANIFEST);
        File::create_new(&path)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            })
            .map_err(IndexError::io(&path))?;
        layout::sync_folder(&self.building)?;
        self.publish()?;
        let mut files = vec![(MANIFEST.to_owned(), bytes.len() as u64)];
        files.extend(
            manifest
                .files()
                .map(|(kind, entry)| (manifest.file_name(kind, &entry), entry.bytes)),
        );
        Ok(files)
    }

    /// Whether all parts were given and agree.
    fn check(&mut self, descriptor: &Descriptor) -> Result<EncryptedCodebookFile, IndexError> {
        descriptor.check()?;
        let (codebook, digest) = self.codebook.take().ok_or_else(|| {
            IndexError::Invalid("the index has no codebook yet; set it before the commit".into())
        })?;
        if descriptor.index_id != self.index_id || descriptor.codebook_digest != digest {
            return Err(IndexError::Invalid(
                "the descriptor describes another index or codebook; make it from the same build"
                    .into(),
            ));
        }
        let vectors: u64 = self.segments.iter().map(|s| u64::from(s.0.vectors)).sum();
        let mismatch = |what, found, expected| IndexError::Mismatch {
            what,
            found,
            expected,
        };
        if vectors != descriptor.vectors {
            return Err(mismatch(
                "the number of vectors in all segments",
                vectors,
                descriptor.vectors,
            ));
        }
        for (entry, encoding, dimension) in &self.segments {
            if *dimension != descriptor.dimension as usize {
                return Err(mismatch(
                    "the dimension of a segment",
                    *dimension as u64,
                    u64::from(descriptor.dimension),
                ));
            }
            if entry.subquantizers as usize != descriptor.subquantizers() {
                return Err(mismatch(
                    "the number of sub-quantizers of a segment",
                    u64::from(entry.subquantizers),
                    descriptor.subquantizers() as u64,
                ));
            }
            if *encoding != descriptor.record_encoding {
                return Err(IndexError::Invalid(
                    "a segment stores its originals in another encoding than the descriptor says"
                        .into(),
                ));
            }
        }
        Ok(codebook)
    }

    fn write_sealed(
        &self,
        kind: FileKind,
        epoch: u64,
        file_id: [u8; 16],
        payload: &[u8],
    ) -> Result<FileEntry, IndexError> {
        let path = self.building.join(kind.file_name(epoch, &file_id));
        let header = Header {
            kind,
            index_id: self.index_id,
            file_id,
        };
        let write = || {
            let mut out = HashingWriter {
                file: File::create_new(&path)?,
                hasher: blake3::Hasher::new(),
                bytes: 0,
            };
            sealed::seal(&self.key, &header, payload, &mut out)?;
            out.file.sync_all()?;
            Ok(FileEntry {
                id: file_id,
                bytes: out.bytes,
                hash: *out.hasher.finalize().as_bytes(),
            })
        };
        write().map_err(IndexError::io(&path))
    }

    fn publish(&mut self) -> Result<(), IndexError> {
        if self.force && self.target.exists() {
            refuse_existing(&self.target, true)?;
            let old = layout::exchange(&self.building, &self.target)
                .map_err(IndexError::io(&self.target))?;
            self.committed = true;
            layout::sync_folder(&layout::parent(&self.target))?;
            // The new index is in place; an old one that cannot be removed is
            // a leftover of the next build.
            let _ = fs::remove_dir_all(old);
            return Ok(());
        }
        layout::rename_new(&self.building, &self.target).map_err(|source| {
            if source.kind() == io::ErrorKind::AlreadyExists {
                IndexError::Exists {
                    path: self.target.clone(),
                }
            } else {
                IndexError::io(&self.target)(source)
            }
        })?;
        self.committed = true;
        layout::sync_folder(&layout::parent(&self.target))
    }
}

impl Drop for IndexWriter {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.building);
        }
    }
}

/// Hashes what it writes.
struct HashingWriter {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Write for HashingWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.file.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Refuses a target that must not be replaced.
fn refuse_existing(target: &Path, force: bool) -> Result<(), IndexError> {
    let metadata = match fs::symlink_metadata(target) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(IndexError::io(target)(error)),
    };
    if !force {
        return Err(IndexError::Exists {
            path: target.to_owned(),
        });
    }
    // Force replaces an index or an empty folder, never somebody's files.
    let replaceable = metadata.is_dir()
        && (target.join(MANIFEST).is_file()
            || fs::read_dir(target)
                .map_err(IndexError::io(target))?
                .next()
                .is_none());
    if replaceable {
        Ok(())
    } else {
        Err(IndexError::NotReplaced {
            path: target.to_owned(),
        })
    }
}

/// `.NAME.building-`
fn building_prefix(target: &Path) -> Result<OsString, IndexError> {
    let name = target.file_name().ok_or_else(|| IndexError::NotReplaced {
        path: target.to_owned(),
    })?;
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".building-");
    Ok(prefix)
}

/// Removes what killed builds of the same target left behind. A build that
/// still lives holds a lock and is left alone.
fn remove_leftovers(folder: &Path, prefix: &OsString) -> Result<(), IndexError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return Err(IndexError::io(folder)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(IndexError::io(folder))?;
        let name = entry.file_name();
        if !name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes())
        {
            continue;
        }
        let path = entry.path();
        if let Ok(lock) = File::open(&path)
            && layout::try_lock(&lock)
        {
            let _ = fs::remove_dir_all(&path);
        }
    }
    Ok(())
}
