//! Quotes of a real software TPM, appraised under policies.

#![allow(clippy::unwrap_used)]

#[path = "../../oboro-tpm/tests/swtpm/mod.rs"]
mod swtpm;

use oboro_attest::tpm::{TpmAttester, TpmSealer, TpmVerifier};
use oboro_attest::{
    AttestError, AttestedRole, Attester, Claims, Expected, Platform, Policy, PolicyVerifier,
    Sealer, Subject, Verifier,
};
use oboro_tpm::{AttestationKey, AttestationPublic, KeyChoice, PcrSelection};
use std::path::Path;
use std::sync::Arc;
use swtpm::Swtpm;

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

fn expected(claims: &Claims) -> Expected {
    Expected {
        role: claims.role,
        session: claims.session,
        nonce: claims.nonce,
        channel_key: claims.channel_key,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A machine with something measured, an attester on it, and a verifier whose policy
/// file accepts exactly that.
fn set_up(machine: &Swtpm, choice: KeyChoice) -> (TpmAttester, PolicyVerifier) {
    let tpm = machine.open();
    tpm.extend_pcr(4, &[1; 32]).unwrap();
    tpm.extend_pcr(11, &[2; 32]).unwrap();
    let selection = PcrSelection::new([0, 4, 7, 11]).unwrap();
    let public = AttestationKey::new(tpm.clone(), choice).unwrap().public();
    let name = *AttestationPublic::decode(&public.unwrap()).unwrap().name();
    let pcrs = tpm.read_pcrs(selection).unwrap();
    let text = format!(
        "version = 1\n[[accept]]\nplatform = \"tpm\"\nrole = \"keeper\"\n\
         pcrs = {{ 4 = \"{}\", 11 = \"{}\" }}\nattestation-keys = [\"{}\"]\n",
        hex(pcrs.value(4).unwrap()),
        hex(pcrs.value(11).unwrap()),
        hex(&name),
    );
    let policy = Policy::from_toml(&text, Path::new(".")).unwrap();
    let verifier = PolicyVerifier::new(policy, vec![Arc::new(TpmVerifier)]);
    (TpmAttester::new(tpm, choice, selection).unwrap(), verifier)
}

#[test]
fn a_quote_of_a_real_tpm_is_accepted() {
    for choice in [KeyChoice::EcdsaP256, KeyChoice::RsaPss2048] {
        let Some(machine) = Swtpm::start() else {
            return;
        };
        let (attester, verifier) = set_up(&machine, choice);
        let claims = claims();
        let evidence = attester.attest(&claims).unwrap();
        let appraisal = verifier
            .appraise(&evidence, &expected(&claims), NOW + 5)
            .unwrap();
        assert_eq!(appraisal.platform, Platform::Tpm);
        assert_eq!(appraisal.claims, claims);
    }
}

#[test]
fn fail_replayed_relayed_old_or_for_another_role() {
    let Some(machine) = Swtpm::start() else {
        return;
    };
    let (attester, verifier) = set_up(&machine, KeyChoice::EcdsaP256);
    let claims = claims();
    let evidence = attester.attest(&claims).unwrap();
    let right = expected(&claims);
    let appraise = |expected, now| verifier.appraise(&evidence, &expected, now).unwrap_err();
    let nonce = [9; 32];
    assert_eq!(
        appraise(Expected { nonce, ..right }, NOW),
        AttestError::Nonce
    );
    let session = [9; 32];
    assert_eq!(
        appraise(Expected { session, ..right }, NOW),
        AttestError::Session
    );
    let channel_key = [9; 32];
    let relayed = Expected {
        channel_key,
        ..right
    };
    assert_eq!(appraise(relayed, NOW), AttestError::ChannelKey);
    let role = AttestedRole::Searcher;
    assert_eq!(appraise(Expected { role, ..right }, NOW), AttestError::Role);
    assert!(matches!(
        appraise(right, NOW + 301),
        AttestError::Expired { .. }
    ));
}

#[test]
fn fail_every_flipped_byte_of_the_evidence() {
    let Some(machine) = Swtpm::start() else {
        return;
    };
    let (attester, verifier) = set_up(&machine, KeyChoice::EcdsaP256);
    let claims = claims();
    let evidence = attester.attest(&claims).unwrap();
    for position in 0..evidence.len() {
        let mut altered = evidence.clone();
        altered[position] ^= 1;
        assert!(
            verifier
                .appraise(&altered, &expected(&claims), NOW)
                .is_err(),
            "byte {position}"
        );
    }
    for length in 0..evidence.len() {
        assert!(
            verifier
                .appraise(&evidence[..length], &expected(&claims), NOW)
                .is_err()
        );
    }
}

#[test]
fn fail_machine_that_started_something_else() {
    let Some(machine) = Swtpm::start() else {
        return;
    };
    let (attester, verifier) = set_up(&machine, KeyChoice::EcdsaP256);
    drop(attester);
    let tpm = machine.open();
    tpm.extend_pcr(11, &[3; 32]).unwrap();
    let selection = PcrSelection::new([4, 11]).unwrap();
    let attester = TpmAttester::new(tpm, KeyChoice::EcdsaP256, selection).unwrap();
    let claims = claims();
    let evidence = attester.attest(&claims).unwrap();
    assert_eq!(
        verifier.appraise(&evidence, &expected(&claims), NOW),
        Err(AttestError::Measurement)
    );
}

#[test]
fn fail_another_tpm_and_one_where_nothing_was_measured() {
    let (Some(machine), Some(other), Some(mut empty)) =
        (Swtpm::start(), Swtpm::start(), Swtpm::start())
    else {
        return;
    };
    let (_, verifier) = set_up(&machine, KeyChoice::EcdsaP256);
    let (attester, _) = set_up(&other, KeyChoice::EcdsaP256);
    let claims = claims();
    let evidence = attester.attest(&claims).unwrap();
    assert!(matches!(
        verifier.appraise(&evidence, &expected(&claims), NOW),
        Err(AttestError::Endorsement(_))
    ));
    let (attester, verifier) = set_up(&empty, KeyChoice::EcdsaP256);
    drop(attester);
    empty.reboot();
    let selection = PcrSelection::new([4, 11]).unwrap();
    let attester = TpmAttester::new(empty.open(), KeyChoice::EcdsaP256, selection).unwrap();
    let evidence = attester.attest(&claims).unwrap();
    assert!(matches!(
        verifier.appraise(&evidence, &expected(&claims), NOW),
        Err(AttestError::State(_))
    ));
}

#[test]
fn sealing_keys_differ_by_purpose_and_start() {
    let Some(machine) = Swtpm::start() else {
        return;
    };
    let selection = PcrSelection::new([4]).unwrap();
    let tpm = machine.open();
    let key = |purpose| {
        let sealer = TpmSealer::new(tpm.clone(), selection).unwrap();
        *sealer.sealing_key(purpose).unwrap()
    };
    let first = key("keeper state");
    assert_eq!(key("keeper state"), first);
    assert_ne!(key("searcher state"), first);
    tpm.extend_pcr(4, &[1; 32]).unwrap();
    assert_ne!(key("keeper state"), first);
}

#[test]
fn fail_no_tpm() {
    let address = "/dev/oboro-no-such-tpm"
        .parse::<oboro_tpm::Address>()
        .unwrap();
    for error in [
        TpmAttester::open(address.clone()).err().unwrap(),
        TpmSealer::open(address.clone()).err().unwrap(),
        oboro_attest::tpm::detect(&address).err().unwrap(),
    ] {
        let text = error.to_string();
        assert!(text.contains("/dev/oboro-no-such-tpm"), "{text}");
    }
}
