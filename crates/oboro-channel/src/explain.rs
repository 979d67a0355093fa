//! Sentences for failed handshakes, which the transport reports as "transport error".

use crate::ChannelError;
use crate::certificate::unix_date;
use crate::trust::expired_list;
use rustls::CertificateError;
use std::error::Error;
use std::io;

/// Why a request failed, in one sentence: the server's own words where it answered, else
/// the innermost cause.
#[must_use]
pub fn explain(status: &tonic::Status) -> String {
    match status.source() {
        Some(source) => root_cause(source),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_owned(),
    }
}

/// The reason inside an error: of an error of this crate its own words, without those
/// that its caller will say again; else the innermost cause.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    loop {
        match innermost.downcast_ref() {
            Some(ChannelError::Unreachable { reason, .. }) => return reason.clone(),
            Some(error) => return error.to_string(),
            None => {}
        }
        let tls = innermost
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(sentence) = tls.and_then(handshake) {
            return sentence;
        }
        match innermost.source() {
            Some(source) => innermost = source,
            None => break,
        }
    }
    let text = innermost.to_string();
    // The HTTP/2 layer copies an error it hands on as text: only the name is left.
    match text.strip_prefix("received fatal alert: ").and_then(alert) {
        Some(sentence) => sentence.to_owned(),
        None => text,
    }
}

fn handshake(error: &rustls::Error) -> Option<String> {
    let sentence = match error {
        rustls::Error::AlertReceived(description) => alert(&format!("{description:?}"))?,
        rustls::Error::NoApplicationProtocol => "it does not speak oboro/2",
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::BadSignature | CertificateError::UnknownIssuer => {
                "its certificate comes from another authority"
            }
            CertificateError::Expired => "its certificate has expired",
            CertificateError::ExpiredContext { not_after, .. } => {
                let date = unix_date(*not_after);
                return Some(format!("its certificate expired on {date}"));
            }
            CertificateError::NotValidYet => "its certificate is not valid yet",
            CertificateError::NotValidYetContext { not_before, .. } => {
                let date = unix_date(*not_before);
                return Some(format!("its certificate is not valid before {date}"));
            }
            CertificateError::Revoked => "its certificate is revoked",
            CertificateError::UnknownRevocationStatus => {
                "this side's revocation list is not about its certificate"
            }
            CertificateError::ExpiredRevocationList => "this side's revocation list has expired",
            CertificateError::ExpiredRevocationListContext { next_update, .. } => {
                return Some(expired_list(&unix_date(*next_update)));
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "another role answers there"
            }
            CertificateError::ApplicationVerificationFailure => "its role is not let in here",
            _ => return None,
        },
        _ => return None,
    };
    Some(sentence.to_owned())
}

/// A sentence for the name of a TLS alert.
fn alert(name: &str) -> Option<&'static str> {
    match name {
        "AccessDenied" => Some("it does not serve this role"),
        "CertificateExpired" => {
            Some("this side's certificate is expired or not valid yet; issue a new one")
        }
        "CertificateRevoked" => {
            Some("this side's certificate is revoked; let the owner issue a new one")
        }
        "UnknownCA" | "DecryptError" | "BadCertificate" => Some(
            "it does not trust the authority of this side's certificate, or its revocation list has expired",
        ),
        "NoApplicationProtocol" => Some("it does not speak oboro/2; is it another release?"),
        _ => None,
    }
}
