//! The descriptor's bytes.
#![allow(clippy::unwrap_used)]

mod common;

use common::{build, owner};
use oboro_index::*;
use proptest::prelude::*;
use std::sync::OnceLock;

fn sample() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        build(&path, 20, 10, false).unwrap();
        Index::open(&path, &common::key(20))
            .unwrap()
            .descriptor_bytes()
            .to_vec()
    })
}

#[test]
fn the_same_bytes_again() {
    let key = owner(20).descriptor_key();
    let descriptor = Descriptor::from_bytes(&key, sample()).unwrap();
    assert_eq!(descriptor.to_bytes(&key), sample());
    assert_eq!(descriptor.subquantizers(), common::SUBQUANTIZERS);
    assert_eq!(descriptor.centroids(), common::CENTROIDS);
    assert_eq!(descriptor.record_bytes(), 20 + 8 + common::DIMENSION + 16);
}

#[test]
fn fail_flips_cuts_and_newer_versions() {
    let key = owner(20).descriptor_key();
    for at in (0..sample().len()).step_by(41).chain(0..200) {
        let mut bad = sample().to_vec();
        bad[at] ^= 4;
        assert!(Descriptor::from_bytes(&key, &bad).is_err(), "byte {at}");
        assert!(Descriptor::from_trusted_bytes(&bad).is_err(), "byte {at}");
        assert!(Descriptor::from_bytes(&key, &sample()[..at]).is_err());
    }
    assert!(Descriptor::from_bytes(&key, &[sample(), &[0]].concat()).is_err());
    let mut newer = sample().to_vec();
    newer[8] = 9;
    let error = Descriptor::from_bytes(&key, &newer).err().unwrap();
    assert!(error.to_string().contains("format version 9"), "{error}");
}

#[test]
fn fail_tags_and_extra_bytes_that_cannot_be() {
    let key = owner(20).descriptor_key();
    let descriptor = Descriptor::from_bytes(&key, sample()).unwrap();
    let read = |change: &dyn Fn(&mut Descriptor)| {
        let mut changed = descriptor.clone();
        change(&mut changed);
        Descriptor::from_bytes(&key, &changed.to_bytes(&key))
    };
    let tags = |count: u8| -> Vec<[u8; 8]> { (0..count).map(|i| [i; 8]).collect() };
    for count in [0, 1, 64] {
        let again = read(&|d| d.tags = tags(count)).unwrap();
        assert_eq!(again.tags, tags(count));
    }
    assert!(read(&|d| d.tags = tags(65)).is_err());
    assert!(read(&|d| d.tags = vec![[1; 8], [2; 8], [1; 8]]).is_err());
    for bytes in [6, 1000, MAX_EXTRA_BYTES] {
        let again = read(&|d| d.extra_bytes = bytes).unwrap();
        assert_eq!(
            again.record_bytes(),
            descriptor.record_bytes() + bytes as usize
        );
    }
    for bytes in [1, 5, MAX_EXTRA_BYTES + 1, u32::MAX] {
        assert!(read(&|d| d.extra_bytes = bytes).is_err());
    }
}

proptest! {
    /// With a right checksum, so that the fields themselves are parsed.
    #[test]
    fn fail_mutated_fields_never_panic(at in 10_usize..140, to: u8, cut in 0_usize..200) {
        let body = &sample()[..sample().len() - 64];
        let mut bad = body[..body.len() - cut].to_vec();
        bad[at] = to;
        bad.extend_from_slice(&[0; 32]);
        let checksum = blake3::hash(&bad);
        bad.extend_from_slice(checksum.as_bytes());
        let _ = Descriptor::from_trusted_bytes(&bad);
        prop_assert!(Descriptor::from_bytes(&owner(20).descriptor_key(), &bad).is_err());
    }

    #[test]
    fn fail_random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Descriptor::from_trusted_bytes(&bytes).is_err());
    }
}
