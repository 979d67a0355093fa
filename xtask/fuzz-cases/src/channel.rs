//! Certificates, revocation lists, and the exchange before HTTP/2.

use oboro_channel::{Authority, Identity, Trust, untrusted};

/// PEM text of any kind, and DER of a certificate.
pub fn certificates(data: &[u8]) {
    untrusted::certificate(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(identity) = Identity::from_pem(text) {
        assert!(Identity::from_pem(&identity.to_pem()).is_ok());
    }
    let _ = Authority::from_pem(text);
    if let Ok(trust) = Trust::from_pem(text) {
        let _ = trust.with_revocations(text);
    }
    let _ = crate::seeds::trust().with_revocations(text);
}

/// What a peer sends directly after the TLS handshake.
pub fn handshake(data: &[u8]) {
    untrusted::frames(data);
}
