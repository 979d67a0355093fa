//! Makes the stored index that `tests/stored.rs` opens for ever:
//! `cargo run -p oboro-index --example make_stored_index`, once per format
//! version, never again for a version that has been released.
#![allow(clippy::unwrap_used)]

#[path = "../tests/common/mod.rs"]
mod common;

use oboro_index::keys::{keeper_secret_to_text, write_keeper_public};
use std::path::Path;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/stored")
        .join(format!("v{}", oboro_index::FORMAT_VERSION));
    std::fs::create_dir_all(&folder).unwrap();
    let built = common::build_lived(&folder.join("index"), 53);
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let remark = "# For tests only: published, so it protects nothing.\n";
    write(
        "owner.key",
        &format!("{remark}{}\n", *built.owner.to_text()),
    );
    write(
        "client.key",
        &format!("{remark}{}\n", *built.owner.client_key().to_text()),
    );
    write(
        "writer.key",
        &format!("{remark}{}\n", *built.owner.writer_key().to_text()),
    );
    write(
        "storage.key",
        &format!("{remark}{}\n", *built.owner.storage_key().to_text()),
    );
    write(
        "release.key",
        &format!("{remark}{}\n", *built.owner.release_key().to_text()),
    );
    write(
        "keeper.key",
        &format!("{remark}{}\n", *keeper_secret_to_text(&built.keeper)),
    );
    let public = oboro_index::Index::open(folder.join("index"), &built.key)
        .unwrap()
        .descriptor()
        .public_key
        .clone();
    write_keeper_public(folder.join("keeper.pub"), &public).unwrap();
    std::fs::remove_file(folder.join("index/LOCK")).unwrap();
    println!(
        "made the stored index of format version {} with {} files",
        oboro_index::FORMAT_VERSION,
        built.files.len()
    );
}
