//! Decoders of untrusted bytes: cut short, lengthened, altered, made up.
#![allow(clippy::unwrap_used)]

mod support;

use oboro_attest::snp::table::{self, EntryKind};
use oboro_attest::snp::{Product, REPORT_BYTES, Report, SnpRules};
use oboro_attest::{
    AttestError, AttestedRole, Claims, Evidence, MAX_ENDORSEMENT_BYTES, MAX_STATEMENT_BYTES,
    Platform, Policy, PolicyFile, Subject,
};
use proptest::prelude::*;
use std::path::Path;
use support::{Leaf, NOW, VENDOR, report};

fn evidence() -> Evidence {
    Evidence {
        platform: Platform::Tdx,
        claims: Claims {
            role: AttestedRole::Searcher,
            session: [1; 32],
            nonce: [2; 32],
            channel_key: [3; 32],
            subject: Subject {
                ckks_keys: [4; 32],
                configuration: [5; 32],
                index_id: [6; 16],
                epoch: 7,
            },
            issued_at: NOW,
        },
        statement: b"statement".to_vec(),
        endorsements: b"endorsements".to_vec(),
    }
}

#[test]
fn evidence_comes_back_as_it_was() {
    let whole = evidence().encode().unwrap();
    assert_eq!(Evidence::decode(&whole).unwrap(), evidence());
}

#[test]
fn fail_evidence_truncated_or_trailing() {
    let whole = evidence().encode().unwrap();
    for length in 0..whole.len() {
        assert!(matches!(
            Evidence::decode(&whole[..length]),
            Err(AttestError::Malformed(_))
        ));
    }
    assert_eq!(
        Evidence::decode(&[&*whole, &[0]].concat()).unwrap_err(),
        AttestError::Malformed("bytes follow its end")
    );
}

#[test]
fn fail_evidence_with_other_heads() {
    let with = |at: usize, value: u8| {
        let mut other = evidence().encode().unwrap();
        other[at] = value;
        Evidence::decode(&other).unwrap_err()
    };
    assert!(matches!(with(0, b'o'), AttestError::Malformed(_)));
    assert_eq!(with(4, 1), AttestError::Version(1));
    assert_eq!(with(4, 3), AttestError::Version(3));
    assert_eq!(with(5, 77), AttestError::UnknownPlatform(77));
    assert!(matches!(with(6, 1), AttestError::Malformed(_)));
    assert!(matches!(with(7, 1), AttestError::Malformed(_)));
    assert!(matches!(with(8, 0), AttestError::Malformed(_)));
}

#[test]
fn fail_evidence_too_long() {
    let mut long = evidence();
    long.statement = vec![0; MAX_STATEMENT_BYTES + 1];
    assert!(long.encode().is_err());
    let mut long = evidence();
    long.endorsements = vec![0; MAX_ENDORSEMENT_BYTES + 1];
    assert!(long.encode().is_err());
    // Lengths far beyond the bytes that follow are refused before anything is allocated.
    for at in [0, 4] {
        let mut whole = evidence().encode().unwrap();
        let lengths = whole.len() - 8 - b"statementendorsements".len();
        whole[lengths + at..lengths + at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(
            Evidence::decode(&whole).unwrap_err(),
            AttestError::Malformed("it is too long")
        );
    }
}

/// Every byte of an encoding means something: no two encodings decode to the same.
#[test]
fn fail_evidence_altered_unnoticed() {
    let whole = evidence().encode().unwrap();
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        assert_ne!(
            Evidence::decode(&flipped).ok(),
            Some(evidence()),
            "byte {at}"
        );
    }
}

#[test]
fn fail_report_versions_and_reserved_bytes() {
    let refused = |at: usize, value: u8| {
        let mut other = report(&[1; 64]);
        other[at] = value;
        assert!(Report::parse(&other).is_err(), "byte {at:#x}");
    };
    for version in [0, 1, 6, 255] {
        refused(0, version);
    }
    refused(0x34, 0);
    refused(0x34, 2);
    refused(0x0a, 0x01); // Bit 17 of the policy must be set,
    refused(0x0b, 0x04); // bits from 26 on must not.
    for key in [2, 3, 4, 5, 6, 7] {
        refused(0x48, key << 2);
    }
    refused(0x48, 1 << 5);
    for reserved in (0x4c..0x50)
        .chain(0x18b..0x1a0)
        .chain([0x1eb, 0x1ef])
        .chain(0x1f8..0x2a0)
        .chain(0x330..0x4a0)
    {
        refused(reserved, 1);
    }
}

#[test]
fn versions_of_reports_differ_in_what_is_reserved() {
    let version = |number: u8, at: usize| {
        let mut other = report(&[1; 64]);
        other[0] = number;
        if number == 2 {
            other[0x188..0x18b].fill(0);
        }
        other[at] = 1;
        Report::parse(&other).is_ok()
    };
    // Processor family, since 3; mitigations, since 5.
    assert_eq!(
        [2, 3, 4, 5].map(|v| version(v, 0x188)),
        [false, true, true, true]
    );
    assert_eq!(
        [2, 3, 4, 5].map(|v| version(v, 0x1f8)),
        [false, false, false, true]
    );
    assert_eq!(
        [2, 3, 4, 5].map(|v| version(v, 0x207)),
        [false, false, false, true]
    );
    assert_eq!([2, 3, 4, 5].map(|v| version(v, 0x208)), [false; 4]);
}

#[test]
fn tables_come_back_as_they_were() {
    let entries: [(EntryKind, &[u8]); 5] = [
        (EntryKind::Vcek, b"1"),
        (EntryKind::Vlek, b"22"),
        (EntryKind::Intermediate, b"333"),
        (EntryKind::Root, b"4444"),
        (EntryKind::RevocationList, b"55555"),
    ];
    let mut bytes = table::encode(&entries).unwrap();
    assert_eq!(table::parse(&bytes).unwrap(), entries);
    // The kernel pads to whole pages.
    bytes.resize(4096, 0);
    assert_eq!(table::parse(&bytes).unwrap(), entries);
    assert_eq!(table::parse(&[]).unwrap(), []);
}

/// The bytes of a table as the GHCB specification has them.
#[test]
fn a_table_has_the_published_form() {
    let mut bytes = vec![
        0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac,
        0xcd, 48, 0, 0, 0, 3, 0, 0, 0,
    ];
    bytes.extend_from_slice(&[0; 24]);
    bytes.extend_from_slice(b"abc");
    assert_eq!(table::encode(&[(EntryKind::Vcek, b"abc")]).unwrap(), bytes);
}

#[test]
fn fail_tables_that_point_outside_or_do_not_end() {
    let whole = table::encode(&[(EntryKind::Vcek, b"certificate")]).unwrap();
    for length in 1..whole.len() {
        assert!(table::parse(&whole[..length]).is_err(), "{length}");
    }
    let with = |at: usize, number: u32| {
        let mut other = whole.clone();
        other[at..at + 4].copy_from_slice(&number.to_le_bytes());
        table::parse(&other).is_err()
    };
    assert!(with(16, 0) && with(16, 47) && with(16, u32::MAX));
    assert!(with(20, 0) && with(20, 12) && with(20, u32::MAX));
    assert!(table::parse(&[1; 24 * 40]).is_err());
    assert!(table::encode(&[(EntryKind::Vcek, b"")]).is_err());
    assert!(table::encode(&[(EntryKind::Vcek, b"1".as_slice()); 17]).is_err());
    assert!(table::encode(&[(EntryKind::Vcek, &vec![1; MAX_ENDORSEMENT_BYTES])]).is_err());
}

fn verify_with_list(list: Vec<u8>) -> Result<(), AttestError> {
    let mut report = report(&[1; 64]);
    VENDOR.sign(&mut report);
    let rules = SnpRules {
        measurements: vec![support::MEASUREMENT.to_vec()],
        certificates: vec![PolicyFile {
            path: "vcek.der".to_owned(),
            content: VENDOR.leaf(&Leaf::milan()),
        }],
        revocation_lists: vec![PolicyFile {
            path: "crl.der".to_owned(),
            content: list,
        }],
        ..SnpRules::default()
    };
    VENDOR
        .verifier(Product::Milan)
        .verify_report(&report, &[], &rules, NOW)
        .map(|_| ())
}

#[test]
fn fail_revocation_lists_cut_lengthened_or_altered() {
    let list =
        VENDOR
            .root
            .revocation_list(&[(5, None), (6, Some("SEV-Test"))], NOW - 9, Some(NOW + 9));
    assert_eq!(verify_with_list(list.clone()), Ok(()));
    for length in 0..list.len() {
        assert!(verify_with_list(list[..length].to_vec()).is_err());
    }
    assert!(verify_with_list([&*list, &[0]].concat()).is_err());
    for at in 0..list.len() {
        let mut flipped = list.clone();
        flipped[at] ^= 1;
        assert!(verify_with_list(flipped).is_err(), "byte {at}");
    }
}

proptest! {
    #[test]
    fn decoding_evidence_never_panics(bytes: Vec<u8>) {
        let _ = Evidence::decode(&bytes);
        let mut framed = b"OBEV\x02\xff\0\0".to_vec();
        framed.extend_from_slice(&bytes);
        let _ = Evidence::decode(&framed);
    }

    #[test]
    fn parsing_reports_never_panics(
        edits in prop::collection::vec((0..REPORT_BYTES, any::<u8>()), 0..20),
        bytes: Vec<u8>,
    ) {
        let _ = Report::parse(&bytes);
        let mut edited = report(&[1; 64]);
        for (at, value) in edits {
            edited[at] = value;
        }
        if let Ok(report) = Report::parse(&edited) {
            let _ = report.product();
            for product in [Product::Milan, Product::Genoa, Product::Turin] {
                let _ = report.reported(product);
            }
        }
    }

    #[test]
    fn parsing_tables_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        edits in prop::collection::vec((0..60_usize, any::<u8>()), 0..8),
    ) {
        let _ = table::parse(&bytes);
        let mut edited = table::encode(&[(EntryKind::Vcek, b"certificate")]).unwrap();
        for (at, value) in edits {
            if let Some(byte) = edited.get_mut(at) {
                *byte = value;
            }
        }
        let _ = table::parse(&edited);
    }

    #[test]
    fn reading_revocation_lists_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut list = VENDOR.root.revocation_list(&[(5, None)], NOW - 9, Some(NOW + 9));
        for (at, value) in edits {
            let at = at.index(list.len());
            list[at] = value;
        }
        let _ = verify_with_list(list);
    }

    #[test]
    fn reading_policies_never_panics(text: String, key in "[a-z-]{1,20}", value in "[0-9a-f'\\[\\]{}=]{0,30}") {
        let _ = Policy::from_toml(&text, Path::new("."));
        let entry = format!("version = 1\n[[accept]]\nplatform = 'sev-snp'\n{key} = {value}\n");
        let _ = Policy::from_toml(&entry, Path::new("."));
    }
}
