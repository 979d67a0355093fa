//! What the simulated platform is and is not.
#![allow(clippy::unwrap_used)]

use oboro_attest::snp::SnpVerifier;
use oboro_attest::{
    AttestError, AttestedRole, Attester, Claims, Evidence, Platform, PlatformVerifier, Policy,
    PolicyVerifier, Rules, Sealer, SimulatedRules, Subject,
};
use oboro_simulated::{
    DEVELOPMENT_MARKER, SimulatedAttester, SimulatedSealer, SimulatedVerifier, measure,
};
use std::sync::Arc;

const NOW: u64 = 1_800_000_000;

fn claims() -> Claims {
    Claims {
        role: AttestedRole::Keeper,
        session: [1; 32],
        nonce: [2; 32],
        channel_key: [3; 32],
        subject: Subject::new([4; 32]),
        issued_at: NOW,
    }
}

fn evidence() -> Evidence {
    let bytes = SimulatedAttester::new(measure(b"program"))
        .attest(&claims())
        .unwrap();
    Evidence::decode(&bytes).unwrap()
}

#[test]
fn evidence_verifies_and_says_that_it_protects_nothing() {
    let evidence = evidence();
    assert_eq!(evidence.statement.len(), 1184);
    let verified = SimulatedVerifier
        .verify(
            &evidence.statement,
            &evidence.endorsements,
            &Rules::Simulated(SimulatedRules::default()),
            NOW,
        )
        .unwrap();
    assert_eq!(verified.binding, claims().binding());
    assert_eq!(verified.identity.measurement, measure(b"program"));
    assert_eq!(
        verified.remarks,
        ["the simulated platform protects nothing"]
    );
}

#[test]
fn evidence_of_one_session_is_always_the_same() {
    assert_eq!(evidence(), evidence());
}

#[test]
fn fail_another_program() {
    let evidence = evidence();
    let error = SimulatedVerifier
        .verify(
            &evidence.statement,
            &evidence.endorsements,
            &Rules::Simulated(SimulatedRules {
                measurements: vec![measure(b"another").to_vec()],
            }),
            NOW,
        )
        .unwrap_err();
    assert_eq!(error, AttestError::Measurement);
}

/// The root is in no hardware verifier, whatever platform the evidence claims to be of.
#[test]
fn fail_the_development_root_as_hardware() {
    let mut evidence = evidence();
    let policy = Policy::from_toml(
        &format!(
            "version = 1\n[[accept]]\nplatform = 'sev-snp'\nmeasurements = ['{}']\nminimum-tcb = {{ bootloader = 0, tee = 0, snp = 0, microcode = 0 }}\nrevocation = 'unchecked'\n",
            measure(b"program").iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        ),
        std::path::Path::new("."),
    )
    .unwrap();
    evidence.platform = Platform::SevSnp;
    let error = PolicyVerifier::new(policy, vec![Arc::new(SnpVerifier::new())])
        .appraise_stored(&evidence.encode().unwrap(), NOW)
        .unwrap_err();
    assert!(
        matches!(&error, AttestError::Endorsement(what) if what.contains("does not lead to a root")),
        "{error}"
    );
}

#[test]
fn every_certificate_carries_the_marker() {
    let evidence = evidence();
    let found = evidence
        .endorsements
        .windows(DEVELOPMENT_MARKER.len())
        .filter(|window| *window == DEVELOPMENT_MARKER.as_bytes())
        .count();
    // Issuer of the leaf; issuer and subject of the intermediate; issuer of the list.
    assert_eq!(found, 4);
}

#[test]
fn sealing_keys_differ_by_program_and_purpose() {
    let sealer = SimulatedSealer::new(measure(b"program"));
    let key = sealer.sealing_key("state").unwrap();
    assert_eq!(key, sealer.sealing_key("state").unwrap());
    assert_ne!(key, sealer.sealing_key("other").unwrap());
    assert_ne!(
        key,
        SimulatedSealer::new(measure(b"another"))
            .sealing_key("state")
            .unwrap()
    );
}
