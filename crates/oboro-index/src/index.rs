//! Reading an index: the searcher's side.

use crate::keys::EpochKey;
use crate::layout::{FileKind, MANIFEST};
use crate::manifest::{FileEntry, IndexHead, Manifest, SegmentEntry};
use crate::sealed::{Header, SealedFile};
use crate::{Descriptor, IndexError, record, segment_writer};
use aligned_vec::{AVec, ConstAlign};
use oboro_ckks::EncryptedCodebook;
use oboro_quant::{BlockedCodes, code_bits};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A manifest is 177 bytes a segment; nothing honest is larger.
const MAX_MANIFEST: u64 = 16 << 20;

/// An open index: a snapshot that a later replacement of the folder does not
/// touch, for all its files stay open or in memory.
///
/// # Security
/// Codes, ids and the encrypted codebook are in memory in the clear (the
/// codebook still under CKKS); originals stay sealed.
pub struct Index {
    descriptor: Descriptor,
    descriptor_bytes: Vec<u8>,
    codebook_bytes: Vec<u8>,
    manifest: Manifest,
    head: IndexHead,
    files: Vec<(String, u64)>,
    segments: Vec<Segment>,
}

impl Index {
    /// What the manifest in the folder `path` says of the state of the index:
    /// what must be known to get the key that opens it.
    ///
    /// # Errors
    /// If there is no index or its manifest is damaged.
    ///
    /// # Security
    /// Nothing is authenticated: whoever can write to the folder chooses the
    /// result. It is right if [`open`](Self::open) succeeds with the key made
    /// from it and gives the same [`head`](Self::head).
    pub fn peek(path: impl AsRef<Path>) -> Result<IndexHead, IndexError> {
        let bytes = read_manifest(path.as_ref())?;
        Ok(Manifest::from_bytes(None, &bytes)?.head(&bytes))
    }

    /// Opens the index in the folder `path`.
    ///
    /// Everything but the originals is authenticated: codes, ids, codebook and
    /// descriptor by their seals, the list of files by its MAC. Of the files of
    /// originals header and length are checked; [`crate::verify`] reads them
    /// whole, and a client opens each record under its own key.
    ///
    /// # Errors
    /// If there is no index, a file is missing or damaged, or the key is
    /// of another owner, index or epoch.
    pub fn open(path: impl AsRef<Path>, key: &EpochKey) -> Result<Self, IndexError> {
        let folder = path.as_ref();
        let bytes = read_manifest(folder)?;
        let manifest = Manifest::from_bytes(Some(key), &bytes)?;
        let descriptor_bytes = open_sealed(
            folder,
            &manifest,
            FileKind::Descriptor,
            &manifest.descriptor,
        )?
        .read(key)?;
        let descriptor = Descriptor::from_trusted_bytes(&descriptor_bytes)?;
        let codebook_bytes =
            open_sealed(folder, &manifest, FileKind::Codebook, &manifest.codebook)?.read(key)?;
        let codebook = EncryptedCodebook::from_bytes(&descriptor.packing, &codebook_bytes)?;
        if descriptor.index_id != manifest.index_id
            || descriptor.epoch != manifest.epoch
            || descriptor.vectors != manifest.vectors()
            || descriptor.codebook_digest != codebook.masks().digest()
        {
            return Err(IndexError::damaged(
                MANIFEST,
                "descriptor, codebook and segments do not belong together",
            ));
        }
        let segments = manifest
            .segments
            .iter()
            .map(|entry| Segment::open(folder, &manifest, &descriptor, entry, key))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            descriptor,
            descriptor_bytes,
            codebook_bytes,
            head: manifest.head(&bytes),
            files: manifest.list(bytes.len() as u64),
            manifest,
            segments,
        })
    }

    /// The shape of the index.
    #[must_use]
    pub const fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// The descriptor as its owner authenticated it, for clients.
    #[must_use]
    pub fn descriptor_bytes(&self) -> &[u8] {
        &self.descriptor_bytes
    }

    /// The encrypted codebook.
    ///
    /// # Errors
    /// None that [`open`](Self::open) would not have found.
    pub fn codebook(&self) -> Result<EncryptedCodebook, IndexError> {
        Ok(EncryptedCodebook::from_bytes(
            &self.descriptor.packing,
            &self.codebook_bytes,
        )?)
    }

    /// The segments.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The state that was opened.
    #[must_use]
    pub const fn head(&self) -> IndexHead {
        self.head
    }

    /// Counts the commits of this index, from 1.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.head.generation
    }

    /// BLAKE3 of the manifest: names this state of the index.
    #[must_use]
    pub const fn manifest_digest(&self) -> &[u8; 32] {
        &self.head.manifest_digest
    }

    pub(crate) const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The next state, with the segments of this one.
    pub(crate) fn succeeded_by(
        &self,
        descriptor: Descriptor,
        descriptor_bytes: Vec<u8>,
        codebook_bytes: Vec<u8>,
        manifest: Manifest,
        manifest_bytes: &[u8],
    ) -> Self {
        Self {
            descriptor,
            descriptor_bytes,
            codebook_bytes,
            head: manifest.head(manifest_bytes),
            files: manifest.list(manifest_bytes.len() as u64),
            manifest,
            segments: self.segments.clone(),
        }
    }

    /// Every file with its size in bytes, the manifest first.
    #[must_use]
    pub fn files(&self) -> &[(String, u64)] {
        &self.files
    }
}

/// What anybody can see of an index without a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Names the index.
    pub index_id: [u8; 16],
    /// Its epoch.
    pub epoch: u64,
    /// Its number of commits.
    pub generation: u64,
    /// BLAKE3 of its manifest.
    pub manifest_digest: [u8; 32],
    /// Whether the keeper's share is needed to open it.
    pub released: bool,
    /// Number of vectors.
    pub vectors: u64,
    /// Number of sub-quantizers and bits of a code, of each segment.
    pub segments: Vec<(u32, u8)>,
    /// Every file with its size in bytes, the manifest first.
    pub files: Vec<(String, u64)>,
}

impl Summary {
    /// Reads the manifest in the folder `path` without a key, so that its
    /// origin is not checked.
    ///
    /// # Errors
    /// If there is no index or its manifest is damaged.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, IndexError> {
        Self::from_bytes(&read_manifest(path.as_ref())?)
    }

    /// As [`read`](Self::read), from the bytes of a manifest.
    ///
    /// # Errors
    /// If they are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IndexError> {
        let manifest = Manifest::from_bytes(None, bytes)?;
        Ok(Self {
            index_id: manifest.index_id,
            epoch: manifest.epoch,
            generation: manifest.generation,
            manifest_digest: manifest.head(bytes).manifest_digest,
            released: manifest.released,
            vectors: manifest.vectors(),
            segments: manifest
                .segments
                .iter()
                .map(|s| (s.subquantizers, s.bits))
                .collect(),
            files: manifest.list(bytes.len() as u64),
        })
    }
}

pub(crate) fn read_manifest(folder: &Path) -> Result<Vec<u8>, IndexError> {
    let path = folder.join(MANIFEST);
    let file = File::open(&path).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => IndexError::NotAnIndex {
            path: folder.to_owned(),
        },
        _ => IndexError::io(&path)(error),
    })?;
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST)
        .read_to_end(&mut bytes)
        .map_err(IndexError::io(&path))?;
    Ok(bytes)
}

pub(crate) fn open_sealed(
    folder: &Path,
    manifest: &Manifest,
    kind: FileKind,
    entry: &FileEntry,
) -> Result<SealedFile, IndexError> {
    let name = manifest.file_name(kind, entry);
    let header = Header {
        kind,
        index_id: manifest.index_id,
        epoch: manifest.epoch,
        file_id: entry.id,
    };
    SealedFile::open(&folder.join(&name), &name, header)
}

/// An immutable run of vectors. A clone is the same one: it takes no memory,
/// and the files of several epochs of an index share their segments.
#[derive(Clone)]
pub struct Segment(Arc<Parts>);

/// What a segment has of its own.
struct Parts {
    id: [u8; 16],
    codes: BlockedCodes,
    ids: Vec<u64>,
    records: File,
    record_len: usize,
}

impl Segment {
    pub(crate) fn open(
        folder: &Path,
        manifest: &Manifest,
        descriptor: &Descriptor,
        entry: &SegmentEntry,
        key: &EpochKey,
    ) -> Result<Self, IndexError> {
        let vectors = entry.vectors as usize;
        let (subquantizers, bits) = (entry.subquantizers as usize, usize::from(entry.bits));
        if subquantizers != descriptor.subquantizers()
            || (bits != 8 && bits != code_bits(descriptor.centroids()))
        {
            return Err(IndexError::damaged(
                MANIFEST,
                "a segment's codes do not fit the descriptor",
            ));
        }
        let codes = open_sealed(folder, manifest, FileKind::Codes, &entry.codes)?;
        // Before anything is allocated, the length must be the codes' own.
        if codes.payload_len() != BlockedCodes::byte_len(vectors, subquantizers, bits) {
            return Err(IndexError::damaged(
                manifest.file_name(FileKind::Codes, &entry.codes),
                "its length is wrong",
            ));
        }
        let mut bytes = AVec::<u8, ConstAlign<64>>::with_capacity(64, codes.payload_len());
        bytes.resize(codes.payload_len(), 0);
        codes.read_into(key, &mut bytes)?;
        let codes = BlockedCodes::from_aligned(bytes, vectors, subquantizers, bits)?;

        let ids = open_sealed(folder, manifest, FileKind::Ids, &entry.ids)?;
        if ids.payload_len() != vectors * 8 {
            return Err(IndexError::damaged(
                manifest.file_name(FileKind::Ids, &entry.ids),
                "its length is wrong",
            ));
        }
        let ids = ids
            .read(key)?
            .as_chunks::<8>()
            .0
            .iter()
            .map(|&id| u64::from_le_bytes(id))
            .collect();
        let (records, record_len) = open_records(folder, manifest, descriptor, entry)?;
        Ok(Self(Arc::new(Parts {
            id: entry.codes.id,
            codes,
            ids,
            records,
            record_len,
        })))
    }

    /// The random id of the segment.
    #[must_use]
    pub fn id(&self) -> &[u8; 16] {
        &self.0.id
    }

    /// Number of vectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.ids.len()
    }

    /// Whether there is no vector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.ids.is_empty()
    }

    /// The codes.
    #[must_use]
    pub fn codes(&self) -> &BlockedCodes {
        &self.0.codes
    }

    /// The ids, by position.
    #[must_use]
    pub fn ids(&self) -> &[u64] {
        &self.0.ids
    }

    /// Bytes of one record on the wire.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        record::WIRE_HEADER + self.0.record_len
    }

    /// Appends the sealed record at `position`, in its wire form, to `out`:
    /// one read of the file (0.4 us when it is cached), no allocation when
    /// `out` has room.
    ///
    /// Reading and not mapping: a file that the host cuts short is then an
    /// error and does not kill the process, and this crate stays free of
    /// `unsafe`.
    ///
    /// # Errors
    /// If the file cannot be read.
    ///
    /// # Panics
    /// If `position` is not below [`len`](Self::len).
    pub fn append_record(&self, position: u32, out: &mut Vec<u8>) -> io::Result<()> {
        assert!(
            (position as usize) < self.len(),
            "position {position} of {}",
            self.len()
        );
        record::append_wire_header(&self.0.id, position, out);
        let start = out.len();
        out.resize(start + self.0.record_len, 0);
        let offset = segment_writer::HEADER as u64 + u64::from(position) * self.0.record_len as u64;
        self.0.records.read_exact_at(&mut out[start..], offset)
    }

    /// The stored form of `count` records from `first`, for verification.
    pub(crate) fn stored_records(&self, first: u32, count: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; count * self.0.record_len];
        let offset = segment_writer::HEADER as u64 + u64::from(first) * self.0.record_len as u64;
        self.0.records.read_exact_at(&mut out, offset)?;
        Ok(out)
    }

    pub(crate) fn record_len(&self) -> usize {
        self.0.record_len
    }
}

/// Opens the originals and checks header and length; also the bytes of one.
fn open_records(
    folder: &Path,
    manifest: &Manifest,
    descriptor: &Descriptor,
    entry: &SegmentEntry,
) -> Result<(File, usize), IndexError> {
    let name = manifest.file_name(FileKind::Records, &entry.records);
    let path = folder.join(&name);
    let file = File::open(&path).map_err(IndexError::io(&path))?;
    let length = file.metadata().map_err(IndexError::io(&path))?.len();
    let (encoding, dimension) = (descriptor.record_encoding, descriptor.dimension as usize);
    if length != segment_writer::file_len(encoding, dimension, entry.vectors) {
        return Err(IndexError::damaged(name, "its length is wrong"));
    }
    let mut found = [0; segment_writer::HEADER];
    file.read_exact_at(&mut found, 0)
        .map_err(IndexError::io(&path))?;
    let expected = segment_writer::header(
        &manifest.index_id,
        &entry.records.id,
        encoding,
        dimension,
        entry.vectors,
    );
    if found != expected {
        return Err(IndexError::damaged(name, "its header is wrong"));
    }
    Ok((file, record::stored_len(encoding, dimension)))
}
