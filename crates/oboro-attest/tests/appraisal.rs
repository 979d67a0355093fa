//! Good evidence passes; every way to be wrong is refused for its own reason.
#![allow(clippy::unwrap_used)]

use oboro_attest::{
    AttestError, AttestedRole, Attester, Claims, Evidence, Expected, MAX_PROOF_BYTES, Platform,
    Policy, PolicyVerifier, SimulatedAttester, Verifier, measure,
};
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000;

fn claims() -> Claims {
    Claims {
        role: AttestedRole::Keeper,
        channel_key: [1; 32],
        ckks_key: [2; 32],
        nonce: [3; 32],
        issued_at: NOW,
    }
}

fn expected() -> Expected {
    Expected {
        role: AttestedRole::Keeper,
        channel_key: [1; 32],
        ckks_key: [2; 32],
        nonce: [3; 32],
    }
}

fn evidence() -> Vec<u8> {
    SimulatedAttester::new(measure(b"program"))
        .attest(&claims())
        .unwrap()
}

fn verifier() -> PolicyVerifier {
    PolicyVerifier::new(Policy::allowing_simulated())
}

fn refusal(expected: &Expected, now: u64) -> AttestError {
    verifier().verify(&evidence(), expected, now).unwrap_err()
}

#[test]
fn good_evidence_passes() {
    let appraisal = verifier()
        .verify(&evidence(), &expected(), NOW + 10)
        .unwrap();
    assert!(appraisal.is_simulated());
    assert_eq!(appraisal.role, AttestedRole::Keeper);
    assert_eq!(appraisal.measurement, measure(b"program"));
    assert_eq!(appraisal.issued_at, NOW);
    let decoded = Evidence::decode(&evidence()).unwrap();
    assert_eq!(decoded.claims, claims());
    assert_eq!(decoded.encode().unwrap(), evidence());
}

#[test]
fn fail_simulated_not_allowed() {
    let error = PolicyVerifier::new(Policy::default())
        .verify(&evidence(), &expected(), NOW)
        .unwrap_err();
    assert_eq!(error, AttestError::SimulatedRefused);
}

#[test]
fn fail_other_claims() {
    let change = |edit: fn(&mut Expected)| {
        let mut changed = expected();
        edit(&mut changed);
        refusal(&changed, NOW)
    };
    assert_eq!(
        change(|e| e.role = AttestedRole::Searcher),
        AttestError::Role
    );
    assert_eq!(change(|e| e.channel_key[31] ^= 1), AttestError::ChannelKey);
    assert_eq!(change(|e| e.ckks_key[0] ^= 128), AttestError::CkksKey);
    assert_eq!(change(|e| e.nonce[7] ^= 1), AttestError::Nonce);
}

#[test]
fn fail_time() {
    assert!(
        verifier()
            .verify(&evidence(), &expected(), NOW + 300)
            .is_ok()
    );
    assert_eq!(
        refusal(&expected(), NOW + 301),
        AttestError::Expired {
            age: 301,
            limit: 300
        }
    );
    assert!(
        verifier()
            .verify(&evidence(), &expected(), NOW - 60)
            .is_ok()
    );
    assert_eq!(
        refusal(&expected(), NOW - 61),
        AttestError::FromTheFuture { ahead: 61 }
    );
    assert!(matches!(
        refusal(&expected(), u64::MAX),
        AttestError::Expired { .. }
    ));
    assert!(matches!(
        refusal(&expected(), 0),
        AttestError::FromTheFuture { .. }
    ));
}

#[test]
fn fail_measurement_not_listed() {
    let listing = |program: &[u8]| {
        PolicyVerifier::new(Policy {
            measurements: vec![measure(program)],
            ..Policy::allowing_simulated()
        })
        .verify(&evidence(), &expected(), NOW)
    };
    assert!(listing(b"program").is_ok());
    assert_eq!(listing(b"other").unwrap_err(), AttestError::Measurement);
}

#[test]
fn fail_truncated_at_every_length() {
    let whole = evidence();
    for length in 0..whole.len() {
        assert!(matches!(
            verifier().verify(&whole[..length], &expected(), NOW),
            Err(AttestError::Malformed(_))
        ));
    }
}

#[test]
fn fail_trailing_byte() {
    let mut longer = evidence();
    longer.push(0);
    assert_eq!(
        verifier().verify(&longer, &expected(), NOW).unwrap_err(),
        AttestError::Malformed("bytes follow its end")
    );
}

#[test]
fn fail_every_flipped_bit() {
    let whole = evidence();
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(
            verifier().verify(&flipped, &expected(), NOW).is_err(),
            "bit {bit}"
        );
    }
}

#[test]
fn fail_unknown_platform_and_version() {
    let mut other = evidence();
    other[5] = 77;
    assert_eq!(
        verifier().verify(&other, &expected(), NOW).unwrap_err(),
        AttestError::UnknownPlatform(77)
    );
    let mut newer = evidence();
    newer[4] = 2;
    assert_eq!(
        verifier().verify(&newer, &expected(), NOW).unwrap_err(),
        AttestError::Version(2)
    );
}

#[test]
fn fail_hardware_platforms_are_not_supported_yet() {
    for platform in [Platform::SevSnp, Platform::Tdx, Platform::Nitro] {
        let mut decoded = Evidence::decode(&evidence()).unwrap();
        decoded.platform = platform;
        let error = verifier()
            .verify(&decoded.encode().unwrap(), &expected(), NOW)
            .unwrap_err();
        assert_eq!(error, AttestError::Unsupported(platform));
        assert!(error.to_string().contains(platform.name()));
    }
}

#[test]
fn fail_signature_of_another_key_or_length() {
    let mut decoded = Evidence::decode(&evidence()).unwrap();
    for proof in [vec![], vec![0; 64], vec![9; 63], vec![9; 65]] {
        decoded.proof = proof;
        assert_eq!(
            verifier()
                .verify(&decoded.encode().unwrap(), &expected(), NOW)
                .unwrap_err(),
            AttestError::Signature
        );
    }
    decoded.proof = vec![0; MAX_PROOF_BYTES + 1];
    assert!(decoded.encode().is_err());
}

#[test]
fn fail_oversized_proof_length_allocates_nothing() {
    let mut huge = evidence();
    let at = huge.len() - 64 - 4;
    huge[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(
        Evidence::decode(&huge).unwrap_err(),
        AttestError::Malformed("its proof is too long")
    );
}

proptest! {
    #[test]
    fn decoding_never_panics(bytes: Vec<u8>) {
        let _ = Evidence::decode(&bytes);
        let mut framed = b"OBEV\x01\xff\x02\x00".to_vec();
        framed.extend_from_slice(&bytes);
        let _ = Evidence::decode(&framed);
    }
}
