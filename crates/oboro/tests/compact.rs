//! A compaction that is stopped, from the command line, and the next one.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{Place, json, oboro, vectors};

const ROWS: usize = 3_000;

/// Text and payload of a record: originals so long that two thirds of them are a
/// checkpoint and more.
const EXTRA: &str = "60000";

fn has_journal(index: &Path) -> bool {
    let mut names = index.read_dir().unwrap().map(|e| e.unwrap().file_name());
    names.any(|name| name.to_string_lossy().starts_with("merge-"))
}

/// Deletes a vector and lets a compaction run until there is something to go on with;
/// what it said when it was ended by `signal`.
fn stopped(place: &Place, ids: &mut std::ops::Range<u32>, signal: Signal) -> String {
    let (index, keys) = (place.at("index"), place.at("keys"));
    let at = ["--index", &index, "--keys", &keys];
    // It may be at its end before the signal comes.
    for id in ids {
        json(&[&["delete", "--ids", &id.to_string()][..], &at].concat());
        let child = Command::new(assert_cmd::cargo::cargo_bin!("oboro"))
            .arg("compact")
            .args(at)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        let journal = || has_journal(&place.path("index"));
        let merged = || json(&["inspect", &index])["deleted"] == 0;
        while !journal() && !merged() {}
        let _ = kill_process(pid, signal);
        let output = child.wait_with_output().unwrap();
        if !output.status.success() && journal() && !merged() {
            return String::from_utf8(output.stderr).unwrap();
        }
    }
    panic!("every compaction was too fast");
}

#[test]
fn a_stopped_compaction_is_gone_on_with_and_says_so() {
    let place = Place::with_keys();
    let base = place.write_fvecs("base.fvecs", &vectors(ROWS, 12, 1));
    place.build("index", &base, &["-K", "16", "--extra-bytes", EXTRA]);
    let (index, keys) = (place.at("index"), place.at("keys"));
    let at = ["--index", &index, "--keys", &keys];
    let verified = || -> Value { json(&["verify", &index, "--keys", &keys]) };
    let mut ids = 0..12;

    let said = stopped(&place, &mut ids, Signal::INT);
    assert!(said.contains("goes on from"), "{said}");
    let (found, rows) = (verified(), ROWS as u64 - u64::from(ids.start));
    assert_eq!(found["sound"], true);
    assert_eq!(found["unlisted"], Value::Array(Vec::new()));
    assert_eq!(
        (&found["vectors"], &found["deleted"]),
        (&rows.into(), &1.into())
    );
    let kept = found["compaction_bytes"].as_u64().unwrap();
    assert!(kept >= 64 << 20, "{kept}");
    let compacted = json(&[&["compact"][..], &at].concat());
    assert_eq!(compacted["resumed_bytes"], kept);
    assert_eq!(compacted["dropped"], 1);
    let found = verified();
    assert_eq!(
        (&found["vectors"], &found["deleted"]),
        (&rows.into(), &0.into())
    );
    assert_eq!(found["originals_opened"], rows);
    assert!(found.get("compaction_bytes").is_none());

    stopped(&place, &mut ids, Signal::KILL);
    assert!(verified()["compaction_bytes"].as_u64().unwrap() >= 64 << 20);
    let output = oboro().arg("compact").args(at).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("resumed at ") && text.contains(" of originals\n"),
        "{text}"
    );
    assert_eq!(
        verified()["originals_opened"],
        ROWS as u64 - u64::from(ids.start)
    );
    assert!(!has_journal(&place.path("index")));
}
