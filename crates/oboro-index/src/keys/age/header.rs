//! The header: version, one scrypt stanza, MAC.

use super::{FileKey, Refusal, derive};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const VERSION: &str = "age-encryption.org/v1";
const STANZA: &str = "-> scrypt ";
const MAC: &str = "---";

/// A header of the one shape that is accepted, and what follows it.
pub(super) struct Header<'a> {
    pub(super) salt: [u8; 16],
    pub(super) work_factor: u8,
    /// The wrapped file key and its tag.
    pub(super) body: [u8; 32],
    covered: &'a [u8],
    mac: [u8; 32],
    pub(super) payload: &'a [u8],
}

/// `N` bytes, in the one way to write them.
fn decode<const N: usize>(text: &str) -> Result<[u8; N], Refusal> {
    let mut out = [0; N];
    match BASE64.decode_slice(text, &mut out) {
        Ok(count) if count == N => Ok(out),
        _ => Err(Refusal::Damaged),
    }
}

/// The next line, without its end.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Refusal> {
    let end = rest
        .iter()
        .take(128)
        .position(|&byte| byte == b'\n')
        .ok_or(Refusal::Damaged)?;
    let line = std::str::from_utf8(&rest[..end]).map_err(|_| Refusal::Damaged)?;
    *rest = &rest[end + 1..];
    Ok(line)
}

impl<'a> Header<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let mut rest = bytes;
        let version = line(&mut rest)?;
        if version != VERSION {
            return Err(if version.starts_with("age-encryption.org/") {
                Refusal::Version
            } else {
                Refusal::Damaged
            });
        }
        let stanza = line(&mut rest)?;
        let Some((salt, work_factor)) = stanza
            .strip_prefix(STANZA)
            .and_then(|arguments| arguments.split_once(' '))
        else {
            return Err(match stanza.strip_prefix("-> ") {
                Some(_) if !stanza.starts_with(STANZA) => Refusal::Kind,
                _ => Refusal::Damaged,
            });
        };
        let salt = decode(salt)?;
        let work_factor = work_factor_of(work_factor)?;
        let body = decode(line(&mut rest)?)?;
        let start = bytes.len() - rest.len();
        let last = line(&mut rest)?;
        let mac = match last.strip_prefix(MAC).and_then(|mac| mac.strip_prefix(' ')) {
            Some(mac) => decode(mac)?,
            // A second way to open it: not under one passphrase only.
            None if last.starts_with("-> ") => return Err(Refusal::Kind),
            None => return Err(Refusal::Damaged),
        };
        Ok(Self {
            salt,
            work_factor,
            body,
            covered: &bytes[..start + MAC.len()],
            mac,
            payload: rest,
        })
    }

    pub(super) fn check(&self, key: &FileKey) -> Result<(), Refusal> {
        authenticator(self.covered, key)
            .verify((&self.mac).into())
            .map_err(|_| Refusal::Damaged)
    }
}

/// A decimal number without a sign or leading zeros.
fn work_factor_of(text: &str) -> Result<u8, Refusal> {
    if text.starts_with('0') || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::Damaged);
    }
    text.parse().map_err(|_| Refusal::Damaged)
}

fn authenticator(covered: &[u8], key: &FileKey) -> Hmac<Sha256> {
    let key = derive(key, None, b"header");
    let mut mac =
        Hmac::<Sha256>::new_from_slice(&key[..]).expect("HMAC takes keys of every length");
    mac.update(covered);
    mac
}

pub(super) fn write(salt: &[u8; 16], work_factor: u8, body: &[u8; 32], key: &FileKey) -> Vec<u8> {
    let (salt, body) = (BASE64.encode(salt), BASE64.encode(body));
    let mut out = format!("{VERSION}\n{STANZA}{salt} {work_factor}\n{body}\n{MAC}").into_bytes();
    let mac = authenticator(&out, key).finalize().into_bytes();
    out.push(b' ');
    out.extend_from_slice(BASE64.encode(mac).as_bytes());
    out.push(b'\n');
    out
}
