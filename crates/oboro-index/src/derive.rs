//! Keys from keys: HKDF-SHA256 with one label per purpose, so that knowing
//! one derived key tells nothing about another.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// A 32-byte key for `label`, bound to `context` (an index, a file).
pub(crate) fn key(parent: &[u8], label: &str, context: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(context), parent)
        .expand_multi_info(&[b"oboro/v1/", label.as_bytes()], &mut out[..])
        .expect("32 bytes are within HKDF's limit");
    out
}
