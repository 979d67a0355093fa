//! Policy files.
#![allow(clippy::unwrap_used)]

use oboro_attest::snp::{Product, Revocation, SnpRules, Tcb};
use oboro_attest::{
    Acceptance, AttestError, AttestedRole, MAX_POLICY_BYTES, Policy, PolicyFile, Rules,
    SimulatedRules,
};
use std::path::Path;
use std::time::Duration;

const VCEK: &[u8] = include_bytes!("fixtures/snp/milan.vcek.der");

fn read(text: &str) -> Result<Policy, AttestError> {
    Policy::from_toml(text, Path::new("/nonexistent"))
}

fn snp(more: &str) -> String {
    format!(
        "version = 1\n[[accept]]\nplatform = 'sev-snp'\nmeasurements = ['{}']\nminimum-tcb = {{ bootloader = 4, tee = 0, snp = 24, microcode = 219 }}\n{more}",
        "3e".repeat(48)
    )
}

#[track_caller]
fn refused(text: &str, message: &str) {
    let error = read(text).unwrap_err().to_string();
    assert!(error.contains(message), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_short_policy_has_strict_defaults() {
    let policy = read(&snp("")).unwrap();
    assert_eq!(
        policy,
        Policy {
            accept: vec![Acceptance {
                role: None,
                configurations: vec![],
                rules: Rules::SevSnp(SnpRules {
                    measurements: vec![vec![0x3e; 48]],
                    minimum_tcb: Tcb {
                        fmc: 0,
                        bootloader: 4,
                        tee: 0,
                        snp: 24,
                        microcode: 219,
                    },
                    revocation: Revocation::Required,
                    allow_migration: false,
                    ..SnpRules::default()
                }),
            }],
            ..Policy::default()
        }
    );
    assert_eq!(policy.max_age, Duration::from_secs(300));
    assert_eq!(policy.clock_skew, Duration::from_secs(60));
}

#[test]
fn a_policy_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("vcek.der"), VCEK).unwrap();
    let policy = Policy {
        max_age: Duration::from_secs(20),
        clock_skew: Duration::from_secs(3),
        accept: vec![
            Acceptance {
                role: Some(AttestedRole::Keeper),
                configurations: vec![[9; 32], [8; 32]],
                rules: Rules::SevSnp(SnpRules {
                    measurements: vec![vec![1; 48], vec![2; 48]],
                    minimum_tcb: Tcb {
                        fmc: 1,
                        bootloader: 2,
                        tee: 3,
                        snp: 4,
                        microcode: 5,
                    },
                    products: vec![Product::Milan, Product::Turin],
                    revocation: Revocation::Unchecked,
                    allow_migration: true,
                    vlek_providers: vec!["cloud".to_owned()],
                    minimum_guest_svn: 6,
                    family_ids: vec![[7; 16]],
                    image_ids: vec![[8; 16]],
                    id_key_digests: vec![[9; 48]],
                    chip_ids: vec![[10; 64]],
                    certificates: vec![PolicyFile {
                        path: "vcek.der".to_owned(),
                        content: VCEK.to_vec(),
                    }],
                    revocation_lists: vec![],
                }),
            },
            Acceptance {
                role: None,
                configurations: vec![],
                rules: Rules::Simulated(SimulatedRules {
                    measurements: vec![vec![3; 48]],
                }),
            },
        ],
    };
    let text = policy.to_toml().unwrap();
    assert_eq!(
        Policy::from_toml_with_simulated(&text, folder.path()).unwrap(),
        policy
    );
}

#[test]
fn fail_simulated_entries_unless_allowed() {
    let text = "version = 1\n[[accept]]\nplatform = 'simulated'\n";
    assert_eq!(read(text).unwrap_err(), AttestError::SimulatedRefused);
    assert!(Policy::from_toml_with_simulated(text, Path::new(".")).is_ok());
}

#[test]
fn fail_entries_that_accept_any_program() {
    for platform in ["sev-snp", "tdx", "sgx", "nitro", "tpm"] {
        refused(
            &format!("version = 1\n[[accept]]\nplatform = '{platform}'\n"),
            "[[accept]] entry 1",
        );
    }
    let tcb = "minimum-tcb = { bootloader = 0, tee = 0, snp = 0, microcode = 0 }";
    refused(
        &format!("version = 1\n[[accept]]\nplatform = 'sev-snp'\nmeasurements = []\n{tcb}\n"),
        "'measurements' lists no launch measurement",
    );
    refused(
        &format!("version = 1\n[[accept]]\nplatform = 'sev-snp'\nmeasurements = ['00']\n{tcb}\n"),
        "has 1 bytes",
    );
}

#[test]
fn fail_a_policy_that_accepts_nothing() {
    refused("version = 1\n", "0 [[accept]] entries");
    refused("version = 1\naccept = []\n", "0 [[accept]] entries");
}

#[test]
fn fail_missing_keys_name_the_key() {
    refused("", "version");
    refused("version = 1\n[[accept]]\nrole = 'keeper'\n", "platform");
    refused(
        "version = 1\n[[accept]]\nplatform = 'sev-snp'\nmeasurements = ['00']\n",
        "minimum-tcb",
    );
    refused(&snp("").replace("tee = 0, ", ""), "tee");
}

#[test]
fn fail_unknown_keys_and_values_are_named() {
    refused(&snp("debug = true\n"), "debug");
    refused(&snp("debug = true\n"), "[[accept]] entry 1");
    refused(&format!("colour = 3\n{}", snp("")), "colour");
    refused(&snp("").replace("tee = 0", "tee = 0, colour = 3"), "colour");
    refused(&snp("role = 'owner'\n"), "'role' is 'owner'");
    refused(&snp("revocation = 'none'\n"), "none");
    refused(
        &snp("").replace("'sev-snp'", "'sev'"),
        "known are sev-snp, tdx",
    );
    refused(&snp("").replace("version = 1", "version = 2"), "version 2");
    refused(&snp("").replace("3e3e", "3e3g"), "hexadecimal");
    refused(&snp("").replace("snp = 24", "snp = 256"), "256");
    refused(&snp("").replace("snp = 24", "snp = -1"), "-1");
    refused(&snp("configurations = ['00']\n"), "expected 32 bytes");
    refused(&format!("max-age = 31622401\n{}", snp("")), "'max-age'");
    refused(
        &format!("clock-skew = 31622401\n{}", snp("")),
        "'clock-skew'",
    );
    refused(&format!("max-age = -1\n{}", snp("")), "max-age");
}

#[test]
fn fail_text_that_is_no_toml_or_too_long() {
    refused("version = = 1\n", "");
    refused("version = 1\nversion = 1\n", "duplicate");
    refused(&"#".repeat(MAX_POLICY_BYTES + 1), "at most");
}

#[test]
fn fail_files_outside_of_the_folder_or_unreadable() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("policy")).unwrap();
    std::fs::write(folder.path().join("vcek.der"), VCEK).unwrap();
    std::fs::write(folder.path().join("policy/empty.der"), []).unwrap();
    std::fs::write(folder.path().join("policy/noise.der"), [1; 99]).unwrap();
    std::fs::write(folder.path().join("policy/vcek.der"), VCEK).unwrap();
    let with = |key: &str, path: &str| {
        Policy::from_toml(
            &snp(&format!("{key} = ['{path}']\n")),
            &folder.path().join("policy"),
        )
        .map(|_| ())
        .map_err(|error| error.to_string())
    };
    assert_eq!(with("certificates", "vcek.der"), Ok(()));
    assert_eq!(with("certificates", "./vcek.der"), Ok(()));
    for (path, message) in [
        ("../vcek.der", "does not lie in"),
        ("/etc/passwd", "does not lie in"),
        ("", "does not lie in"),
        ("missing.der", "cannot be read"),
        ("empty.der", "between 1 and"),
        ("noise.der", "malformed"),
    ] {
        let error = with("certificates", path).unwrap_err();
        assert!(error.contains(message), "{path}: {error}");
    }
    // A certificate is no revocation list.
    assert!(with("revocation-lists", "vcek.der").is_err());
}
