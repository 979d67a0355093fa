//! The end of a small authenticated file: a MAC, then a checksum.
//!
//! The checksum (BLAKE3 over all that precedes it) tells damage; the MAC
//! (keyed BLAKE3) tells a foreign key. With the MAC alone the two could not be
//! told apart, and they need different advice.

use crate::IndexError;

#[cfg(test)]
pub(crate) const LEN: usize = 64;

pub(crate) fn append(bytes: &mut Vec<u8>, key: &[u8; 32]) {
    let mac = blake3::keyed_hash(key, bytes);
    bytes.extend_from_slice(mac.as_bytes());
    let checksum = blake3::hash(bytes);
    bytes.extend_from_slice(checksum.as_bytes());
}

/// The body, after its checksum has been found right.
pub(crate) fn checked<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a [u8], IndexError> {
    let early = || IndexError::damaged(name, "it ends early");
    let (covered, checksum) = bytes.split_last_chunk::<32>().ok_or_else(early)?;
    if blake3::hash(covered) != *checksum {
        return Err(IndexError::damaged(name, "its checksum is wrong"));
    }
    let (body, _) = covered.split_last_chunk::<32>().ok_or_else(early)?;
    Ok(body)
}

/// The body, after checksum and MAC have been found right.
pub(crate) fn authenticated<'a>(
    name: &str,
    bytes: &'a [u8],
    key: &[u8; 32],
    key_name: &'static str,
) -> Result<&'a [u8], IndexError> {
    let body = checked(name, bytes)?;
    let mut mac = [0; 32];
    mac.copy_from_slice(&bytes[body.len()..body.len() + 32]);
    // `blake3::Hash` compares in constant time.
    if blake3::keyed_hash(key, body) != mac {
        return Err(IndexError::ForeignKey {
            file: name.to_owned(),
            key: key_name,
        });
    }
    Ok(body)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fail_every_flip_and_cut() {
        let mut bytes = b"body".to_vec();
        append(&mut bytes, &[1; 32]);
        assert_eq!(bytes.len(), 4 + LEN);
        assert_eq!(
            authenticated("x", &bytes, &[1; 32], "key").unwrap(),
            b"body"
        );
        assert!(matches!(
            authenticated("x", &bytes, &[2; 32], "key"),
            Err(IndexError::ForeignKey { .. })
        ));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(matches!(
                checked("x", &bad),
                Err(IndexError::Damaged { .. })
            ));
            assert!(checked("x", &bytes[..at]).is_err());
        }
        bytes.push(0);
        assert!(checked("x", &bytes).is_err());
    }
}
