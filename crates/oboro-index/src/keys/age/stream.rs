//! The payload: chunks of 64 KiB under ChaCha20-Poly1305, numbered, the last
//! one marked.

use super::TAG;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use zeroize::Zeroizing;

const CHUNK: usize = 64 << 10;

/// Eleven bytes of number, big-endian, and whether it is the last chunk.
fn nonce(number: usize, last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&(number as u64).to_be_bytes());
    nonce[11] = u8::from(last);
    nonce.into()
}

pub(super) fn seal(key: &[u8; 32], prefix: &[u8; 16], plaintext: &[u8], out: &mut Vec<u8>) {
    let cipher = ChaCha20Poly1305::new(key.into());
    let chunks = plaintext.len().div_ceil(CHUNK).max(1);
    // So that no growing leaves plaintext behind.
    out.reserve_exact(prefix.len() + plaintext.len() + chunks * TAG);
    out.extend_from_slice(prefix);
    for number in 0..chunks {
        let first = number * CHUNK;
        let chunk = &plaintext[first..plaintext.len().min(first + CHUNK)];
        let start = out.len();
        out.extend_from_slice(chunk);
        let tag = cipher
            .encrypt_inout_detached(
                &nonce(number, number + 1 == chunks),
                b"",
                (&mut out[start..]).into(),
            )
            .expect("a chunk is far below the cipher's limit");
        out.extend_from_slice(&tag);
    }
}

/// The plaintext, or `None` if a chunk is altered, missing or out of order.
pub(super) fn open(key: &[u8; 32], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let cipher = ChaCha20Poly1305::new(key.into());
    let chunks = sealed.len().div_ceil(CHUNK + TAG);
    let mut out = Zeroizing::new(Vec::with_capacity(sealed.len()));
    for (number, chunk) in sealed.chunks(CHUNK + TAG).enumerate() {
        let (body, tag) = chunk.split_last_chunk::<TAG>()?;
        // An empty chunk is an empty payload, nothing else.
        if body.is_empty() && number > 0 {
            return None;
        }
        let start = out.len();
        out.extend_from_slice(body);
        cipher
            .decrypt_inout_detached(
                &nonce(number, number + 1 == chunks),
                b"",
                (&mut out[start..]).into(),
                &Tag::from(*tag),
            )
            .ok()?;
    }
    (chunks > 0).then_some(out)
}
