//! Decoders of bytes that anyone can send.

#![allow(clippy::unwrap_used)]

use oboro_tpm::{
    AttestationPublic, PcrSelection, PcrValues, QuoteSignature, QuoteStatement, TpmError,
};
use proptest::prelude::*;

/// A quote over PCR 0 as Part 2 of the specification lays it out, written by hand.
fn statement() -> Vec<u8> {
    let mut bytes = vec![0xff, b'T', b'C', b'G', 0x80, 0x18];
    bytes.extend([0, 34, 0x00, 0x0b]);
    bytes.extend([5; 32]);
    bytes.extend([0, 3, 1, 2, 3]);
    bytes.extend(7_u64.to_be_bytes());
    bytes.extend(8_u32.to_be_bytes());
    bytes.extend(9_u32.to_be_bytes());
    bytes.push(1);
    bytes.extend(10_u64.to_be_bytes());
    bytes.extend([0, 0, 0, 1, 0x00, 0x0b, 3, 0b1000_0001, 0, 0]);
    bytes.extend([0, 32]);
    bytes.extend([6; 32]);
    bytes
}

/// A restricted P-256 signing key, likewise.
fn public() -> Vec<u8> {
    let mut bytes = vec![0x00, 0x23, 0x00, 0x0b, 0x00, 0x05, 0x00, 0x72, 0, 0];
    bytes.extend([0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10]);
    bytes.extend([0, 32]);
    bytes.extend([1; 32]);
    bytes.extend([0, 32]);
    bytes.extend([2; 32]);
    bytes
}

fn signature() -> Vec<u8> {
    let mut bytes = vec![0x00, 0x18, 0x00, 0x0b, 0, 32];
    bytes.extend([3; 32]);
    bytes.extend([0, 31]);
    bytes.extend([4; 31]);
    bytes
}

#[test]
fn the_specifications_layout_is_read() {
    let statement = QuoteStatement::decode(&statement()).unwrap();
    assert_eq!(statement.extra_data, [1, 2, 3]);
    assert_eq!(statement.clock, 7);
    assert_eq!(statement.resets, 8);
    assert_eq!(statement.restarts, 9);
    assert!(statement.clock_is_safe);
    assert_eq!(statement.firmware, 10);
    assert_eq!(statement.selection, PcrSelection::new([0, 7]).unwrap());
    assert_eq!(statement.digest, [6; 32]);
    AttestationPublic::decode(&public()).unwrap();
    let QuoteSignature::EcdsaP256(both) = QuoteSignature::decode(&signature()).unwrap() else {
        panic!("another scheme");
    };
    assert_eq!(both[..32], [3; 32]);
    assert_eq!(both[32], 0);
    assert_eq!(both[33..], [4; 31]);
}

#[test]
fn fail_truncated_and_trailing() {
    for (bytes, accepts) in [
        (
            statement(),
            (|bytes: &[u8]| QuoteStatement::decode(bytes).is_ok()) as fn(&[u8]) -> bool,
        ),
        (public(), |bytes| AttestationPublic::decode(bytes).is_ok()),
        (signature(), |bytes| QuoteSignature::decode(bytes).is_ok()),
    ] {
        assert!(accepts(&bytes));
        for length in 0..bytes.len() {
            assert!(!accepts(&bytes[..length]), "{length}");
        }
        let mut trailing = bytes.clone();
        trailing.push(0);
        assert!(!accepts(&trailing));
        trailing.resize(5_000, 0);
        assert!(!accepts(&trailing));
    }
}

#[test]
fn fail_not_generated_by_a_tpm() {
    for position in 0..4 {
        let mut bytes = statement();
        bytes[position] ^= 1;
        assert!(QuoteStatement::decode(&bytes).is_err(), "{position}");
    }
}

#[test]
fn fail_another_kind_of_statement() {
    // A certification of a key, whose body is two names.
    let mut bytes = statement();
    bytes[4..6].copy_from_slice(&[0x80, 0x17]);
    let body = bytes.len() - 44;
    bytes.truncate(body);
    bytes.extend([0, 0, 0, 0]);
    assert_eq!(
        QuoteStatement::decode(&bytes).unwrap_err(),
        TpmError::Malformed("it is a TPM's statement about something else than its PCRs")
    );
}

#[test]
fn fail_keys_that_are_not_restricted_to_signing() {
    // Each attribute that is needed, taken away: fixedTPM, fixedParent,
    // sensitiveDataOrigin, restricted, sign; and decrypt, added.
    for (byte, bit) in [
        (7, 0x02),
        (7, 0x10),
        (7, 0x20),
        (5, 0x01),
        (5, 0x04),
        (5, 0x02),
    ] {
        let mut bytes = public();
        bytes[byte] ^= bit;
        assert!(matches!(
            AttestationPublic::decode(&bytes),
            Err(TpmError::Key(_))
        ));
    }
    // SHA-384 for SHA-256 in the scheme; P-384 for P-256.
    for (byte, value) in [(15, 0x0c), (17, 0x04)] {
        let mut bytes = public();
        bytes[byte] = value;
        assert!(AttestationPublic::decode(&bytes).is_err());
    }
}

#[test]
fn fail_selections() {
    assert_eq!(PcrSelection::new([24]), Err(TpmError::PcrNumber(24)));
    assert_eq!(PcrSelection::new([]), Err(TpmError::NoPcr));
    assert_eq!(
        PcrSelection::from_bits(1 << 31),
        Err(TpmError::PcrNumber(31))
    );
    let two = PcrSelection::new([1, 2]).unwrap();
    assert!(PcrValues::new(two, vec![[0; 32]]).is_err());
    // Two banks, an empty selection, another bank.
    for (byte, value) in [(75, 2), (79, 0), (77, 0x04)] {
        let mut bytes = statement();
        assert_eq!(bytes[72..79], [0, 0, 0, 1, 0x00, 0x0b, 3]);
        bytes[byte] = value;
        assert!(QuoteStatement::decode(&bytes).is_err(), "{byte}");
    }
}

proptest! {
    #[test]
    fn decoders_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = QuoteStatement::decode(&bytes);
        let _ = QuoteSignature::decode(&bytes);
        let _ = AttestationPublic::decode(&bytes);
    }

    #[test]
    fn altered_bytes_never_panic(position in 0..119_usize, value: u8) {
        for mut bytes in [statement(), public(), signature()] {
            if let Some(byte) = bytes.get_mut(position) {
                *byte = value;
            }
            let _ = QuoteStatement::decode(&bytes);
            let _ = QuoteSignature::decode(&bytes);
            if let Ok(key) = AttestationPublic::decode(&bytes) {
                prop_assert_eq!(
                    key.name() == AttestationPublic::decode(&public()).unwrap().name(),
                    bytes == public()
                );
            }
        }
    }
}
