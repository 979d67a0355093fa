//! Indexes whose vectors are in lists, and what clients do to queries of them.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use oboro_index::*;

/// Has a matrix and lists.
const SEED: u8 = 51;

#[test]
fn lists_stay_with_their_vectors_whatever_happens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let built = build_lived(&path, SEED);
    // Inserts, deletes and a merge lie behind it; `contents` compares every list.
    let index = Index::open(&path, &built.key).unwrap();
    assert_eq!(contents(&index, SEED), lived_contents());
    let report = verify(&path, &built.key, Some(&built.owner.client_key())).unwrap();
    assert!(report.is_sound(), "{report:?}");
    let descriptor = index.descriptor();
    assert_eq!((descriptor.lists(), descriptor.probes_max()), (LISTS, 2));
    let again = Descriptor::from_bytes(
        built.owner.client_key().descriptor_key(),
        index.descriptor_bytes(),
    );
    assert_eq!(again.unwrap().query_model, descriptor.query_model);
}

#[test]
fn fail_segments_in_other_lists() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    build(&path, SEED, 90, false).unwrap();
    let live = LiveIndex::open(&path, key(SEED)).unwrap();
    let parts = Parts::new(live.index(), SEED, 7, &[(1, 1), (2, 2)]);
    let good = parts.new_segment();
    for (lists, says) in [
        (&[][..], "number of lists"),
        (&[0], "number of lists"),
        (&[0, 1, 2], "number of lists"),
        (&[0, LISTS as u16], "beyond the 3"),
        (&[u16::MAX, 0], "beyond the 3"),
    ] {
        let error = live.stage(&NewSegment { lists, ..good }).err().unwrap();
        assert!(error.to_string().contains(says), "{error}");
    }
    live.stage(&good).unwrap();
    // An index without lists takes none.
    let path = dir.path().join("y");
    build(&path, 41, 90, false).unwrap();
    let live = LiveIndex::open(&path, key(41)).unwrap();
    let parts = Parts::new(live.index(), 41, 7, &[(1, 1), (2, 2)]);
    let lists = &[0, 0][..];
    let with = NewSegment {
        lists,
        ..parts.new_segment()
    };
    assert!(live.stage(&with).is_err());
}

#[test]
fn fail_query_models_that_are_not_the_owners() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let built = build(&path, SEED, 90, false).unwrap();
    let file = path.join("query-model.oboro");
    let sealed = std::fs::read(&file).unwrap();
    let opens = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let opened = Index::open(&path, &built.key).is_ok();
        let sound = verify(&path, &built.key, None).unwrap().is_sound();
        assert_eq!(opened, sound);
        opened
    };
    assert!(opens(&sealed));
    for at in (0..sealed.len()).step_by(37) {
        let mut bad = sealed.clone();
        bad[at] ^= 1;
        assert!(!opens(&bad), "byte {at}");
    }
    assert!(!opens(&sealed[..sealed.len() - 1]));
    assert!(!opens(&[&sealed[..], &[0]].concat()));
    // One that the owner sealed for the same index another time.
    let key = built.owner.descriptor_key();
    let other = key
        .seal_query_model(&index_id(SEED), &query_model(SEED), &mut fresh())
        .unwrap();
    assert!(!opens(&other));
    std::fs::remove_file(&file).unwrap();
    assert!(Index::open(&path, &built.key).is_err());
}

#[test]
fn fail_descriptors_that_contradict_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let built = build(&path, SEED, 10, false).unwrap();
    let key = built.owner.descriptor_key();
    let index = Index::open(&path, &built.key).unwrap();
    let good = index.descriptor();
    let read = |change: fn(&mut QueryShape)| {
        let mut changed = good.clone();
        changed.query_model.as_mut().map(change).unwrap();
        Descriptor::from_bytes(&key, &changed.to_bytes(&key))
    };
    read(|_| ()).unwrap();
    for change in [
        |shape: &mut QueryShape| shape.probes_max = 0,
        |shape: &mut QueryShape| shape.probes_max = 4,
        |shape: &mut QueryShape| shape.lists = 65_537,
        |shape: &mut QueryShape| (shape.opq, shape.lists, shape.probes_max) = (false, 0, 0),
    ] {
        assert!(read(change).is_err());
    }
    // The next epoch has the same query model.
    let next = good.next_epoch(good.public_key.clone(), [1; 32]).unwrap();
    good.check_next(&next).unwrap();
    let mut other = next.clone();
    other.query_model = None;
    let error = good.check_next(&other).unwrap_err().to_string();
    assert!(error.contains("query model"), "{error}");
    // Versions before those that are read say so.
    let mut old = index.descriptor_bytes().to_vec();
    old[8] = 1;
    let error = Descriptor::from_bytes(&key, &old)
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("format version 1"), "{error}");
}
