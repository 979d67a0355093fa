//! The owner's key under a passphrase: an age file around the key's text.

use super::{OwnerKey, age, backup, file};
use crate::IndexError;
use rand_core::CryptoRng;
use std::path::Path;

const NAME: &str = "an owner key";

impl OwnerKey {
    /// Creates the file `path` with mode 0600, encrypted under `passphrase`.
    /// Takes about a second and 256 MiB, as does every guess at it.
    ///
    /// # Errors
    /// If the passphrase is empty, or the file exists already or cannot be
    /// written.
    pub fn write_protected(
        &self,
        path: impl AsRef<Path>,
        passphrase: &str,
        rng: &mut impl CryptoRng,
    ) -> Result<(), IndexError> {
        self.write_stretched(path.as_ref(), passphrase, age::WORK_FACTOR, rng)
    }

    fn write_stretched(
        &self,
        path: &Path,
        passphrase: &str,
        work_factor: u8,
        rng: &mut impl CryptoRng,
    ) -> Result<(), IndexError> {
        backup::refuse_empty(passphrase)?;
        let text = age::encrypt(self.to_text().as_bytes(), passphrase, work_factor, rng);
        file::create_secret(
            path,
            "Oboro owner key, under a passphrase. Opens every original and derives every other key; without the passphrase there is no way to recover it.",
            text.trim_end(),
        )
    }

    /// Whether the key in the file `path` is under a passphrase.
    ///
    /// # Errors
    /// If others can read the file, or it cannot be read.
    pub fn is_protected(path: impl AsRef<Path>) -> Result<bool, IndexError> {
        Ok(age::is(&file::read_secret(path.as_ref())?))
    }

    /// Reads a file that [`write_protected`](Self::write_protected) made.
    ///
    /// # Errors
    /// If others can read the file, it is not under a passphrase, or under
    /// another, or damaged.
    pub fn read_protected(path: impl AsRef<Path>, passphrase: &str) -> Result<Self, IndexError> {
        let path = path.as_ref();
        let text = file::read_secret(path)?;
        Self::from_protected_text(&text, passphrase).map_err(file::within(path))
    }

    fn from_protected_text(text: &str, passphrase: &str) -> Result<Self, IndexError> {
        if !age::is(text) {
            // If it is no key at all, that is the better answer.
            Self::from_text(text)?;
            return Err(IndexError::KeyText(
                "holds an owner key that is not under a passphrase, but one was given; leave it out"
                    .into(),
            ));
        }
        let plain = age::decrypt(NAME, text, passphrase)?;
        let damaged = |_| {
            IndexError::KeyText(
                "holds something else than an owner key under its passphrase; give the other file"
                    .into(),
            )
        };
        Self::from_text(std::str::from_utf8(&plain).map_err(damaged)?)
    }
}

/// Tells who meets a protected key without a passphrase what it is.
pub(super) fn refuse(name: &str, text: &str) -> Result<(), IndexError> {
    if age::is(text) {
        return Err(IndexError::KeyText(format!(
            "holds text under a passphrase where {name} is expected; give the passphrase, or the key without one"
        )));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use chacha20::ChaCha20Rng;
    use rand_core::SeedableRng;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_protected_key_opens_with_its_passphrase_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("owner.key");
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        let key = OwnerKey::generate(&mut rng);
        key.write_stretched(&path, "horse", 4, &mut rng).unwrap();
        assert!(OwnerKey::is_protected(&path).unwrap());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# Oboro owner key, under a passphrase."));
        assert!(!text.contains("OBORO-OWNER-KEY"));
        let again = OwnerKey::read_protected(&path, "horse").unwrap();
        assert_eq!(*again.to_text(), *key.to_text());

        let error = |result: Result<OwnerKey, IndexError>| result.err().unwrap().to_string();
        let refused = error(OwnerKey::read(&path));
        assert!(refused.contains("give the passphrase"), "{refused}");
        let refused = error(OwnerKey::read_protected(&path, "cow"));
        assert!(refused.contains("with this passphrase"), "{refused}");
        assert!(refused.starts_with(path.to_str().unwrap()));
        for passphrase in ["horse", ""] {
            let result = key.write_stretched(&path, passphrase, 4, &mut rng);
            assert!(result.is_err());
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);

        let plain = dir.path().join("plain.key");
        key.write(&plain).unwrap();
        assert!(!OwnerKey::is_protected(&plain).unwrap());
        let refused = error(OwnerKey::read_protected(&plain, "horse"));
        assert!(refused.contains("leave it out"), "{refused}");
        // Another thing under the passphrase.
        let other = age::encrypt(b"hello", "horse", 4, &mut rng);
        assert!(OwnerKey::from_protected_text(&other, "horse").is_err());
        let other = age::encrypt(&[0xff; 9], "horse", 4, &mut rng);
        assert!(OwnerKey::from_protected_text(&other, "horse").is_err());
        assert!(OwnerKey::from_protected_text("hello", "horse").is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(OwnerKey::read_protected(&path, "horse").is_err());
        assert!(OwnerKey::is_protected(&path).is_err());
    }
}
