//! TLS configurations.

use crate::certificate::Facts;
use crate::{ChannelError, Clock, Identity, Role, Trust};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::fmt;
use std::sync::Arc;

/// The exchange of evidence, then HTTP/2.
pub(crate) const ALPN: &[u8] = b"oboro/2";

/// HTTP/1.1 without evidence, for browsers.
pub(crate) const ALPN_BROWSER: &[u8] = b"http/1.1";

/// TLS 1.3 suites, post-quantum key exchange first.
pub(crate) fn provider() -> Arc<CryptoProvider> {
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
    clock: &Clock,
) -> Result<Arc<ServerConfig>, ChannelError> {
    let verifier = Arc::new(PeerVerifier {
        trust: trust.clone(),
        allowed: allowed.to_vec(),
    });
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.private_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    if http1 {
        config.alpn_protocols.push(ALPN_BROWSER.to_vec());
    }
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

pub(crate) fn client_config(
    identity: &Identity,
    trust: &Trust,
    expected: Role,
    clock: &Clock,
) -> Result<Arc<ClientConfig>, ChannelError> {
    let verifier = Arc::new(PeerVerifier {
        trust: trust.clone(),
        allowed: vec![expected],
    });
    // "Dangerous" is to bring a verifier; ours calls the library's own.
    let mut config = ClientConfig::builder_with_details(provider(), Arc::new(clock.clone()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(identity.chain(), identity.private_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(Arc::new(config))
}

/// Checks chain, dates, purpose and revocation by the library's verifiers, as the trust
/// has them at the moment, then the role.
struct PeerVerifier {
    trust: Trust,
    allowed: Vec<Role>,
}

impl PeerVerifier {
    fn check_role(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        match Facts::of(certificate) {
            Ok(facts) if self.allowed.contains(&facts.role) => Ok(()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }
}

impl fmt::Debug for PeerVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PeerVerifier({:?})", self.allowed)
    }
}

impl ClientCertVerifier for PeerVerifier {
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
        let checks = self.trust.checks();
        let verified = checks
            .of_clients
            .verify_client_cert(end_entity, intermediates, now)?;
        self.check_role(end_entity).map(|()| verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let checks = self.trust.checks();
        let verified =
            checks
                .of_servers
                .verify_server_cert(end_entity, intermediates, name, ocsp, now)?;
        self.check_role(end_entity).map(|()| verified)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

fn only_tls13() -> rustls::Error {
    rustls::PeerIncompatible::Tls12NotOffered.into()
}

fn verify_signature(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    let algorithms = &provider().signature_verification_algorithms;
    rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
}

fn schemes() -> Vec<SignatureScheme> {
    provider()
        .signature_verification_algorithms
        .supported_schemes()
}
