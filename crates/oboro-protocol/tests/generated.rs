//! The checked-in code equals what the generator makes of `proto/`.
//!
//! `OBORO_REGENERATE=1 cargo test -p oboro-protocol --test generated` writes it anew.
//! Everything is pure Rust: no `protoc` is needed, and users of the crate build neither
//! the generator nor the parser.
#![allow(clippy::unwrap_used)]

use std::path::Path;

fn generate() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile(["oboro/v1/oboro.proto"], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".")
        // Messages carry ciphertexts: `Debug` is written by hand and shows sizes only.
        .skip_debug([".oboro.v1"])
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .unwrap();
    std::fs::read_to_string(out.path().join("oboro.v1.rs")).unwrap()
}

#[test]
fn checked_in_code_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated/oboro.v1.rs");
    let fresh = generate();
    if std::env::var_os("OBORO_REGENERATE").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap();
    assert!(
        checked_in == fresh,
        "the generated code is out of date; run OBORO_REGENERATE=1 cargo test -p oboro-protocol --test generated"
    );
}
