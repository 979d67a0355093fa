//! Faults that were put in on purpose are found, and a right program has none.
#![allow(clippy::unwrap_used)]

use std::process::Command;

/// What the harness says of a planted scenario; `None` where there is no strace.
fn survive(scenario: &str) -> Option<(bool, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask-survive"))
        .args(["--only", scenario])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    if text.contains("SKIPPED") {
        println!("{text}");
        return None;
    }
    Some((output.status.success(), text))
}

fn found(scenario: &str, fault: &str) {
    if let Some((success, text)) = survive(scenario) {
        assert!(!success && text.contains(fault), "{text}");
    }
}

#[test]
fn a_right_program_has_no_faults() {
    if let Some((success, text)) = survive("toy-Right") {
        assert!(success && text.contains("; 0 cases with faults"), "{text}");
    }
}

#[test]
fn fail_a_file_that_is_not_synced() {
    found("toy-NoFileSync", "half written\n    such as: power lost");
}

#[test]
fn fail_a_folder_that_is_not_synced() {
    found(
        "toy-NoFolderSync",
        "something lost\n    such as: power lost",
    );
}

#[test]
fn fail_a_rename_before_the_sync() {
    found(
        "toy-RenameBeforeSync",
        "half written\n    such as: power lost",
    );
}

#[test]
fn fail_a_step_called_durable_too_early() {
    found("toy-ToldEarly", "something lost\n    such as: power lost");
}

#[test]
fn fail_a_file_replaced_in_place() {
    found("toy-InPlace", "half written\n    such as: Kill at write");
}

#[test]
fn fail_errors_that_are_ignored() {
    found("toy-ErrorsIgnored", "the program reports success");
}

#[test]
fn fail_files_left_behind() {
    found("toy-LeavesFiles", "left behind for ever: kept-");
}

#[test]
fn fail_a_panic_on_a_full_disk() {
    found("toy-Panics", "the program panics: thread 'main'");
}
