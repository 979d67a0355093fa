//! The checked-in code equals what the generator makes of `proto/`.
//!
//! `OBORO_REGENERATE=1 cargo test -p oboro-protocol --test generated` writes it anew.
//! Everything is pure Rust: no `protoc` is needed, and users of the crate build neither
//! the generator nor the parser.
#![allow(clippy::unwrap_used)]

use std::path::Path;

/// Every file of `proto/`, with the package whose code is made from it.
const FILES: [(&str, &str); 3] = [
    ("oboro/v1/oboro.proto", "oboro.v1"),
    (
        "oboro/generation/v1/generation.proto",
        "oboro.generation.v1",
    ),
    ("oboro/build/v1/build.proto", "oboro.build.v1"),
];

/// The code of a package.
fn generate(file: &str, package: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let descriptors = protox::compile([file], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".")
        // Messages carry ciphertexts: `Debug` is written by hand and shows sizes only.
        .skip_debug([format!(".{package}")])
        .emit_rerun_if_changed(false)
        .compile_fds(descriptors)
        .unwrap();
    std::fs::read_to_string(out.path().join(format!("{package}.rs"))).unwrap()
}

#[test]
fn checked_in_code_is_current() {
    for (file, package) in FILES {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/generated/{package}.rs"));
        let fresh = generate(file, package);
        if std::env::var_os("OBORO_REGENERATE").is_some() {
            std::fs::write(&path, &fresh).unwrap();
        }
        let checked_in = std::fs::read_to_string(&path).unwrap();
        assert!(
            checked_in == fresh,
            "the code of {package} is out of date; run OBORO_REGENERATE=1 cargo test -p oboro-protocol --test generated"
        );
    }
}
