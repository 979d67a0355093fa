#![allow(clippy::unwrap_used)]

use super::*;
use chacha20::ChaCha20Rng;
use proptest::prelude::*;
use rand_core::SeedableRng;
use sha2::Digest;
use std::collections::HashMap;
use std::path::Path;

fn rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([7; 32])
}

/// The fields and the content of a test vector.
fn vector(path: &Path) -> (HashMap<String, String>, Vec<u8>) {
    let bytes = std::fs::read(path).unwrap();
    let end = bytes.windows(2).position(|w| w == b"\n\n").unwrap();
    let fields = std::str::from_utf8(&bytes[..end])
        .unwrap()
        .lines()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    (fields, bytes[end + 2..].to_vec())
}

fn unhex<const N: usize>(text: &str) -> [u8; N] {
    assert_eq!(text.len(), 2 * N);
    std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}

/// Opens a vector: by its passphrase, or, where it is for a public key, its
/// payload by the file key that it names.
fn open_vector(
    fields: &HashMap<String, String>,
    content: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let bytes = if fields.contains_key("armored") {
        let text = std::str::from_utf8(content).map_err(|_| Refusal::Damaged)?;
        pem::read(LABEL, text).ok_or(Refusal::Damaged)?
    } else {
        Zeroizing::new(content.to_vec())
    };
    if let Some(passphrase) = fields.get("passphrase") {
        return open(&bytes, passphrase);
    }
    let header = bytes.windows(5).position(|w| w == b"\n--- ");
    let mac = header.ok_or(Refusal::Damaged)? + 1;
    let end = mac + bytes[mac..].iter().position(|&b| b == b'\n').unwrap();
    let key = Zeroizing::new(unhex(&fields["file key"]));
    open_payload(&key, &bytes[end + 1..])
}

#[test]
fn the_formats_test_vectors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/age");
    let (mut opened, mut refused) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "README.md" {
            continue;
        }
        let (fields, content) = vector(&path);
        let result = open_vector(&fields, &content);
        if fields["expect"] == "success" {
            let plain = result.unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
            let hash = sha2::Sha256::digest(&plain[..]);
            assert_eq!(hash[..], unhex::<32>(&fields["payload"]), "{name}");
            opened += 1;
        } else {
            assert!(result.is_err(), "{name}");
            refused += 1;
        }
    }
    assert!(opened >= 8 && refused >= 50, "{opened} {refused}");
}

#[test]
fn refusals_name_their_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/age");
    for (name, reason) in [
        ("scrypt_no_match", Refusal::Passphrase),
        ("scrypt_work_factor_23", Refusal::Work(23)),
        ("scrypt_double", Refusal::Kind),
        ("scrypt_uppercase", Refusal::Kind),
        ("scrypt_salt_short", Refusal::Damaged),
    ] {
        let (fields, content) = vector(&folder.join(name));
        assert_eq!(open_vector(&fields, &content).err(), Some(reason), "{name}");
    }
    assert_eq!(
        Header::parse(b"age-encryption.org/v2\n").err(),
        Some(Refusal::Version)
    );
    for refusal in [
        Refusal::Version,
        Refusal::Kind,
        Refusal::Work(23),
        Refusal::Damaged,
        Refusal::Passphrase,
    ] {
        let text = refusal.error("an owner key").to_string();
        assert!(text.starts_with("holds an owner key") && !text.contains('\n'));
    }
}

#[test]
fn round_trip_around_chunk_ends() {
    for length in [0, 1, 47, 48, 49, 65_535, 65_536, 65_537, 131_072, 131_073] {
        let plain: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
        let text = encrypt(&plain, "horse", 4, &mut rng());
        assert!(is(&text));
        let opened = decrypt("x", &text, "horse").unwrap();
        assert!(*opened == plain, "{length}");
        // Remarks before it, and other ends of lines.
        let other = format!("# a remark\n\n{}", text.replace('\n', "\r\n"));
        assert!(*decrypt("x", &other, "horse").unwrap() == plain);
    }
}

#[test]
fn fail_every_character_changed_or_cut() {
    let text = encrypt(b"a secret", "horse", 2, &mut rng());
    assert!(decrypt("x", &text, "Horse").is_err());
    assert!(decrypt("x", &text, "").is_err());
    for at in 0..text.trim_end().len() {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let bad = String::from_utf8(bytes).unwrap();
        assert!(decrypt("x", &bad, "horse").is_err(), "character {at}");
        assert!(decrypt("x", &text[..at], "horse").is_err(), "cut to {at}");
    }
    let bytes = pem::read(LABEL, &text).unwrap();
    assert_eq!(open(&bytes, "horse").unwrap()[..], b"a secret"[..]);
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&bad, "horse").is_err(), "bit {bit}");
    }
    for cut in 0..bytes.len() {
        assert!(open(&bytes[..cut], "horse").is_err());
    }
    assert!(open(&[&bytes[..], &[0]].concat(), "horse").is_err());
    assert!(decrypt("x", &format!("{}x", *text), "horse").is_err());
    assert!(decrypt("x", &format!("{0}{0}", *text), "horse").is_err());
}

proptest! {
    #[test]
    fn fail_random_headers_never_panic(
        tail in proptest::collection::vec(any::<u8>(), 0..200),
        which in 0_usize..4,
    ) {
        let start = [
            "",
            "age-encryption.org/v1\n",
            "age-encryption.org/v1\n-> scrypt rF0/NwblUHHTpgQgRpe5CQ 1\n",
            "age-encryption.org/v1\n-> scrypt rF0/NwblUHHTpgQgRpe5CQ 1\ngUjEymFKMVXQEKdMMHL24oYexjE3TIC0O0zGSqJ2aUY\n---",
        ][which];
        let bytes = [start.as_bytes(), &tail].concat();
        prop_assert!(open(&bytes, "horse").is_err());
    }

    #[test]
    fn fail_random_armour_never_panics(text in "[A-Za-z0-9+/=\n -]{0,200}") {
        let _ = pem::read(LABEL, &text);
        let framed = format!("-----BEGIN {LABEL}-----\n{text}\n-----END {LABEL}-----");
        if let Some(bytes) = pem::read(LABEL, &framed) {
            // One text for each content.
            let again = pem::write(LABEL, &bytes);
            prop_assert_eq!(again.trim_end(), framed.trim());
        }
    }
}
