//! A keeper whose records somebody puts back, beside a real TPM's counter.
#![allow(clippy::unwrap_used)]

mod support;
#[path = "../../oboro-tpm/tests/swtpm/mod.rs"]
mod swtpm;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use support::{Place, copy, fails};
use swtpm::Swtpm;

/// A keeper that runs, and what it said.
fn start(arguments: &[&str]) -> (Child, Value) {
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("oboro"))
        .arg("--json")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, serde_json::from_str(&line).unwrap())
}

#[test]
fn fail_an_older_copy_of_a_keepers_records() {
    let Some(tpm) = Swtpm::start() else {
        return;
    };
    let place = Place::with_keys();
    let (keys, state, tpm) = (
        place.at("keys"),
        place.at("state"),
        tpm.address().to_string(),
    );
    let keeper = [
        "keeper",
        "--keys",
        &keys,
        "--state",
        &state,
        "--tpm",
        &tpm,
        "--listen",
        "127.0.0.1:0",
        "--allow-simulated",
        "--supervised",
    ];
    let (mut child, ready) = start(&[&keeper[..], &["--new-state"]].concat());
    let remarks = ready["remarks"].to_string();
    assert!(remarks.contains("older copies"), "{ready}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());

    copy(&place.path("state"), &place.path("old"));
    // Every start moves the counter on.
    let (mut child, _) = start(&keeper);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());

    let old = place.at("old");
    let back = keeper.map(|word| if word == state { &*old } else { word });
    let message = fails(4, &back);
    assert!(message.contains("older copy"), "{message}");
    // Records are never begun over others.
    fails(4, &[&keeper[..], &["--new-state"]].concat());
    let (mut child, _) = start(&keeper);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
