//! Certificates of attestation keys.
//!
//! Endorsements are certificates in DER, that of the attestation key first, then those of
//! intermediate authorities; before each the number of its bytes, 4 bytes. None at all is
//! the rule: most policies list their keys.

use super::rules::TpmRules;
use crate::AttestError;
use crate::snp::Revocation;
use oboro_tpm::PublicKey;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use std::time::Duration;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationOptionsBuilder, UnknownStatusPolicy, aws_lc_rs as algorithms,
};
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader, oid::AssociatedOid};
use x509_cert::ext::pkix::ExtendedKeyUsage;
use x509_cert::spki::SubjectPublicKeyInfoRef;

/// Most certificates in endorsements.
pub const MAX_CERTIFICATES: usize = 4;

/// Most bytes of one certificate.
const MAX_CERTIFICATE_BYTES: usize = 8 << 10;

/// `tcg-kp-AIKCertificate`, the usage of an attestation key, as certificates write it.
const ATTESTATION_KEY_USAGE: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x03];
const ATTESTATION_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.23.133.8.3");

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
];

fn unusable(what: impl Into<String>) -> AttestError {
    AttestError::Endorsement(what.into())
}

pub(super) fn encode(certificates: &[Vec<u8>]) -> Result<Vec<u8>, AttestError> {
    if certificates.len() > MAX_CERTIFICATES {
        return Err(unusable(format!(
            "there are {} certificates of the attestation key; at most {MAX_CERTIFICATES} are possible",
            certificates.len()
        )));
    }
    let mut bytes = Vec::new();
    for certificate in certificates {
        if certificate.len() > MAX_CERTIFICATE_BYTES {
            return Err(unusable("a certificate of the attestation key is too long"));
        }
        bytes.extend_from_slice(&(certificate.len() as u32).to_le_bytes());
        bytes.extend_from_slice(certificate);
    }
    Ok(bytes)
}

pub(super) fn decode(bytes: &[u8]) -> Result<Vec<CertificateDer<'_>>, AttestError> {
    const MALFORMED: AttestError = AttestError::Malformed("its certificates are cut short");
    let mut certificates = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (length, others) = rest.split_first_chunk().ok_or(MALFORMED)?;
        let length = u32::from_le_bytes(*length) as usize;
        if certificates.len() == MAX_CERTIFICATES || length > MAX_CERTIFICATE_BYTES {
            return Err(AttestError::Malformed(
                "its certificates are too many or too long",
            ));
        }
        let (certificate, others) = others.split_at_checked(length).ok_or(MALFORMED)?;
        certificates.push(CertificateDer::from(certificate));
        rest = others;
    }
    Ok(certificates)
}

/// Checks that a root of `rules` vouches for `key` at the time `now`.
pub(super) fn check_chain(
    certificates: &[CertificateDer<'_>],
    key: &PublicKey,
    rules: &TpmRules,
    now: u64,
) -> Result<(), AttestError> {
    let (first, intermediates) = certificates.split_first().ok_or_else(|| {
        unusable("the attestation key is not listed and comes without a certificate")
    })?;
    let certificate = EndEntityCert::try_from(first)
        .map_err(|_| unusable("the certificate of the attestation key is malformed"))?;
    if !certifies(certificate.subject_public_key_info().as_ref(), key).unwrap_or(false) {
        return Err(unusable(
            "the certificate is that of another attestation key",
        ));
    }
    if !is_for_attestation(first).unwrap_or(false) {
        return Err(unusable(
            "the certificate of the attestation key is not one for such keys",
        ));
    }
    let roots = rules
        .roots
        .iter()
        .map(|file| CertificateDer::from(file.content.as_slice()))
        .collect::<Vec<_>>();
    let anchors = roots
        .iter()
        .map(webpki::anchor_from_trusted_cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| unusable("a root of the policy is malformed"))?;
    let lists = rules
        .revocation_lists
        .iter()
        .map(|file| OwnedCertRevocationList::from_der(&file.content).map(CertRevocationList::from))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| unusable("a revocation list of the policy is malformed"))?;
    let lists: Vec<_> = lists.iter().collect();
    let revocation = match (RevocationOptionsBuilder::new(&lists), rules.revocation) {
        (Ok(builder), Revocation::Required) => Some(
            builder
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build(),
        ),
        (Ok(builder), Revocation::Unchecked) => Some(
            builder
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build(),
        ),
        (Err(_), Revocation::Required) => {
            return Err(unusable(
                "there is no revocation list of the attestation key's authority",
            ));
        }
        (Err(_), Revocation::Unchecked) => None,
    };
    certificate
        .verify_for_usage(
            ALGORITHMS,
            &anchors,
            intermediates,
            UnixTime::since_unix_epoch(Duration::from_secs(now)),
            KeyUsage::required_if_present(ATTESTATION_KEY_USAGE),
            revocation,
            None,
        )
        .map(|_| ())
        .map_err(|error| {
            unusable(format!(
                "the attestation key's certificate does not hold: {error:?}"
            ))
        })
}

/// Whether a certificate names the usage of an attestation key. A quote does not prove its
/// key's attributes, so the authority must have known what it certified; `webpki` would
/// demand the usage of the authorities' certificates, too.
fn is_for_attestation(certificate: &[u8]) -> Option<bool> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let extensions = certificate.tbs_certificate().extensions()?;
    let extension = extensions
        .iter()
        .find(|extension| extension.extn_id == ExtendedKeyUsage::OID)?;
    let usages = ExtendedKeyUsage::from_der(extension.extn_value.as_bytes()).ok()?;
    Some(usages.0.contains(&ATTESTATION_KEY))
}

/// Whether a SubjectPublicKeyInfo in DER holds `key`; `None` for one that is malformed.
fn certifies(info: &[u8], key: &PublicKey) -> Option<bool> {
    let info = SubjectPublicKeyInfoRef::from_der(info).ok()?;
    let bytes = info.subject_public_key.as_bytes()?;
    match key {
        PublicKey::EcdsaP256 { x, y } => {
            let curve = info
                .algorithm
                .parameters
                .and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok())?;
            Some(
                info.algorithm.oid == EC_KEY
                    && curve == P256
                    && bytes == [&[4], x.as_slice(), y].concat(),
            )
        }
        PublicKey::RsaSsa { modulus, exponent } | PublicKey::RsaPss { modulus, exponent } => {
            let mut reader = SliceReader::new(bytes).ok()?;
            let (n, e) = reader
                .sequence(|reader| -> x509_cert::der::Result<_> {
                    Ok((UintRef::decode(reader)?, UintRef::decode(reader)?))
                })
                .ok()?;
            let expected = exponent.to_be_bytes();
            let start = expected.iter().take_while(|byte| **byte == 0).count();
            Some(
                info.algorithm.oid == RSA
                    && reader.is_finished()
                    && n.as_bytes() == modulus
                    && e.as_bytes() == &expected[start..],
            )
        }
        _ => Some(false),
    }
}
