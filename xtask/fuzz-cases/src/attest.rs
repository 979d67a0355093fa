//! Evidence of every platform, and policies.

use std::collections::BTreeMap;
use std::path::Path;

use oboro_attest::dcap::{DcapRules, SgxVerifier, TdxVerifier};
use oboro_attest::nitro::{NitroRules, NitroVerifier};
use oboro_attest::snp::{Revocation, SnpRules, SnpVerifier};
use oboro_attest::tpm::{TpmRules, TpmVerifier};
use oboro_attest::{
    AttestError, Evidence, PlatformVerifier, Policy, PolicyVerifier, Rules, platforms,
};
use oboro_simulated::SimulatedVerifier;

/// Some time in 2026.
const NOW: u64 = 1_780_000_000;

/// Whole evidence, as a peer sends it.
pub fn evidence(data: &[u8]) {
    if let Ok(evidence) = Evidence::decode(data) {
        let encoded = evidence.encode().expect("it was within its limits");
        assert!(encoded == data, "another encoding of the same evidence");
    }
    let mut verifiers = platforms::hardware_verifiers();
    verifiers.push(std::sync::Arc::new(SimulatedVerifier));
    let policy = Policy::default().allowing_simulated();
    if let Ok(appraisal) = PolicyVerifier::new(policy, verifiers).appraise_stored(data, NOW) {
        assert!(appraisal.is_simulated());
    }
}

/// Two parts: two bytes say how long the first is.
fn parts(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    Some(rest.split_at(length))
}

fn refused(outcome: Result<oboro_attest::Verified, AttestError>) {
    assert!(
        outcome.is_err(),
        "a measurement that nobody has was accepted"
    );
}

/// Rules that are complete, so that evidence is read, and that no evidence satisfies.
#[must_use]
pub fn snp_rules() -> SnpRules {
    SnpRules {
        measurements: vec![vec![0xA5; 48]],
        revocation: Revocation::Unchecked,
        ..SnpRules::default()
    }
}

/// As [`snp_rules`], for measurements of so many bytes.
#[must_use]
pub fn dcap_rules(bytes: usize) -> DcapRules {
    DcapRules {
        measurements: vec![vec![0xA5; bytes]],
        minimum_tcb_evaluation: 1,
        ..DcapRules::default()
    }
}

/// As [`snp_rules`].
#[must_use]
pub fn nitro_rules() -> NitroRules {
    NitroRules {
        measurements: vec![vec![0xA5; 48]],
        pcr1: vec![[0xA5; 48]],
        pcr2: vec![[0xA5; 48]],
        ..NitroRules::default()
    }
}

/// As [`snp_rules`].
#[must_use]
pub fn tpm_rules() -> TpmRules {
    TpmRules {
        pcrs: BTreeMap::from([(0, vec![[0xA5; 32]])]),
        attestation_keys: vec![[0xA5; 32]],
        ..TpmRules::default()
    }
}

/// A report and its certificates.
pub fn snp(data: &[u8]) {
    let Some((statement, endorsements)) = parts(data) else {
        return;
    };
    let rules = Rules::SevSnp(snp_rules());
    refused(SnpVerifier::new().verify(statement, endorsements, &rules, NOW));
    let _ = SnpVerifier::new().authenticate(statement, endorsements, NOW);
}

/// A quote and its collateral; both technologies read it.
pub fn dcap(data: &[u8]) {
    let Some((statement, endorsements)) = parts(data) else {
        return;
    };
    let (tdx, sgx) = (Rules::Tdx(dcap_rules(48)), Rules::Sgx(dcap_rules(32)));
    refused(TdxVerifier::default().verify(statement, endorsements, &tdx, NOW));
    refused(SgxVerifier::default().verify(statement, endorsements, &sgx, NOW));
}

/// An attestation document.
pub fn nitro(data: &[u8]) {
    refused(NitroVerifier::default().verify(data, &[], &Rules::Nitro(nitro_rules()), NOW));
}

/// A quote of a TPM and its certificates.
pub fn tpm(data: &[u8]) {
    let Some((statement, endorsements)) = parts(data) else {
        return;
    };
    let rules = Rules::Tpm(tpm_rules());
    refused(TpmVerifier.verify(statement, endorsements, &rules, NOW));
}

/// A policy file; it may name files, none of which is there.
pub fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(policy) = Policy::from_toml_with_simulated(text, Path::new("/nonexistent")) {
        // A policy whose files are not in the text has no text.
        let Ok(written) = policy.to_toml() else {
            return;
        };
        let again = Policy::from_toml_with_simulated(&written, Path::new("/nonexistent"));
        assert!(
            again.as_ref() == Ok(&policy),
            "a policy that cannot be read back"
        );
    }
}
