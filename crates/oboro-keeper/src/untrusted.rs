//! Doors for the fuzz targets to what lies behind seals.

/// The file of a state, and what its seal protects.
pub fn state(bytes: &[u8]) {
    crate::state::decode_untrusted(bytes);
}

/// The keeper's share of a codebook, as it is before it is sealed.
pub fn share(bytes: &[u8]) {
    crate::generation::decode_untrusted(bytes);
}
