//! Reports that AMD's processors signed, verified offline. `fixtures/snp/README.md` says
//! where they come from.
#![allow(clippy::unwrap_used)]

use oboro_attest::snp::table::{self, EntryKind};
use oboro_attest::snp::{Product, Revocation, SnpRules, SnpVerifier, Tcb};
use oboro_attest::{AttestError, PolicyFile, Verified};

const MILAN: &[u8] = include_bytes!("fixtures/snp/milan.report");
const MILAN_VCEK: &[u8] = include_bytes!("fixtures/snp/milan.vcek.der");
const DEBUG: &[u8] = include_bytes!("fixtures/snp/milan-debug.report");
const DEBUG_VCEK: &[u8] = include_bytes!("fixtures/snp/milan-debug.vcek.der");
const GENOA: &[u8] = include_bytes!("fixtures/snp/genoa.report");
const GENOA_VCEK: &[u8] = include_bytes!("fixtures/snp/genoa.vcek.der");
const AZURE: &[u8] = include_bytes!("fixtures/snp/azure-milan.report");
/// Another chip's certificate; no published crate holds the one of this report's chip.
const AZURE_VCEK: &[u8] = include_bytes!("fixtures/snp/azure-milan.vcek.der");
const GENOA_ASK: &[u8] = include_bytes!("../src/snp/roots/genoa-ask.der");

/// June 2025, when all certificates are valid.
const NOW: u64 = 1_750_000_000;

fn rules(report: &[u8]) -> SnpRules {
    SnpRules {
        measurements: vec![report[0x90..0xC0].to_vec()],
        minimum_tcb: Tcb {
            fmc: 0,
            bootloader: 3,
            tee: 0,
            snp: 8,
            microcode: 115,
        },
        revocation: Revocation::Unchecked,
        ..SnpRules::default()
    }
}

fn verify_under(
    rules: &SnpRules,
    report: &[u8],
    vcek: &[u8],
    now: u64,
) -> Result<Verified, AttestError> {
    let endorsements = table::encode(&[(EntryKind::Vcek, vcek)]).unwrap();
    SnpVerifier::new().verify_report(report, &endorsements, rules, now)
}

fn verify(report: &[u8], vcek: &[u8]) -> Result<Verified, AttestError> {
    verify_under(&rules(MILAN), report, vcek, NOW)
}

/// AMD's signatures on reports of two product lines, whatever the reports say.
#[test]
fn reports_of_a_milan_and_of_a_genoa_are_amds() {
    for (report, vcek, product) in [
        (MILAN, MILAN_VCEK, Product::Milan),
        (DEBUG, DEBUG_VCEK, Product::Milan),
        (GENOA, GENOA_VCEK, Product::Genoa),
    ] {
        let endorsements = table::encode(&[(EntryKind::Vcek, vcek)]).unwrap();
        let verifier = SnpVerifier::new();
        let (found, read) = verifier.authenticate(report, &endorsements, NOW).unwrap();
        assert_eq!(found, product);
        assert_eq!(read.measurement, report[0x90..0xC0]);
        let mut flipped = report.to_vec();
        flipped[0x90] ^= 1;
        assert!(verifier.authenticate(&flipped, &endorsements, NOW).is_err());
        assert!(verifier.authenticate(report, &endorsements, 0).is_err());
    }
}

#[test]
fn a_report_of_a_milan_verifies() {
    let verified = verify(MILAN, MILAN_VCEK).unwrap();
    assert_eq!(verified.binding, MILAN[0x50..0x90]);
    assert_eq!(verified.identity.measurement, MILAN[0x90..0xC0]);
    assert_eq!(verified.identity.facts[0], ("product", "Milan".to_owned()));
    assert_eq!(
        verified.identity.facts[1],
        ("tcb", "bootloader 3 tee 0 snp 8 microcode 115".to_owned())
    );
    assert_eq!(
        verified.remarks,
        ["nobody checked whether the platform's key was revoked"]
    );
}

/// Everything up to the privilege level verifies: that is checked after signature,
/// certificates, chip, TCB and product, as the refusals below it show.
#[test]
fn fail_a_genoas_report_of_privilege_level_1_and_of_nothing_else() {
    let mut low = rules(GENOA);
    low.minimum_tcb = Tcb::default();
    let refusal = |report: &[u8], vcek: &[u8], now| {
        verify_under(&low, report, vcek, now)
            .unwrap_err()
            .to_string()
    };
    let error = refusal(GENOA, GENOA_VCEK, NOW);
    assert!(error.contains("privilege level 1"), "{error}");
    let mut flipped = GENOA.to_vec();
    flipped[0x30] = 0;
    let error = refusal(&flipped, GENOA_VCEK, NOW);
    assert!(error.contains("not signed by"), "{error}");
    let error = refusal(GENOA, MILAN_VCEK, NOW);
    assert!(error.contains("not signed by"), "{error}");
    let error = refusal(GENOA, GENOA_VCEK, NOW + (10 << 25));
    assert!(error.contains("SEV-VCEK has expired"), "{error}");
}

#[test]
fn fail_a_guest_in_debug_mode() {
    let mut low = rules(DEBUG);
    low.minimum_tcb = Tcb::default();
    let error = verify_under(&low, DEBUG, DEBUG_VCEK, NOW).unwrap_err();
    assert!(
        matches!(&error, AttestError::State(what) if what.contains("debug mode")),
        "{error}"
    );
}

#[test]
fn fail_without_a_revocation_list() {
    let strict = SnpRules {
        revocation: Revocation::Required,
        ..rules(MILAN)
    };
    let error = verify_under(&strict, MILAN, MILAN_VCEK, NOW)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no revocation list of ARK-Milan"), "{error}");
}

#[test]
fn fail_expired_and_early() {
    for (now, message) in [
        // The VCEK's dates are 3 April 2023 to 3 April 2030.
        (1_680_549_822, "SEV-VCEK is not valid yet"),
        (1_901_474_624, "SEV-VCEK has expired"),
        (0, "SEV-VCEK is not valid yet"),
        (u64::MAX, "SEV-VCEK has expired"),
    ] {
        let error = verify_under(&rules(MILAN), MILAN, MILAN_VCEK, now)
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{now}: {error}");
    }
    for now in [1_680_549_823, 1_901_474_623] {
        assert!(verify_under(&rules(MILAN), MILAN, MILAN_VCEK, now).is_ok());
    }
}

#[test]
fn fail_certificate_of_another_chip() {
    assert!(matches!(
        verify(MILAN, AZURE_VCEK).unwrap_err(),
        AttestError::Signature(_)
    ));
}

#[test]
fn fail_authority_of_another_product() {
    let mut confused = rules(MILAN);
    confused.certificates = vec![PolicyFile {
        path: "ask.der".to_owned(),
        content: GENOA_ASK.to_vec(),
    }];
    // Another product's authority beside the right one changes nothing, and it cannot
    // stand in for it.
    assert!(verify_under(&confused, MILAN, MILAN_VCEK, NOW).is_ok());
    let endorsements = table::encode(&[(EntryKind::Vcek, GENOA_ASK)]).unwrap();
    assert!(
        SnpVerifier::new()
            .verify_report(MILAN, &endorsements, &rules(MILAN), NOW)
            .is_err()
    );
}

#[test]
fn fail_below_the_floor() {
    let mut strict = rules(MILAN);
    strict.minimum_tcb.microcode = 116;
    let error = verify_under(&strict, MILAN, MILAN_VCEK, NOW).unwrap_err();
    assert!(matches!(error, AttestError::State(_)), "{error}");
}

#[test]
fn fail_another_measurement() {
    assert_eq!(
        verify_under(&rules(AZURE), MILAN, MILAN_VCEK, NOW).unwrap_err(),
        AttestError::Measurement
    );
}

#[test]
fn fail_every_byte_of_a_report_flipped() {
    for at in 0..MILAN.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut flipped = MILAN.to_vec();
            flipped[at] ^= mask;
            assert!(verify(&flipped, MILAN_VCEK).is_err(), "byte {at:#x}");
        }
    }
}

#[test]
fn fail_every_byte_of_a_certificate_flipped() {
    for at in 0..MILAN_VCEK.len() {
        for mask in [0x01, 0xff] {
            let mut flipped = MILAN_VCEK.to_vec();
            flipped[at] ^= mask;
            assert!(verify(MILAN, &flipped).is_err(), "byte {at:#x}");
        }
    }
}

#[test]
fn fail_truncated_or_trailing() {
    for length in 0..MILAN.len() {
        assert!(matches!(
            verify(&MILAN[..length], MILAN_VCEK),
            Err(AttestError::Malformed(_))
        ));
    }
    assert!(verify(&[MILAN, &[0]].concat(), MILAN_VCEK).is_err());
    for length in 1..MILAN_VCEK.len() {
        assert!(verify(MILAN, &MILAN_VCEK[..length]).is_err());
    }
    assert!(verify(MILAN, &[MILAN_VCEK, &[0]].concat()).is_err());
}

/// The parser reads what the crate `sev` reads.
#[test]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn reports_are_read_as_another_library_reads_them() {
    use sev::firmware::guest::AttestationReport;
    use sev::parser::ByteParser;
    for bytes in [MILAN, AZURE, GENOA, DEBUG] {
        let theirs = AttestationReport::from_bytes(bytes).unwrap();
        let ours = oboro_attest::snp::Report::parse(bytes).unwrap();
        assert_eq!(ours.version, theirs.version);
        assert_eq!(ours.guest_svn, theirs.guest_svn);
        assert_eq!(ours.policy.0, u64::from(theirs.policy));
        assert_eq!(ours.policy.debug(), theirs.policy.debug_allowed());
        assert_eq!(
            ours.policy.migration_agent(),
            theirs.policy.migrate_ma_allowed()
        );
        assert_eq!(ours.policy.smt(), theirs.policy.smt_allowed());
        assert_eq!(ours.vmpl, theirs.vmpl);
        assert_eq!(ours.platform_info, u64::from(theirs.plat_info));
        assert_eq!(ours.report_data, theirs.report_data);
        assert_eq!(ours.measurement, theirs.measurement);
        assert_eq!(ours.host_data, theirs.host_data);
        assert_eq!(ours.id_key_digest, theirs.id_key_digest);
        assert_eq!(ours.author_key_digest, theirs.author_key_digest);
        assert_eq!(ours.chip_id, theirs.chip_id);
        let tcb = ours.reported(oboro_attest::snp::Product::Milan).unwrap();
        assert_eq!(
            (tcb.bootloader, tcb.tee, tcb.snp, tcb.microcode),
            (
                theirs.reported_tcb.bootloader,
                theirs.reported_tcb.tee,
                theirs.reported_tcb.snp,
                theirs.reported_tcb.microcode
            )
        );
    }
}
