//! TLS configurations and what the handshake says about the peer.

use crate::identity::{role_of, spki_sha256};
use crate::{ChannelError, Identity, Role, Trust};
use rustls::client::Resumption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::net::SocketAddr;
use std::sync::Arc;
use tonic::{Code, Status};

/// The peer of an authenticated connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// The role in its certificate.
    pub role: Role,
    /// SHA-256 of its public key (DER of the SubjectPublicKeyInfo).
    pub spki_sha256: [u8; 32],
    /// Its network address; it proves nothing.
    pub address: SocketAddr,
}

impl PeerInfo {
    pub(crate) fn new(
        certificates: Option<&[CertificateDer<'_>]>,
        address: SocketAddr,
    ) -> Result<Self, ChannelError> {
        let certificate = certificates
            .and_then(<[_]>::first)
            .ok_or(ChannelError::NoRole)?;
        Ok(Self {
            role: role_of(certificate)?,
            spki_sha256: spki_sha256(certificate)?,
            address,
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
        .copied()
        .ok_or_else(|| Status::new(Code::Unauthenticated, "the channel is not authenticated"))
}

/// TLS 1.3 suites, post-quantum key exchange first.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![
            aws_lc_rs::kx_group::X25519MLKEM768,
            aws_lc_rs::kx_group::X25519,
        ],
        ..aws_lc_rs::default_provider()
    })
}

pub(crate) fn server_config(
    identity: &Identity,
    trust: &Trust,
    allowed: &[Role],
    http1: bool,
) -> Result<Arc<ServerConfig>, ChannelError> {
    let provider = provider();
    let inner = WebPkiClientVerifier::builder_with_provider(trust.roots()?, provider.clone())
        .build()
        .map_err(|error| ChannelError::Issue(error.to_string()))?;
    let verifier = Arc::new(RoleVerifier {
        inner,
        allowed: allowed.to_vec(),
    });
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.private_key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    if http1 {
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

pub(crate) fn client_config(
    identity: &Identity,
    trust: &Trust,
) -> Result<Arc<ClientConfig>, ChannelError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(trust.roots()?)
        .with_client_auth_cert(identity.chain(), identity.private_key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Checks chain, dates and purpose as usual, then the role.
#[derive(Debug)]
struct RoleVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    allowed: Vec<Role>,
}

impl ClientCertVerifier for RoleVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Names of authorities help nobody who holds one certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        match role_of(end_entity) {
            Ok(role) if self.allowed.contains(&role) => Ok(verified),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
