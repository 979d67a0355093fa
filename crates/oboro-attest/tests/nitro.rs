//! Nitro documents: those that AWS signed, and documents under a root of the test's own.
#![allow(clippy::unwrap_used)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use coset::cbor::Value;
use coset::{
    CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable, iana,
};
use oboro_attest::nitro::{AWS_ROOT, Document, NitroAttester, NitroRules, NitroVerifier};
use oboro_attest::{
    AttestError, AttestedRole, Claims, Evidence, Expected, Platform, PlatformVerifier, Policy,
    PolicyVerifier, Rules, Subject, Verified, Verifier,
};
use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, date_time_ymd,
};
use sha2::Digest;
use std::sync::Arc;

const GENUINE: &[u8] = include_bytes!("fixtures/nitro/genuine.cose");
const GENUINE_AT: u64 = 1_736_179_625;
const DEBUG: &[u8] = include_bytes!("fixtures/nitro/debug.cose");
const DEBUG_AT: u64 = 1_614_963_709;

/// 2027-01-15.
const NOW: u64 = 1_800_000_000;

/// Root, two authorities and a module, as AWS has them.
struct Pki {
    /// Root first, as in a document's bundle.
    bundle: Vec<Vec<u8>>,
    certificate: Vec<u8>,
    key: EcdsaKeyPair,
}

#[derive(Clone)]
struct Shape {
    /// First and last day of January 2027 on which the module's certificate is valid.
    days: (u8, u8),
    module_signs: bool,
    authority_certifies: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            days: (14, 16),
            module_signs: true,
            authority_certifies: true,
        }
    }
}

impl Pki {
    fn new(shape: &Shape) -> Self {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let params = |name: &str| {
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2040, 1, 1);
            params
        };
        let authority = |name: &str, certifies: bool| {
            let mut params = params(name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![if certifies {
                KeyUsagePurpose::KeyCertSign
            } else {
                KeyUsagePurpose::CrlSign
            }];
            params
        };
        let (root_key, region_key, zone_key, module_key) = (key(), key(), key(), key());
        let root_params = authority("test root", true);
        let root = root_params.self_signed(&root_key).unwrap();
        let root_issuer = Issuer::new(root_params, &root_key);
        let region_params = authority("test region", true);
        let region = region_params.signed_by(&region_key, &root_issuer).unwrap();
        let region_issuer = Issuer::new(region_params, &region_key);
        let zone_params = authority("test zone", shape.authority_certifies);
        let zone = zone_params.signed_by(&zone_key, &region_issuer).unwrap();
        let zone_issuer = Issuer::new(zone_params, &zone_key);
        let mut module = params("i-1234-enc5678");
        module.is_ca = IsCa::ExplicitNoCa;
        module.key_usages = vec![if shape.module_signs {
            KeyUsagePurpose::DigitalSignature
        } else {
            KeyUsagePurpose::KeyAgreement
        }];
        module.not_before = date_time_ymd(2027, 1, shape.days.0);
        module.not_after = date_time_ymd(2027, 1, shape.days.1);
        let certificate = module.signed_by(&module_key, &zone_issuer).unwrap();
        Self {
            bundle: [&root, &region, &zone]
                .map(|one| one.der().to_vec())
                .to_vec(),
            certificate: certificate.der().to_vec(),
            key: EcdsaKeyPair::from_pkcs8(
                &ECDSA_P384_SHA384_FIXED_SIGNING,
                &module_key.serialize_der(),
            )
            .unwrap(),
        }
    }

    fn verifier(&self) -> NitroVerifier {
        NitroVerifier::with_root(&self.bundle[0])
    }

    fn payload(&self, binding: &[u8]) -> Vec<(Value, Value)> {
        let text = |text: &str| Value::Text(text.to_owned());
        let pcrs = (0u8..16)
            .map(|number| {
                let value = if number < 5 {
                    [number + 1; 48]
                } else {
                    [0; 48]
                };
                (Value::from(number), Value::Bytes(value.to_vec()))
            })
            .collect();
        vec![
            (text("module_id"), text("i-1234-enc5678")),
            (text("digest"), text("SHA384")),
            (text("timestamp"), Value::from(NOW * 1000 + 472)),
            (text("pcrs"), Value::Map(pcrs)),
            (text("certificate"), Value::Bytes(self.certificate.clone())),
            (
                text("cabundle"),
                Value::Array(self.bundle.iter().cloned().map(Value::Bytes).collect()),
            ),
            (text("public_key"), Value::Null),
            (text("user_data"), Value::Bytes(binding.to_vec())),
            (text("nonce"), Value::Null),
        ]
    }

    fn sign(&self, payload: Vec<(Value, Value)>) -> CoseSign1 {
        CoseSign1Builder::new()
            .protected(
                HeaderBuilder::new()
                    .algorithm(iana::Algorithm::ES384)
                    .build(),
            )
            .payload(Value::Map(payload).to_vec().unwrap())
            .create_signature(b"", |data| self.raw_signature(data))
            .build()
    }

    fn raw_signature(&self, data: &[u8]) -> Vec<u8> {
        self.key
            .sign(&SystemRandom::new(), data)
            .unwrap()
            .as_ref()
            .to_vec()
    }

    fn document(&self, binding: &[u8]) -> Vec<u8> {
        self.sign(self.payload(binding)).to_vec().unwrap()
    }

    /// A document with one entry of the payload set, correctly signed.
    fn with(&self, key: &str, value: Value) -> Vec<u8> {
        let mut payload = self.payload(&[7; 64]);
        entry(&mut payload, key).1 = value;
        self.sign(payload).to_vec().unwrap()
    }

    fn with_pcr(&self, number: u8, value: Option<Vec<u8>>) -> Vec<u8> {
        let mut payload = self.payload(&[7; 64]);
        let pcrs = entry(&mut payload, "pcrs").1.as_map_mut().unwrap();
        pcrs.retain(|(key, _)| *key != Value::from(number));
        pcrs.extend(value.map(|value| (Value::from(number), Value::Bytes(value))));
        self.sign(payload).to_vec().unwrap()
    }

    fn verify(&self, document: &[u8]) -> Result<Verified, AttestError> {
        self.verifier().verify(document, b"", &rules(), NOW)
    }
}

fn entry<'a>(payload: &'a mut [(Value, Value)], key: &str) -> &'a mut (Value, Value) {
    payload
        .iter_mut()
        .find(|(name, _)| name.as_text() == Some(key))
        .unwrap()
}

fn nitro_rules() -> NitroRules {
    NitroRules {
        measurements: vec![vec![1; 48]],
        pcr1: vec![[2; 48]],
        pcr2: vec![[3; 48]],
        ..NitroRules::default()
    }
}

fn rules() -> Rules {
    Rules::Nitro(nitro_rules())
}

fn malformed(outcome: &Result<Verified, AttestError>) -> bool {
    matches!(outcome, Err(AttestError::Malformed(_)))
}

fn endorsement<T>(outcome: &Result<T, AttestError>) -> bool {
    matches!(outcome, Err(AttestError::Endorsement(_)))
}

#[test]
fn the_pinned_root_is_the_one_that_aws_publishes() {
    assert_eq!(
        hex::encode(sha2::Sha256::digest(AWS_ROOT)),
        "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
    );
}

#[test]
fn documents_signed_by_the_vendor_verify_offline() {
    let document = Document::verify(GENUINE, AWS_ROOT, GENUINE_AT).unwrap();
    assert_eq!(
        document.module_id,
        "i-0bee92034f3d60691-enc01943c5eaab3ad6a"
    );
    assert_eq!(document.timestamp / 1000, GENUINE_AT);
    assert!(hex::encode(document.pcr(0).unwrap()).starts_with("8bb159f202bb95d6"));
    assert_eq!(document.pcrs.len(), 16);
    assert!(document.user_data.is_none());
    assert_eq!(document.public_key.map(|key| key.len()), Some(294));

    let document = Document::verify(DEBUG, AWS_ROOT, DEBUG_AT).unwrap();
    assert_eq!(document.pcr(0), Some(&[0; 48]));
}

#[test]
fn a_document_under_a_test_root_is_accepted() {
    let pki = Pki::new(&Shape::default());
    for document in [
        pki.document(&[7; 64]),
        pki.sign(pki.payload(&[7; 64])).to_tagged_vec().unwrap(),
    ] {
        let verified = pki.verify(&document).unwrap();
        assert_eq!(verified.binding, [7; 64]);
        assert_eq!(verified.identity.measurement, [1; 48]);
        assert!(
            verified
                .identity
                .facts
                .contains(&("debug", "off".to_owned()))
        );
        assert_eq!(verified.remarks.len(), 1);
    }
    let without_optional = pki
        .payload(&[7; 64])
        .into_iter()
        .filter(|(key, _)| !matches!(key.as_text(), Some("public_key" | "nonce")));
    let document = pki.sign(without_optional.collect()).to_vec().unwrap();
    assert!(pki.verify(&document).is_ok());
}

#[test]
fn a_signature_twin_is_the_same_identity() {
    // (r, n - s) verifies as well; nothing of the signature is in the identity.
    let pki = Pki::new(&Shape::default());
    let signed = pki.sign(pki.payload(&[7; 64]));
    let mut twin = signed.clone();
    let order = hex::decode("ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973").unwrap();
    let mut borrow = 0i16;
    for index in (0..48).rev() {
        let difference = i16::from(order[index]) - i16::from(twin.signature[48 + index]) - borrow;
        borrow = i16::from(difference < 0);
        twin.signature[48 + index] = (difference + 256 * borrow) as u8;
    }
    assert_ne!(twin.signature, signed.signature);
    assert_eq!(
        pki.verify(&twin.to_vec().unwrap()).unwrap(),
        pki.verify(&signed.to_vec().unwrap()).unwrap()
    );
}

#[test]
fn fail_debug_mode() {
    // A real one, under rules that would accept its registers if anything could.
    let outcome = NitroVerifier::default().verify(DEBUG, b"", &rules(), DEBUG_AT);
    assert!(matches!(outcome, Err(AttestError::State(_))), "{outcome:?}");
    let pki = Pki::new(&Shape::default());
    for number in 0..3 {
        let outcome = pki.verify(&pki.with_pcr(number, Some(vec![0; 48])));
        assert!(matches!(outcome, Err(AttestError::State(_))), "{outcome:?}");
    }
    for change in [
        |rules: &mut NitroRules| rules.measurements.push(vec![0; 48]),
        |rules: &mut NitroRules| rules.pcr1.push([0; 48]),
        |rules: &mut NitroRules| rules.pcr2.push([0; 48]),
        |rules: &mut NitroRules| rules.pcr8.push([0; 48]),
    ] {
        let mut rules = nitro_rules();
        change(&mut rules);
        assert!(matches!(rules.check(), Err(AttestError::Policy(_))));
    }
}

#[test]
fn fail_a_genuine_document_of_another_enclave() {
    let outcome = NitroVerifier::default().verify(GENUINE, b"", &rules(), GENUINE_AT);
    assert_eq!(outcome, Err(AttestError::Measurement));
    // With its own registers listed, it still carries a key and no data of ours.
    let document = Document::verify(GENUINE, AWS_ROOT, GENUINE_AT).unwrap();
    let rules = Rules::Nitro(NitroRules {
        measurements: vec![document.pcr(0).unwrap().to_vec()],
        pcr1: vec![*document.pcr(1).unwrap()],
        pcr2: vec![*document.pcr(2).unwrap()],
        ..NitroRules::default()
    });
    let outcome = NitroVerifier::default().verify(GENUINE, b"", &rules, GENUINE_AT);
    assert!(malformed(&outcome), "{outcome:?}");
}

#[test]
fn fail_every_byte_of_a_document_flipped() {
    std::thread::scope(|scope| {
        for (document, now) in [(GENUINE, GENUINE_AT), (DEBUG, DEBUG_AT)] {
            scope.spawn(move || {
                for index in 0..document.len() {
                    for flip in [1 << (index % 8), 0xff] {
                        let mut changed = document.to_vec();
                        changed[index] ^= flip;
                        let outcome = Document::verify(&changed, AWS_ROOT, now);
                        assert!(outcome.is_err(), "byte {index}");
                    }
                }
            });
        }
    });
}

#[test]
fn fail_document_cut_or_followed() {
    let pki = Pki::new(&Shape::default());
    let ours = pki.document(&[7; 64]);
    for (document, root, now) in [
        (GENUINE, AWS_ROOT, GENUINE_AT),
        (&ours, &pki.bundle[0], NOW),
    ] {
        for length in 0..document.len() {
            let outcome = Document::verify(&document[..length], root, now);
            assert!(
                matches!(outcome, Err(AttestError::Malformed(_))),
                "{length} bytes"
            );
        }
        for tail in [&b"\0"[..], &[0; 40 << 10], document] {
            let outcome = Document::verify(&[document, tail].concat(), root, now);
            assert!(matches!(outcome, Err(AttestError::Malformed(_))));
        }
    }
}

#[test]
fn fail_other_encodings_of_the_envelope() {
    let pki = Pki::new(&Shape::default());
    let document = pki.document(&[7; 64]);
    assert_eq!(document[0], 0x84);
    // An array of indefinite length, a length that is longer than needed, another tag,
    // the tag twice.
    let variants = [
        [&[0x9f][..], &document[1..], &[0xff]].concat(),
        [&[0x98, 4][..], &document[1..]].concat(),
        [&[0xd1][..], &document].concat(),
        [&[0xd8, 18][..], &document].concat(),
        [&[0xd2, 0xd2][..], &document].concat(),
    ];
    for variant in variants {
        assert!(malformed(&pki.verify(&variant)), "{:02x?}", &variant[..4]);
    }
}

#[test]
fn fail_another_algorithm_or_header() {
    let pki = Pki::new(&Shape::default());
    let sign = |protected: coset::Header, unprotected: coset::Header| {
        CoseSign1Builder::new()
            .protected(protected)
            .unprotected(unprotected)
            .payload(Value::Map(pki.payload(&[7; 64])).to_vec().unwrap())
            .create_signature(b"", |data| pki.raw_signature(data))
            .build()
            .to_vec()
            .unwrap()
    };
    let header = |algorithm| HeaderBuilder::new().algorithm(algorithm).build();
    let es384 = || header(iana::Algorithm::ES384);
    assert!(pki.verify(&sign(es384(), coset::Header::default())).is_ok());
    for document in [
        sign(header(iana::Algorithm::ES256), coset::Header::default()),
        sign(coset::Header::default(), es384()),
        sign(coset::Header::default(), coset::Header::default()),
        sign(es384(), es384()),
        sign(
            HeaderBuilder::new()
                .algorithm(iana::Algorithm::ES384)
                .key_id(vec![1])
                .build(),
            coset::Header::default(),
        ),
        sign(es384(), HeaderBuilder::new().key_id(vec![1]).build()),
    ] {
        assert!(malformed(&pki.verify(&document)));
    }
}

#[test]
fn fail_a_signature_that_is_not_the_modules() {
    let pki = Pki::new(&Shape::default());
    let other = Pki::new(&Shape::default());
    let foreign = other.sign(pki.payload(&[7; 64])).to_vec().unwrap();
    assert!(matches!(
        pki.verify(&foreign),
        Err(AttestError::Signature(_))
    ));
    let signed = pki.sign(pki.payload(&[7; 64]));
    for signature in [
        vec![],
        vec![0; 96],
        vec![0xff; 96],
        signed.signature[..95].to_vec(),
    ] {
        let mut changed = signed.clone();
        changed.signature = signature;
        let outcome = pki.verify(&changed.to_vec().unwrap());
        assert!(
            matches!(outcome, Err(AttestError::Signature(_))),
            "{outcome:?}"
        );
    }
    let mut detached = signed.clone();
    detached.payload = None;
    assert!(malformed(&pki.verify(&detached.to_vec().unwrap())));
}

#[test]
fn fail_another_root() {
    let pki = Pki::new(&Shape::default());
    let document = pki.document(&[7; 64]);
    let vendor = NitroVerifier::default().verify(&document, b"", &rules(), NOW);
    assert!(endorsement(&vendor), "{vendor:?}");
    let other = Pki::new(&Shape::default());
    assert!(endorsement(&other.verify(&document)));
    // The true root in front of another's chain.
    let mut bundle = other.bundle.clone();
    bundle[0] = pki.bundle[0].clone();
    let mut payload = other.payload(&[7; 64]);
    entry(&mut payload, "cabundle").1 =
        Value::Array(bundle.into_iter().map(Value::Bytes).collect());
    assert!(endorsement(
        &pki.verify(&other.sign(payload).to_vec().unwrap())
    ));
    assert!(endorsement(&Document::verify(
        GENUINE,
        &pki.bundle[0],
        GENUINE_AT
    )));
    assert!(endorsement(&Document::verify(GENUINE, b"", GENUINE_AT)));
}

#[test]
fn fail_chains_that_are_not_exactly_one() {
    let pki = Pki::new(&Shape::default());
    let [root, region, zone] = [0, 1, 2].map(|index| pki.bundle[index].clone());
    let stranger = Pki::new(&Shape::default()).bundle[1].clone();
    let bundle = |parts: &[&Vec<u8>]| {
        let parts = parts
            .iter()
            .map(|part| Value::Bytes((*part).clone()))
            .collect();
        pki.verify(&pki.with("cabundle", Value::Array(parts)))
    };
    assert!(bundle(&[&root, &region, &zone]).is_ok());
    for outcome in [
        bundle(&[&root, &region]),
        bundle(&[&root, &zone]),
        bundle(&[&root]),
        bundle(&[&region, &root, &zone]),
        bundle(&[&region, &zone]),
        bundle(&[&root, &region, &zone, &stranger]),
        bundle(&[&root, &root, &region, &zone]),
        bundle(&[&root, &region, &zone, &pki.certificate]),
    ] {
        assert!(endorsement(&outcome), "{outcome:?}");
    }
    for outcome in [
        bundle(&[]),
        bundle(&[&root; 8]),
        bundle(&[&root, &vec![], &zone]),
        bundle(&[&root, &vec![0x30; 1025], &zone]),
    ] {
        assert!(malformed(&outcome), "{outcome:?}");
    }
    let outcome = pki.verify(&pki.with("certificate", Value::Bytes(zone.clone())));
    assert!(endorsement(&outcome), "an authority as module: {outcome:?}");
}

#[test]
fn fail_certificates_out_of_date() {
    for days in [(10, 14), (16, 20)] {
        let pki = Pki::new(&Shape {
            days,
            ..Shape::default()
        });
        let outcome = pki.verify(&pki.document(&[7; 64]));
        assert!(endorsement(&outcome), "{outcome:?}");
    }
    const HOUR: u64 = 3600;
    for now in [
        0,
        GENUINE_AT - HOUR,
        GENUINE_AT + 4 * HOUR,
        NOW,
        u64::MAX / 1000,
    ] {
        let outcome = Document::verify(GENUINE, AWS_ROOT, now);
        assert!(endorsement(&outcome), "{outcome:?}");
    }
}

#[test]
fn fail_certificates_meant_for_something_else() {
    for shape in [
        Shape {
            module_signs: false,
            ..Shape::default()
        },
        Shape {
            authority_certifies: false,
            ..Shape::default()
        },
    ] {
        let pki = Pki::new(&shape);
        let outcome = pki.verify(&pki.document(&[7; 64]));
        assert!(endorsement(&outcome), "{outcome:?}");
    }
}

#[test]
fn fail_time_of_the_document() {
    let pki = Pki::new(&Shape::default());
    let document = pki.document(&[7; 64]);
    let at = |now| pki.verifier().verify(&document, b"", &rules(), now);
    assert!(at(NOW + 300).is_ok() && at(NOW - 60).is_ok());
    assert_eq!(
        at(NOW + 301),
        Err(AttestError::Expired {
            age: 301,
            limit: 300
        })
    );
    assert_eq!(at(NOW - 61), Err(AttestError::FromTheFuture { ahead: 61 }));
    let strict = Rules::Nitro(NitroRules {
        max_document_age: Some(10),
        ..nitro_rules()
    });
    let outcome = pki.verifier().verify(&document, b"", &strict, NOW + 11);
    assert_eq!(outcome, Err(AttestError::Expired { age: 11, limit: 10 }));
    for value in [Value::from(-1), Value::Null, Value::Text("now".into())] {
        assert!(malformed(&pki.verify(&pki.with("timestamp", value))));
    }
}

#[test]
fn fail_registers_that_are_not_listed() {
    let pki = Pki::new(&Shape::default());
    for number in 0..3 {
        let outcome = pki.verify(&pki.with_pcr(number, Some(vec![0x5a; 48])));
        assert_eq!(outcome, Err(AttestError::Measurement), "PCR {number}");
        assert!(malformed(&pki.verify(&pki.with_pcr(number, None))));
    }
    let document = pki.document(&[7; 64]);
    type List = fn(&mut NitroRules) -> &mut Vec<[u8; 48]>;
    let lists: [(List, u8); 3] = [
        (|rules| &mut rules.pcr3, 4),
        (|rules| &mut rules.pcr4, 5),
        (|rules| &mut rules.pcr8, 9),
    ];
    for (list, value) in lists {
        let mut rules = nitro_rules();
        list(&mut rules).push([0x5a; 48]);
        let outcome = pki
            .verifier()
            .verify(&document, b"", &Rules::Nitro(rules.clone()), NOW);
        assert_eq!(outcome, Err(AttestError::Measurement));
        if value < 6 {
            list(&mut rules).push([value; 48]);
            assert!(
                pki.verifier()
                    .verify(&document, b"", &Rules::Nitro(rules), NOW)
                    .is_ok()
            );
        }
    }
    for value in [vec![], vec![1; 32], vec![1; 64]] {
        assert!(malformed(&pki.verify(&pki.with_pcr(0, Some(value)))));
    }
}

#[test]
fn fail_user_data_nonce_and_public_key() {
    let pki = Pki::new(&Shape::default());
    for data in [vec![], vec![7; 63], vec![7; 65], vec![7; 1025]] {
        assert!(
            malformed(&pki.verify(&pki.document(&data))),
            "{} bytes",
            data.len()
        );
    }
    assert!(malformed(&pki.verify(&pki.with("user_data", Value::Null))));
    assert_eq!(
        pki.verify(&pki.document(&[0; 64])),
        Err(AttestError::Binding)
    );
    for key in ["nonce", "public_key"] {
        for value in [vec![], vec![1], vec![7; 64]] {
            assert!(
                malformed(&pki.verify(&pki.with(key, Value::Bytes(value)))),
                "{key}"
            );
        }
    }
}

#[test]
fn fail_payloads_that_are_not_a_document() {
    let pki = Pki::new(&Shape::default());
    let keys: Vec<String> = pki
        .payload(&[7; 64])
        .iter()
        .map(|(key, _)| key.as_text().unwrap().to_owned())
        .collect();
    for key in &keys {
        let mut payload = pki.payload(&[7; 64]);
        // Twice, under another name, and (where it is required) not at all.
        let repeated = entry(&mut payload, key).clone();
        payload.push(repeated);
        assert!(
            malformed(&pki.verify(&pki.sign(payload.clone()).to_vec().unwrap())),
            "{key}"
        );
        payload.pop();
        entry(&mut payload, key).0 = Value::Text(format!("{key}2"));
        assert!(
            malformed(&pki.verify(&pki.sign(payload).to_vec().unwrap())),
            "{key}"
        );
        for value in [Value::Bool(true), Value::Array(vec![]), Value::Map(vec![])] {
            assert!(malformed(&pki.verify(&pki.with(key, value))), "{key}");
        }
    }
    for digest in ["SHA256", "SHA512", "sha384", ""] {
        assert!(malformed(
            &pki.verify(&pki.with("digest", Value::Text(digest.into())))
        ));
    }
    for module in ["", "with space", "line\nbreak", &"m".repeat(1025)] {
        assert!(malformed(
            &pki.verify(&pki.with("module_id", Value::Text(module.into())))
        ));
    }
    for number in [
        Value::from(32),
        Value::from(-1),
        Value::from(256),
        Value::Null,
    ] {
        let mut payload = pki.payload(&[7; 64]);
        let pcrs = entry(&mut payload, "pcrs").1.as_map_mut().unwrap();
        pcrs.push((number, Value::Bytes(vec![1; 48])));
        assert!(malformed(&pki.verify(&pki.sign(payload).to_vec().unwrap())));
    }
    let mut payload = pki.payload(&[7; 64]);
    let pcrs = entry(&mut payload, "pcrs").1.as_map_mut().unwrap();
    pcrs.push((Value::from(0), Value::Bytes(vec![1; 48])));
    assert!(
        malformed(&pki.verify(&pki.sign(payload).to_vec().unwrap())),
        "PCR 0 twice"
    );
}

#[test]
fn fail_endorsements_and_other_rules() {
    let pki = Pki::new(&Shape::default());
    let document = pki.document(&[7; 64]);
    assert!(malformed(&pki.verifier().verify(
        &document,
        b"x",
        &rules(),
        NOW
    )));
    let other = Rules::Simulated(oboro_attest::SimulatedRules::default());
    assert!(matches!(
        pki.verifier().verify(&document, b"", &other, NOW),
        Err(AttestError::PlatformNotAccepted(_))
    ));
    let empty = Rules::Nitro(NitroRules::default());
    assert!(matches!(
        pki.verifier().verify(&document, b"", &empty, NOW),
        Err(AttestError::Policy(_))
    ));
}

#[test]
fn fail_claims_that_the_document_does_not_bind() {
    let pki = Pki::new(&Shape::default());
    let claims = Claims {
        role: AttestedRole::Keeper,
        session: [1; 32],
        nonce: [2; 32],
        channel_key: [3; 32],
        subject: Subject::new([4; 32]),
        issued_at: NOW,
    };
    let evidence = |claims: Claims, bound: &Claims| {
        Evidence {
            platform: Platform::Nitro,
            claims,
            statement: pki.document(&bound.binding()),
            endorsements: Vec::new(),
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
        accept: vec![oboro_attest::Acceptance {
            role: None,
            configurations: vec![],
            rules: rules(),
        }],
        ..Policy::default()
    };
    let verifier = PolicyVerifier::new(policy, vec![Arc::new(pki.verifier())]);
    let appraisal = verifier
        .appraise(&evidence(claims, &claims), &expected, NOW)
        .unwrap();
    assert_eq!(appraisal.claims, claims);
    for change in [
        |claims: &mut Claims| claims.session[0] ^= 1,
        |claims: &mut Claims| claims.nonce[0] ^= 1,
        |claims: &mut Claims| claims.channel_key[0] ^= 1,
        |claims: &mut Claims| claims.subject.configuration[0] ^= 1,
        |claims: &mut Claims| claims.subject.epoch += 1,
        |claims: &mut Claims| claims.issued_at += 1,
    ] {
        // A document of another session, relayed under claims that fit this one.
        let mut other = claims;
        change(&mut other);
        let outcome = verifier.appraise(&evidence(claims, &other), &expected, NOW);
        assert_eq!(outcome.map(drop), Err(AttestError::Binding));
    }
}

#[test]
fn rules_are_read_strictly() {
    let value = |byte: u8| hex::encode([byte; 48]);
    let text = format!(
        "measurements = [\"{}\"]\npcr1 = [\"{}\"]\npcr2 = [\"{}\"]\nmax-document-age = 30\n",
        value(1),
        value(2),
        value(3)
    );
    let rules: NitroRules = toml::from_str(&text).unwrap();
    rules.check().unwrap();
    assert_eq!(
        rules,
        NitroRules {
            max_document_age: Some(30),
            ..nitro_rules()
        }
    );
    assert_eq!(
        toml::from_str::<NitroRules>(&toml::to_string(&rules).unwrap()).unwrap(),
        rules
    );
    for (from, to) in [
        ("max-document-age", "max-age"),
        ("pcr1 = ", "pcr5 = "),
        ("pcr2 = [\"03", "pcr2 = [\""),
        ("measurements = ", "pcr0 = "),
    ] {
        assert!(
            toml::from_str::<NitroRules>(&text.replace(from, to)).is_err(),
            "{to}"
        );
    }
    for (from, to) in [
        ("pcr1 = [\"", "pcr1 = []#"),
        ("measurements = [\"01", "measurements = [\""),
    ] {
        let rules: NitroRules = toml::from_str(&text.replace(from, to)).unwrap();
        assert!(matches!(rules.check(), Err(AttestError::Policy(_))), "{to}");
    }
}

#[test]
fn fail_to_attest_without_the_device() {
    if std::path::Path::new("/dev/nsm").exists() {
        return;
    }
    let error = NitroAttester::new().unwrap_err();
    assert!(
        matches!(&error, AttestError::Platform { platform: Platform::Nitro, reason } if reason.contains("/dev/nsm")),
        "{error}"
    );
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..3_000)) {
        prop_assert!(Document::verify(&bytes, AWS_ROOT, GENUINE_AT).is_err());
    }

    #[test]
    fn damaged_documents_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut document = GENUINE.to_vec();
        for (at, byte) in damage {
            *at.get_mut(&mut document) = byte;
        }
        if document != GENUINE {
            prop_assert!(Document::verify(&document, AWS_ROOT, GENUINE_AT).is_err());
        }
    }

    #[test]
    fn nested_and_announced_lengths_never_exhaust(
        head in prop::collection::vec(prop_oneof![Just(0x81u8), Just(0x9f), Just(0xa1), Just(0xd2), Just(0x5f), Just(0x9b), Just(0xbb), Just(0x5b), any::<u8>()], 1..20_000),
    ) {
        prop_assert!(Document::verify(&head, AWS_ROOT, GENUINE_AT).is_err());
    }
}
