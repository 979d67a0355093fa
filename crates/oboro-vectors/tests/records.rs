//! Records out of files of vectors with ids beside them.
#![allow(clippy::unwrap_used)]

use oboro_vectors::*;
use proptest::prelude::*;
use std::path::PathBuf;

fn put(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn fvecs(rows: &[&[f32]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        bytes.extend((row.len() as i32).to_le_bytes());
        bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

fn with_ids(path: PathBuf) -> RecordOptions {
    RecordOptions {
        id_file: Some(path),
        ..RecordOptions::default()
    }
}

/// Rows and refusals of a whole file.
fn rows(source: &mut RecordSource, step: usize) -> (Vec<u64>, Vec<(u64, Why)>) {
    let (mut rows, mut refused) = (Vec::new(), Vec::new());
    while let Some(records) = source.read(step).unwrap() {
        assert_eq!(records.vectors.len(), records.len() * source.dimension());
        rows.extend(records.rows);
        refused.extend(records.refused.into_iter().map(|r| (r.row, r.why)));
    }
    (rows, refused)
}

#[test]
fn wrong_dimensions_in_a_stream_are_refused_row_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let bad = |found| Why::Dimension { found, expected: 2 };
    let uneven = fvecs(&[
        &[1.0, 2.0],
        &[3.0],
        &[4.0, f32::NAN],
        &[5.0, 6.0],
        &[7.0; 3],
        &[8.0; 2],
    ]);
    // The same length as five rows of the first dimension.
    let even = fvecs(&[
        &[1.0, 2.0],
        &[3.0],
        &[4.0, f32::NAN],
        &[5.0, 6.0],
        &[7.0; 3],
    ]);
    assert_eq!(even.len() % 12, 0);
    for (bytes, kept, count) in [(&uneven, vec![0, 3, 5], 6), (&even, vec![0, 3], 5)] {
        let mut source =
            RecordSource::open(put(&folder, "a.fvecs", bytes), &RecordOptions::default()).unwrap();
        assert_eq!((source.rows(), source.dimension()), (count, 2));
        assert_eq!(source.id_kind(), IdKind::Rows);
        for step in [1, 2, 100] {
            let (rows, refused) = rows(&mut source, step);
            assert_eq!(rows, kept);
            assert_eq!(refused, [(1, bad(1)), (2, Why::NotFinite), (4, bad(3))]);
            source.rewind().unwrap();
        }
    }
    // Of the dimension that is asked for, not of the first row.
    let options = RecordOptions {
        dimension: Some(3),
        ..RecordOptions::default()
    };
    let mut source = RecordSource::open(put(&folder, "a.fvecs", &uneven), &options).unwrap();
    assert_eq!(rows(&mut source, 9).0, [4]);
    // An even file with rows of two dimensions is counted once ids are there.
    let sly = fvecs(&[&[1.0; 2], &[1.0; 2], &[1.0; 5]]);
    let ids = with_ids(put(&folder, "ids.txt", b"1\n2\n3\n"));
    let mut source = RecordSource::open(put(&folder, "a.fvecs", &sly), &ids).unwrap();
    assert_eq!(source.rows(), 3);
    assert_eq!(rows(&mut source, 2).0, [0, 1]);
}

#[test]
fn ids_are_numbers_or_text() {
    let folder = tempfile::tempdir().unwrap();
    let vectors = put(&folder, "a.bvecs", &[1, 0, 0, 0, 5, 1, 0, 0, 0, 6]);
    let read = |bytes: &[u8], text_ids| {
        let options = RecordOptions {
            text_ids,
            ..with_ids(put(&folder, "ids.txt", bytes))
        };
        let mut source = RecordSource::open(&vectors, &options).unwrap();
        source.read(9).unwrap().unwrap().ids
    };
    let text = |ids: [&str; 2]| Ids::Text(ids.map(str::to_owned).to_vec());
    assert_eq!(
        read(b"7\n\n 18446744073709551615 \r\n", false),
        Ids::Numbers(vec![7, u64::MAX])
    );
    assert_eq!(read(b"7\n8", true), text(["7", "8"]));
    // What is printed otherwise is another id, so that nothing is lost.
    for ids in [
        ["07", "8"],
        ["+7", "8"],
        ["7", "18446744073709551616"],
        ["-1", "8"],
        ["7", "a b"],
    ] {
        assert_eq!(read(ids.join("\n").as_bytes(), false), text(ids));
    }
    assert_eq!(number_of_id("18446744073709551615"), Some(u64::MAX));
    assert_eq!(number_of_id("0"), Some(0));
    assert!(
        ["", "00", "1.0", "18446744073709551616"]
            .iter()
            .all(|id| number_of_id(id).is_none())
    );
    let npy = folder.path().join("ids.npy");
    write_npy_i64(&npy, &Matrix::new(1, vec![3, -1]).unwrap()).unwrap();
    let mut source = RecordSource::open(&vectors, &with_ids(npy.clone())).unwrap();
    let records = source.read(9).unwrap().unwrap();
    assert_eq!(records.ids, Ids::Numbers(vec![3]));
    assert_eq!(
        records.refused,
        [Refusal {
            row: 1,
            why: Why::NegativeId
        }]
    );
    let options = RecordOptions {
        text_ids: true,
        ..with_ids(npy)
    };
    let mut source = RecordSource::open(&vectors, &options).unwrap();
    assert_eq!(
        source.read(9).unwrap().unwrap().ids,
        Ids::Text(vec!["3".into()])
    );
}

#[test]
fn fail_ids_that_do_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let vectors = put(&folder, "a.bvecs", &[1, 0, 0, 0, 5, 1, 0, 0, 0, 6]);
    let error = |bytes: &[u8]| {
        let options = with_ids(put(&folder, "ids.txt", bytes));
        let text = RecordSource::open(&vectors, &options)
            .err()
            .unwrap()
            .to_string();
        assert!(!text.contains('\n'));
        text
    };
    assert!(error(b"1\n").contains("holds 1 ids for 2 vectors"));
    assert!(error(b"1\n2\n3\n").contains("holds 3 ids for 2 vectors"));
    assert!(error(b"").contains("holds 0 ids"));
    assert!(error(b"1\n\xff\xfe\n").contains("line 2 is no text in UTF-8"));
    let long = "x".repeat(MAX_TEXT_ID + 1);
    assert!(error(long.as_bytes()).contains("line 1 is longer than the 65535 bytes"));
    let spaced = format!("1{}2\n", " ".repeat(70_000));
    assert!(error(spaced.as_bytes()).contains("line 1 is longer"));
    let two = folder.path().join("two.npy");
    write_npy_i64(&two, &Matrix::new(2, vec![1, 2, 3, 4]).unwrap()).unwrap();
    let error = RecordSource::open(&vectors, &with_ids(two)).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("holds 2 ids a row where one id a row")
    );
}

#[test]
fn fail_files_that_cannot_be_followed() {
    let folder = tempfile::tempdir().unwrap();
    let auto = RecordOptions::default();
    let good = fvecs(&[&[1.0, 2.0], &[3.0], &[4.0, 5.0]]);
    for cut in 1..good.len() {
        // Between rows it is a shorter file.
        if [12, 20].contains(&cut) {
            continue;
        }
        let path = put(&folder, "a.fvecs", &good[..cut]);
        let mut source = match RecordSource::open(&path, &auto) {
            Err(error) => {
                assert!(
                    error.to_string().contains("ends early"),
                    "cut at {cut}: {error}"
                );
                continue;
            }
            Ok(source) => source,
        };
        // By its length alone it could be right.
        let error = loop {
            match source.read(1) {
                Ok(some) => assert!(some.is_some(), "cut at {cut}"),
                Err(error) => break error,
            }
        };
        assert!(
            error.to_string().contains("ends early"),
            "cut at {cut}: {error}"
        );
    }
    let negative = [&fvecs(&[&[1.0, 2.0]])[..], &(-5_i32).to_le_bytes(), &[0; 8]].concat();
    let mut source = RecordSource::open(put(&folder, "a.fvecs", &negative), &auto).unwrap();
    assert_eq!(source.read(1).unwrap().unwrap().len(), 1);
    let error = source.read(1).unwrap_err().to_string();
    assert!(error.contains("row 1 declares dimension -5"), "{error}");
    let options = RecordOptions {
        dimension: Some(4),
        ..RecordOptions::default()
    };
    let fbin = [&2_u32.to_le_bytes()[..], &1_u32.to_le_bytes(), &[0; 8]].concat();
    let error = RecordSource::open(put(&folder, "a.fbin", &fbin), &options);
    assert!(
        error
            .err()
            .unwrap()
            .to_string()
            .contains("dimension 1 where 4 is needed")
    );
    assert!(RecordSource::open(put(&folder, "a.txt", b"1 2"), &auto).is_err());
    assert!(RecordSource::open(put(&folder, "a.ivecs", &good), &auto).is_err());
}

proptest! {
    /// Whatever rows are in it, and however it is read, every row comes out
    /// once: kept or refused.
    #[test]
    fn every_row_comes_out_once(
        shape in proptest::collection::vec((1_usize..4, any::<bool>()), 1..40),
        step in 1_usize..50,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let wanted = shape[0].0;
        let data: Vec<Vec<f32>> = shape
            .iter()
            .enumerate()
            .map(|(row, &(d, fine))| vec![if fine { row as f32 } else { f32::NAN }; d])
            .collect();
        let data: Vec<&[f32]> = data.iter().map(Vec::as_slice).collect();
        let lines: String = (0..shape.len()).map(|row| format!("n{row}\n")).collect();
        let options = with_ids(put(&folder, "ids.txt", lines.as_bytes()));
        let mut source = RecordSource::open(put(&folder, "a.fvecs", &fvecs(&data)), &options).unwrap();
        prop_assert_eq!(source.rows(), shape.len() as u64);
        let mut next = 0;
        while let Some(records) = source.read(step).unwrap() {
            let Ids::Text(ids) = &records.ids else { panic!() };
            let mut refused = records.refused.iter().peekable();
            let mut kept = 0;
            while kept < records.len() || refused.peek().is_some() {
                let (d, fine) = shape[next as usize];
                if refused.next_if(|refusal| refusal.row == next).is_some() {
                    prop_assert!(d != wanted || !fine);
                } else {
                    prop_assert!(d == wanted && fine);
                    prop_assert_eq!(records.rows[kept], next);
                    prop_assert_eq!(&ids[kept], &format!("n{next}"));
                    prop_assert_eq!(records.vector(kept)[0], next as f32);
                    kept += 1;
                }
                next += 1;
            }
        }
        prop_assert_eq!(next, shape.len() as u64);
    }
}

#[test]
fn fail_debug_output_shows_no_contents() {
    let folder = tempfile::tempdir().unwrap();
    let path = put(&folder, "a.fvecs", &fvecs(&[&[47.25, 3.5]]));
    let ids = put(&folder, "ids.txt", b"patient-17\n");
    let mut source = RecordSource::open(&path, &with_ids(ids)).unwrap();
    let records = source.read(10).unwrap().unwrap();
    assert_eq!(format!("{records:?}"), "Records(1 x 2, Text(1), 0 refused)");
}
