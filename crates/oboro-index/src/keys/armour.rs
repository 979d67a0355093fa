//! The keeper's keys: a first line that names the kind, then Base64 of the
//! key and the first 16 bytes of its BLAKE3 hash.

use super::{file, text};
use crate::IndexError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use oboro_ckks::{PublicKey, SecretKey};
use std::path::Path;
use zeroize::Zeroizing;

const SECRET: &str = "OBORO-KEEPER-KEY-";
const SECRET_NAME: &str = "a keeper's secret key";
const PUBLIC: &str = "OBORO-KEEPER-PUBLIC-";
const PUBLIC_NAME: &str = "a keeper's public key";
const LINE: usize = 72;
const CHECKSUM: usize = 16;

fn wrap(prefix: &str, bytes: &[u8]) -> Zeroizing<String> {
    let mut payload = Zeroizing::new(Vec::with_capacity(bytes.len() + CHECKSUM));
    payload.extend_from_slice(bytes);
    payload.extend_from_slice(&blake3::hash(bytes).as_bytes()[..CHECKSUM]);
    let encoded = Zeroizing::new(BASE64.encode(&payload[..]));
    let mut out = Zeroizing::new(String::with_capacity(
        encoded.len() / LINE * (LINE + 1) + 128,
    ));
    out.push_str(prefix);
    out.push('1');
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, next) = rest.split_at(rest.len().min(LINE));
        out.push('\n');
        out.push_str(line);
        rest = next;
    }
    out
}

fn unwrap(prefix: &str, name: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, IndexError> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines.next().unwrap_or_default();
    text::check_prefix(prefix, name, first)?;
    let damaged = || {
        IndexError::KeyText(format!(
            "holds {name} with a mistyped or missing character; copy it again"
        ))
    };
    if first.len() != prefix.len() + 1 {
        return Err(damaged());
    }
    let mut encoded = Zeroizing::new(String::with_capacity(text.len()));
    lines.for_each(|line| encoded.push_str(line));
    let payload = Zeroizing::new(BASE64.decode(encoded.as_bytes()).map_err(|_| damaged())?);
    let (bytes, checksum) = payload.split_last_chunk::<CHECKSUM>().ok_or_else(damaged)?;
    if blake3::hash(bytes).as_bytes()[..CHECKSUM] != checksum[..] {
        return Err(damaged());
    }
    Ok(Zeroizing::new(bytes.to_vec()))
}

/// The keeper's secret key as text, beginning with `OBORO-KEEPER-KEY-1`.
#[must_use]
pub fn keeper_secret_to_text(key: &SecretKey) -> Zeroizing<String> {
    wrap(SECRET, &key.to_bytes())
}

/// Reads what [`keeper_secret_to_text`] wrote.
///
/// # Errors
/// If the text is another key, none, or a damaged one.
pub fn keeper_secret_from_text(text: &str) -> Result<SecretKey, IndexError> {
    Ok(SecretKey::from_bytes(&unwrap(SECRET, SECRET_NAME, text)?)?)
}

/// The keeper's public key as text, beginning with `OBORO-KEEPER-PUBLIC-1`.
#[must_use]
pub fn keeper_public_to_text(key: &PublicKey) -> String {
    wrap(PUBLIC, &key.to_bytes()).to_string()
}

/// Reads what [`keeper_public_to_text`] wrote.
///
/// # Errors
/// If the text is another key, none, or a damaged one.
pub fn keeper_public_from_text(text: &str) -> Result<PublicKey, IndexError> {
    Ok(PublicKey::from_bytes(&unwrap(PUBLIC, PUBLIC_NAME, text)?)?)
}

/// Creates the file `path` with mode 0600.
///
/// # Errors
/// If the file exists already or cannot be written.
pub fn write_keeper_secret(path: impl AsRef<Path>, key: &SecretKey) -> Result<(), IndexError> {
    file::create_secret(
        path.as_ref(),
        "Oboro keeper key. Decrypts masked tables; it never leaves the keeper.",
        &keeper_secret_to_text(key),
    )
}

/// Reads a file that [`write_keeper_secret`] made.
///
/// # Errors
/// If others can read the file, or as [`keeper_secret_from_text`].
pub fn read_keeper_secret(path: impl AsRef<Path>) -> Result<SecretKey, IndexError> {
    let path = path.as_ref();
    let text = file::read_secret(path)?;
    keeper_secret_from_text(&text).map_err(file::within(path))
}

/// Creates the file `path`, readable by all.
///
/// # Errors
/// If the file exists already or cannot be written.
pub fn write_keeper_public(path: impl AsRef<Path>, key: &PublicKey) -> Result<(), IndexError> {
    file::create_public(
        path.as_ref(),
        "Oboro keeper's public key. Encrypts queries and codebooks; no secret.",
        &keeper_public_to_text(key),
    )
}

/// Reads a file that [`write_keeper_public`] made.
///
/// # Errors
/// As [`keeper_public_from_text`], or if the file cannot be read.
pub fn read_keeper_public(path: impl AsRef<Path>) -> Result<PublicKey, IndexError> {
    let path = path.as_ref();
    let text = file::read_public(path)?;
    keeper_public_from_text(&text).map_err(file::within(path))
}
