//! Key files.
#![allow(clippy::unwrap_used)]

mod common;

use common::{owner, rng};
use oboro_ckks::{ParameterSet, SecretKey};
use oboro_index::keys::*;
use oboro_index::*;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn message<T>(result: Result<T, IndexError>) -> String {
    let text = result.err().unwrap().to_string();
    assert!(!text.contains('\n'));
    text
}

#[test]
fn files_are_private_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("owner.key");
    let key = owner(1);
    key.write(&path).unwrap();
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# Oboro owner key."));
    assert!(text.contains("\nOBORO-OWNER-KEY-1"));
    let again = OwnerKey::read(&path).unwrap();
    assert_eq!(*again.to_text(), *key.to_text());
    assert!(message(owner(2).write(&path)).contains("never overwritten"));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = message(OwnerKey::read(&path));
    assert!(error.contains("has mode 0644"), "{error}");
    assert!(error.contains("run chmod 600"), "{error}");
    assert!(message(OwnerKey::read(dir.path().join("none"))).contains("No such file"));
}

#[test]
fn a_writer_key_is_a_client_key_and_more() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("writer.key");
    let key = owner(1).writer_key();
    key.write(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\nOBORO-WRITER-KEY-1"));
    let again = WriterKey::read(&path).unwrap();
    assert_eq!(*again.to_text(), *key.to_text());
    let client = again.client_key().to_text();
    assert_eq!(*client, *owner(1).client_key().to_text());
    // Neither passes for the other.
    let error = message(ClientKey::from_text(&text));
    assert!(
        error.contains("holds a writer key where a client key"),
        "{error}"
    );
    let error = message(WriterKey::from_text(&client));
    assert!(
        error.contains("holds a client key where a writer key"),
        "{error}"
    );
}

#[test]
fn derived_keys_are_separate_and_stable() {
    let key = owner(1);
    let texts = [
        key.storage_key().to_text(),
        key.client_key().to_text(),
        key.release_key().to_text(),
        owner(2).storage_key().to_text(),
        owner(2).release_key().to_text(),
        owner(2).client_key().to_text(),
        key.writer_key().to_text(),
    ];
    for (i, a) in texts.iter().enumerate() {
        for b in &texts[..i] {
            assert_ne!(**a, **b);
        }
    }
    // Derived again: the same.
    assert_eq!(*key.storage_key().to_text(), *texts[0]);
    let client = ClientKey::from_text(&texts[1]).unwrap();
    assert_eq!(*client.to_text(), *texts[1]);
    let storage = StorageKey::from_text(&texts[0].to_lowercase()).unwrap();
    assert_eq!(*storage.to_text(), *texts[0]);
    let release = ReleaseKey::from_text(&texts[2]).unwrap();
    assert_eq!(*release.to_text(), *texts[2]);
    // A share for each index and epoch.
    let shares = [
        release.share(&[1; 16], 1).to_bytes(),
        release.share(&[1; 16], 2).to_bytes(),
        release.share(&[2; 16], 1).to_bytes(),
        owner(2).release_key().share(&[1; 16], 1).to_bytes(),
    ];
    for (i, a) in shares.iter().enumerate() {
        assert!(shares[..i].iter().all(|b| a != b));
    }
}

#[test]
fn keeper_keys_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    for set in [ParameterSet::N2048Q50, ParameterSet::N4096Q100] {
        let secret = SecretKey::generate(set, &mut rng(1));
        let public = secret.public_key(&mut rng(2));
        let path = |kind: &str| dir.path().join(format!("{}.{kind}", set.name()));
        write_keeper_secret(path("key"), &secret).unwrap();
        write_keeper_public(path("pub"), &public).unwrap();
        assert_eq!(
            fs::metadata(path("key")).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            *read_keeper_secret(path("key")).unwrap().to_bytes(),
            *secret.to_bytes()
        );
        let again = read_keeper_public(path("pub")).unwrap();
        assert_eq!(again.fingerprint(), public.fingerprint());
        assert!(message(read_keeper_secret(path("pub")).map(drop)).contains("mode"));
        let error = message(keeper_secret_from_text(&keeper_public_to_text(&public)));
        assert!(
            error.contains("holds a keeper's public key where"),
            "{error}"
        );
    }
}

#[test]
fn fail_other_texts() {
    let owner_text = owner(1).to_text();
    let storage = owner(1).storage_key().to_text();
    let error = message(StorageKey::from_text(&owner_text));
    assert!(
        error.contains("holds an owner key where a storage key is expected"),
        "{error}"
    );
    let error = message(ReleaseKey::from_text(&storage));
    assert!(
        error.contains("holds a storage key where a release key is expected"),
        "{error}"
    );
    let error = message(StorageKey::from_text(&owner(1).release_key().to_text()));
    assert!(error.contains("holds a release key where"), "{error}");
    assert!(message(OwnerKey::from_text("")).contains("holds no key"));
    assert!(message(OwnerKey::from_text("# a remark\n\n")).contains("holds no key"));
    assert!(message(OwnerKey::from_text("hello")).contains("OBORO-OWNER-KEY-1"));
    let two = format!("{}\n{}", *owner_text, *owner_text);
    assert!(message(OwnerKey::from_text(&two)).contains("more than one"));
    let remarks = format!("# one\n  {}  \n\n# two\n", *storage);
    StorageKey::from_text(&remarks).unwrap();
    // A file that is no text.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.key");
    fs::write(&path, [0xff; 40]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(message(OwnerKey::read(&path)).contains("is no text"));
    fs::write(&path, vec![b'a'; 2 << 20]).unwrap();
    assert!(message(OwnerKey::read(&path)).contains("too large"));
    fs::write(&path, "junk").unwrap();
    assert!(message(OwnerKey::read(&path)).starts_with(path.to_str().unwrap()));
}

#[test]
fn fail_every_mistyped_character() {
    let text = owner(1).client_key().to_text();
    for at in 0..text.len() {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'Q' { b'P' } else { b'Q' };
        let bad = String::from_utf8(bytes).unwrap();
        let error = message(ClientKey::from_text(&bad));
        // Never the key itself in the message.
        assert!(!error.contains(&text[30..40]));
        assert!(ClientKey::from_text(&text[..at]).is_err());
    }
    let secret = SecretKey::generate(ParameterSet::N2048Q50, &mut rng(1));
    let text = keeper_secret_to_text(&secret);
    for at in (0..text.len()).step_by(7) {
        let mut bytes = text.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'Q' { b'P' } else { b'Q' };
        assert!(keeper_secret_from_text(&String::from_utf8(bytes).unwrap()).is_err());
        assert!(keeper_secret_from_text(&text[..at]).is_err());
    }
}

proptest! {
    #[test]
    fn fail_random_text_never_panics(tail in ".{0,80}", which in 0_usize..4) {
        let prefix = ["", "OBORO-OWNER-KEY-1", "OBORO-KEEPER-KEY-1\n", "OBORO-KEEPER-PUBLIC-1\n"][which];
        let text = format!("{prefix}{tail}");
        prop_assert!(OwnerKey::from_text(&text).is_err());
        prop_assert!(ClientKey::from_text(&text).is_err());
        prop_assert!(ReleaseKey::from_text(&text).is_err());
        prop_assert!(keeper_secret_from_text(&text).is_err());
        prop_assert!(keeper_public_from_text(&text).is_err());
    }
}
