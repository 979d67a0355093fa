//! Text encrypted under a passphrase, in the format of age, version 1
//! (<https://age-encryption.org/v1>), so that any program of that format opens
//! it without this one.
//!
//! Only what a passphrase needs of the format: one scrypt stanza, the payload,
//! the armour. The primitives are libraries; the complete library for age
//! brings a generator of random numbers of its own and a hundred crates, to
//! be linked into searcher and keeper, which have no use for it.

mod header;
mod stream;

use super::pem;
use crate::IndexError;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use header::Header;
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

const LABEL: &str = "AGE ENCRYPTED FILE";
/// log2 of scrypt's rounds: 256 MiB and about a second for each guess.
pub(super) const WORK_FACTOR: u8 = 18;
/// What is accepted: 1 GiB.
const MAX_WORK_FACTOR: u8 = 20;
const TAG: usize = 16;

type FileKey = Zeroizing<[u8; 16]>;

/// Why a text does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Of another version of the format.
    Version,
    /// Not under one passphrase.
    Kind,
    /// Costs too much to try.
    Work(u8),
    /// Not what was written.
    Damaged,
    /// Another passphrase.
    Passphrase,
}

impl Refusal {
    fn error(self, name: &str) -> IndexError {
        IndexError::KeyText(match self {
            Self::Version => format!(
                "holds {name} in another version of the age format than 1; use a program that matches"
            ),
            Self::Kind => format!(
                "holds {name} that is not encrypted under a passphrase; open it with the program that made it"
            ),
            Self::Work(factor) => format!(
                "holds {name} that asks for 2^{factor} rounds of scrypt where at most 2^{MAX_WORK_FACTOR} are accepted; open it with another program of the age format if you trust it"
            ),
            Self::Damaged => {
                format!("holds {name} with a changed or missing character; copy it again")
            }
            Self::Passphrase => {
                format!("holds {name} that does not open with this passphrase; try another")
            }
        })
    }
}

/// Whether `text` is of this format.
pub(super) fn is(text: &str) -> bool {
    pem::is(LABEL, text)
}

/// Encrypts `plaintext` under `passphrase`.
pub(super) fn encrypt(
    plaintext: &[u8],
    passphrase: &str,
    work_factor: u8,
    rng: &mut impl CryptoRng,
) -> Zeroizing<String> {
    let mut key = FileKey::default();
    let (mut salt, mut nonce) = ([0; 16], [0; 16]);
    rng.fill_bytes(&mut key[..]);
    rng.fill_bytes(&mut salt);
    rng.fill_bytes(&mut nonce);
    let mut body = [0; 32];
    let (wrapped, tag) = body.split_at_mut(key.len());
    wrapped.copy_from_slice(&key[..]);
    let sealed = wrapping(passphrase, &salt, work_factor)
        .encrypt_inout_detached(&Nonce::default(), b"", wrapped.into())
        .expect("a file key is far below the cipher's limit");
    tag.copy_from_slice(&sealed);
    let mut out = header::write(&salt, work_factor, &body, &key);
    stream::seal(&payload_key(&key, &nonce), &nonce, plaintext, &mut out);
    pem::write(LABEL, &out)
}

/// Decrypts `text`; `name` is how errors call it.
pub(super) fn decrypt(
    name: &str,
    text: &str,
    passphrase: &str,
) -> Result<Zeroizing<Vec<u8>>, IndexError> {
    pem::read(LABEL, text)
        .ok_or(Refusal::Damaged)
        .and_then(|bytes| open(&bytes, passphrase))
        .map_err(|refusal| refusal.error(name))
}

fn open(bytes: &[u8], passphrase: &str) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let header = Header::parse(bytes)?;
    if header.work_factor > MAX_WORK_FACTOR {
        return Err(Refusal::Work(header.work_factor));
    }
    let key = unwrap(&header, passphrase)?;
    header.check(&key)?;
    open_payload(&key, header.payload)
}

fn open_payload(key: &FileKey, payload: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let (nonce, chunks) = payload.split_first_chunk().ok_or(Refusal::Damaged)?;
    stream::open(&payload_key(key, nonce), chunks).ok_or(Refusal::Damaged)
}

fn unwrap(header: &Header<'_>, passphrase: &str) -> Result<FileKey, Refusal> {
    let mut key = FileKey::default();
    let (wrapped, tag) = header.body.split_at(key.len());
    key.copy_from_slice(wrapped);
    let mut tag_bytes = [0; TAG];
    tag_bytes.copy_from_slice(tag);
    wrapping(passphrase, &header.salt, header.work_factor)
        .decrypt_inout_detached(
            &Nonce::default(),
            b"",
            (&mut key[..]).into(),
            &Tag::from(tag_bytes),
        )
        .map_err(|_| Refusal::Passphrase)?;
    Ok(key)
}

/// The cipher of the file key. Its key is of one use, so the nonce is zero.
fn wrapping(passphrase: &str, salt: &[u8; 16], work_factor: u8) -> ChaCha20Poly1305 {
    let salt = [&b"age-encryption.org/v1/scrypt"[..], salt].concat();
    let parameters = scrypt::Params::new(work_factor, 8, 1)
        .expect("work factors up to the largest accepted are valid");
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(passphrase.as_bytes(), &salt, &parameters, &mut key[..])
        .expect("32 bytes are within scrypt's limit");
    ChaCha20Poly1305::new((&*key).into())
}

fn payload_key(key: &FileKey, nonce: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    derive(key, Some(nonce), b"payload")
}

fn derive(key: &FileKey, salt: Option<&[u8]>, label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(salt, &key[..])
        .expand(label, &mut out[..])
        .expect("32 bytes are within HKDF's limit");
    out
}

#[cfg(test)]
mod tests;
