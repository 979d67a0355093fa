//! The hardware platforms together.
#![allow(clippy::unwrap_used)]

use oboro_attest::platforms::{detect, hardware_attester, hardware_sealer, hardware_verifiers};
use oboro_attest::{AttestError, Platform};

#[test]
fn every_hardware_platform_has_one_verifier_and_simulated_has_none() {
    let verifiers = hardware_verifiers();
    for platform in Platform::ALL {
        let count = verifiers
            .iter()
            .filter(|verifier| verifier.platform() == platform)
            .count();
        assert_eq!(count, usize::from(platform != Platform::Simulated));
    }
}

#[test]
fn detection_tells_about_every_hardware_platform_and_why() {
    let found = detect();
    for platform in Platform::ALL {
        let about: Vec<_> = found.iter().filter(|d| d.platform == platform).collect();
        if platform == Platform::Simulated {
            assert!(about.is_empty());
            continue;
        }
        assert_eq!(about.len(), 1);
        assert!(!about[0].detail.is_empty());
        assert_eq!(about[0].detail.lines().count(), 1);
    }
}

#[test]
fn fail_a_machine_without_platforms_says_what_is_missing() {
    if detect().iter().any(|detection| detection.available) {
        assert!(hardware_attester().is_ok());
        return;
    }
    for error in [
        hardware_attester().map(|_| ()).unwrap_err(),
        hardware_sealer().map(|_| ()).unwrap_err(),
    ] {
        assert!(matches!(error, AttestError::NoPlatform(_)));
        assert!(error.to_string().contains("sev-snp"), "{error}");
        assert!(error.to_string().contains("tpm"), "{error}");
    }
}
