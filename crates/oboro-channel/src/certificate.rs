//! What a certificate says.

use crate::{Access, ChannelError, Grant, Role};
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};
use x509_cert::Certificate;
use x509_cert::der::{DateTime, Decode};

/// The serial number of a certificate, by which it is revoked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial([u8; 20]);

impl Serial {
    /// The number from its big-endian bytes; `None` above the 20 bytes that RFC 5280
    /// allows.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        let bytes = &bytes[zeros..];
        let mut serial = [0; 20];
        serial
            .len()
            .checked_sub(bytes.len())
            .map(|start| serial[start..].copy_from_slice(bytes))?;
        Some(Self(serial))
    }

    /// The 20 big-endian bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = ChannelError;

    /// Reads the 40 hexadecimal digits that `Display` writes.
    fn from_str(text: &str) -> Result<Self, ChannelError> {
        let malformed = || ChannelError::Malformed("serial number of 40 hexadecimal digits");
        if text.len() != 40 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let mut serial = [0; 20];
        for (i, byte) in serial.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| malformed())?;
        }
        Ok(Self(serial))
    }
}

/// What a certificate of ours says.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) role: Role,
    pub(crate) grant: Grant,
    pub(crate) spki_sha256: [u8; 32],
    pub(crate) serial: Serial,
    pub(crate) not_after: SystemTime,
    /// The subject's common name.
    pub(crate) name: String,
}

impl Facts {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, ChannelError> {
        let malformed = || ChannelError::Malformed("certificate");
        let parsed = parse(certificate)?;
        let (role, grant) = role_and_grant(parsed.valid_dns_names())?;
        let whole = Certificate::from_der(certificate).map_err(|_| malformed())?;
        let whole = whole.tbs_certificate();
        let name = whole.subject().common_name().ok().flatten();
        Ok(Self {
            role,
            grant,
            spki_sha256: Sha256::digest(parsed.subject_public_key_info()).into(),
            serial: Serial::from_bytes(parsed.serial()).ok_or_else(malformed)?,
            not_after: whole.validity().not_after.to_system_time(),
            name: name.map_or_else(String::new, |name| name.value().into_owned()),
        })
    }
}

/// The one role that the names say, and for a client the grant.
pub(crate) fn role_and_grant<'a>(
    mut names: impl Iterator<Item = &'a str>,
) -> Result<(Role, Grant), ChannelError> {
    let role = names
        .next()
        .and_then(Role::from_dns_name)
        .ok_or(ChannelError::NoRole)?;
    let second = names.next();
    if names.next().is_some() {
        return Err(ChannelError::NoRole);
    }
    let grant = match (role, second) {
        (Role::Client, None) => Grant::any(Access::Reader),
        (Role::Client, Some(name)) => Grant::from_dns_name(name).ok_or(ChannelError::NoRole)?,
        (Role::Owner, None) => Grant::any(Access::Owner),
        (Role::Searcher | Role::Keeper | Role::Generator, None) => Grant::NOTHING,
        (_, Some(_)) => return Err(ChannelError::NoRole),
    };
    Ok((role, grant))
}

pub(crate) fn public_key_of(
    certificate: &CertificateDer<'_>,
) -> Result<SubjectPublicKeyInfoDer<'static>, ChannelError> {
    Ok(parse(certificate)?.subject_public_key_info())
}

pub(crate) fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<webpki::EndEntityCert<'a>, ChannelError> {
    webpki::EndEntityCert::try_from(certificate).map_err(|_| ChannelError::Malformed("certificate"))
}

/// A date for people, in UTC: `2026-11-25 18:30`.
pub(crate) fn date(time: SystemTime) -> String {
    match DateTime::try_from(time) {
        Ok(date) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02} UTC",
            date.year(),
            date.month(),
            date.day(),
            date.hour(),
            date.minutes()
        ),
        Err(_) => "a date beyond all calendars".into(),
    }
}

pub(crate) fn unix_date(time: UnixTime) -> String {
    date(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn serials_round_trip() {
        let serial = Serial::from_bytes(&[0, 0x8f, 3]).unwrap();
        assert_eq!(serial, Serial::from_bytes(&[0x8f, 3]).unwrap());
        assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
        assert!(serial.to_string().ends_with("00008f03"));
    }

    #[test]
    fn fail_serials_of_other_lengths() {
        assert!(Serial::from_bytes(&[1; 21]).is_none());
        let long = "00".repeat(21);
        for text in [
            "",
            "00",
            "+0",
            long.as_str(),
            &"zz".repeat(20),
            &"é".repeat(20),
        ] {
            assert!(text.parse::<Serial>().is_err(), "{text}");
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let at = |seconds| date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00 UTC");
        // The second known answer is GNU date's.
        assert_eq!(at(1_795_545_660), "2026-11-24 18:41 UTC");
    }

    #[test]
    fn fail_names_of_no_or_several_roles() {
        let names = |names: &[&'static str]| role_and_grant(names.iter().copied());
        let client = "client.oboro.internal";
        let grant = "writer.any.grant.oboro.internal";
        assert_eq!(names(&[client]).unwrap().1, Grant::any(Access::Reader));
        assert_eq!(
            names(&[client, grant]).unwrap().1,
            Grant::any(Access::Writer)
        );
        assert_eq!(names(&["keeper.oboro.internal"]).unwrap().1, Grant::NOTHING);
        for wrong in [
            &[][..],
            &[grant],
            &[grant, client],
            &[client, client],
            &[client, grant, grant],
            &[client, "keeper.oboro.internal"],
            &[client, "owner.any.grant.oboro.internal"],
            &["searcher.oboro.internal", grant],
            &["owner.oboro.internal", grant],
        ] {
            assert!(
                matches!(names(wrong), Err(ChannelError::NoRole)),
                "{wrong:?}"
            );
        }
    }
}
