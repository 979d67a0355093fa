//! Every check on SEV-SNP evidence, on evidence that is correctly signed and wrong in one
//! way.
#![allow(clippy::unwrap_used)]

mod support;

use oboro_attest::snp::table::{self, EntryKind};
use oboro_attest::snp::{Product, Revocation, Root, SnpRules, SnpVerifier, Tcb};
use oboro_attest::{AttestError, PolicyFile, Verified};
use p384::ecdsa::Signature;
use support::{
    Leaf, MEASUREMENT, MILAN_TCB, NOW, OTHER, VENDOR, YEAR, endorsements, put_signature, report,
};

const DATA: [u8; 64] = [0xb1; 64];

fn rules() -> SnpRules {
    SnpRules {
        measurements: vec![MEASUREMENT.to_vec()],
        minimum_tcb: Tcb {
            fmc: 0,
            bootloader: 4,
            tee: 1,
            snp: 20,
            microcode: 200,
        },
        ..SnpRules::default()
    }
}

/// One verification; every part can be changed.
struct Case {
    report: [u8; 1184],
    leaf: Leaf,
    list: Vec<u8>,
    rules: SnpRules,
    product: Product,
    now: u64,
}

impl Case {
    fn new() -> Self {
        Self {
            report: report(&DATA),
            leaf: Leaf::milan(),
            list: VENDOR.revocation_list(),
            rules: rules(),
            product: Product::Milan,
            now: NOW,
        }
    }

    fn with_report(change: impl FnOnce(&mut [u8; 1184])) -> Self {
        let mut case = Self::new();
        change(&mut case.report);
        case
    }

    fn with_leaf(change: impl FnOnce(&mut Leaf)) -> Self {
        let mut case = Self::new();
        change(&mut case.leaf);
        case
    }

    fn with_rules(change: impl FnOnce(&mut SnpRules)) -> Self {
        let mut case = Self::new();
        change(&mut case.rules);
        case
    }

    fn with_list(list: Vec<u8>) -> Self {
        let mut case = Self::new();
        case.list = list;
        case
    }

    fn at(now: u64) -> Self {
        let mut case = Self::new();
        case.now = now;
        case
    }

    fn verify(mut self) -> Result<Verified, AttestError> {
        VENDOR.sign(&mut self.report);
        VENDOR.verifier(self.product).verify_report(
            &self.report,
            &endorsements(&VENDOR.leaf(&self.leaf), &self.list),
            &self.rules,
            self.now,
        )
    }

    #[track_caller]
    fn refused(self, message: &str) {
        let error = self.verify().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn good_evidence_passes() {
    let verified = Case::new().verify().unwrap();
    assert_eq!(verified.binding, DATA);
    assert_eq!(verified.identity.measurement, MEASUREMENT);
    assert_eq!(verified.remarks, [""; 0]);
}

#[test]
fn fail_debug_bit() {
    Case::with_report(|report| report[0x08 + 2] |= 1 << 3).refused("debug mode");
}

#[test]
fn fail_migration_agent_unless_allowed() {
    let migrating = |report: &mut [u8; 1184]| report[0x08 + 2] |= 1 << 2;
    Case::with_report(migrating).refused("migration agent");
    let mut allowed = Case::with_report(migrating);
    allowed.rules.allow_migration = true;
    assert!(allowed.verify().is_ok());
}

#[test]
fn fail_privilege_levels_other_than_0() {
    for level in [1, 2, 3, 255] {
        Case::with_report(|report| report[0x30] = level).refused("privilege level");
    }
}

#[test]
fn fail_zero_report_data() {
    let mut case = Case::new();
    case.report = report(&[0; 64]);
    assert_eq!(case.verify().unwrap_err(), AttestError::Binding);
}

#[test]
fn fail_tcb_below_the_floor_in_each_component() {
    let raise: [fn(&mut Tcb); 5] = [
        |tcb| tcb.fmc += 1,
        |tcb| tcb.bootloader += 1,
        |tcb| tcb.tee += 1,
        |tcb| tcb.snp += 1,
        |tcb| tcb.microcode += 1,
    ];
    for raise in raise {
        Case::with_rules(|rules| raise(&mut rules.minimum_tcb)).refused("'minimum-tcb'");
    }
}

#[test]
fn fail_launched_or_running_below_the_floor() {
    for at in [0x38, 0x1E0, 0x1F0] {
        for component in [0, 1, 6, 7] {
            Case::with_report(|report| report[at + component] -= 1).refused("'minimum-tcb'");
        }
    }
}

#[test]
fn fail_processors_of_another_line() {
    Case::with_rules(|rules| rules.products = vec![Product::Genoa, Product::Turin])
        .refused("'products' does not list");
    let listed = Case::with_rules(|rules| rules.products = vec![Product::Genoa, Product::Milan]);
    assert!(listed.verify().is_ok());
}

#[test]
fn fail_tcb_of_the_certificate_is_another() {
    // The others stand for components that these products do not have.
    for index in [0, 1, 2, 7] {
        Case::with_leaf(|leaf| leaf.versions[index].1 += 1).refused("another TCB version");
        Case::with_leaf(|leaf| leaf.versions[index].1 -= 1).refused("another TCB version");
    }
    Case::with_leaf(|leaf| leaf.versions.clear()).refused("no TCB version");
    Case::with_report(|report| report[0x180 + 3] = 1).refused("reserved bits");
}

#[test]
fn fail_chip_of_the_certificate_is_another() {
    Case::with_leaf(|leaf| leaf.chip = Some(vec![0xc6; 64])).refused("another chip");
    Case::with_leaf(|leaf| leaf.chip = Some(vec![0xc5; 63])).refused("names no chip");
    Case::with_leaf(|leaf| leaf.chip = None).refused("names no chip");
    Case::with_report(|report| report[0x1A0..0x1E0].fill(0)).refused("another chip");
}

#[test]
fn fail_measurements_not_listed_or_none() {
    for measurements in [
        vec![],
        vec![vec![]],
        vec![vec![0x3e; 47]],
        vec![vec![0x3f; 48]],
    ] {
        let error = Case::with_rules(|rules| rules.measurements = measurements)
            .verify()
            .unwrap_err();
        assert_eq!(error, AttestError::Measurement);
    }
}

#[test]
fn fail_other_identifiers_than_listed() {
    assert!(
        Case::with_rules(|rules| {
            rules.family_ids = vec![[0xfa; 16]];
            rules.image_ids = vec![[0x1d; 16]];
            rules.id_key_digests = vec![[0xde; 48]];
            rules.chip_ids = vec![[0xc5; 64]];
            rules.minimum_guest_svn = 5;
        })
        .verify()
        .is_ok()
    );
    Case::with_rules(|rules| rules.family_ids = vec![[1; 16]]).refused("'family-ids'");
    Case::with_rules(|rules| rules.image_ids = vec![[1; 16]]).refused("'image-ids'");
    Case::with_rules(|rules| rules.id_key_digests = vec![[1; 48]]).refused("'id-key-digests'");
    Case::with_rules(|rules| rules.chip_ids = vec![[1; 64]]).refused("'chip-ids'");
    Case::with_rules(|rules| rules.minimum_guest_svn = 6).refused("at least 6");
}

#[test]
fn fail_certificates_out_of_date() {
    Case::at(NOW + YEAR + 1).refused("SEV-VCEK has expired");
    Case::at(NOW - YEAR - 1).refused("SEV-VCEK is not valid yet");
    let dates = |root: (u64, u64), intermediate: (u64, u64)| {
        let root_der = VENDOR
            .root
            .authority_certificate(&VENDOR.root, root.0, root.1);
        let intermediate_der =
            VENDOR
                .root
                .authority_certificate(&VENDOR.intermediate, intermediate.0, intermediate.1);
        let mut report = report(&DATA);
        VENDOR.sign(&mut report);
        SnpVerifier::with_roots(&[Root {
            product: Product::Milan,
            root: &root_der,
            intermediate: &intermediate_der,
        }])
        .unwrap()
        .verify_report(
            &report,
            &endorsements(&VENDOR.leaf(&Leaf::milan()), &VENDOR.revocation_list()),
            &rules(),
            NOW,
        )
        .map(|_| ())
        .map_err(|error| error.to_string())
    };
    let (before, during, after) = ((NOW - 9, NOW - 1), (NOW - 9, NOW + 9), (NOW + 1, NOW + 9));
    assert_eq!(dates(during, during), Ok(()));
    assert!(
        dates(before, during)
            .unwrap_err()
            .contains("ARK-Test has expired")
    );
    assert!(
        dates(after, during)
            .unwrap_err()
            .contains("ARK-Test is not valid yet")
    );
    assert!(
        dates(during, before)
            .unwrap_err()
            .contains("SEV-Test has expired")
    );
    assert!(
        dates(during, after)
            .unwrap_err()
            .contains("SEV-Test is not valid yet")
    );
}

#[test]
fn fail_revocation_list_missing_unless_unchecked() {
    let verify = |revocation| {
        let mut report = report(&DATA);
        VENDOR.sign(&mut report);
        VENDOR.verifier(Product::Milan).verify_report(
            &report,
            &table::encode(&[(EntryKind::Vcek, &VENDOR.leaf(&Leaf::milan()))]).unwrap(),
            &SnpRules {
                revocation,
                ..rules()
            },
            NOW,
        )
    };
    let error = verify(Revocation::Required).unwrap_err().to_string();
    assert!(error.contains("no revocation list of ARK-Test"), "{error}");
    assert_eq!(
        verify(Revocation::Unchecked).unwrap().remarks,
        ["nobody checked whether the platform's key was revoked"]
    );
}

#[test]
fn fail_revocation_list_out_of_date_or_of_another() {
    let root = &VENDOR.root;
    Case::with_list(root.revocation_list(&[], NOW - 9, Some(NOW - 1))).refused("has expired");
    Case::with_list(root.revocation_list(&[], NOW + 1, Some(NOW + 9))).refused("not valid yet");
    Case::with_list(root.revocation_list(&[], NOW - 9, None)).refused("until when");
    Case::with_list(OTHER.revocation_list()).refused("no revocation list");
    let by_intermediate = VENDOR
        .intermediate
        .revocation_list(&[], NOW - 9, Some(NOW + 9));
    Case::with_list(by_intermediate).refused("no revocation list");
    let mut forged = VENDOR.revocation_list();
    *forged.last_mut().unwrap() ^= 1;
    Case::with_list(forged).refused("does not carry its signature");
}

#[test]
fn fail_revoked_authority_and_chip() {
    let list = |entries: &[_]| VENDOR.root.revocation_list(entries, NOW - 9, Some(NOW + 9));
    Case::with_list(list(&[(3, None), (0x1_0001, None)])).refused("SEV-Test has been revoked");
    Case::with_list(list(&[(0, Some("SEV-Test"))])).refused("SEV-VCEK has been revoked");
    // Serial numbers are each issuer's own.
    for others in [
        [(0, None), (4, None)],
        [(0x1_0001, Some("SEV-Test")), (4, None)],
        [(4, Some("SEV-Other")), (0x1_0001, None)],
    ] {
        assert!(Case::with_list(list(&others)).verify().is_ok());
    }
    // An unchecked policy still heeds a list that is there.
    let mut unchecked = Case::with_list(list(&[(0x1_0001, None)]));
    unchecked.rules.revocation = Revocation::Unchecked;
    unchecked.refused("SEV-Test has been revoked");
    // The authority of the chips' keys may have a list of its own, from the policy.
    let own = VENDOR
        .intermediate
        .revocation_list(&[(0, None)], NOW - 9, Some(NOW + 9));
    Case::with_rules(|rules| {
        rules.revocation_lists = vec![PolicyFile {
            path: "ask.crl".to_owned(),
            content: own,
        }];
    })
    .refused("SEV-VCEK has been revoked");
}

#[test]
fn fail_wrong_product_root() {
    let mut case = Case::new();
    case.product = Product::Genoa;
    case.refused("another product");
    Case::with_leaf(|leaf| leaf.product = "Genoa-B0").refused("another product");
    Case::with_leaf(|leaf| leaf.product = "Milano").refused("another product");
    for (family, model) in [(0x19, 0x11), (0x1a, 0x02)] {
        Case::with_report(|report| report[0x188..0x18a].copy_from_slice(&[family, model]))
            .refused("another product");
    }
    Case::with_report(|report| report[0x188] = 0x1b).refused("does not know");
}

#[test]
fn fail_another_vendors_root() {
    let mut report = report(&DATA);
    VENDOR.sign(&mut report);
    let endorsements = table::encode(&[
        (EntryKind::Vcek, &VENDOR.leaf(&Leaf::milan())),
        (EntryKind::Intermediate, &VENDOR.intermediate_certificate()),
        (EntryKind::Root, &VENDOR.root_certificate()),
        (EntryKind::RevocationList, &VENDOR.revocation_list()),
    ])
    .unwrap();
    let verify = |verifier: SnpVerifier| {
        verifier
            .verify_report(&report, &endorsements, &rules(), NOW)
            .map(|_| ())
    };
    assert_eq!(verify(VENDOR.verifier(Product::Milan)), Ok(()));
    for verifier in [OTHER.verifier(Product::Milan), SnpVerifier::new()] {
        let error = verify(verifier).unwrap_err().to_string();
        assert!(error.contains("does not lead to a root"), "{error}");
    }
}

#[test]
fn fail_certificate_issued_by_no_authority_or_with_unknown_extensions() {
    Case::with_leaf(|leaf| leaf.unknown_critical = vec!["1.2.3.4"]).refused("unknown meaning");
    // Repeated extensions leave open which one counts.
    Case::with_leaf(|leaf| leaf.versions.push((8, 200))).refused("malformed");
    let mut report = report(&DATA);
    VENDOR.sign(&mut report);
    let error = SnpVerifier::with_roots(&[Root {
        product: Product::Milan,
        root: &VENDOR.root_certificate(),
        intermediate: &VENDOR.root.plain_certificate(&VENDOR.intermediate),
    }])
    .unwrap()
    .verify_report(
        &report,
        &endorsements(&VENDOR.leaf(&Leaf::milan()), &VENDOR.revocation_list()),
        &rules(),
        NOW,
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("not the certificate of an authority")
    );
}

#[test]
fn fail_key_of_another_chip() {
    let mut report = report(&DATA);
    OTHER.sign(&mut report);
    let error = VENDOR
        .verifier(Product::Milan)
        .verify_report(
            &report,
            &endorsements(&VENDOR.leaf(&Leaf::milan()), &VENDOR.revocation_list()),
            &rules(),
            NOW,
        )
        .unwrap_err();
    assert!(matches!(error, AttestError::Signature(_)));
}

fn vlek(change: impl FnOnce(&mut Leaf)) -> Vec<u8> {
    let mut leaf = Leaf::milan();
    leaf.chip = None;
    leaf.provider = Some("cloud");
    change(&mut leaf);
    VENDOR.leaf(&leaf)
}

fn verify_vlek(kind: EntryKind, key: u8, leaf: &[u8], providers: &[&str]) -> Result<(), String> {
    let mut report = report(&DATA);
    report[0x48] = key << 2;
    VENDOR.sign(&mut report);
    let endorsements = table::encode(&[
        (kind, leaf),
        (EntryKind::RevocationList, &VENDOR.revocation_list()),
    ])
    .unwrap();
    let rules = SnpRules {
        vlek_providers: providers.iter().map(|&name| name.to_owned()).collect(),
        ..rules()
    };
    VENDOR
        .verifier(Product::Milan)
        .verify_report(&report, &endorsements, &rules, NOW)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

#[test]
fn a_listed_providers_key_is_accepted() {
    assert_eq!(
        verify_vlek(EntryKind::Vlek, 1, &vlek(|_| {}), &["cloud"]),
        Ok(())
    );
}

#[test]
fn fail_providers_key_not_listed_or_of_the_wrong_kind() {
    let leaf = vlek(|_| {});
    let refused = |result: Result<(), String>, message: &str| {
        let error = result.unwrap_err();
        assert!(error.contains(message), "{error}");
    };
    refused(
        verify_vlek(EntryKind::Vlek, 1, &leaf, &[]),
        "'vlek-providers'",
    );
    refused(
        verify_vlek(EntryKind::Vlek, 1, &leaf, &["other"]),
        "'vlek-providers'",
    );
    // The report says VCEK: the certificate of a VLEK does not count, and the reverse.
    refused(
        verify_vlek(EntryKind::Vlek, 0, &leaf, &["cloud"]),
        "no certificate",
    );
    refused(
        verify_vlek(EntryKind::Vcek, 0, &leaf, &["cloud"]),
        "another kind of key",
    );
    let vcek = VENDOR.leaf(&Leaf::milan());
    refused(
        verify_vlek(EntryKind::Vlek, 1, &vcek, &["cloud"]),
        "another kind of key",
    );
    refused(
        verify_vlek(EntryKind::Vlek, 7, &leaf, &["cloud"]),
        "not signed",
    );
}

fn turin(change: impl FnOnce(&mut Case)) -> Case {
    let mut case = Case::with_report(|report| {
        for at in [0x38, 0x180, 0x1E0, 0x1F0] {
            report[at..at + 8].copy_from_slice(&[2, 4, 1, 20, 0, 0, 0, 200]);
        }
        report[0x188..0x18b].copy_from_slice(&[0x1a, 0x02, 0x01]);
        report[0x1A8..0x1E0].fill(0);
    });
    case.leaf.product = "Turin";
    case.leaf.versions = vec![(9, 2), (1, 4), (2, 1), (3, 20), (8, 200)];
    case.leaf.chip = Some(vec![0xc5; 8]);
    case.product = Product::Turin;
    case.rules.minimum_tcb.fmc = 2;
    change(&mut case);
    case
}

#[test]
fn turin_has_a_layout_of_its_own() {
    let verified = turin(|_| {}).verify().unwrap();
    assert_eq!(
        verified.identity.facts[1],
        (
            "tcb",
            "bootloader 4 tee 1 snp 20 microcode 200 fmc 2".to_owned()
        )
    );
}

#[test]
fn fail_turin_below_the_floor_or_of_another_chip() {
    turin(|case| case.rules.minimum_tcb.fmc = 3).refused("'minimum-tcb'");
    turin(|case| case.leaf.versions[0].1 = 3).refused("another TCB version");
    turin(|case| {
        case.leaf.versions.remove(0);
    })
    .refused("no TCB version");
    turin(|case| case.report[0x1A8] = 1).refused("another chip");
    turin(|case| case.leaf.chip = Some(vec![0xc5; 64])).refused("names no chip");
}

/// (r, n - s) is a second signature of the same report. It says the same and nothing new.
#[test]
fn fail_signature_twin_is_no_other_identity() {
    let mut first = report(&DATA);
    VENDOR.sign(&mut first);
    let bytes: Vec<u8> = [
        first[0x2A0..0x2A0 + 48].iter().rev().copied(),
        first[0x2E8..0x2E8 + 48].iter().rev().copied(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let signature = Signature::from_slice(&bytes).unwrap();
    let (r, s) = signature.split_scalars();
    let mut second = first;
    put_signature(&mut second, &Signature::from_scalars(r, -*s).unwrap());
    assert_ne!(first, second);
    let verify = |report: &[u8]| {
        VENDOR
            .verifier(Product::Milan)
            .verify_report(
                report,
                &endorsements(&VENDOR.leaf(&Leaf::milan()), &VENDOR.revocation_list()),
                &rules(),
                NOW,
            )
            .unwrap()
    };
    assert_eq!(verify(&first), verify(&second));
}

#[test]
fn fail_no_certificate_at_all() {
    let mut report = report(&DATA);
    VENDOR.sign(&mut report);
    for endorsements in [
        vec![],
        table::encode(&[]).unwrap(),
        table::encode(&[(EntryKind::RevocationList, &VENDOR.revocation_list())]).unwrap(),
    ] {
        let error = VENDOR
            .verifier(Product::Milan)
            .verify_report(&report, &endorsements, &rules(), NOW)
            .unwrap_err()
            .to_string();
        assert!(error.contains("no certificate of the key"), "{error}");
    }
}

#[test]
fn certificates_and_lists_of_the_policy_count_too() {
    let mut report = report(&DATA);
    VENDOR.sign(&mut report);
    let file = |content: Vec<u8>| PolicyFile {
        path: "file".to_owned(),
        content,
    };
    let rules = SnpRules {
        certificates: vec![
            file(VENDOR.leaf(&Leaf::milan())),
            file(VENDOR.intermediate_certificate()),
        ],
        revocation_lists: vec![file(VENDOR.revocation_list())],
        ..rules()
    };
    assert!(
        VENDOR
            .verifier(Product::Milan)
            .verify_report(&report, &[], &rules, NOW)
            .is_ok()
    );
}

#[test]
fn the_policys_floor_is_on_what_the_tcb_means_not_on_its_bytes() {
    assert_eq!(MILAN_TCB[6], 20);
    assert!(
        Case::with_rules(|rules| rules.minimum_tcb.snp = 20)
            .verify()
            .is_ok()
    );
}
