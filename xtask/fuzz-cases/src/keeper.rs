//! The keeper's state.

/// The file of a state, and what its seal protects.
pub fn state(data: &[u8]) {
    oboro_keeper::untrusted::state(data);
}
