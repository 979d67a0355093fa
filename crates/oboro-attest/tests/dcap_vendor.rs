//! Quotes that Intel's keys signed, verified offline, and what must be refused of them.
#![allow(clippy::unwrap_used)]

use oboro_attest::dcap::{DcapRules, SgxVerifier, TcbStatus, TdxVerifier};
use oboro_attest::{AttestError, Platform, PlatformVerifier, PolicyFile, Rules, Verified};
use proptest::prelude::*;

struct Fixture {
    name: &'static str,
    platform: Platform,
    quote: Vec<u8>,
    collateral: Vec<u8>,
    now: u64,
    rules: DcapRules,
}

impl Fixture {
    fn verify_with(
        &self,
        quote: &[u8],
        collateral: &[u8],
        rules: &DcapRules,
        now: u64,
    ) -> Result<Verified, AttestError> {
        match self.platform {
            Platform::Tdx => {
                TdxVerifier::default().verify(quote, collateral, &Rules::Tdx(rules.clone()), now)
            }
            _ => SgxVerifier::default().verify(quote, collateral, &Rules::Sgx(rules.clone()), now),
        }
    }

    fn verify(&self) -> Result<Verified, AttestError> {
        self.verify_with(&self.quote, &self.collateral, &self.rules, self.now)
    }

    fn collateral_with(&self, change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
        let mut json: serde_json::Value = serde_json::from_slice(&self.collateral).unwrap();
        change(&mut json);
        serde_json::to_vec(&json).unwrap()
    }
}

macro_rules! fixture {
    ($name:literal, $platform:expr, $length:expr, $now:expr, $measurement:literal, $rules:expr) => {{
        let mut rules: DcapRules = $rules;
        rules.measurements = vec![hex::decode($measurement).unwrap()];
        Fixture {
            name: $name,
            platform: $platform,
            quote: include_bytes!(concat!("fixtures/dcap/", $name, ".quote"))[..$length].to_vec(),
            collateral: include_bytes!(concat!("fixtures/dcap/", $name, ".collateral.json"))
                .to_vec(),
            now: $now,
            rules,
        }
    }};
}

fn sgx_v3() -> Fixture {
    fixture!(
        "sgx-v3",
        Platform::Sgx,
        4600,
        1_751_328_000,
        "33d8736db756ed4997e04ba358d27833188f1932ff7b1d156904d3f560452fbb",
        DcapRules {
            minimum_tcb_evaluation: 17,
            tcb_status: vec![TcbStatus::ConfigurationAndSwHardeningNeeded],
            advisories_allowed: vec!["INTEL-SA-00289".into(), "INTEL-SA-00615".into()],
            ..DcapRules::default()
        }
    )
}

fn tdx_v4() -> Fixture {
    fixture!(
        "tdx-v4",
        Platform::Tdx,
        4936,
        1_751_328_000,
        "91eb2b44d141d4ece09f0c75c2c53d247a3c68edd7fafe8a3520c942a604a407de03ae6dc5f87f27428b2538873118b7",
        DcapRules {
            minimum_tcb_evaluation: 17,
            allow_smt: true,
            allow_dynamic_platform: true,
            allow_cached_keys: true,
            ..DcapRules::default()
        }
    )
}

/// On a platform below every TCB level that Intel lists.
fn tdx_v5_below_all_levels() -> Fixture {
    fixture!(
        "tdx-v5-below-all-levels",
        Platform::Tdx,
        5006,
        1_772_323_200,
        "273828c46252fcbdd8ad2dd907130222b03466d52a2911d70c1a5950895d6bd1ae451d382d5a9b1b4c0ed0e5ae9a3dbd",
        DcapRules {
            minimum_tcb_evaluation: 18,
            tcb_status: vec![TcbStatus::OutOfDate],
            tcb_grace_days: 3_650,
            allow_smt: true,
            allow_dynamic_platform: true,
            allow_cached_keys: true,
            ..DcapRules::default()
        }
    )
}

fn tdx_v5_ex() -> Fixture {
    fixture!(
        "tdx-v5-ex",
        Platform::Tdx,
        5247,
        1_793_491_200,
        "2a674327c50218dba880066b349b8d559d749ed68dce33fd651c184a877d084b07a9e583767a7ad5da13ed91deec2b70",
        DcapRules {
            minimum_tcb_evaluation: 20,
            allow_smt: true,
            allow_dynamic_platform: true,
            allow_cached_keys: true,
            ..DcapRules::default()
        }
    )
}

/// Those that are to be accepted.
fn all() -> [Fixture; 3] {
    [sgx_v3(), tdx_v4(), tdx_v5_ex()]
}

fn fact<'a>(verified: &'a Verified, name: &str) -> &'a str {
    verified
        .identity
        .facts
        .iter()
        .find(|(fact, _)| *fact == name)
        .map(|(_, value)| value.as_str())
        .unwrap()
}

#[test]
fn quotes_signed_by_the_vendor_verify_offline() {
    for (fixture, status, report_data) in [
        (
            sgx_v3(),
            "ConfigurationAndSWHardeningNeeded",
            "48656c6c6f2c2077",
        ),
        (tdx_v4(), "UpToDate", "9a9d48e7f6799642"),
        (tdx_v5_ex(), "UpToDate", "2945321c99222c36"),
    ] {
        let name = fixture.name;
        let verified = fixture
            .verify()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(fact(&verified, "tcb-status"), status, "{name}");
        assert_eq!(hex::encode(&verified.binding[..8]), report_data, "{name}");
        assert_eq!(
            verified.identity.measurement, fixture.rules.measurements[0],
            "{name}"
        );
        assert_eq!(
            verified.remarks.len(),
            usize::from(fixture.platform == Platform::Tdx),
            "{name}: without RTMR values in the policy there is a remark"
        );
    }
}

#[test]
fn a_policy_without_the_registers_of_kernel_and_program_is_remarked_on() {
    let fixture = tdx_v4();
    let verified = fixture.verify().unwrap();
    let value = |name| -> [u8; 48] {
        let bytes = hex::decode(fact(&verified, name)).unwrap();
        bytes.try_into().unwrap()
    };
    let remarks = |change: &dyn Fn(&mut DcapRules)| {
        let mut rules = fixture.rules.clone();
        change(&mut rules);
        fixture
            .verify_with(&fixture.quote, &fixture.collateral, &rules, fixture.now)
            .unwrap()
            .remarks
            .len()
    };
    let [first, second, third] = ["rtmr1", "rtmr2", "rtmr3"].map(value);
    assert_eq!(remarks(&|rules| rules.rtmr1 = vec![first]), 1);
    assert_eq!(remarks(&|rules| rules.rtmr2 = vec![second]), 1);
    // Whoever runs in the domain can extend the last one to any value.
    assert_eq!(remarks(&|rules| rules.rtmr3 = vec![third]), 1);
    let both = |rules: &mut DcapRules| {
        rules.rtmr1 = vec![first];
        rules.rtmr2 = vec![second];
    };
    assert_eq!(remarks(&both), 0);
}

#[test]
fn signature_twins_are_one_identity() {
    for fixture in all() {
        let identity = fixture.verify().unwrap();
        for at in signatures_of(&fixture) {
            let mut twin = fixture.quote.clone();
            negate_s(&mut twin[at..at + 64]);
            assert_ne!(twin, fixture.quote);
            let outcome =
                fixture.verify_with(&twin, &fixture.collateral, &fixture.rules, fixture.now);
            assert_eq!(outcome.as_ref(), Ok(&identity), "{}", fixture.name);
        }
    }
}

/// Where the signature of the report and that of the quoting enclave's report begin.
fn signatures_of(fixture: &Fixture) -> [usize; 2] {
    let signed = match fixture.name {
        "sgx-v3" => 48 + 384,
        "tdx-v4" => 48 + 584,
        _ => 54 + 885,
    };
    let report = signed + 4;
    let enclave = report
        + 128
        + if fixture.platform == Platform::Tdx {
            6
        } else {
            0
        }
        + 384;
    [report, enclave]
}

/// (r, s) to (r, n - s), which verifies for the same message.
fn negate_s(signature: &mut [u8]) {
    let order =
        hex::decode("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551").unwrap();
    let mut borrow = 0i16;
    for index in (0..32).rev() {
        let difference = i16::from(order[index]) - i16::from(signature[32 + index]) - borrow;
        borrow = i16::from(difference < 0);
        signature[32 + index] = (difference + 256 * borrow) as u8;
    }
}

#[test]
fn fail_every_byte_of_a_quote_flipped() {
    const FLIPS: [fn(usize) -> u8; 2] = [|index| 1 << (index % 8), |_| 0xff];
    std::thread::scope(|scope| {
        for fixture in all() {
            scope.spawn(move || {
                for (index, flip) in
                    (0..fixture.quote.len()).flat_map(|at| [(at, FLIPS[0]), (at, FLIPS[1])])
                {
                    let mut quote = fixture.quote.clone();
                    quote[index] ^= flip(index);
                    let outcome = fixture.verify_with(
                        &quote,
                        &fixture.collateral,
                        &fixture.rules,
                        fixture.now,
                    );
                    assert!(outcome.is_err(), "{}: byte {index}", fixture.name);
                }
            });
        }
    });
}

#[test]
fn fail_quote_cut_or_followed() {
    for fixture in all() {
        let verify = |quote: &[u8]| {
            fixture.verify_with(quote, &fixture.collateral, &fixture.rules, fixture.now)
        };
        for length in 0..fixture.quote.len() {
            let outcome = verify(&fixture.quote[..length]);
            assert!(
                matches!(outcome, Err(AttestError::Malformed(_))),
                "{}: {length} bytes: {outcome:?}",
                fixture.name
            );
        }
        for tail in [&[0][..], &[0; 70], b"\n", &fixture.quote] {
            let longer = [&fixture.quote, tail].concat();
            assert!(matches!(verify(&longer), Err(AttestError::Malformed(_))));
        }
    }
    let padded = include_bytes!("fixtures/dcap/tdx-v4.quote");
    let fixture = tdx_v4();
    assert!(
        fixture
            .verify_with(padded, &fixture.collateral, &fixture.rules, fixture.now)
            .is_err(),
        "the zeros after the quote are not part of it"
    );
}

#[test]
fn fail_collateral_missing_expired_or_early() {
    for fixture in all() {
        let missing = fixture.verify_with(&fixture.quote, b"", &fixture.rules, fixture.now);
        assert!(
            matches!(missing, Err(AttestError::Endorsement(_))),
            "{missing:?}"
        );
        const DAY: u64 = 86_400;
        for now in [
            0,
            fixture.now - 60 * DAY,
            fixture.now + 60 * DAY,
            fixture.now + 3_650 * DAY,
            u64::MAX / 2,
        ] {
            let outcome =
                fixture.verify_with(&fixture.quote, &fixture.collateral, &fixture.rules, now);
            assert!(
                matches!(outcome, Err(AttestError::Endorsement(_))),
                "{}: at {now}: {outcome:?}",
                fixture.name
            );
        }
    }
}

#[test]
fn fail_collateral_of_another_kind_of_platform() {
    let fixtures = all();
    for fixture in &fixtures {
        for other in &fixtures {
            // v4 and v5-ex are of one kind of platform at different times.
            if other.name == fixture.name {
                continue;
            }
            let outcome =
                fixture.verify_with(&fixture.quote, &other.collateral, &fixture.rules, other.now);
            assert!(outcome.is_err(), "{} with {}", fixture.name, other.name);
        }
    }
}

#[test]
fn fail_each_part_of_the_collateral_missing_or_changed() {
    for fixture in [sgx_v3(), tdx_v4()] {
        for part in [
            "root_ca_crl",
            "pck_crl",
            "tcb_info_issuer_chain",
            "tcb_info",
            "tcb_info_signature",
            "qe_identity_issuer_chain",
            "qe_identity",
            "qe_identity_signature",
        ] {
            let without = fixture.collateral_with(|json| {
                json.as_object_mut().unwrap().remove(part);
            });
            let empty = fixture.collateral_with(|json| json[part] = "".into());
            for collateral in [without, empty] {
                let outcome =
                    fixture.verify_with(&fixture.quote, &collateral, &fixture.rules, fixture.now);
                assert!(
                    matches!(outcome, Err(AttestError::Endorsement(_))),
                    "{part}: {outcome:?}"
                );
            }
            // The certificates' text may differ; what it says may not, and
            // `fail_…` tests under a root of the test's own cover certificates.
            if part.ends_with("chain") {
                continue;
            }
            let json: serde_json::Value = serde_json::from_slice(&fixture.collateral).unwrap();
            let text = json[part].as_str().unwrap();
            let step = text.len().div_ceil(120);
            for at in (0..text.len()).step_by(step) {
                let mut changed = text.as_bytes().to_vec();
                changed[at] = match changed[at] {
                    b'0' => b'1',
                    b'a' => b'b',
                    other => other ^ 1,
                };
                let Ok(changed) = String::from_utf8(changed) else {
                    continue;
                };
                let collateral = fixture.collateral_with(|json| json[part] = changed.into());
                let outcome =
                    fixture.verify_with(&fixture.quote, &collateral, &fixture.rules, fixture.now);
                assert!(outcome.is_err(), "{part}: character {at}");
            }
        }
    }
}

#[test]
fn fail_another_root() {
    // A root of another vendor, and Intel's own processor authority in the root's place.
    for fixture in all() {
        let rules = |rules: &DcapRules| match fixture.platform {
            Platform::Tdx => Rules::Tdx(rules.clone()),
            _ => Rules::Sgx(rules.clone()),
        };
        for root in [oboro_attest::nitro::AWS_ROOT, &fixture.quote[..500], b""] {
            let verifier: Box<dyn PlatformVerifier> = match fixture.platform {
                Platform::Tdx => Box::new(TdxVerifier::with_root(root)),
                _ => Box::new(SgxVerifier::with_root(root)),
            };
            let outcome = verifier.verify(
                &fixture.quote,
                &fixture.collateral,
                &rules(&fixture.rules),
                fixture.now,
            );
            assert!(
                matches!(outcome, Err(AttestError::Endorsement(_))),
                "{outcome:?}"
            );
        }
    }
}

#[test]
fn fail_a_measurement_that_is_not_listed() {
    for fixture in all() {
        let mut rules = fixture.rules.clone();
        rules.measurements[0][0] ^= 1;
        let verify = |rules: &DcapRules| {
            fixture.verify_with(&fixture.quote, &fixture.collateral, rules, fixture.now)
        };
        assert_eq!(verify(&rules), Err(AttestError::Measurement));
        rules
            .measurements
            .push(fixture.rules.measurements[0].clone());
        assert!(verify(&rules).is_ok());
        rules.measurements.clear();
        assert!(matches!(verify(&rules), Err(AttestError::Policy(_))));
    }
}

#[test]
fn fail_registers_that_are_not_listed() {
    let fixture = tdx_v4();
    let verify = |rules: &DcapRules| {
        fixture.verify_with(&fixture.quote, &fixture.collateral, rules, fixture.now)
    };
    let verified = verify(&fixture.rules).unwrap();
    let value = |name: &str| -> [u8; 48] {
        hex::decode(fact(&verified, name))
            .unwrap()
            .try_into()
            .unwrap()
    };
    type List = fn(&mut DcapRules) -> &mut Vec<[u8; 48]>;
    let lists: [(&str, List); 8] = [
        ("rtmr0", |rules| &mut rules.rtmr0),
        ("rtmr1", |rules| &mut rules.rtmr1),
        ("rtmr2", |rules| &mut rules.rtmr2),
        ("rtmr3", |rules| &mut rules.rtmr3),
        ("mr-config-id", |rules| &mut rules.mr_config_id),
        ("mr-owner", |rules| &mut rules.mr_owner),
        ("mr-owner-config", |rules| &mut rules.mr_owner_config),
        ("mr-seam", |rules| &mut rules.mr_seam),
    ];
    for (name, list) in lists {
        let mut rules = fixture.rules.clone();
        list(&mut rules).push([0x5a; 48]);
        let outcome = verify(&rules);
        assert!(
            matches!(
                outcome,
                Err(AttestError::Measurement | AttestError::State(_))
            ),
            "{name}: {outcome:?}"
        );
        list(&mut rules).push(value(name));
        assert!(verify(&rules).is_ok(), "{name}");
    }
    let mut rules = fixture.rules.clone();
    rules.mr_signer_seam = vec![[1; 48]];
    assert!(matches!(verify(&rules), Err(AttestError::State(_))));
    rules.mr_signer_seam = vec![[0; 48]];
    assert!(verify(&rules).is_ok());
    rules.xfam = vec![[0; 8]];
    assert!(matches!(verify(&rules), Err(AttestError::State(_))));
    rules.xfam = vec![*b"\xe7\x02\x06\0\0\0\0\0"];
    rules.attributes = vec![[0; 8]];
    assert!(matches!(verify(&rules), Err(AttestError::State(_))));
    rules.attributes = vec![*b"\0\0\0\x10\0\0\0\0"];
    assert!(verify(&rules).is_ok());
}

#[test]
fn fail_signer_product_and_version_of_an_enclave() {
    let fixture = sgx_v3();
    let signer: [u8; 32] =
        hex::decode("815f42f11cf64430c30bab7816ba596a1da0130c3b028b673133a66cf9a3e0e6")
            .unwrap()
            .try_into()
            .unwrap();
    let by_signer = DcapRules {
        measurements: vec![],
        mr_signer: vec![signer],
        product_id: Some(0),
        minimum_svn: Some(0),
        ..fixture.rules.clone()
    };
    let verify = |rules: &DcapRules| {
        fixture.verify_with(&fixture.quote, &fixture.collateral, rules, fixture.now)
    };
    assert!(verify(&by_signer).is_ok());
    let changed = |change: fn(&mut DcapRules)| {
        let mut rules = by_signer.clone();
        change(&mut rules);
        verify(&rules)
    };
    assert_eq!(
        changed(|rules| rules.mr_signer[0][0] ^= 1),
        Err(AttestError::Measurement)
    );
    assert_eq!(
        changed(|rules| rules.product_id = Some(1)),
        Err(AttestError::Measurement)
    );
    assert!(matches!(
        changed(|rules| rules.minimum_svn = Some(1)),
        Err(AttestError::State(_))
    ));
    for missing in [
        changed(|rules| rules.mr_signer.clear()),
        changed(|rules| rules.product_id = None),
        changed(|rules| rules.minimum_svn = None),
    ] {
        assert!(
            matches!(missing, Err(AttestError::Policy(_))),
            "{missing:?}"
        );
    }
}

#[test]
fn fail_status_advisories_and_evaluation_number() {
    let refused = |fixture: &Fixture, change: fn(&mut DcapRules)| {
        let mut rules = fixture.rules.clone();
        change(&mut rules);
        let outcome = fixture.verify_with(&fixture.quote, &fixture.collateral, &rules, fixture.now);
        assert!(
            matches!(outcome, Err(AttestError::State(_))),
            "{}: {outcome:?}",
            fixture.name
        );
    };
    let (sgx, v4, v5) = (sgx_v3(), tdx_v4(), tdx_v5_ex());
    refused(&sgx, |rules| rules.tcb_status.clear());
    refused(&sgx, |rules| {
        rules.tcb_status = vec![TcbStatus::UpToDate, TcbStatus::OutOfDate]
    });
    refused(&sgx, |rules| drop(rules.advisories_allowed.pop()));
    refused(&sgx, |rules| drop(rules.advisories_allowed.remove(0)));
    refused(&sgx, |rules| rules.minimum_tcb_evaluation = 18);
    refused(&v4, |rules| rules.minimum_tcb_evaluation = 18);
    refused(&v4, |rules| rules.tcb_status = vec![TcbStatus::OutOfDate]);
    refused(&v5, |rules| rules.minimum_tcb_evaluation = 21);
    for fixture in [&v4, &v5] {
        refused(fixture, |rules| rules.allow_smt = false);
        refused(fixture, |rules| rules.allow_dynamic_platform = false);
        refused(fixture, |rules| rules.allow_cached_keys = false);
    }
}

#[test]
fn fail_a_platform_below_every_listed_level() {
    let outcome = tdx_v5_below_all_levels().verify();
    assert!(matches!(outcome, Err(AttestError::State(_))), "{outcome:?}");
}

#[test]
fn fail_rules_and_quotes_of_the_other_technology() {
    let (sgx, tdx) = (sgx_v3(), tdx_v4());
    let outcome = tdx.verify_with(&sgx.quote, &sgx.collateral, &tdx.rules, sgx.now);
    assert!(
        matches!(outcome, Err(AttestError::Malformed(_))),
        "{outcome:?}"
    );
    let outcome = sgx.verify_with(&tdx.quote, &tdx.collateral, &sgx.rules, tdx.now);
    assert!(
        matches!(outcome, Err(AttestError::Malformed(_))),
        "{outcome:?}"
    );
    let outcome = TdxVerifier::default().verify(
        &tdx.quote,
        &tdx.collateral,
        &Rules::Sgx(sgx.rules.clone()),
        tdx.now,
    );
    assert!(matches!(outcome, Err(AttestError::PlatformNotAccepted(_))));
}

#[test]
fn the_policys_collateral_replaces_that_of_the_evidence() {
    let (mut v4, v5) = (tdx_v4(), tdx_v5_ex());
    let file = |content: &[u8]| PolicyFile {
        path: "collateral.json".to_owned(),
        content: content.to_vec(),
    };
    // The fitting one of several is found, and nothing need come with the evidence.
    v4.rules.collateral = vec![file(&v5.collateral), file(&v4.collateral)];
    assert!(v4.verify_with(&v4.quote, b"", &v4.rules, v4.now).is_ok());
    // There is no way back to what the other side sends.
    v4.rules.collateral.pop();
    assert!(v4.verify().is_err());
    v4.rules.collateral = vec![file(b"")];
    assert!(v4.verify().is_err(), "a file that was not loaded");
}

#[test]
fn rules_are_read_strictly() {
    let folder = tempfile::tempdir().unwrap();
    let v4 = tdx_v4();
    std::fs::write(folder.path().join("here.json"), &v4.collateral).unwrap();
    std::fs::write(folder.path().join("other.json"), b"{}").unwrap();
    let text = format!(
        "measurements = [\"{}\"]\nminimum-tcb-evaluation = 17\ntcb-status = [\"UpToDate\", \"SWHardeningNeeded\"]\nadvisories-allowed = [\"INTEL-SA-00615\"]\ncollateral = [\"here.json\"]\nallow-smt = true\nallow-dynamic-platform = true\nallow-cached-keys = true\n",
        hex::encode(&v4.rules.measurements[0])
    );
    let mut rules: DcapRules = toml::from_str(&text).unwrap();
    rules.check(Platform::Tdx).unwrap();
    rules.load_files(folder.path()).unwrap();
    assert!(v4.verify_with(&v4.quote, b"", &rules, v4.now).is_ok());
    let again: DcapRules = toml::from_str(&toml::to_string(&rules).unwrap()).unwrap();
    assert_eq!(again.measurements, rules.measurements);
    assert_eq!(again.tcb_status, rules.tcb_status);

    for (from, to) in [
        ("allow-smt", "allow-smd"),
        ("minimum-tcb-evaluation = 17", ""),
        ("UpToDate", "Revoked"),
        ("measurements = [\"91", "measurements = [\"9"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text);
        assert!(toml::from_str::<DcapRules>(&changed).is_err(), "{to}");
    }
    for (from, to) in [
        ("measurements = [\"91", "measurements = [\""),
        ("evaluation = 17", "evaluation = 0"),
        ("allow-smt = true", "product-id = 1"),
    ] {
        let rules: DcapRules = toml::from_str(&text.replace(from, to)).unwrap();
        assert!(
            matches!(rules.check(Platform::Tdx), Err(AttestError::Policy(_))),
            "{to}"
        );
    }
    let rules: DcapRules = toml::from_str(&text).unwrap();
    assert!(
        rules.check(Platform::Sgx).is_err(),
        "an MRTD is no MRENCLAVE"
    );
    for file in ["other.json", "missing.json", "../here.json"] {
        let mut rules: DcapRules = toml::from_str(&text.replace("here.json", file)).unwrap();
        assert!(
            matches!(rules.load_files(folder.path()), Err(AttestError::Policy(_))),
            "{file}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_makes_the_verifiers_panic(
        quote in prop::collection::vec(any::<u8>(), 0..2_000),
        collateral in prop::collection::vec(any::<u8>(), 0..500),
    ) {
        for fixture in [sgx_v3(), tdx_v4()] {
            prop_assert!(fixture.verify_with(&quote, &collateral, &fixture.rules, fixture.now).is_err());
            prop_assert!(fixture.verify_with(&fixture.quote, &collateral, &fixture.rules, fixture.now).is_err());
        }
    }

    #[test]
    fn damaged_quotes_and_collateral_never_panic(
        which in 0usize..3,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let fixture = &all()[which];
        let (mut quote, mut collateral) = (fixture.quote.clone(), fixture.collateral.clone());
        for (at, byte) in &damage {
            *at.get_mut(&mut quote) = *byte;
            *at.get_mut(&mut collateral) = *byte;
        }
        let _ = fixture.verify_with(&quote, &fixture.collateral, &fixture.rules, fixture.now);
        let _ = fixture.verify_with(&fixture.quote, &collateral, &fixture.rules, fixture.now);
        collateral.truncate(cut.index(collateral.len()));
        prop_assert!(fixture.verify_with(&fixture.quote, &collateral, &fixture.rules, fixture.now).is_err());
    }
}
