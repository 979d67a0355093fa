//! Making an index: everything under a name of its own, visible at the end.

use crate::building::Building;
use crate::keys::{DescriptorKey, EpochKey, ReleaseKey, StorageKey};
use crate::layout::{self, FileKind, MANIFEST};
use crate::manifest::{FileEntry, IndexHead, Manifest, SegmentEntry};
use crate::record::RecordLayout;
use crate::segment_writer::SegmentWriter;
use crate::{Descriptor, IndexError, RecordKey, RecordSealer, listed, model, query_model, sealed};
use oboro_ckks::EncryptedCodebook;
use oboro_quant::BlockedCodes;
use rand_core::CryptoRng;
use std::path::Path;

/// Writes a new index.
///
/// All files are written and made durable in a hidden folder beside the
/// target; [`commit`](Self::commit) renames it into place in one step. Whoever
/// is killed before that leaves the target as it was, and the next writer
/// removes the hidden folder. With `force` an existing index is exchanged for
/// the new one at the commit and not before.
pub struct IndexWriter {
    building: Building,
    key: EpochKey,
    index_id: [u8; 16],
    codebook: Option<(EncryptedCodebookFile, [u8; 32])>,
    model: Option<Vec<u8>>,
    query_model: Option<Vec<u8>>,
    segments: Vec<(SegmentEntry, RecordLayout)>,
    /// Every bit that a vector's tags have.
    tags_used: u64,
    /// The largest number of a list that a vector is in.
    largest_list: Option<u16>,
}

/// The epoch that a build makes.
const FIRST_EPOCH: u64 = 1;

/// What a commit made visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The state, for the keeper to register.
    pub head: IndexHead,
    /// Every file with its size in bytes, the manifest first.
    pub files: Vec<(String, u64)>,
}

/// The codebook waits for the commit, so that it may come before segments.
struct EncryptedCodebookFile {
    bytes: Vec<u8>,
    file_id: [u8; 16],
}

impl IndexWriter {
    /// Begins the index `index_id` (random and new) that will lie at `target`,
    /// at epoch 1. With a `release` key it will open only with what the keeper
    /// releases; without one, which is for indexes without a keeper, with the
    /// storage key alone.
    ///
    /// # Errors
    /// If `target` exists and `force` is not given, or is something else than
    /// an index, or the folder beside it cannot be made.
    pub fn create(
        target: impl AsRef<Path>,
        key: &StorageKey,
        release: Option<&ReleaseKey>,
        index_id: [u8; 16],
        force: bool,
    ) -> Result<Self, IndexError> {
        let share = release.map(|release| release.share(&index_id, FIRST_EPOCH));
        let key = key.for_epoch(share.as_ref(), &index_id, FIRST_EPOCH);
        Self::create_under(target, key, force)
    }

    /// As [`create`](Self::create), for whoever has the key of the first epoch of the new
    /// index and no more: a searcher that makes it for its owner.
    ///
    /// # Errors
    /// As [`create`](Self::create), and for the key of a later epoch.
    pub fn create_under(
        target: impl AsRef<Path>,
        key: EpochKey,
        force: bool,
    ) -> Result<Self, IndexError> {
        if key.epoch() != FIRST_EPOCH {
            return Err(IndexError::OtherEpoch {
                found: FIRST_EPOCH,
                key: key.epoch(),
            });
        }
        let index_id = *key.index_id();
        let building = Building::create(target.as_ref(), &index_id, force)?;
        Ok(Self {
            building,
            key,
            index_id,
            codebook: None,
            model: None,
            query_model: None,
            segments: Vec::new(),
            tags_used: 0,
            largest_list: None,
        })
    }

    /// Begins a segment of `vectors` vectors.
    ///
    /// # Errors
    /// If its file cannot be made, for want of space for example.
    pub fn begin_segment(
        &self,
        key: &RecordKey,
        layout: RecordLayout,
        vectors: usize,
        rng: &mut impl CryptoRng,
    ) -> Result<SegmentWriter, IndexError> {
        let mut segment_id = [0; 16];
        rng.fill_bytes(&mut segment_id);
        let sealer = RecordSealer::new(key, self.index_id, segment_id, layout);
        SegmentWriter::create(self.building.folder(), sealer, vectors)
    }

    /// Completes a segment with its codes and tags, in the order of positions.
    /// `tags` is empty if the index has none.
    ///
    /// # Errors
    /// If vectors are missing, two have the same id, the number of codes or
    /// tags is another, or a file cannot be written.
    pub fn add_segment(
        &mut self,
        segment: SegmentWriter,
        codes: &BlockedCodes,
        tags: &[u64],
    ) -> Result<(), IndexError> {
        self.add_segment_in_lists(segment, codes, tags, &[])
    }

    /// As [`add_segment`](Self::add_segment), with the list that each vector is in;
    /// `lists` is empty if the index has none.
    ///
    /// # Errors
    /// As [`add_segment`](Self::add_segment), and if the number of lists is another.
    pub fn add_segment_in_lists(
        &mut self,
        segment: SegmentWriter,
        codes: &BlockedCodes,
        tags: &[u64],
        lists: &[u16],
    ) -> Result<(), IndexError> {
        let done = segment.finish()?;
        let mismatch = |what, found: usize| IndexError::Mismatch {
            what,
            found: found as u64,
            expected: done.ids.len() as u64,
        };
        if codes.len() != done.ids.len() {
            return Err(mismatch("the number of codes", codes.len()));
        }
        if !tags.is_empty() && tags.len() != done.ids.len() {
            return Err(mismatch("the number of tags", tags.len()));
        }
        if !lists.is_empty() && lists.len() != done.ids.len() {
            return Err(mismatch("the number of lists", lists.len()));
        }
        let id = done.segment_id;
        let codes_entry = self.write_sealed(FileKind::Codes, id, codes.as_bytes())?;
        let numbers =
            |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|n| n.to_le_bytes()).collect() };
        let ids_entry = self.write_sealed(FileKind::Ids, id, &numbers(&done.ids))?;
        self.tags_used |= tags.iter().fold(0, |all, tags| all | tags);
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
            origins: false,
            tags: match tags.is_empty() {
                true => None,
                false => Some(self.write_sealed(FileKind::Tags, id, &numbers(tags))?),
            },
            deleted: None,
            lists: match lists.is_empty() {
                true => None,
                false => Some(self.write_sealed(FileKind::Lists, id, &listed::to_bytes(lists))?),
            },
        };
        self.largest_list = self.largest_list.max(lists.iter().max().copied());
        self.segments.push((entry, done.layout));
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

    /// Takes the model that new vectors are to be encoded with, sealed
    /// ([`ModelKey::seal`](crate::ModelKey::seal)). Without one, nobody can
    /// insert.
    ///
    /// # Errors
    /// If it is of another index or no model.
    pub fn set_model(&mut self, sealed: Vec<u8>) -> Result<(), IndexError> {
        model::NOTE.check(&self.index_id, &sealed)?;
        self.model = Some(sealed);
        Ok(())
    }

    /// Takes what is done to queries beside the rotation, sealed
    /// ([`DescriptorKey::seal_query_model`](crate::DescriptorKey::seal_query_model)).
    /// The descriptor names it.
    pub fn set_query_model(&mut self, sealed: Vec<u8>) {
        self.query_model = Some(sealed);
    }

    /// Makes the index visible.
    ///
    /// # Errors
    /// If descriptor, codebook and segments do not belong together, a file
    /// cannot be written, or the target came into being meanwhile. The target
    /// is then as it was.
    pub fn commit(
        self,
        descriptor: &Descriptor,
        key: &DescriptorKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Committed, IndexError> {
        let bytes = descriptor.to_bytes(key);
        self.publish_as(descriptor, &bytes, rng)
    }

    /// As [`commit`](Self::commit), with a descriptor that its owner authenticated, for
    /// whoever cannot make one.
    ///
    /// # Errors
    /// As [`commit`](Self::commit), and if the descriptor is damaged.
    pub fn commit_described(
        self,
        descriptor: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Committed, IndexError> {
        self.publish_as(
            &Descriptor::from_trusted_bytes(descriptor)?,
            descriptor,
            rng,
        )
    }

    fn publish_as(
        mut self,
        descriptor: &Descriptor,
        bytes: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Committed, IndexError> {
        let codebook = self.check(descriptor)?;
        let codebook = self.write_sealed(FileKind::Codebook, codebook.file_id, &codebook.bytes)?;
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let descriptor = self.write_sealed(FileKind::Descriptor, id, bytes)?;
        let manifest = Manifest {
            index_id: self.index_id,
            epoch: FIRST_EPOCH,
            generation: 1,
            released: self.key.released(),
            descriptor,
            codebook,
            model: self.write_model(FileKind::Model, self.model.as_deref(), rng)?,
            query_model: self.write_model(
                FileKind::QueryModel,
                self.query_model.as_deref(),
                rng,
            )?,
            segments: self.segments.iter().map(|(entry, ..)| *entry).collect(),
            ancestors: Vec::new(),
        };
        let bytes = manifest.to_bytes(&self.key);
        layout::write_new(&self.building.folder().join(MANIFEST), &bytes)?;
        layout::sync_folder(self.building.folder())?;
        self.building.publish()?;
        Ok(Committed {
            head: manifest.head(&bytes),
            files: manifest.list(bytes.len() as u64),
        })
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
        match (&descriptor.query_model, &self.query_model) {
            (None, None) => {}
            (Some(shape), Some(sealed)) => query_model::check(&self.index_id, shape, sealed)?,
            _ => {
                return Err(IndexError::Invalid(
                    "the descriptor names a query model and there is none, or the other way round; set the one it names"
                        .into(),
                ));
            }
        }
        if descriptor.epoch != FIRST_EPOCH {
            return Err(IndexError::Mismatch {
                what: "the epoch of a new index",
                found: descriptor.epoch,
                expected: FIRST_EPOCH,
            });
        }
        let mismatch = |what, found, expected| IndexError::Mismatch {
            what,
            found,
            expected,
        };
        for (entry, layout) in &self.segments {
            if layout.dimension != descriptor.dimension as usize {
                return Err(mismatch(
                    "the dimension of a segment",
                    layout.dimension as u64,
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
            if *layout != descriptor.record_layout() {
                return Err(IndexError::Invalid(
                    "a segment stores its originals in another encoding or with other extra bytes than the descriptor says"
                        .into(),
                ));
            }
            if entry.vectors > 0 && entry.lists.is_some() != (descriptor.lists() > 0) {
                return Err(IndexError::Invalid(
                    "a segment is in lists and the descriptor names none, or the other way round; put all vectors into lists or none"
                        .into(),
                ));
            }
            // A segment without vectors has no tags to give.
            if entry.vectors > 0 && entry.tags.is_some() != descriptor.has_tags() {
                return Err(IndexError::Invalid(
                    "a segment has tags and the descriptor none, or the other way round; give tags to all vectors or to none"
                        .into(),
                ));
            }
        }
        if self
            .largest_list
            .is_some_and(|list| usize::from(list) >= descriptor.lists())
        {
            return Err(IndexError::Invalid(format!(
                "a vector is in a list beyond the {} that the descriptor names; name as many there",
                descriptor.lists()
            )));
        }
        if self.tags_used & !descriptor.tag_bits() != 0 {
            return Err(IndexError::Invalid(format!(
                "a vector has a tag beyond the {} that the descriptor names; name it there",
                descriptor.tags.len()
            )));
        }
        Ok(codebook)
    }

    fn write_model(
        &self,
        kind: FileKind,
        bytes: Option<&[u8]>,
        rng: &mut impl CryptoRng,
    ) -> Result<Option<FileEntry>, IndexError> {
        let Some(bytes) = bytes else {
            return Ok(None);
        };
        let mut id = [0; 16];
        rng.fill_bytes(&mut id);
        let name = kind.file_name(FIRST_EPOCH, &id);
        layout::write_new(&self.building.folder().join(name), bytes)?;
        Ok(Some(FileEntry {
            id,
            bytes: bytes.len() as u64,
            hash: *blake3::hash(bytes).as_bytes(),
        }))
    }

    fn write_sealed(
        &self,
        kind: FileKind,
        file_id: [u8; 16],
        payload: &[u8],
    ) -> Result<FileEntry, IndexError> {
        sealed::write_file(self.building.folder(), &self.key, kind, file_id, payload)
    }
}
