//! The cryptography that `dcap-qvl` runs on: `aws-lc-rs`, as everywhere in Oboro.

use dcap_qvl::config::{Config, CryptoProvider};
use rustls_pki_types::SignatureVerificationAlgorithm;
use sha2::{Digest, Sha256, Sha384};

/// `dcap-qvl` with its own parsers and `aws-lc-rs`.
pub(super) struct AwsLc;

impl Config for AwsLc {
    type X509 = dcap_qvl::x509::X509CertBackend;
    type SigEncoder = dcap_qvl::signature::DerSigEncoder;
    type Crypto = Self;
}

impl CryptoProvider for AwsLc {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        webpki::aws_lc_rs::ECDSA_P256_SHA256
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        Sha256::digest(data).into()
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        Sha384::digest(data).into()
    }
}
