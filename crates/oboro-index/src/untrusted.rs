//! Doors for the fuzz targets to what lies behind checksums and seals.

use crate::Descriptor;
use crate::layout::FileKind;
use crate::manifest::Manifest;
use crate::sealed::{self, Header};

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
