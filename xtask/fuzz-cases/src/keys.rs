//! Key files and backups.

use oboro_index::keys::{
    ClientKey, OwnerKey, ReleaseKey, StorageKey, WriterKey, backup, keeper_public_from_text,
    keeper_public_to_text, keeper_secret_from_text,
};

/// Text that may be any kind of key file.
pub fn key_files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(key) = OwnerKey::from_text(text) {
        assert!(OwnerKey::from_text(&key.to_text()).is_ok());
    }
    if let Ok(key) = ClientKey::from_text(text) {
        assert!(ClientKey::from_text(&key.to_text()).is_ok());
    }
    if let Ok(key) = WriterKey::from_text(text) {
        assert!(WriterKey::from_text(&key.to_text()).is_ok());
    }
    if let Ok(key) = StorageKey::from_text(text) {
        assert!(StorageKey::from_text(&key.to_text()).is_ok());
    }
    if let Ok(key) = ReleaseKey::from_text(text) {
        assert!(ReleaseKey::from_text(&key.to_text()).is_ok());
    }
    if let Ok(key) = keeper_public_from_text(text) {
        assert!(keeper_public_from_text(&keeper_public_to_text(&key)).is_ok());
    }
    let _ = keeper_secret_from_text(text);
}

/// A backup without a passphrase, or with a wrong one.
pub fn backup(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(files) = backup::restore(text, None) {
        assert!(files.iter().all(|file| !file.name().contains("..")));
    }
    let _ = backup::is_protected(text);
}
