//! Round trips, files made by NumPy, and files that must be refused.
#![allow(clippy::unwrap_used)]

use oboro_vectors::*;
use proptest::prelude::*;
use std::path::PathBuf;

fn put(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn fvecs(rows: &[&[f32]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for row in rows {
        bytes.extend((row.len() as i32).to_le_bytes());
        bytes.extend(row.iter().flat_map(|v| v.to_le_bytes()));
    }
    bytes
}

/// `numpy.save` of numpy 2: arange(6).reshape(2, 3).astype(descr).
fn npy(descr: &str, shape: &str, order: &str, data: &[u8]) -> Vec<u8> {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.bytes());
    out.extend(data);
    out
}

fn sentence(error: VectorsError) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'));
    text
}

#[test]
fn every_format_reads() {
    let dir = tempfile::tempdir().unwrap();
    let want: Vec<f32> = (0..6).map(|v| v as f32).collect();
    let f4: Vec<u8> = want.iter().flat_map(|v| v.to_le_bytes()).collect();
    let f8: Vec<u8> = want
        .iter()
        .flat_map(|&v| f64::from(v).to_le_bytes())
        .collect();
    // 0, 1, 2, 3, 4, 5 in half precision.
    let f2: Vec<u8> = [0x0000_u16, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let u1: Vec<u8> = (0..6).collect();
    let bin = |data: &[u8]| [&2_u32.to_le_bytes()[..], &3_u32.to_le_bytes()[..], data].concat();
    let bvecs = [
        &3_i32.to_le_bytes()[..],
        &u1[..3],
        &3_i32.to_le_bytes()[..],
        &u1[3..],
    ]
    .concat();
    let files = [
        put(&dir, "a.fvecs", &fvecs(&[&want[..3], &want[3..]])),
        put(&dir, "a.bvecs", &bvecs),
        put(&dir, "a.fbin", &bin(&f4)),
        put(&dir, "a.u8bin", &bin(&u1)),
        put(&dir, "f4.npy", &npy("<f4", "(2, 3)", "False", &f4)),
        put(&dir, "f8.NPY", &npy("<f8", "(2, 3)", "False", &f8)),
        put(&dir, "f2.npy", &npy("<f2", "(2, 3)", "False", &f2)),
        put(&dir, "u1.npy", &npy("|u1", "(2, 3)", "False", &u1)),
    ];
    for path in files {
        let matrix = read_f32(&path).unwrap();
        assert_eq!((matrix.rows(), matrix.dimension()), (2, 3), "{path:?}");
        assert_eq!(matrix.data(), want, "{path:?}");
        let mut reader = VectorReader::open(&path).unwrap();
        for _ in 0..2 {
            assert_eq!(reader.read_chunk(1).unwrap().unwrap(), want[..3]);
            assert_eq!(reader.read_chunk(9).unwrap().unwrap(), want[3..]);
            assert!(reader.read_chunk(9).unwrap().is_none());
            reader.rewind().unwrap();
        }
    }
}

#[test]
fn fail_vecs() {
    let dir = tempfile::tempdir().unwrap();
    let good = fvecs(&[&[1.0, 2.0], &[3.0, 4.0]]);
    let error = |bytes: &[u8]| sentence(read_f32(put(&dir, "x.fvecs", bytes)).unwrap_err());
    assert!(error(&[]).ends_with("x.fvecs: holds no vectors"));
    for cut in 1..good.len() {
        if cut != 12 {
            assert!(error(&good[..cut]).contains("ends early"), "cut at {cut}");
        }
    }
    assert!(error(&[&good[..], &[0]].concat()).contains("ends early"));
    assert!(error(&fvecs(&[&[]])).contains("dimension 0; it must be from 1 to 65536"));
    assert!(error(&[0xff; 16]).contains("dimension -1"));
    assert!(error(&[&0x7fff_ffff_i32.to_le_bytes()[..], &[0; 64]].concat()).contains("2147483647"));
    assert!(
        error(&fvecs(&[&[1.0, 2.0], &[3.0]])).contains("row 1 has dimension 1 but row 0 has 2")
    );
    // Ragged, yet a whole number of rows of the first dimension.
    let sly = fvecs(&[&[1.0; 2], &[1.0; 5], &[]]);
    assert_eq!(sly.len() % 12, 4);
    let sly = fvecs(&[&[1.0; 2], &[1.0; 2], &[1.0; 5]]);
    assert_eq!(sly.len() % 12, 0);
    assert!(error(&sly).contains("row 2 has dimension 5"));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let text = error(&fvecs(&[&[1.0, 2.0], &[0.0, bad]]));
        assert!(text.contains("row 1 holds NaN or infinity"), "{text}");
    }
    assert!(
        sentence(read_f32(dir.path().join("none.fvecs")).unwrap_err()).contains("No such file")
    );
    assert!(sentence(read_f32(put(&dir, "x.txt", b"1 2")).unwrap_err()).contains("unknown kind"));
    assert!(sentence(read_f32(put(&dir, "x.ivecs", &good)).unwrap_err()).contains("holds ids"));
    assert!(read_ivecs(put(&dir, "x.fvecs", &good)).is_err());
    std::fs::create_dir(dir.path().join("d.fvecs")).unwrap();
    assert!(sentence(read_f32(dir.path().join("d.fvecs")).unwrap_err()).contains("directory"));
}

#[test]
fn fail_bin() {
    let dir = tempfile::tempdir().unwrap();
    let bin = |rows: u32, dim: u32, bytes: usize| {
        let bytes = [
            &rows.to_le_bytes()[..],
            &dim.to_le_bytes()[..],
            &vec![0; bytes],
        ]
        .concat();
        sentence(read_f32(put(&dir, "x.fbin", &bytes)).unwrap_err())
    };
    assert!(bin(0, 3, 0).contains("holds no vectors"));
    assert!(bin(2, 0, 0).contains("dimension 0"));
    assert!(bin(2, 3, 23).contains("32 bytes are needed for 2 rows, 31 are there"));
    assert!(bin(2, 3, 25).contains("1 bytes after"));
    assert!(bin(u32::MAX, 65_536, 64).contains("ends early"));
    assert!(bin(2, u32::MAX, 64).contains("dimension 4294967295"));
    assert!(sentence(read_f32(put(&dir, "y.u8bin", &[1; 7])).unwrap_err()).contains("ends early"));
}

#[test]
fn fail_npy() {
    let dir = tempfile::tempdir().unwrap();
    let error = |bytes: &[u8]| sentence(read_f32(put(&dir, "x.npy", bytes)).unwrap_err());
    assert!(error(b"hello").contains("too short"));
    assert!(error(b"hello, world").contains("numpy.save"));
    assert!(error(b"\x93NUMPY\x09\x00aaaaaaaa").contains("version 9"));
    assert!(error(b"\x93NUMPY\x02\x00\xff\xff\xff\xff").contains("at most 65536"));
    assert!(error(b"\x93NUMPY\x01\x00\x40\x00{").contains("ends inside its header"));
    assert!(error(&npy("<f4", "(2, 3)", "True", &[0; 24])).contains("column by column"));
    assert!(error(&npy("<f4", "(6,)", "False", &[0; 24])).contains("has 1 axes"));
    assert!(error(&npy("<f4", "(1, 2, 3)", "False", &[0; 24])).contains("has 3 axes"));
    assert!(error(&npy(">f4", "(2, 3)", "False", &[0; 24])).contains(">f4"));
    assert!(error(&npy("<i8", "(2, 3)", "False", &[0; 48])).contains("<i8"));
    assert!(error(&npy("<f4", "(2, x)", "False", &[0; 24])).contains("damaged header"));
    assert!(error(&npy("<f4", "(0, 3)", "False", &[])).contains("no vectors"));
    assert!(error(&npy("<f4", "(2, 3)", "False", &[0; 23])).contains("ends early"));
    assert!(error(&npy("<f4", "(2, 3)", "False", &[0; 25])).contains("1 bytes after"));
    assert!(
        error(&npy("<f4", "(18446744073709551615, 3)", "False", &[0; 24])).contains("ends early")
    );
    // A double that no float holds becomes infinite and is refused.
    assert!(
        error(&npy("<f8", "(1, 1)", "False", &1e300_f64.to_le_bytes())).contains("row 0 holds")
    );
}

#[test]
fn ids_and_writers() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let ids = Matrix::new(2, vec![1_i32, -1, 3, 4]).unwrap();
    write_ivecs(path("a.ivecs"), &ids).unwrap();
    assert_eq!(read_ivecs(path("a.ivecs")).unwrap(), ids);
    let wide = Matrix::new(2, vec![1_i64, -1, 3, 1 << 40]).unwrap();
    write_npy_i64(path("a.npy"), &wide).unwrap();
    assert_eq!(read_ids(path("a.npy")).unwrap(), wide);
    assert_eq!(read_ids(path("a.ivecs")).unwrap().data(), [1, -1, 3, 4]);
    let floats = Matrix::new(3, vec![0.5_f32, -1.0, 2.0]).unwrap();
    write_npy_f32(path("b.npy"), &floats).unwrap();
    write_fvecs(path("b.fvecs"), &floats).unwrap();
    assert_eq!(read_f32(path("b.npy")).unwrap(), floats);
    assert_eq!(read_f32(path("b.fvecs")).unwrap(), floats);
    // Nothing temporary is left, and a failed write leaves no trace.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
    assert!(write_fvecs(path("missing/b.fvecs"), &floats).is_err());
    assert!(
        read_ids(path("b.npy"))
            .unwrap_err()
            .to_string()
            .contains("<f4")
    );
    let huge = put(&dir, "h.npy", &npy("<u8", "(1, 1)", "False", &[0xff; 8]));
    assert!(
        read_ids(huge)
            .unwrap_err()
            .to_string()
            .contains("9223372036854775807")
    );
    let u4 = put(&dir, "u.npy", &npy("<u4", "(1, 1)", "False", &[0xff; 4]));
    assert_eq!(read_ids(u4).unwrap().data(), [i64::from(u32::MAX)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn fail_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0_usize..6) {
        let dir = tempfile::tempdir().unwrap();
        let name = ["x.fvecs", "x.bvecs", "x.ivecs", "x.npy", "x.fbin", "x.u8bin"][kind];
        let path = put(&dir, name, &bytes);
        let _ = read_f32(&path);
        let _ = read_ids(&path);
    }

    #[test]
    fn fail_damaged_npy_never_panics(at in 0_usize..152, to in any::<u8>()) {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = npy("<f4", "(2, 3)", "False", &[0; 24]);
        let at = at % bytes.len();
        bytes[at] = to;
        let path = put(&dir, "x.npy", &bytes);
        let _ = read_f32(&path);
        let _ = read_ids(&path);
    }

    #[test]
    fn fvecs_round_trip(dimension in 1_usize..40, rows in 1_usize..30, step in 1_usize..50) {
        let dir = tempfile::tempdir().unwrap();
        let data: Vec<f32> = (0..rows * dimension).map(|v| v as f32 * 0.25 - 7.0).collect();
        let matrix = Matrix::new(dimension, data.clone()).unwrap();
        let path = dir.path().join("x.fvecs");
        write_fvecs(&path, &matrix).unwrap();
        let mut reader = VectorReader::open(&path).unwrap();
        prop_assert_eq!(reader.rows(), rows);
        let mut found = Vec::new();
        while let Some(chunk) = reader.read_chunk(step).unwrap() {
            prop_assert!(chunk.len() <= step * dimension);
            found.extend(chunk);
        }
        prop_assert_eq!(found, data);
    }
}
