//! Good evidence passes; every way to be wrong is refused for its own reason.
#![allow(clippy::unwrap_used)]

mod support;

use oboro_attest::snp::{Product, SnpRules};
use oboro_attest::{
    Acceptance, AttestError, AttestedRole, Claims, Evidence, Expected, Platform, Policy,
    PolicyVerifier, Rules, Subject, Verifier, key_set_digest,
};
use proptest::prelude::*;
use std::sync::Arc;
use support::{Leaf, MEASUREMENT, NOW, VENDOR, endorsements, report};

fn claims() -> Claims {
    Claims {
        role: AttestedRole::Keeper,
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
    }
}

fn expected() -> Expected {
    Expected {
        role: AttestedRole::Keeper,
        session: [1; 32],
        nonce: [2; 32],
        channel_key: [3; 32],
    }
}

/// Evidence about `signed` that says `said`.
fn evidence_saying(signed: &[u8; 64], said: &Claims) -> Vec<u8> {
    let mut statement = report(signed);
    VENDOR.sign(&mut statement);
    Evidence {
        platform: Platform::SevSnp,
        claims: *said,
        statement: statement.to_vec(),
        endorsements: endorsements(&VENDOR.leaf(&Leaf::milan()), &VENDOR.revocation_list()),
    }
    .encode()
    .unwrap()
}

fn evidence(claims: &Claims) -> Vec<u8> {
    evidence_saying(&claims.binding(), claims)
}

fn acceptance() -> Acceptance {
    Acceptance {
        role: Some(AttestedRole::Keeper),
        configurations: vec![[5; 32]],
        rules: Rules::SevSnp(SnpRules {
            measurements: vec![MEASUREMENT.to_vec()],
            ..SnpRules::default()
        }),
    }
}

fn verifier_of(accept: Vec<Acceptance>) -> PolicyVerifier {
    PolicyVerifier::new(
        Policy {
            accept,
            ..Policy::default()
        },
        vec![Arc::new(VENDOR.verifier(Product::Milan))],
    )
}

fn verifier() -> PolicyVerifier {
    verifier_of(vec![acceptance()])
}

fn refusal(claims: &Claims) -> AttestError {
    verifier()
        .appraise(&evidence(claims), &expected(), NOW)
        .unwrap_err()
}

fn changed(change: impl FnOnce(&mut Claims)) -> Claims {
    let mut claims = claims();
    change(&mut claims);
    claims
}

#[test]
fn good_evidence_passes() {
    let appraisal = verifier()
        .appraise(&evidence(&claims()), &expected(), NOW + 10)
        .unwrap();
    assert!(!appraisal.is_simulated());
    assert_eq!(appraisal.platform, Platform::SevSnp);
    assert_eq!(appraisal.claims, claims());
    assert_eq!(appraisal.identity.measurement, MEASUREMENT);
    assert_eq!(appraisal.remarks, [""; 0]);
}

#[test]
fn fail_evidence_of_another_session() {
    assert_eq!(
        refusal(&changed(|c| c.session[0] ^= 1)),
        AttestError::Session
    );
}

#[test]
fn fail_relayed_evidence_names_another_channel_key() {
    assert_eq!(
        refusal(&changed(|c| c.channel_key[31] ^= 1)),
        AttestError::ChannelKey
    );
}

#[test]
fn fail_wrong_nonce() {
    assert_eq!(refusal(&changed(|c| c.nonce[7] ^= 1)), AttestError::Nonce);
    assert_eq!(refusal(&changed(|c| c.nonce = [0; 32])), AttestError::Nonce);
}

#[test]
fn fail_another_role() {
    let searcher = changed(|c| c.role = AttestedRole::Searcher);
    assert_eq!(refusal(&searcher), AttestError::Role);
    // The policy's role counts, too.
    let expecting = Expected {
        role: AttestedRole::Searcher,
        ..expected()
    };
    let error = verifier()
        .appraise(&evidence(&searcher), &expecting, NOW)
        .unwrap_err();
    assert_eq!(error, AttestError::Role);
}

#[test]
fn fail_same_image_with_another_configuration() {
    let other = changed(|c| c.subject.configuration[0] ^= 1);
    assert_eq!(refusal(&other), AttestError::Configuration);
    let any = verifier_of(vec![Acceptance {
        configurations: vec![],
        ..acceptance()
    }]);
    assert!(any.appraise(&evidence(&other), &expected(), NOW).is_ok());
}

/// Whoever relays evidence can say what is expected, but the platform signed what was.
#[test]
fn fail_claims_other_than_the_signed_ones() {
    let edits: [fn(&mut Claims); 7] = [
        |c| c.session[0] ^= 1,
        |c| c.nonce[0] ^= 1,
        |c| c.channel_key[0] ^= 1,
        |c| c.subject.ckks_keys[0] ^= 1,
        |c| c.subject.index_id[0] ^= 1,
        |c| c.subject.epoch ^= 1,
        |c| c.issued_at -= 1,
    ];
    for edit in edits {
        let signed = changed(edit);
        let error = verifier()
            .appraise(
                &evidence_saying(&signed.binding(), &claims()),
                &expected(),
                NOW,
            )
            .unwrap_err();
        assert_eq!(error, AttestError::Binding);
    }
}

#[test]
fn fail_short_or_zero_report_data() {
    let binding = claims().binding();
    let mut half = [0; 64];
    half[..32].copy_from_slice(&binding[..32]);
    for signed in [[0; 64], half] {
        let error = verifier()
            .appraise(&evidence_saying(&signed, &claims()), &expected(), NOW)
            .unwrap_err();
        assert_eq!(error, AttestError::Binding);
    }
}

#[test]
fn fail_time() {
    let bytes = evidence(&claims());
    let at = |now| verifier().appraise(&bytes, &expected(), now).map(|_| ());
    assert_eq!(at(NOW + 300), Ok(()));
    assert_eq!(
        at(NOW + 301),
        Err(AttestError::Expired {
            age: 301,
            limit: 300
        })
    );
    assert_eq!(at(NOW - 60 + 50), Ok(()));
    assert_eq!(at(NOW - 61), Err(AttestError::FromTheFuture { ahead: 61 }));
    assert!(matches!(at(u64::MAX), Err(AttestError::Expired { .. })));
    assert!(matches!(at(0), Err(AttestError::FromTheFuture { .. })));
}

#[test]
fn fail_measurement_not_listed() {
    let other = Acceptance {
        rules: Rules::SevSnp(SnpRules {
            measurements: vec![vec![1; 48]],
            ..SnpRules::default()
        }),
        ..acceptance()
    };
    let error = verifier_of(vec![other.clone()])
        .appraise(&evidence(&claims()), &expected(), NOW)
        .unwrap_err();
    assert_eq!(error, AttestError::Measurement);
    // One of several entries is enough.
    assert!(
        verifier_of(vec![other, acceptance()])
            .appraise(&evidence(&claims()), &expected(), NOW)
            .is_ok()
    );
}

#[test]
fn fail_platforms_not_accepted_or_not_supported() {
    let bytes = evidence(&claims());
    let error = verifier_of(vec![])
        .appraise(&bytes, &expected(), NOW)
        .unwrap_err();
    assert_eq!(error, AttestError::PlatformNotAccepted(Platform::SevSnp));
    let without = PolicyVerifier::new(verifier().policy().clone(), vec![]);
    let error = without.appraise(&bytes, &expected(), NOW).unwrap_err();
    assert_eq!(error, AttestError::Unsupported(Platform::SevSnp));
}

#[test]
fn fail_simulated_not_allowed() {
    let mut simulated = Evidence::decode(&evidence(&claims())).unwrap();
    simulated.platform = Platform::Simulated;
    let bytes = simulated.encode().unwrap();
    let error = verifier().appraise(&bytes, &expected(), NOW).unwrap_err();
    assert_eq!(error, AttestError::SimulatedRefused);
    // Nor does allowing it turn it into evidence where its verifier is not linked in.
    let allowing = PolicyVerifier::new(
        Policy::default().allowing_simulated(),
        vec![Arc::new(VENDOR.verifier(Product::Milan))],
    );
    let error = allowing.appraise(&bytes, &expected(), NOW).unwrap_err();
    assert_eq!(error, AttestError::Unsupported(Platform::Simulated));
}

#[test]
fn fail_every_byte_flipped() {
    let whole = evidence(&claims());
    let verifier = verifier();
    for at in 0..whole.len() {
        for mask in [0x01, 0x80] {
            let mut flipped = whole.clone();
            flipped[at] ^= mask;
            assert!(
                verifier.appraise(&flipped, &expected(), NOW).is_err(),
                "byte {at}"
            );
        }
    }
}

#[test]
fn fail_truncated_and_trailing() {
    let whole = evidence(&claims());
    for length in 0..whole.len() {
        assert!(matches!(
            verifier().appraise(&whole[..length], &expected(), NOW),
            Err(AttestError::Malformed(_))
        ));
    }
    assert!(
        verifier()
            .appraise(&[&*whole, &[0]].concat(), &expected(), NOW)
            .is_err()
    );
}

#[test]
fn stored_evidence_is_appraised_without_its_session() {
    let appraisal = verifier()
        .appraise_stored(&evidence(&claims()), NOW)
        .unwrap();
    assert_eq!(appraisal.claims, claims());
}

#[test]
fn key_sets_have_one_digest_in_any_order() {
    let (a, b, c) = ([1; 32], [2; 32], [3; 32]);
    assert_eq!(key_set_digest(&[a, b]), key_set_digest(&[b, a]));
    assert_eq!(key_set_digest(&[a, b, a]), key_set_digest(&[a, b]));
    assert_ne!(key_set_digest(&[a, b]), key_set_digest(&[a, c]));
    assert_ne!(key_set_digest(&[a]), key_set_digest(&[a, b]));
    assert_ne!(key_set_digest(&[]), [0; 32]);
}

proptest! {
    #[test]
    fn any_change_of_a_claim_changes_the_binding(at in 0..201_usize, bit in 0..8_u32) {
        let whole = evidence(&claims());
        let mut flipped = whole.clone();
        flipped[8 + at] ^= 1 << bit;
        if let Ok(decoded) = Evidence::decode(&flipped) {
            prop_assert_ne!(decoded.claims.binding(), claims().binding());
        }
    }
}
