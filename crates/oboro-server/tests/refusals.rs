//! The servers' binary: hardware or nothing, and one sentence why.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use assert_cmd::Command;
use oboro_server::platforms::{HardwarePlatforms, Platforms};
use serde_json::Value;

fn server(arguments: &[&str]) -> (i32, Value, String) {
    let output = Command::cargo_bin("oboro-server")
        .unwrap()
        .env_remove("OBORO_CONFIG")
        .arg("--json")
        .args(arguments)
        .output()
        .unwrap();
    let object = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (
        output.status.code().unwrap(),
        object,
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn refused(code: i32, arguments: &[&str]) -> String {
    let (found, object, stderr) = server(arguments);
    assert_eq!(found, code, "{arguments:?}: {stderr}");
    let message = object["error"]["message"].as_str().unwrap().to_owned();
    assert!(!message.contains('\n'), "one sentence: {message}");
    assert!(stderr.contains(&message));
    message
}

/// A policy that accepts one program, which does not exist.
fn policy(folder: &Path) -> String {
    let path = folder.join("policy.toml");
    let text = format!(
        "version = 1\n[[accept]]\nplatform = \"tdx\"\nmeasurements = [\"{}\"]\nminimum-tcb-evaluation = 17\n",
        "ab".repeat(48)
    );
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn fail_without_a_policy() {
    for role in [&["keeper"][..], &["searcher", "--index", "."]] {
        let message = refused(4, role);
        assert!(message.contains("oboro attest policy"), "{message}");
    }
}

#[test]
fn fail_without_hardware() {
    if HardwarePlatforms.attester().is_ok() {
        println!("SKIPPED: hardware of this machine attests the servers");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path());
    for role in [
        &["keeper", "--policy", &policy][..],
        &["searcher", "--index", ".", "--policy", &policy],
    ] {
        let message = refused(4, role);
        assert!(message.contains("nothing would protect"), "{message}");
    }
    // Looking is no starting: what is missing is told.
    let (code, shown, _) = server(&["show"]);
    assert_eq!(code, 0);
    assert!(shown["evidence"].is_null());
    assert!(shown["no_evidence"].is_string());
    assert!(shown["platforms"].as_array().unwrap().len() >= 4);
}

#[test]
fn fail_the_simulated_platform_is_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    std::fs::write(
        &policy,
        "version = 1\n[[accept]]\nplatform = \"simulated\"\n",
    )
    .unwrap();
    let message = refused(4, &["keeper", "--policy", policy.to_str().unwrap()]);
    assert!(message.contains("simulated"), "{message}");
    let (code, ..) = server(&["keeper", "--allow-simulated"]);
    assert_eq!(code, 2);
    let (_, shown, _) = server(&["show"]);
    assert!(!shown["platforms"].to_string().contains("simulated"));
}

#[test]
fn a_set_up_has_one_digest() {
    let folder = tempfile::tempdir().unwrap();
    let policy = policy(folder.path());
    // The owner's authority is part of it.
    let authority = oboro_channel::Authority::generate(std::time::SystemTime::now()).unwrap();
    let trust = folder.path().join("trust.pem");
    authority.trust().create_file(&trust).unwrap();
    let keys = folder.path().to_str().unwrap();
    let digest = |options: &[&str]| {
        let show = [
            "show",
            "--keys",
            keys,
            "--configuration",
            "keeper",
            "--",
            "--policy",
            &policy,
        ];
        let (code, shown, stderr) = server(&[&show[..], options].concat());
        assert_eq!(code, 0, "{stderr}");
        shown["configuration"].as_str().unwrap().to_owned()
    };
    let usual = digest(&[]);
    assert_eq!(usual.len(), 64);
    assert_eq!(usual, digest(&["--lockdown", "best-effort"]));
    let mut all = vec![usual];
    for options in [
        &["--lockdown", "off"][..],
        &["--lockdown", "require"],
        &["--flooding-bits", "20"],
        &["--rate", "100"],
        &["--tpm", "/dev/tpmrm0"],
        &["--record-view"],
    ] {
        all.push(digest(options));
    }
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 7);
    // Options that do not exist do not pass unseen.
    let (code, ..) = server(&[
        "show",
        "--keys",
        keys,
        "--configuration",
        "keeper",
        "--",
        "--lokdown",
        "off",
    ]);
    assert_eq!(code, 2);
}
