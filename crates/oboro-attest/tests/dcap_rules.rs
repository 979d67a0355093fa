//! Every check of TDX and SGX, each on evidence that is signed correctly under a root of
//! the test's own.
#![allow(clippy::unwrap_used)]

mod dcap_lab;

use dcap_lab::{FMSPC, Lab, NOW, Revoked, Setup, domain_report, enclave_report};
use oboro_attest::dcap::{DcapRules, SgxVerifier, TcbStatus, TdxVerifier};
use oboro_attest::{
    Acceptance, AttestError, AttestedRole, Claims, Evidence, Expected, Platform, PlatformVerifier,
    Policy, PolicyVerifier, Rules, Subject, Verified, Verifier,
};
use serde_json::json;
use std::sync::Arc;

type Outcome = Result<Verified, AttestError>;

fn tdx_rules() -> DcapRules {
    DcapRules {
        measurements: vec![vec![0x77; 48]],
        minimum_tcb_evaluation: 20,
        ..DcapRules::default()
    }
}

fn sgx_rules() -> DcapRules {
    DcapRules {
        measurements: vec![vec![0x77; 32]],
        minimum_tcb_evaluation: 20,
        ..DcapRules::default()
    }
}

fn verify_tdx(lab: &Lab, quote: &[u8], rules: DcapRules) -> Outcome {
    TdxVerifier::with_root(&lab.root).verify(quote, &lab.collateral(), &Rules::Tdx(rules), NOW)
}

fn verify_sgx(lab: &Lab, quote: &[u8], rules: DcapRules) -> Outcome {
    SgxVerifier::with_root(&lab.root).verify(quote, &lab.collateral(), &Rules::Sgx(rules), NOW)
}

/// A domain's report of the newest kind, changed and signed.
fn domain(change: impl FnOnce(&mut Vec<u8>)) -> Outcome {
    let lab = Lab::new(&Setup::tdx());
    let mut report = domain_report(4);
    change(&mut report);
    verify_tdx(&lab, &lab.domain_quote_5(4, &report), tdx_rules())
}

fn enclave(change: impl FnOnce(&mut Vec<u8>)) -> Outcome {
    let lab = Lab::new(&Setup::sgx());
    let mut report = enclave_report();
    change(&mut report);
    verify_sgx(&lab, &lab.enclave_quote(&report), sgx_rules())
}

/// The vendor's side changed, for both technologies.
fn vendor(change: impl Fn(&mut Setup), rules: impl Fn(&mut DcapRules)) -> [Outcome; 2] {
    let (mut tdx, mut sgx) = (Setup::tdx(), Setup::sgx());
    change(&mut tdx);
    change(&mut sgx);
    let (mut for_tdx, mut for_sgx) = (tdx_rules(), sgx_rules());
    rules(&mut for_tdx);
    rules(&mut for_sgx);
    let (tdx, sgx) = (Lab::new(&tdx), Lab::new(&sgx));
    [
        verify_tdx(&tdx, &tdx.domain_quote_5(3, &domain_report(3)), for_tdx),
        verify_sgx(&sgx, &sgx.enclave_quote(&enclave_report()), for_sgx),
    ]
}

fn assert_endorsement(outcomes: [Outcome; 2]) {
    for outcome in outcomes {
        assert!(
            matches!(outcome, Err(AttestError::Endorsement(_))),
            "{outcome:?}"
        );
    }
}

fn assert_state(outcomes: impl IntoIterator<Item = Outcome>) {
    for outcome in outcomes {
        assert!(matches!(outcome, Err(AttestError::State(_))), "{outcome:?}");
    }
}

fn unchanged<T>(_: &mut T) {}

#[test]
fn every_kind_of_report_is_accepted() {
    let lab = Lab::new(&Setup::tdx());
    for quote in [
        lab.domain_quote_4(&domain_report(2)),
        lab.domain_quote_5(2, &domain_report(2)),
        lab.domain_quote_5(3, &domain_report(3)),
        lab.domain_quote_5(4, &domain_report(4)),
    ] {
        let verified = verify_tdx(&lab, &quote, tdx_rules()).unwrap();
        assert_eq!(verified.binding, [0xd7; 64]);
        assert_eq!(verified.identity.measurement, [0x77; 48]);
    }
    let verified = enclave(unchanged).unwrap();
    assert_eq!(verified.binding, [0xd7; 64]);
    assert_eq!(verified.identity.measurement, [0x77; 32]);
}

#[test]
fn fail_zero_report_data() {
    assert_eq!(
        domain(|report| report[520..584].fill(0)),
        Err(AttestError::Binding)
    );
    assert_eq!(
        enclave(|report| report[320..384].fill(0)),
        Err(AttestError::Binding)
    );
}

#[test]
fn fail_debug_and_other_attributes_of_a_domain() {
    let accepted = [4, 5, 6, 16, 18, 19, 20, 21, 22, 27, 28, 30, 31, 62, 63];
    for bit in 0..64 {
        let outcome = domain(|report| report[120 + bit / 8] |= 1 << (bit % 8));
        // Bits 4 to 6 let the host profile the domain.
        if accepted.contains(&bit) && !(4..7).contains(&bit) {
            assert!(outcome.is_ok(), "bit {bit}: {outcome:?}");
        } else {
            assert!(
                matches!(
                    outcome,
                    Err(AttestError::State(_) | AttestError::Endorsement(_))
                ),
                "bit {bit}: {outcome:?}"
            );
        }
    }
    assert_state([
        domain(|report| report[120] |= 1),
        domain(|report| report[123] &= !0x10),
        domain(|report| report[123] |= 0x20),
        domain(|report| report[122] |= 2),
    ]);
}

#[test]
fn fail_service_domains_and_nested_machines() {
    assert_state([
        domain(|report| report[600] = 1),
        domain(|report| report[647] = 1),
        domain(|report| report[648] = 1),
    ]);
}

#[test]
fn fail_debug_or_uninitialized_enclave() {
    assert_state([
        enclave(|report| report[48] |= 2),
        enclave(|report| report[48] &= !1),
    ]);
}

#[test]
fn fail_a_foreign_or_changed_module_of_tdx() {
    // Its signer, its attributes, a version that nobody lists.
    for outcome in [
        domain(|report| report[64] = 1),
        domain(|report| report[112] = 1),
        domain(|report| report[1] = 9),
        domain(|report| report[585] = 9),
    ] {
        assert!(
            matches!(outcome, Err(AttestError::Endorsement(_))),
            "{outcome:?}"
        );
    }
    // A version below what its identity lists, at launch or now.
    for outcome in [
        domain(|report| report[0] = 4),
        domain(|report| report[584] = 4),
    ] {
        assert!(matches!(outcome, Err(AttestError::State(_))), "{outcome:?}");
    }
}

#[test]
fn fail_revoked_certificates() {
    for revoked in [Revoked::Platform, Revoked::Authority, Revoked::Signer] {
        let outcomes = vendor(|setup| setup.revoked = Some(revoked), unchanged);
        for outcome in &outcomes {
            assert!(
                matches!(outcome, Err(AttestError::Endorsement(text)) if text.to_lowercase().contains("revoked")),
                "{outcome:?}"
            );
        }
    }
}

#[test]
fn fail_lists_certificates_and_documents_out_of_date() {
    for days in [(10, 14), (17, 20)] {
        assert_endorsement(vendor(|setup| setup.root_list = days, unchanged));
        assert_endorsement(vendor(|setup| setup.platform_list = days, unchanged));
        assert_endorsement(vendor(|setup| setup.platform_certificate = days, unchanged));
        assert_endorsement(vendor(|setup| setup.platform_authority = days, unchanged));
        assert_endorsement(vendor(|setup| setup.signer = days, unchanged));
        let dates = [days.0, days.1].map(|day| format!("2027-01-{day}T00:00:00Z"));
        assert_endorsement(vendor(
            |setup| {
                setup.tcb_info["issueDate"] = dates[0].clone().into();
                setup.tcb_info["nextUpdate"] = dates[1].clone().into();
            },
            unchanged,
        ));
        assert_endorsement(vendor(
            |setup| {
                setup.qe_identity["issueDate"] = dates[0].clone().into();
                setup.qe_identity["nextUpdate"] = dates[1].clone().into();
            },
            unchanged,
        ));
    }
}

#[test]
fn fail_lists_of_another_authority() {
    let (lab, other) = (Lab::new(&Setup::tdx()), Lab::new(&Setup::tdx()));
    let quote = lab.domain_quote_5(3, &domain_report(3));
    for part in [
        "root_ca_crl",
        "pck_crl",
        "tcb_info_issuer_chain",
        "tcb_info_signature",
        "qe_identity_issuer_chain",
        "qe_identity_signature",
    ] {
        let mut collateral = lab.collateral.clone();
        collateral[part] = other.collateral[part].clone();
        let outcome = TdxVerifier::with_root(&lab.root).verify(
            &quote,
            collateral.to_string().as_bytes(),
            &Rules::Tdx(tdx_rules()),
            NOW,
        );
        assert!(
            matches!(outcome, Err(AttestError::Endorsement(_))),
            "{part}: {outcome:?}"
        );
    }
    // The wrong list in the right place.
    let mut collateral = lab.collateral.clone();
    collateral["pck_crl"] = lab.collateral["root_ca_crl"].clone();
    let outcome = TdxVerifier::with_root(&lab.root).verify(
        &quote,
        collateral.to_string().as_bytes(),
        &Rules::Tdx(tdx_rules()),
        NOW,
    );
    assert!(
        matches!(outcome, Err(AttestError::Endorsement(_))),
        "{outcome:?}"
    );
}

#[test]
fn fail_collateral_for_another_platform_or_technology() {
    assert_endorsement(vendor(
        |setup| {
            let mut other = FMSPC;
            other[0] ^= 1;
            setup.tcb_info["fmspc"] = hex::encode(other).into();
        },
        unchanged,
    ));
    for pce in ["0001", "", "00", "000000"] {
        assert_endorsement(vendor(
            |setup| setup.tcb_info["pceId"] = pce.into(),
            unchanged,
        ));
    }
    for id in ["SGX", "TDX"] {
        let outcomes = vendor(|setup| setup.tcb_info["id"] = id.into(), unchanged);
        assert!(outcomes[usize::from(id == "TDX")].is_err());
    }
    assert_endorsement(vendor(
        |setup| setup.qe_identity["id"] = "QVE".into(),
        unchanged,
    ));
}

#[test]
fn fail_another_quoting_enclave() {
    for change in [
        |report: &mut Vec<u8>| report[128] ^= 1, // its signer
        |report: &mut Vec<u8>| report[256] = 1,  // its product
        |report: &mut Vec<u8>| report[258] = 1,  // its version, below all
        |report: &mut Vec<u8>| report[48] |= 2,  // in debug mode
        |report: &mut Vec<u8>| report[16] = 1,   // miscellaneous state
        |report: &mut Vec<u8>| report[320] = 1,  // it vouches for another key
    ] {
        for outcome in vendor(|setup| change(&mut setup.qe_report), unchanged) {
            assert!(outcome.is_err());
        }
    }
    assert_state(vendor(
        |setup| setup.qe_identity["tcbLevels"][0]["tcbStatus"] = "Revoked".into(),
        unchanged,
    ));
    // Out of date: a status that the default does not accept.
    assert_state(vendor(|setup| setup.qe_report[258] = 3, unchanged));
}

#[test]
fn fail_status_that_the_rules_do_not_accept() {
    for status in [
        "OutOfDate",
        "ConfigurationNeeded",
        "SWHardeningNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDateConfigurationNeeded",
    ] {
        let change =
            |setup: &mut Setup| setup.tcb_info["tcbLevels"][0]["tcbStatus"] = status.into();
        assert_state(vendor(change, unchanged));
        let listed: TcbStatus = serde_json::from_value(json!(status)).unwrap();
        let outcomes = vendor(change, |rules| {
            rules.tcb_status = vec![listed];
            rules.tcb_grace_days = 100;
        });
        for outcome in outcomes {
            assert!(outcome.is_ok(), "{status}: {outcome:?}");
        }
    }
    // Revoked cannot be listed.
    assert!(serde_json::from_value::<TcbStatus>(json!("Revoked")).is_err());
    let all = |rules: &mut DcapRules| {
        rules.tcb_status = vec![
            TcbStatus::UpToDate,
            TcbStatus::SwHardeningNeeded,
            TcbStatus::ConfigurationNeeded,
            TcbStatus::ConfigurationAndSwHardeningNeeded,
            TcbStatus::OutOfDate,
            TcbStatus::OutOfDateConfigurationNeeded,
            TcbStatus::TdRelaunchAdvised,
            TcbStatus::TdRelaunchAdvisedConfigurationNeeded,
        ];
        rules.tcb_grace_days = u16::MAX;
    };
    assert_state(vendor(
        |setup| setup.tcb_info["tcbLevels"][0]["tcbStatus"] = "Revoked".into(),
        all,
    ));
}

#[test]
fn fail_out_of_date_beyond_its_grace() {
    // The level is of 2026-12-01, 45 days ago.
    let change =
        |setup: &mut Setup| setup.tcb_info["tcbLevels"][0]["tcbStatus"] = "OutOfDate".into();
    for (days, accepted) in [(0, false), (40, false), (50, true)] {
        let outcomes = vendor(change, |rules| {
            rules.tcb_status = vec![TcbStatus::OutOfDate];
            rules.tcb_grace_days = days;
        });
        for outcome in outcomes {
            assert_eq!(outcome.is_ok(), accepted, "{days} days: {outcome:?}");
        }
    }
}

#[test]
fn fail_a_domain_started_under_an_older_module() {
    let lab = Lab::new(&Setup::tdx());
    let mut report = domain_report(3);
    report[2..16].fill(2);
    let quote = lab.domain_quote_5(3, &report);
    assert_state([verify_tdx(&lab, &quote, tdx_rules())]);
    let mut rules = tdx_rules();
    rules.tcb_status = vec![TcbStatus::TdRelaunchAdvised];
    assert_state([verify_tdx(&lab, &quote, rules.clone())]);
    rules.advisories_allowed = vec!["INTEL-SA-01036".to_owned()];
    assert!(verify_tdx(&lab, &quote, rules).is_ok());
}

#[test]
fn fail_advisories_from_any_side() {
    let advisory = || json!(["INTEL-SA-00001"]);
    let platform = |setup: &mut Setup| setup.tcb_info["tcbLevels"][0]["advisoryIDs"] = advisory();
    let enclave = |setup: &mut Setup| setup.qe_identity["tcbLevels"][0]["advisoryIDs"] = advisory();
    for outcomes in [vendor(platform, unchanged), vendor(enclave, unchanged)] {
        assert_state(outcomes);
    }
    let allow = |rules: &mut DcapRules| rules.advisories_allowed = vec!["INTEL-SA-00001".into()];
    for outcomes in [vendor(platform, allow), vendor(enclave, allow)] {
        assert!(outcomes.iter().all(Result::is_ok));
    }
    let [tdx, _] = vendor(
        |setup| {
            if setup.tcb_info["id"] == "TDX" {
                setup.tcb_info["tdxModuleIdentities"][0]["tcbLevels"][0]["advisoryIDs"] =
                    advisory();
            }
        },
        unchanged,
    );
    assert_state([tdx]);
}

#[test]
fn fail_evaluation_number_below_the_minimum() {
    assert_state(vendor(unchanged, |rules| rules.minimum_tcb_evaluation = 21));
    let below = 19;
    assert_state(vendor(
        |setup| setup.tcb_info["tcbEvaluationDataNumber"] = below.into(),
        unchanged,
    ));
    assert_state(vendor(
        |setup| setup.qe_identity["tcbEvaluationDataNumber"] = below.into(),
        unchanged,
    ));
}

#[test]
fn fail_flags_of_the_platform() {
    type Allow = fn(&mut DcapRules);
    let cases: [([bool; 3], Allow); 3] = [
        ([true, false, false], |rules| {
            rules.allow_dynamic_platform = true
        }),
        ([false, true, false], |rules| rules.allow_cached_keys = true),
        ([false, false, true], |rules| rules.allow_smt = true),
    ];
    for (flags, allow) in cases {
        let change = |setup: &mut Setup| setup.flags = Some(flags);
        assert_state(vendor(change, unchanged));
        assert!(vendor(change, allow).iter().all(Result::is_ok));
    }
    assert!(
        vendor(|setup| setup.flags = None, unchanged)
            .iter()
            .all(Result::is_ok)
    );
}

#[test]
fn fail_keys_that_nobody_vouches_for() {
    // The body under another attestation key; that key under another platform's.
    let (lab, other) = (Lab::new(&Setup::sgx()), Lab::new(&Setup::sgx()));
    let (ours, theirs) = (
        lab.enclave_quote(&enclave_report()),
        other.enclave_quote(&enclave_report()),
    );
    let signature = 48 + 384 + 4;
    let mixed = |range: std::ops::Range<usize>| {
        let mut quote = ours.clone();
        quote[range.clone()].copy_from_slice(&theirs[range]);
        verify_sgx(&lab, &quote, sgx_rules())
    };
    let enclave = signature + 128;
    for outcome in [
        mixed(signature..signature + 64),
        mixed(signature..enclave),
        mixed(signature..enclave + 384),
        mixed(signature..enclave + 384 + 64),
    ] {
        assert!(
            matches!(outcome, Err(AttestError::Signature(_))),
            "{outcome:?}"
        );
    }
}

#[test]
fn fail_chains_in_any_other_form() {
    let (lab, other) = (Lab::new(&Setup::sgx()), Lab::new(&Setup::sgx()));
    let verify = |chain: &str| {
        verify_sgx(
            &lab,
            &lab.enclave_quote_with_chain(&enclave_report(), chain),
            sgx_rules(),
        )
    };
    let chain = &lab.chain;
    assert!(verify(chain).is_ok());
    assert!(verify(&format!("{chain}\0")).is_ok());
    const END: &str = "-----END CERTIFICATE-----\n";
    let parts: Vec<String> = chain.split_inclusive(END).map(str::to_owned).collect();
    let foreign: Vec<String> = other
        .chain
        .split_inclusive(END)
        .map(str::to_owned)
        .collect();
    let unwrapped = chain.replacen("\nM", "\n\nM", 1);
    for text in [
        String::new(),
        "\0".to_owned(),
        parts[..2].concat(),
        [&chain[..], &parts[2]].concat(),
        format!("{chain}\0\0"),
        format!("{chain}\n"),
        format!("\n{chain}"),
        format!("{chain}x"),
        format!("text before\n{chain}"),
        chain.replace('\n', "\r\n"),
        chain.replace("CERTIFICATE", "CERTIFICATe"),
        unwrapped,
    ] {
        let outcome = verify(&text);
        assert!(
            matches!(outcome, Err(AttestError::Malformed(_))),
            "{outcome:?} for {text}"
        );
    }
    for text in [
        [&parts[0], &parts[1], &foreign[2]]
            .map(String::as_str)
            .concat(),
        [&foreign[0], &parts[1], &parts[2]]
            .map(String::as_str)
            .concat(),
        [&parts[0], &foreign[1], &parts[2]]
            .map(String::as_str)
            .concat(),
        [&parts[1], &parts[0], &parts[2]]
            .map(String::as_str)
            .concat(),
        other.chain.clone(),
    ] {
        let outcome = verify(&text);
        assert!(
            matches!(
                outcome,
                Err(AttestError::Endorsement(_) | AttestError::Signature(_))
            ),
            "{outcome:?}"
        );
    }
    // The platform's certificate in the collateral does not replace the quote's.
    let mut collateral = lab.collateral.clone();
    collateral["pck_certificate_chain"] = chain.clone().into();
    let quote = lab.enclave_quote_with_chain(
        &enclave_report(),
        &[&foreign[0], &foreign[1], &parts[2]]
            .map(String::as_str)
            .concat(),
    );
    let outcome = SgxVerifier::with_root(&lab.root).verify(
        &quote,
        collateral.to_string().as_bytes(),
        &Rules::Sgx(sgx_rules()),
        NOW,
    );
    assert!(outcome.is_err());
}

#[test]
fn fail_claims_that_the_quote_does_not_bind() {
    let lab = Lab::new(&Setup::tdx());
    let claims = Claims {
        role: AttestedRole::Searcher,
        session: [1; 32],
        nonce: [2; 32],
        channel_key: [3; 32],
        subject: Subject::new([4; 32]),
        issued_at: NOW,
    };
    let evidence = |claims: Claims, bound: &Claims| {
        let mut report = domain_report(3);
        report[520..584].copy_from_slice(&bound.binding());
        Evidence {
            platform: Platform::Tdx,
            claims,
            statement: lab.domain_quote_5(3, &report),
            endorsements: lab.collateral(),
        }
        .encode()
        .unwrap()
    };
    let expected = Expected {
        role: claims.role,
        session: claims.session,
        nonce: claims.nonce,
        channel_key: claims.channel_key,
    };
    let policy = Policy {
        accept: vec![Acceptance {
            role: None,
            configurations: vec![],
            rules: Rules::Tdx(tdx_rules()),
        }],
        ..Policy::default()
    };
    let verifier = PolicyVerifier::new(policy, vec![Arc::new(TdxVerifier::with_root(&lab.root))]);
    assert!(
        verifier
            .appraise(&evidence(claims, &claims), &expected, NOW)
            .is_ok()
    );
    for change in [
        |claims: &mut Claims| claims.session[0] ^= 1,
        |claims: &mut Claims| claims.nonce[0] ^= 1,
        |claims: &mut Claims| claims.channel_key[0] ^= 1,
        |claims: &mut Claims| claims.subject.configuration[0] ^= 1,
        |claims: &mut Claims| claims.subject.index_id[0] ^= 1,
        |claims: &mut Claims| claims.subject.epoch += 1,
    ] {
        // Relayed: a quote over other claims under these; replayed: with its own.
        let mut other = claims;
        change(&mut other);
        let outcome = verifier.appraise(&evidence(claims, &other), &expected, NOW);
        assert_eq!(outcome.map(drop), Err(AttestError::Binding));
        if other.subject == claims.subject {
            assert!(
                verifier
                    .appraise(&evidence(other, &other), &expected, NOW)
                    .is_err()
            );
        }
    }
}
