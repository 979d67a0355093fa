//! Doors for the fuzz targets to what lies behind checksums and seals.

use crate::layout::FileKind;
use crate::manifest::Manifest;
use crate::sealed::{self, Header};
use crate::{Descriptor, Extra, alive};

/// A manifest, whole and without its trailer.
pub fn manifest(bytes: &[u8]) {
    let _ = Manifest::from_bytes(None, bytes);
    let _ = Manifest::parse(bytes);
}

/// A descriptor, whole and without its trailer.
pub fn descriptor(bytes: &[u8]) {
    let _ = Descriptor::from_trusted_bytes(bytes);
    let _ = Descriptor::parse(bytes);
}

/// The header of a sealed file.
pub fn sealed_header(bytes: &[u8]) {
    let expected = Header {
        kind: FileKind::Codes,
        index_id: [0; 16],
        epoch: 1,
        file_id: [0; 16],
    };
    let _ = sealed::parse_header("a file", bytes, &expected);
}

/// What a record may hold beside its vector.
pub fn extra(bytes: &[u8]) {
    let _ = Extra::decode(bytes);
}

/// A list of deleted vectors; the first two bytes say of how many.
pub fn deleted(bytes: &[u8]) {
    if let Some((length, bytes)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length));
        for deleted in [0, 1, length as u32] {
            let _ = alive::from_bytes(bytes, length, deleted);
        }
    }
}

/// The journal of a compaction, as it is before it is sealed.
pub fn merge_journal(bytes: &[u8]) {
    crate::live::parse_journal(bytes);
}

/// A query model, as it is before it is sealed.
pub fn query_model(bytes: &[u8]) {
    crate::query_model::parse(bytes);
}

/// A model, as it is before it is sealed and as it lies on disk.
pub fn model(bytes: &[u8]) {
    crate::model::parse(bytes);
}
