//! Reading an index: the searcher's side.

use crate::keys::EpochKey;
use crate::layout::{FileKind, MANIFEST};
use crate::manifest::{self, FileEntry, IndexHead, MAX_SEGMENTS, Manifest, SegmentEntry};
use crate::sealed::{Header, SealedFile};
use crate::{Descriptor, IndexError, Segment};
use crate::{model, query_model};
use oboro_ckks::EncryptedCodebook;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// How often a folder is looked at again that changes while it is read.
const ATTEMPTS: usize = 20;

/// An open index: a snapshot that later changes of the folder do not touch,
/// for all its files stay open or in memory. A clone is the same one.
///
/// # Security
/// Codes, ids, tags and the encrypted codebook are in memory in the clear (the
/// codebook still under CKKS); originals and the owner's model stay sealed.
#[derive(Clone)]
pub struct Index(Arc<State>);

struct State {
    of_epoch: Arc<OfEpoch>,
    manifest: Manifest,
    head: IndexHead,
    manifest_bytes: u64,
    /// Made when first asked for: there is a state for each commit.
    files: OnceLock<Vec<(String, u64)>>,
    segments: Vec<Segment>,
    alive: u64,
}

/// What stays through the commits of an epoch.
pub(crate) struct OfEpoch {
    pub(crate) descriptor: Descriptor,
    pub(crate) descriptor_bytes: Vec<u8>,
    pub(crate) codebook_bytes: Vec<u8>,
    pub(crate) model: Option<Arc<[u8]>>,
    pub(crate) query_model: Option<Arc<[u8]>>,
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

    /// Opens the index in the folder `path`, to read. Somebody else may change
    /// it meanwhile: then the state is opened that came to be.
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
        of_a_state(folder, |bytes| Self::open_state(folder, bytes, key))
    }

    /// Opens the state that the manifest `bytes` describes.
    pub(crate) fn open_state(
        folder: &Path,
        bytes: &[u8],
        key: &EpochKey,
    ) -> Result<Self, IndexError> {
        let manifest = Manifest::from_bytes(Some(key), bytes)?;
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
            || descriptor.codebook_digest != codebook.masks().digest()
        {
            return Err(IndexError::damaged(
                MANIFEST,
                "descriptor, codebook and segments do not belong together",
            ));
        }
        let model = match &manifest.model {
            Some(entry) => Some(model::NOTE.read_file(folder, entry)?.into()),
            None => None,
        };
        let query_model = match (&manifest.query_model, &descriptor.query_model) {
            (Some(entry), Some(shape)) => {
                let bytes = query_model::NOTE.read_file(folder, entry)?;
                query_model::check(&descriptor.index_id, shape, &bytes)?;
                Some(bytes.into())
            }
            (None, None) => None,
            _ => {
                return Err(IndexError::damaged(
                    MANIFEST,
                    "its query model does not fit the descriptor",
                ));
            }
        };
        let segments = manifest
            .segments
            .iter()
            .map(|entry| Segment::open(folder, &manifest, &descriptor, entry, key))
            .collect::<Result<_, _>>()?;
        let of_epoch = OfEpoch {
            descriptor,
            descriptor_bytes,
            codebook_bytes,
            model,
            query_model,
        };
        Ok(Self::new(Arc::new(of_epoch), manifest, bytes, segments))
    }

    /// A state that is known to be right.
    pub(crate) fn new(
        of_epoch: Arc<OfEpoch>,
        manifest: Manifest,
        manifest_bytes: &[u8],
        segments: Vec<Segment>,
    ) -> Self {
        Self(Arc::new(State {
            of_epoch,
            head: manifest.head(manifest_bytes),
            manifest_bytes: manifest_bytes.len() as u64,
            files: OnceLock::new(),
            alive: manifest.alive(),
            manifest,
            segments,
        }))
    }

    /// The shape of the index.
    #[must_use]
    pub fn descriptor(&self) -> &Descriptor {
        &self.0.of_epoch.descriptor
    }

    /// The descriptor as its owner authenticated it, for clients.
    #[must_use]
    pub fn descriptor_bytes(&self) -> &[u8] {
        &self.0.of_epoch.descriptor_bytes
    }

    /// The encrypted codebook.
    ///
    /// # Errors
    /// None that [`open`](Self::open) would not have found.
    pub fn codebook(&self) -> Result<EncryptedCodebook, IndexError> {
        Ok(EncryptedCodebook::from_bytes(
            &self.descriptor().packing,
            &self.0.of_epoch.codebook_bytes,
        )?)
    }

    /// What new vectors are encoded with, sealed for the owner and its writers
    /// ([`ModelKey::open`](crate::ModelKey::open)); `None` for an index that
    /// was built without anybody knowing it.
    #[must_use]
    pub fn model_bytes(&self) -> Option<&[u8]> {
        self.0.of_epoch.model.as_deref()
    }

    /// What is done to queries beside the rotation, sealed for clients
    /// ([`DescriptorKey::open_query_model`](crate::DescriptorKey::open_query_model));
    /// `None` if nothing is.
    #[must_use]
    pub fn query_model_bytes(&self) -> Option<&[u8]> {
        self.0.of_epoch.query_model.as_deref()
    }

    /// The segments.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.0.segments
    }

    /// Number of vectors that can be found: deleted ones do not count.
    #[must_use]
    pub fn vectors(&self) -> u64 {
        self.0.alive
    }

    /// Number of vectors that are deleted and still in files.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        self.0.manifest.deleted()
    }

    /// The state that was opened.
    #[must_use]
    pub fn head(&self) -> IndexHead {
        self.0.head
    }

    /// Counts the commits of this index, from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.0.head.generation
    }

    /// BLAKE3 of the manifest: names this state of the index.
    #[must_use]
    pub fn manifest_digest(&self) -> &[u8; 32] {
        &self.0.head.manifest_digest
    }

    /// Digests of the manifests of the states that this one came of, the newest
    /// first: of the [generation](Self::generation) before this, of the one before
    /// that, and so on, [`MAX_ANCESTORS`](crate::MAX_ANCESTORS) at most.
    #[must_use]
    pub fn ancestors(&self) -> &[[u8; 32]] {
        &self.manifest().ancestors
    }

    pub(crate) fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    pub(crate) fn of_epoch(&self) -> &Arc<OfEpoch> {
        &self.0.of_epoch
    }

    /// The following state with these segments, as a manifest and its bytes.
    pub(crate) fn following(
        &self,
        key: &EpochKey,
        segments: Vec<SegmentEntry>,
    ) -> Result<(Manifest, Vec<u8>), IndexError> {
        if segments.len() > MAX_SEGMENTS {
            return Err(IndexError::Invalid(format!(
                "the index would have {} segments and can have {MAX_SEGMENTS}; compact it first",
                segments.len()
            )));
        }
        let manifest = Manifest {
            generation: self.manifest().generation + 1,
            segments,
            ancestors: self.manifest().ancestors_of_next(&self.head()),
            ..self.manifest().clone()
        };
        let bytes = manifest.to_bytes(key);
        Ok((manifest, bytes))
    }

    /// Every file with its size in bytes, the manifest first.
    #[must_use]
    pub fn files(&self) -> &[(String, u64)] {
        let state = &self.0;
        state
            .files
            .get_or_init(|| state.manifest.list(state.manifest_bytes))
    }
}

/// Reads with `read` the state of `folder` that its manifest describes; once
/// more if that was replaced meanwhile, for its files may then be gone.
pub(crate) fn of_a_state<T>(
    folder: &Path,
    read: impl Fn(&[u8]) -> Result<T, IndexError>,
) -> Result<T, IndexError> {
    let mut bytes = read_manifest(folder)?;
    for _ in 1..ATTEMPTS {
        let result = read(&bytes);
        if result.is_ok() {
            return result;
        }
        let now = read_manifest(folder)?;
        if now == bytes {
            return result;
        }
        bytes = now;
    }
    read(&bytes)
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
    file.take(manifest::MAX_BYTES)
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
