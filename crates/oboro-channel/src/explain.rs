//! Sentences for failed handshakes, which the transport reports as "transport error".

use crate::ChannelError;
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

/// Why a connection could not be made. Where the error is of this crate and says so
/// already, that is the reason: wrapped once more it would name the address twice.
pub(crate) fn unreachable_reason(error: &(dyn Error + 'static)) -> String {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    causes
        .find_map(|cause| match cause.downcast_ref() {
            Some(ChannelError::Unreachable { reason, .. }) => Some(reason.clone()),
            _ => None,
        })
        .unwrap_or_else(|| root_cause(error))
}

pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    loop {
        let tls = innermost
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(sentence) = tls.and_then(handshake) {
            return sentence.to_owned();
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

fn handshake(error: &rustls::Error) -> Option<&'static str> {
    match error {
        rustls::Error::AlertReceived(description) => alert(&format!("{description:?}")),
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::BadSignature | CertificateError::UnknownIssuer => {
                Some("its certificate comes from another authority")
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => {
                Some("its certificate is expired or not valid yet")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Some("another role answers there")
            }
            _ => None,
        },
        _ => None,
    }
}

/// A sentence for the name of a TLS alert.
fn alert(name: &str) -> Option<&'static str> {
    match name {
        "AccessDenied" => Some("it does not serve this role"),
        "CertificateExpired" => {
            Some("this side's certificate is expired or not valid yet; issue a new one")
        }
        "UnknownCA" | "DecryptError" | "BadCertificate" => {
            Some("it does not trust the authority of this side's certificate")
        }
        _ => None,
    }
}
