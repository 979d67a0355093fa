//! Doors for the fuzz targets to what lies behind seals.

/// What is kept of a blind training, as it is before it is sealed.
pub fn kept(bytes: &[u8]) {
    crate::generation::decode_untrusted(bytes);
}
