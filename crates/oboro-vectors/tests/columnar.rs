//! Parquet and Arrow files written by pyarrow (scripts/make_columnar_fixtures.py),
//! whole, damaged and hostile.
#![cfg(feature = "columnar")]
#![allow(clippy::unwrap_used)]

use oboro_vectors::*;
use std::path::{Path, PathBuf};

const ROWS: u64 = 40;
const D: usize = 6;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

fn value(row: u64, place: usize) -> f32 {
    row as f32 + place as f32 / 8.0
}

fn named(name: &str) -> Column {
    Column::Named(name.to_owned())
}

fn open(name: &str) -> RecordSource {
    RecordSource::open(data(name), &RecordOptions::default()).unwrap()
}

fn refusal(name: &str, options: &RecordOptions) -> String {
    let error = RecordSource::open(data(name), options).err().unwrap();
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

/// All records, read `step` rows at a time.
fn all(source: &mut RecordSource, step: usize) -> Records {
    let mut whole: Option<Records> = None;
    while let Some(some) = source.read(step).unwrap() {
        let Some(whole) = &mut whole else {
            whole = Some(some);
            continue;
        };
        whole.rows.extend(some.rows);
        whole.vectors.extend(some.vectors);
        whole.tags.extend(some.tags);
        whole.payloads.extend(some.payloads);
        whole.refused.extend(some.refused);
        match (&mut whole.ids, some.ids) {
            (Ids::Rows, Ids::Rows) => {}
            (Ids::Numbers(a), Ids::Numbers(b)) => a.extend(b),
            (Ids::Text(a), Ids::Text(b)) => a.extend(b),
            other => panic!("{other:?}"),
        }
    }
    whole.unwrap()
}

fn check_vectors(records: &Records, value: impl Fn(u64, usize) -> f32) {
    for (index, &row) in records.rows.iter().enumerate() {
        let want: Vec<f32> = (0..D).map(|place| value(row, place)).collect();
        assert_eq!(records.vector(index), want, "row {row}");
    }
}

fn tags_of(row: u64) -> Vec<&'static str> {
    if row == 7 {
        return Vec::new();
    }
    let mut names = vec!["all"];
    names.extend(row.is_multiple_of(2).then_some("even"));
    names.extend(row.is_multiple_of(3).then_some("third"));
    names
}

fn payload_of(row: u64) -> Vec<u8> {
    if row == 5 {
        return Vec::new();
    }
    format!("payload of {row}")
        .repeat(row as usize % 3)
        .into_bytes()
}

/// Everything in files of every kind and type, in one pass and another, in
/// steps that cross batches, row groups and pages.
#[test]
fn full_files_read_the_same() {
    let files = [
        ("full-snappy.parquet", IdKind::Numbers),
        ("full-plain-v2.parquet", IdKind::Numbers),
        ("full-gzip-text.parquet", IdKind::Text),
        ("full-lz4-large.parquet", IdKind::Text),
        ("full-foreign.parquet", IdKind::Numbers),
        ("full.arrow", IdKind::Numbers),
        ("full-lz4.feather", IdKind::Text),
        ("full.arrows", IdKind::Numbers),
        ("full-lz4.arrows", IdKind::Text),
        ("views.arrow", IdKind::Text),
    ];
    for (name, kind) in files {
        let mut source = open(name);
        assert_eq!(source.rows(), ROWS, "{name}");
        assert_eq!(source.dimension(), D, "{name}");
        assert_eq!(source.id_kind(), kind, "{name}");
        assert!(source.has_tags() && source.has_payloads(), "{name}");
        for step in [1, 7, 16, 1_000] {
            let records = all(&mut source, step);
            assert_eq!(records.rows, (0..ROWS).collect::<Vec<_>>(), "{name}");
            assert!(records.refused.is_empty(), "{name}");
            check_vectors(&records, value);
            let ids = match kind {
                IdKind::Numbers => Ids::Numbers((100..100 + ROWS).collect()),
                _ => Ids::Text((0..ROWS).map(|row| format!("id-{row}")).collect()),
            };
            assert_eq!(records.ids, ids, "{name}");
            let names = source.tag_names().to_vec();
            assert_eq!(names, ["all", "even", "third"], "{name}");
            for row in 0..ROWS {
                let tags = &records.tags[row as usize];
                let tags: Vec<&str> = tags.iter().map(|&tag| &*names[tag as usize]).collect();
                assert_eq!(tags, tags_of(row), "{name} row {row}");
                assert_eq!(
                    records.payloads[row as usize],
                    payload_of(row),
                    "{name} row {row}"
                );
            }
            assert!(source.read(step).unwrap().is_none());
            source.rewind().unwrap();
        }
        // A pass given up half way.
        source.read(19).unwrap().unwrap();
        source.rewind().unwrap();
        assert_eq!(source.read(1).unwrap().unwrap().rows, [0]);
    }
}

#[test]
fn every_type_of_value_reads() {
    for name in ["half.parquet", "half.arrows"] {
        check_vectors(&all(&mut open(name), 9), value);
    }
    for name in ["uint8.parquet", "int8.arrow"] {
        let records = all(&mut open(name), 9);
        assert_eq!(records.ids, Ids::Rows);
        assert!(records.tags.is_empty() && records.payloads.is_empty());
        check_vectors(&records, |row, place| row as f32 + place as f32);
    }
    let matrix = read_f32(data("full-snappy.parquet")).unwrap();
    assert_eq!((matrix.rows(), matrix.dimension()), (40, D));
    assert_eq!(matrix.row(39)[5], value(39, 5));
}

#[test]
fn rows_are_refused_one_by_one() {
    for name in ["holes.parquet", "holes.arrows"] {
        let mut source = open(name);
        let records = all(&mut source, 4);
        let refused: Vec<(u64, Why)> = records
            .refused
            .iter()
            .map(|refusal| (refusal.row, refusal.why.clone()))
            .collect();
        let want = [
            (3, Why::NoVector),
            (4, Why::MissingValue),
            (5, Why::NotFinite),
            (6, Why::NotFinite),
            (8, Why::NoId),
            (9, Why::NegativeId),
        ];
        assert_eq!(refused, want, "{name}");
        assert_eq!(records.len(), 34);
        check_vectors(&records, value);
        let ids = records.rows.iter().map(|row| 100 + row).collect();
        assert_eq!(records.ids, Ids::Numbers(ids), "{name}");
        assert_eq!(
            source.error(&records.refused[2]).to_string(),
            format!(
                "{}: row 5 holds NaN or infinity; repair or remove that row",
                data(name).display()
            )
        );
        assert!(
            read_f32(data(name))
                .unwrap_err()
                .to_string()
                .contains("row 3 has no vector")
        );
    }
    for name in ["ragged.parquet", "ragged.arrow"] {
        let records = all(&mut open(name), 3);
        let refused: Vec<u64> = records.refused.iter().map(|refusal| refusal.row).collect();
        assert_eq!(refused, [2, 3, 4, 5, 8, 9], "{name}");
        assert_eq!(
            records.refused[1].why,
            Why::Dimension {
                found: 5,
                expected: 6
            }
        );
        check_vectors(&records, value);
    }
    // Vectors of the dimension that is asked for are those of row 4.
    let options = RecordOptions {
        dimension: Some(7),
        ..RecordOptions::default()
    };
    let mut source = RecordSource::open(data("ragged.parquet"), &options).unwrap();
    assert_eq!(all(&mut source, 100).rows, [4]);
}

#[test]
fn dictionaries_grow_and_are_replaced() {
    let mut source = open("dictionaries.arrows");
    for _ in 0..2 {
        let records = all(&mut source, 5);
        let want: Vec<String> = (0..12).map(|row| format!("id-{row}")).collect();
        assert_eq!(records.ids, Ids::Text(want));
        let names = source.tag_names();
        let tags: Vec<Vec<&str>> = records
            .tags
            .iter()
            .map(|tags| tags.iter().map(|&tag| &*names[tag as usize]).collect())
            .collect();
        let none: Vec<&str> = Vec::new();
        let want = [
            [vec!["a"], vec!["a"], none.clone(), vec!["a"]],
            [vec!["a"], vec!["b"], none.clone(), vec!["a"]],
            [vec!["c"], vec!["b"], none, vec!["c"]],
        ]
        .concat();
        assert_eq!(tags, want);
        source.rewind().unwrap();
    }
}

#[test]
fn columns_are_chosen() {
    let options = RecordOptions {
        vectors: named("more"),
        ids: Column::Unused,
        tags: named("payload"),
        payloads: Column::Unused,
        ..RecordOptions::default()
    };
    // Bytes are no tags.
    assert!(refusal("two-lists.parquet", &options).contains("\"payload\" holds Binary where text"));
    let options = RecordOptions {
        tags: Column::Unused,
        ..options
    };
    let mut source = RecordSource::open(data("two-lists.parquet"), &options).unwrap();
    assert_eq!(source.id_kind(), IdKind::Rows);
    assert!(!source.has_tags() && !source.has_payloads());
    check_vectors(&all(&mut source, 100), value);
    // One column may be two things, and numbers may be text.
    let options = RecordOptions {
        tags: named("id"),
        payloads: named("id"),
        text_ids: true,
        ..RecordOptions::default()
    };
    let mut source = RecordSource::open(data("full-gzip-text.parquet"), &options).unwrap();
    let records = all(&mut source, 100);
    assert_eq!(records.tags[39], [39]);
    assert_eq!(records.payloads[39], b"id-39");
    let options = RecordOptions {
        text_ids: true,
        ..RecordOptions::default()
    };
    let mut source = RecordSource::open(data("full.arrow"), &options).unwrap();
    let want: Vec<String> = (100..140).map(|id| id.to_string()).collect();
    assert_eq!(all(&mut source, 100).ids, Ids::Text(want));
}

#[test]
fn ids_come_from_a_file_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ids.txt");
    let lines: Vec<String> = (0..ROWS).map(|row| format!("n{row}\n")).collect();
    std::fs::write(&path, lines.concat()).unwrap();
    let options = RecordOptions {
        id_file: Some(path.clone()),
        ..RecordOptions::default()
    };
    let mut source = RecordSource::open(data("holes.parquet"), &options).unwrap();
    let records = all(&mut source, 7);
    let want = records.rows.iter().map(|row| format!("n{row}")).collect();
    assert_eq!(records.ids, Ids::Text(want));
    assert_eq!(records.len(), 36);
    std::fs::write(&path, lines[1..].concat()).unwrap();
    assert!(refusal("full.arrow", &options).contains("holds 39 ids for 40 vectors"));
    // Ids below zero take tags and payloads along.
    let ids: Vec<i64> = (0..40)
        .map(|id| if id % 10 == 3 { -1 } else { id })
        .collect();
    let path = folder.path().join("ids.npy");
    write_npy_i64(&path, &Matrix::new(1, ids).unwrap()).unwrap();
    let options = RecordOptions {
        id_file: Some(path),
        ..RecordOptions::default()
    };
    let mut source = RecordSource::open(data("full.arrow"), &options).unwrap();
    let records = all(&mut source, 6);
    assert_eq!(records.len(), 36);
    assert_eq!(records.refused.len(), 4);
    assert_eq!(records.ids, Ids::Numbers(records.rows.clone()));
    check_vectors(&records, value);
    for (index, &row) in records.rows.iter().enumerate() {
        assert_eq!(records.tags[index].len(), tags_of(row).len());
        assert_eq!(records.payloads[index], payload_of(row));
    }
}

#[test]
fn fail_unusable_columns() {
    let auto = RecordOptions::default();
    let text = refusal("two-lists.parquet", &auto);
    assert!(
        text.contains("\"embedding\", \"more\" hold lists of numbers; name the one"),
        "{text}"
    );
    let text = refusal("no-lists.parquet", &auto);
    assert!(
        text.contains("no column holds lists") && text.contains("\"other\""),
        "{text}"
    );
    assert!(
        refusal("bad-id.parquet", &auto)
            .contains("\"id\" holds Float64 where whole numbers or text")
    );
    let options = RecordOptions {
        vectors: named("none"),
        ..RecordOptions::default()
    };
    assert!(refusal("full.arrow", &options).contains("there is no column \"none\""));
    let options = RecordOptions {
        dimension: Some(7),
        ..RecordOptions::default()
    };
    assert!(refusal("full.arrow", &options).contains("dimension 6 where 7 is needed"));
    assert!(refusal("no-rows.parquet", &auto).contains("holds no vectors"));
    assert!(VectorReader::open(data("full.arrow")).is_err());
}

#[test]
fn fail_unread_codecs_and_versions() {
    let auto = RecordOptions::default();
    for (name, codec) in [("zstd", "ZSTD"), ("brotli", "BROTLI")] {
        let mut source = open(&format!("{name}.parquet"));
        let text = source.read(1).unwrap_err().to_string();
        assert!(
            text.contains(&format!("is compressed with {codec}")),
            "{text}"
        );
    }
    let text = open("zstd.arrow").read(1).unwrap_err().to_string();
    assert!(text.contains("compressed with Zstandard"), "{text}");
    assert!(refusal("version-1.feather", &auto).contains("version 1"));
}

/// Reads a file to its end, with small limits. `Err` is a sentence.
fn drain(path: &Path, limits: Limits) -> Result<u64, VectorsError> {
    let options = RecordOptions {
        limits,
        ..RecordOptions::default()
    };
    let mut source = RecordSource::open(path, &options)?;
    let mut rows = 0;
    while let Some(records) = source.read(5)? {
        rows += (records.len() + records.refused.len()) as u64;
    }
    assert_eq!(rows, source.rows());
    Ok(rows)
}

fn fixtures() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(data(""))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 20);
    files
}

const SMALL: Limits = Limits {
    bytes: 1 << 16,
    page_values: 1 << 12,
    group_values: 1 << 12,
};

#[test]
fn fail_truncated_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    for path in fixtures() {
        let bytes = std::fs::read(&path).unwrap();
        let whole = drain(&path, SMALL).ok();
        let cut = folder.path().join(path.file_name().unwrap());
        for end in (0..bytes.len()).step_by(61) {
            std::fs::write(&cut, &bytes[..end]).unwrap();
            match drain(&cut, SMALL) {
                Err(error) => assert!(!error.to_string().contains('\n')),
                // A stream may end after any batch.
                Ok(rows) => assert!(
                    path.extension().unwrap() == "arrows" && Some(rows) <= whole,
                    "{path:?} cut at {end}"
                ),
            }
        }
    }
}

#[test]
fn fail_flipped_bytes_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    for path in fixtures() {
        let mut bytes = std::fs::read(&path).unwrap();
        let flipped = folder.path().join(path.file_name().unwrap());
        for at in (0..bytes.len()).step_by(37) {
            let mask = 0x80 >> (at % 8);
            bytes[at] ^= mask;
            std::fs::write(&flipped, &bytes).unwrap();
            if let Err(error) = drain(&flipped, SMALL) {
                assert!(!error.to_string().contains('\n'));
            }
            bytes[at] ^= mask;
        }
    }
}

#[test]
fn fail_more_than_the_limits() {
    let tight = |bytes, page_values, group_values| Limits {
        bytes,
        page_values,
        group_values,
    };
    for (name, limits, what) in [
        (
            "full.arrow",
            tight(64, 1 << 20, 1 << 20),
            "a batch in bytes",
        ),
        (
            "full-lz4.arrows",
            tight(64, 1 << 20, 1 << 20),
            "a batch in bytes",
        ),
        (
            "full-snappy.parquet",
            tight(16, 1 << 20, 1 << 20),
            "a page in bytes",
        ),
        (
            "full-snappy.parquet",
            tight(1 << 20, 4, 1 << 20),
            "a page in values",
        ),
        (
            "full-snappy.parquet",
            tight(1 << 20, 1 << 20, 9),
            "a row group in values",
        ),
    ] {
        let text = drain(&data(name), limits).unwrap_err().to_string();
        assert!(text.contains(what) && text.contains("smaller"), "{text}");
    }
}

/// An LZ4 batch that declares gigabytes is refused by its declaration.
#[test]
fn fail_declared_gigabytes() {
    let bytes = std::fs::read(data("full-lz4.arrows")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.arrows");
    let mut refused = 0;
    for at in (0..bytes.len() - 8).step_by(8) {
        let size = i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        // The sizes before compressed buffers are about 400 bytes here.
        if !(300..500).contains(&size) {
            continue;
        }
        let mut huge = bytes.clone();
        huge[at..at + 8].copy_from_slice(&(1_i64 << 40).to_le_bytes());
        std::fs::write(&path, &huge).unwrap();
        if let Err(VectorsError::TooLarge { found, .. }) = drain(&path, Limits::default()) {
            assert!(found >= 1 << 40);
            refused += 1;
        }
    }
    assert!(refused > 0);
}
