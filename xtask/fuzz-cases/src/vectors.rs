//! Files of vectors and ids.

use std::fs;

use oboro_vectors::{read_f32, read_ids, read_ivecs};

const EXTENSIONS: [&str; 6] = ["fvecs", "bvecs", "npy", "fbin", "u8bin", "ivecs"];

/// The first byte says which extension the rest is given.
pub fn vector_files(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let extension = EXTENSIONS[usize::from(*kind) % EXTENSIONS.len()];
    let file = tempfile::Builder::new()
        .suffix(&format!(".{extension}"))
        .tempfile()
        .expect("a temporary file");
    fs::write(file.path(), bytes).expect("a temporary file can be written");
    if let Ok(rows) = read_f32(file.path()) {
        assert!(rows.iter().flatten().all(|value| value.is_finite()));
        assert!(rows.rows() > 0 && rows.dimension() > 0);
    }
    let _ = read_ivecs(file.path());
    let _ = read_ids(file.path());
}
