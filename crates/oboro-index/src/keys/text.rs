//! Keys as one line of Bech32m in upper case.

use crate::IndexError;
use bech32::primitives::decode::UncheckedHrpstring;
use bech32::{Bech32m, Hrp};
use zeroize::Zeroizing;

/// `prefix`, the separator `1`, the data, a checksum.
pub(crate) fn encode(prefix: &str, bytes: &[u8]) -> Zeroizing<String> {
    let hrp = Hrp::parse(prefix).expect("prefixes are constants of this crate");
    Zeroizing::new(
        bech32::encode_upper::<Bech32m>(hrp, bytes)
            .expect("keys are far shorter than Bech32m allows"),
    )
}

/// The one line of `text` that is neither blank nor a remark.
pub(crate) fn only_line<'a>(name: &str, text: &'a str) -> Result<&'a str, IndexError> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let line = lines.next().ok_or_else(|| {
        IndexError::KeyText(format!(
            "holds no key where {name} is expected; copy the file again"
        ))
    })?;
    if lines.next().is_some() {
        return Err(IndexError::KeyText(format!(
            "holds more than one line where {name} is expected; keep one key in a file"
        )));
    }
    Ok(line)
}

/// Decodes exactly `N` bytes after `prefix`; `name` is how errors call the key.
pub(crate) fn decode<const N: usize>(
    prefix: &str,
    name: &str,
    text: &str,
) -> Result<Zeroizing<[u8; N]>, IndexError> {
    super::protected::refuse(name, text)?;
    let line = only_line(name, text)?;
    check_prefix(prefix, name, line)?;
    let mistyped = || {
        IndexError::KeyText(format!(
            "holds {name} with a mistyped or missing character; copy it again"
        ))
    };
    let checked = UncheckedHrpstring::new(line)
        .map_err(|_| mistyped())?
        .validate_and_remove_checksum::<Bech32m>()
        .map_err(|_| mistyped())?;
    let mut out = Zeroizing::new([0; N]);
    let mut count = 0;
    for byte in checked.byte_iter() {
        *out.get_mut(count).ok_or_else(mistyped)? = byte;
        count += 1;
    }
    if count != N {
        return Err(mistyped());
    }
    Ok(out)
}

/// Tells a key of another kind from text that is no key.
pub(crate) fn check_prefix(prefix: &str, name: &str, line: &str) -> Result<(), IndexError> {
    let upper = line.to_ascii_uppercase();
    let upper = Zeroizing::new(upper);
    if upper.starts_with(&format!("{prefix}1")) {
        return Ok(());
    }
    let known = [
        ("OBORO-OWNER-KEY-1", "an owner key"),
        ("OBORO-CLIENT-KEY-1", "a client key"),
        ("OBORO-WRITER-KEY-1", "a writer key"),
        ("OBORO-STORAGE-KEY-1", "a storage key"),
        ("OBORO-RELEASE-KEY-1", "a release key"),
        ("OBORO-KEEPER-KEY-1", "a keeper's secret key"),
        ("OBORO-KEEPER-PUBLIC-1", "a keeper's public key"),
    ];
    Err(IndexError::KeyText(
        match known.iter().find(|(other, _)| upper.starts_with(other)) {
            Some((_, found)) => {
                format!("holds {found} where {name} is expected; give the other file")
            }
            None => {
                format!("holds no key where {name} (a line beginning with {prefix}1) is expected")
            }
        },
    ))
}
