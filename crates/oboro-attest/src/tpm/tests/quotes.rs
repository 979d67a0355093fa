use super::*;

#[test]
fn a_genuine_quote_is_accepted() {
    let key = Key::new();
    let verified = verify(&key.quote(&Made::default()), &key.rules()).unwrap();
    assert_eq!(verified.binding, BINDING);
    assert_eq!(verified.identity.measurement.len(), 32);
    let fact = |name| {
        let facts = &verified.identity.facts;
        facts.iter().find(|fact| fact.0 == name).unwrap().1.as_str()
    };
    assert_eq!(fact("attestation key"), crate::hex::encode(&key.name()));
    assert_eq!(fact("resets"), "3");
    assert!(fact("pcrs").contains(" 7=0808080808"), "{}", fact("pcrs"));
    assert!(verified.remarks[0].contains("keeps no memory from the host"));
}

#[test]
fn another_selection_is_another_measurement() {
    let key = Key::new();
    let measurement = |pcrs: PcrValues| {
        let rules = TpmRules {
            pcrs: [(0, vec![[1; 32]])].into(),
            ..key.rules()
        };
        let made = Made {
            pcrs,
            ..Made::default()
        };
        verify(&key.quote(&made), &rules)
            .unwrap()
            .identity
            .measurement
    };
    let same = [[1; 32], [5; 32]].to_vec();
    let in_4 = PcrValues::new(PcrSelection::new([0, 4]).unwrap(), same.clone()).unwrap();
    let in_23 = PcrValues::new(PcrSelection::new([0, 23]).unwrap(), same).unwrap();
    assert_eq!(in_4.digest(), in_23.digest());
    assert_ne!(measurement(in_4), measurement(in_23));
}

#[test]
fn fail_every_flipped_bit() {
    let key = Key::new();
    let rules = key.rules();
    let bytes = key.quote(&Made::default()).encode().unwrap();
    verify_bytes(&bytes, &[], &rules).unwrap();
    for position in 0..bytes.len() {
        for bit in 0..8 {
            let mut altered = bytes.clone();
            altered[position] ^= 1 << bit;
            assert!(
                verify_bytes(&altered, &[], &rules).is_err(),
                "byte {position}, bit {bit}"
            );
        }
    }
}

#[test]
fn fail_truncated_and_trailing() {
    let key = Key::new();
    let rules = key.rules();
    let bytes = key.quote(&Made::default()).encode().unwrap();
    for length in 0..bytes.len() {
        assert!(matches!(
            verify_bytes(&bytes[..length], &[], &rules),
            Err(AttestError::Malformed(_))
        ));
    }
    for trailing in [1, 31, 32, 64, 4096] {
        let mut longer = bytes.clone();
        longer.resize(bytes.len() + trailing, 0);
        assert!(matches!(
            verify_bytes(&longer, &[], &rules),
            Err(AttestError::Malformed(_))
        ));
    }
}

#[test]
fn fail_empty_short_zero_or_foreign_data_of_the_caller() {
    let key = Key::new();
    let right = extra_data(&BINDING);
    let mut flipped = right;
    flipped[31] ^= 1;
    for extra in [
        vec![],
        vec![0],
        vec![0; 32],
        right[..31].to_vec(),
        [right.as_slice(), &[0]].concat(),
        flipped.to_vec(),
        // The binding itself, and that of other claims.
        BINDING.to_vec(),
        BINDING[..32].to_vec(),
        extra_data(&[1; 64]).to_vec(),
    ] {
        let made = Made {
            extra,
            ..Made::default()
        };
        assert_eq!(
            verify(&key.quote(&made), &key.rules()),
            Err(AttestError::Binding)
        );
    }
    let made = Made {
        binding: [1; 64],
        ..Made::default()
    };
    assert_eq!(
        verify(&key.quote(&made), &key.rules()),
        Err(AttestError::Binding)
    );
}

#[test]
fn fail_statements_a_tpm_did_not_make_or_about_something_else() {
    let key = Key::new();
    for made in [
        Made {
            magic: [0xff, b'T', b'C', b'H'],
            ..Made::default()
        },
        Made {
            magic: [0; 4],
            ..Made::default()
        },
        // Certification, time, creation, NV.
        Made {
            kind: [0x80, 0x17],
            ..Made::default()
        },
        Made {
            kind: [0x80, 0x19],
            ..Made::default()
        },
        Made {
            kind: [0x80, 0x1a],
            ..Made::default()
        },
        Made {
            kind: [0x80, 0x14],
            ..Made::default()
        },
    ] {
        assert!(matches!(
            verify(&key.quote(&made), &key.rules()),
            Err(AttestError::Malformed(_))
        ));
    }
}

#[test]
fn fail_key_that_is_not_restricted() {
    let key = Key::new();
    for attributes in [
        [0, 4, 0, 0x72],
        [0, 7, 0, 0x72],
        [0, 1, 0, 0x72],
        [0, 5, 0, 0x70],
        [0, 5, 0, 0x62],
        [0, 5, 0, 0x52],
    ] {
        let rules = TpmRules {
            attestation_keys: vec![Sha256::digest(key.public(attributes)).into()],
            ..key.rules()
        };
        let made = Made {
            attributes,
            ..Made::default()
        };
        assert!(matches!(
            verify(&key.quote(&made), &rules),
            Err(AttestError::Endorsement(_))
        ));
    }
}

#[test]
fn fail_another_attestation_key() {
    let (key, other) = (Key::new(), Key::new());
    assert!(matches!(
        verify(&other.quote(&Made::default()), &key.rules()),
        Err(AttestError::Endorsement(_))
    ));
    // The listed key's public part with the signature of another.
    let mut mixed = other.quote(&Made::default());
    mixed.quote.public = key.public(Made::default().attributes);
    assert!(matches!(
        verify(&mixed, &key.rules()),
        Err(AttestError::Signature(_))
    ));
}

#[test]
fn fail_values_that_are_not_those_quoted() {
    let key = Key::new();
    // The accepted values beside a signed digest of others.
    let made = Made {
        digest: Some([6; 32]),
        ..Made::default()
    };
    assert!(matches!(
        verify(&key.quote(&made), &key.rules()),
        Err(AttestError::Signature(_))
    ));
    // The values of other PCRs under the accepted ones' numbers.
    let mut renumbered = key.quote(&Made::default());
    let accepted = renumbered.quote.pcrs.iter().map(|(_, value)| *value);
    renumbered.quote.pcrs = PcrValues::new(
        PcrSelection::new([0, 4, 7, 12]).unwrap(),
        accepted.collect(),
    )
    .unwrap();
    assert!(matches!(
        verify(&renumbered, &key.rules()),
        Err(AttestError::Signature(_))
    ));
}

#[test]
fn fail_zero_pcrs() {
    let key = Key::new();
    for nothing in [[0; 32], [0xff; 32]] {
        let selection = PcrSelection::new([4, 7]).unwrap();
        for values in [[nothing; 2], [[5; 32], nothing], [nothing, [8; 32]]] {
            let made = Made {
                pcrs: PcrValues::new(selection, values.to_vec()).unwrap(),
                ..Made::default()
            };
            assert!(matches!(
                verify(&key.quote(&made), &key.rules()),
                Err(AttestError::State(_))
            ));
        }
        // Nor can a policy ask for them.
        let rules = TpmRules {
            pcrs: [(4, vec![[5; 32], nothing])].into(),
            ..key.rules()
        };
        assert!(matches!(
            verify(&key.quote(&Made::default()), &rules),
            Err(AttestError::Policy(_))
        ));
    }
}

#[test]
fn fail_other_or_missing_pcrs() {
    let key = Key::new();
    let rules = TpmRules {
        pcrs: [(4, vec![[5; 32]]), (7, vec![[9; 32]])].into(),
        ..key.rules()
    };
    assert_eq!(
        verify(&key.quote(&Made::default()), &rules),
        Err(AttestError::Measurement)
    );
    let made = Made {
        pcrs: values([0, 4, 11]),
        ..Made::default()
    };
    assert!(matches!(
        verify(&key.quote(&made), &key.rules()),
        Err(AttestError::State(_))
    ));
}

#[test]
fn a_twin_signature_is_no_other_identity() {
    // The order of P-256.
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ];
    let key = Key::new();
    let genuine = key.quote(&Made::default());
    let mut twin = genuine.clone();
    // n - s in place; s begins after scheme, hash, r with its length, and its own.
    let s = &mut twin.quote.signature[4 + 34 + 2..];
    let mut borrow = 0;
    for position in (0..32).rev() {
        let difference = i16::from(ORDER[position]) - i16::from(s[position]) - borrow;
        s[position] = difference.rem_euclid(256) as u8;
        borrow = i16::from(difference < 0);
    }
    assert_ne!(genuine.quote.signature, twin.quote.signature);
    assert_eq!(
        verify(&genuine, &key.rules()).unwrap(),
        verify(&twin, &key.rules()).unwrap()
    );
}

proptest::proptest! {
    #[test]
    fn decoders_never_panic(bytes in proptest::collection::vec(0_u8.., 0..400)) {
        let _ = Statement::decode(&bytes);
        let _ = endorsements::decode(&bytes);
        let framed = [b"OBTQ\x01\0\0\0".as_slice(), &bytes].concat();
        let _ = Statement::decode(&framed);
    }
}
