//! Who is at the other end of an authenticated connection.

use crate::certificate::Facts;
use crate::{ChannelError, Grant, Role, Serial};
use oboro_attest::Appraisal;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;
use tonic::{Code, Status};

/// The peer of an authenticated connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// The role in its certificate.
    pub role: Role,
    /// SHA-256 of its public key (DER of the SubjectPublicKeyInfo).
    pub spki_sha256: [u8; 32],
    /// The serial number of its certificate, by which the owner revokes it.
    pub serial: Serial,
    /// When its certificate expires.
    pub not_after: SystemTime,
    /// Its network address; it proves nothing.
    pub address: SocketAddr,
    /// What its certificate allows it.
    pub grant: Grant,
    /// Its evidence, appraised; `None` where this side demanded none.
    pub appraisal: Option<Arc<Appraisal>>,
}

impl PeerInfo {
    pub(crate) fn new(
        certificates: Option<&[CertificateDer<'_>]>,
        address: SocketAddr,
    ) -> Result<Self, ChannelError> {
        let certificate = certificates
            .and_then(<[_]>::first)
            .ok_or(ChannelError::NoRole)?;
        let facts = Facts::of(certificate)?;
        Ok(Self {
            role: facts.role,
            spki_sha256: facts.spki_sha256,
            serial: facts.serial,
            not_after: facts.not_after,
            address,
            grant: facts.grant,
            appraisal: None,
        })
    }

    /// The first eight bytes of the public key's hash in hexadecimal, for logs.
    #[must_use]
    pub fn short_key(&self) -> String {
        use std::fmt::Write;
        self.spki_sha256[..8]
            .iter()
            .fold(String::with_capacity(16), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }
}

/// The authenticated peer of a gRPC request.
///
/// # Errors
/// `UNAUTHENTICATED` where the request came over no channel of this crate.
// A tonic status is large; so is every error of every service method.
#[allow(clippy::result_large_err)]
pub fn peer<T>(request: &tonic::Request<T>) -> Result<PeerInfo, Status> {
    request
        .extensions()
        .get::<PeerInfo>()
        .cloned()
        .ok_or_else(|| Status::new(Code::Unauthenticated, "the channel is not authenticated"))
}
