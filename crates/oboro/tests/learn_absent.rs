//! The default program trains nothing and says how to have one that does.
#![cfg(not(feature = "learn"))]
#![allow(clippy::unwrap_used)]

mod support;

use support::fails;

#[test]
fn fail_learn_in_a_program_without_it() {
    for arguments in [
        ["learn", "train", "--data", "garments"].as_slice(),
        &["learn", "demo"],
        &["learn"],
    ] {
        let message = fails(2, arguments);
        assert!(message.contains("--features learn"), "{message}");
    }
}
