//! Files of records: Parquet, Arrow, and vectors with ids beside them.

use std::fs;
use std::path::Path;
use std::sync::Once;

use oboro_vectors::{Format, Ids, Limits, RecordOptions, RecordSource, Records, VectorsError};
use tempfile::NamedTempFile;

/// Small, so that a hostile declaration shows as memory that is taken.
const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    page_values: 1 << 16,
    group_values: 1 << 18,
};

/// A Parquet file.
pub fn parquet(data: &[u8]) {
    columnar(data, Format::Parquet);
}

/// An Arrow file or stream.
pub fn arrow(data: &[u8]) {
    columnar(data, Format::Arrow);
}

/// Vectors and a file of ids: the first byte says which format the vectors
/// have, the second how many of the bytes after it are ids.
pub fn records(data: &[u8]) {
    const FORMATS: [Format; 5] = [
        Format::Fvecs,
        Format::Bvecs,
        Format::Npy,
        Format::Fbin,
        Format::U8bin,
    ];
    let [kind, length, rest @ ..] = data else {
        return;
    };
    let (ids, vectors) = rest.split_at(usize::from(*length).min(rest.len()));
    let (ids, vectors) = (file(ids), file(vectors));
    let mut options = RecordOptions {
        format: Some(FORMATS[usize::from(*kind) % FORMATS.len()]),
        ..RecordOptions::default()
    };
    let _ = read(vectors.path(), &options);
    options.id_file = Some(ids.path().to_owned());
    let _ = read(vectors.path(), &options);
}

fn columnar(data: &[u8], format: Format) {
    static QUIET: Once = Once::new();
    QUIET.call_once(quiet);
    let file = file(data);
    let options = RecordOptions {
        format: Some(format),
        limits: LIMITS,
        ..RecordOptions::default()
    };
    if let Ok((rows, source)) = read(file.path(), &options) {
        assert_eq!(rows, source.rows());
    }
}

/// Panics of the Parquet and Arrow libraries are caught where they are called
/// and become errors; a fuzzer would stop at the first.
fn quiet() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let of_library = panic.location().is_some_and(|location| {
            ["/parquet-", "/arrow-", "/flatbuffers-", "/lz4_flex-"]
                .iter()
                .any(|name| location.file().contains(name))
        });
        if !of_library {
            loud(panic);
        }
    }));
}

fn file(bytes: &[u8]) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), bytes).expect("a temporary file can be written");
    file
}

/// Reads everything twice, in different steps; the number of rows.
fn read(path: &Path, options: &RecordOptions) -> Result<(u64, RecordSource), VectorsError> {
    let mut source = RecordSource::open(path, options)?;
    let mut passes = [0, 0];
    for (pass, step) in passes.iter_mut().zip([3, 1_000]) {
        while let Some(records) = source.read(step)? {
            check(&records, &source);
            *pass += (records.len() + records.refused.len()) as u64;
        }
        source.rewind()?;
    }
    assert_eq!(passes[0], passes[1]);
    Ok((passes[0], source))
}

fn check(records: &Records, source: &RecordSource) {
    let count = records.len();
    assert_eq!(records.dimension, source.dimension());
    assert_eq!(records.vectors.len(), count * records.dimension);
    assert!(records.vectors.iter().all(|value| value.is_finite()));
    assert!(records.rows.is_sorted());
    assert!(records.refused.is_sorted_by_key(|refusal| refusal.row));
    match &records.ids {
        Ids::Rows => {}
        Ids::Numbers(ids) => assert_eq!(ids.len(), count),
        Ids::Text(ids) => {
            assert_eq!(ids.len(), count);
            assert!(ids.iter().all(|id| !id.is_empty()));
        }
    }
    assert_eq!(
        records.tags.len(),
        if source.has_tags() { count } else { 0 }
    );
    let names = source.tag_names().len();
    assert!(
        records
            .tags
            .iter()
            .flatten()
            .all(|&tag| (tag as usize) < names)
    );
    assert_eq!(
        records.payloads.len(),
        if source.has_payloads() { count } else { 0 }
    );
}
