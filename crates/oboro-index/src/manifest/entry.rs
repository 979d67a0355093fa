//! What a manifest says of a file, and of a segment.

use super::OLD;
use crate::IndexError;
use crate::cursor::Cursor;
use crate::layout::{FileKind, MANIFEST};

const ORIGINS: u8 = 1;
const TAGS: u8 = 2;
const DELETED: u8 = 4;
const LISTS: u8 = 8;

/// One file, as it must be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) id: [u8; 16],
    pub(crate) bytes: u64,
    pub(crate) hash: [u8; 32],
}

impl FileEntry {
    pub(super) const LEN: usize = 16 + 8 + 32;
    pub(super) const NONE: Self = Self {
        id: [0; 16],
        bytes: 0,
        hash: [0; 32],
    };

    pub(super) fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.extend_from_slice(&self.hash);
    }

    pub(super) fn parse(cursor: &mut Cursor<'_>) -> Result<Self, IndexError> {
        Ok(Self {
            id: cursor.array()?,
            bytes: cursor.u64()?,
            hash: cursor.array()?,
        })
    }

    /// An entry that is all zeros unless `present`.
    pub(super) fn parse_optional(
        cursor: &mut Cursor<'_>,
        present: bool,
    ) -> Result<Option<Self>, IndexError> {
        let entry = Self::parse(cursor)?;
        if !present && entry != Self::NONE {
            return Err(IndexError::damaged(MANIFEST, "an absent file is listed"));
        }
        Ok(present.then_some(entry))
    }
}

/// One segment: its files share the segment's id, but for the list of deleted
/// vectors, which is a new file each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentEntry {
    pub(crate) vectors: u32,
    pub(crate) subquantizers: u32,
    pub(crate) bits: u8,
    pub(crate) codes: FileEntry,
    pub(crate) ids: FileEntry,
    pub(crate) records: FileEntry,
    /// Whether records lie with the wire's header, because they were sealed
    /// for another place.
    pub(crate) origins: bool,
    pub(crate) tags: Option<FileEntry>,
    /// Number of deleted vectors, and the file that lists them.
    pub(crate) deleted: Option<(u32, FileEntry)>,
    /// Which list each vector is in.
    pub(crate) lists: Option<FileEntry>,
}

impl SegmentEntry {
    pub(super) const LEN: usize = 4 + 4 + 1 + 1 + 4 + 6 * FileEntry::LEN;
    /// In version 3.
    pub(super) const OLD_LEN: usize = Self::LEN - FileEntry::LEN;

    pub(super) fn append(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let (deleted, deleted_file) = self.deleted.unwrap_or((0, FileEntry::NONE));
        out.extend_from_slice(&self.vectors.to_le_bytes());
        out.extend_from_slice(&self.subquantizers.to_le_bytes());
        out.push(self.bits);
        out.push(
            flag(self.origins, ORIGINS)
                | flag(self.tags.is_some(), TAGS)
                | flag(self.deleted.is_some(), DELETED)
                | flag(self.lists.is_some(), LISTS),
        );
        out.extend_from_slice(&deleted.to_le_bytes());
        self.codes.append(out);
        self.ids.append(out);
        self.records.append(out);
        self.tags.unwrap_or(FileEntry::NONE).append(out);
        deleted_file.append(out);
        self.lists.unwrap_or(FileEntry::NONE).append(out);
    }

    pub(super) fn parse(cursor: &mut Cursor<'_>, version: u16) -> Result<Self, IndexError> {
        let damaged = |what| Err(IndexError::damaged(MANIFEST, what));
        let (vectors, subquantizers) = (cursor.u32()?, cursor.u32()?);
        let (bits, flags, deleted) = (cursor.u8()?, cursor.u8()?, cursor.u32()?);
        let known = match version {
            OLD => ORIGINS | TAGS | DELETED,
            _ => ORIGINS | TAGS | DELETED | LISTS,
        };
        if flags & !known != 0 {
            return damaged("a segment's flags are unknown");
        }
        let codes = FileEntry::parse(cursor)?;
        let ids = FileEntry::parse(cursor)?;
        let records = FileEntry::parse(cursor)?;
        let tags = FileEntry::parse_optional(cursor, flags & TAGS != 0)?;
        let file = FileEntry::parse_optional(cursor, flags & DELETED != 0)?;
        let lists = match version {
            OLD => None,
            _ => FileEntry::parse_optional(cursor, flags & LISTS != 0)?,
        };
        if ids.id != codes.id
            || records.id != codes.id
            || tags.is_some_and(|tags| tags.id != codes.id)
            || lists.is_some_and(|lists| lists.id != codes.id)
        {
            return damaged("a segment's files disagree");
        }
        if deleted > vectors || (deleted == 0) != file.is_none() {
            return damaged("a segment's number of deleted vectors is wrong");
        }
        Ok(Self {
            vectors,
            subquantizers,
            bits,
            codes,
            ids,
            records,
            origins: flags & ORIGINS != 0,
            tags,
            deleted: file.map(|file| (deleted, file)),
            lists,
        })
    }

    /// Vectors that are not deleted.
    pub(crate) fn alive(&self) -> u64 {
        u64::from(self.vectors - self.deleted.map_or(0, |(count, _)| count))
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (FileKind, FileEntry)> + '_ {
        [
            (FileKind::Codes, self.codes),
            (FileKind::Ids, self.ids),
            (FileKind::Records, self.records),
        ]
        .into_iter()
        .chain(self.tags.map(|file| (FileKind::Tags, file)))
        .chain(self.deleted.map(|(_, file)| (FileKind::Deleted, file)))
        .chain(self.lists.map(|file| (FileKind::Lists, file)))
    }
}
