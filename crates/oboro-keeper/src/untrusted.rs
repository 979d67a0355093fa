//! Doors for the fuzz targets to what lies behind the state's seal.

/// The file of a state, and what its seal protects.
pub fn state(bytes: &[u8]) {
    crate::state::decode_untrusted(bytes);
}
