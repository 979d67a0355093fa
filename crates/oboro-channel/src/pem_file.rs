//! Files that hold keys: mode 0600, never overwritten.

use crate::ChannelError;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use zeroize::Zeroizing;

/// Larger files are no PEM of ours.
const MAX_FILE_BYTES: u64 = 1 << 20;

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> ChannelError {
    if source.kind() == std::io::ErrorKind::AlreadyExists {
        return ChannelError::Exists(path.to_owned());
    }
    ChannelError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

/// PEM text of `der`, RFC 7468: 64 characters a line.
///
/// Our own few lines, because the text may be a private key: it is built in one
/// allocation that is wiped, and characters come from arithmetic rather than from a
/// table indexed by key bits.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(
        der.len().div_ceil(48) * 65 + 2 * label.len() + 64,
    ));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for position in 0..4 {
                text.push(if position > group.len() {
                    '='
                } else {
                    base64_character((bits >> (18 - 6 * position) & 63) as u8)
                });
            }
        }
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

fn base64_character(value: u8) -> char {
    let value = i16::from(value);
    // Each term is added once `value` has passed the end of the range before it.
    let after = |limit: i16| ((limit - value) >> 15) & 1;
    let code =
        i16::from(b'A') + value + 6 * after(25) - 75 * after(51) - 15 * after(61) + 3 * after(62);
    char::from(code as u8)
}

/// Creates `path` and writes `text`; nothing is left behind on failure.
pub(crate) fn create(path: &Path, text: &str, secret: bool) -> Result<(), ChannelError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(if secret { 0o600 } else { 0o644 });
    }
    #[cfg(not(unix))]
    let _ = secret;
    let mut file = options
        .open(path)
        .map_err(|source| failed("create", path, source))?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all());
    written.map_err(|source| {
        // The half-written file was created above, so it is ours to remove.
        let _ = std::fs::remove_file(path);
        failed("write", path, source)
    })
}

/// Reads a text file; a secret one must not be readable by group or others.
pub(crate) fn read(path: &Path, secret: bool) -> Result<Zeroizing<String>, ChannelError> {
    let open = |source| failed("read", path, source);
    let file = File::open(path).map_err(open)?;
    let metadata = file.metadata().map_err(open)?;
    #[cfg(unix)]
    if secret {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(ChannelError::Permissions {
                path: path.to_owned(),
                mode,
            });
        }
    }
    #[cfg(not(unix))]
    let _ = secret;
    if metadata.len() > MAX_FILE_BYTES {
        return Err(ChannelError::Malformed("PEM file"));
    }
    // Allocated once at full size: growing would leave unzeroized copies behind.
    let mut text = Zeroizing::new(String::with_capacity(metadata.len() as usize + 1));
    file.take(MAX_FILE_BYTES)
        .read_to_string(&mut text)
        .map_err(open)?;
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn base64_alphabet() {
        let alphabet: String = (0..64).map(base64_character).collect();
        assert_eq!(
            alphabet,
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        );
    }

    #[test]
    fn every_length_decodes_again() {
        for length in 1..200_u8 {
            let der: Vec<u8> = (0..length).map(|i| i.wrapping_mul(37)).collect();
            let text = encode("CERTIFICATE", &der);
            assert!(text.lines().all(|line| line.len() <= 64));
            let decoded = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(decoded.as_ref(), der);
        }
    }

    #[test]
    fn fail_exists_permissions_and_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pem");
        assert!(matches!(
            read(&path, true),
            Err(ChannelError::File { action: "read", .. })
        ));
        create(&path, "text", true).unwrap();
        assert_eq!(read(&path, true).unwrap().as_str(), "text");
        assert!(matches!(
            create(&path, "other", true),
            Err(ChannelError::Exists(_))
        ));
        assert_eq!(read(&path, true).unwrap().as_str(), "text");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(matches!(
                read(&path, true),
                Err(ChannelError::Permissions { mode: 0o644, .. })
            ));
            assert!(read(&path, false).is_ok());
        }
    }
}
