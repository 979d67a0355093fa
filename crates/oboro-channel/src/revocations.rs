//! The authority's revocation list (RFC 5280, section 5).

use crate::certificate::parse;
use crate::tls::provider;
use crate::trust::Revocations;
use crate::{ChannelError, Serial};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use std::collections::HashSet;
use std::time::SystemTime;
use x509_cert::crl::CertificateList;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::CrlNumber;

/// A list whose signature has been verified.
pub(crate) struct RevocationList {
    text: String,
    der: CertificateRevocationListDer<'static>,
    number: u64,
    next_update: SystemTime,
    revoked: HashSet<Serial>,
}

impl RevocationList {
    /// Reads the one list of a PEM text, signed by `authority`.
    ///
    /// The TLS library verifies the signature again with every certificate; it is
    /// verified here so that a foreign list is an error of its own and not the refusal of
    /// every peer.
    pub(crate) fn read(pem: &str, authority: &CertificateDer<'_>) -> Result<Self, ChannelError> {
        let malformed = || ChannelError::Malformed("revocation list");
        let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| malformed())?;
        let list: CertificateList = CertificateList::from_der(&der).map_err(|_| malformed())?;
        let signed = list.tbs_cert_list.to_der().map_err(|_| malformed())?;
        let signature = list.signature.as_bytes().ok_or_else(malformed)?;
        let authority = parse(authority)?;
        let verified = provider()
            .signature_verification_algorithms
            .all
            .iter()
            .any(|&algorithm| {
                authority
                    .verify_signature(algorithm, &signed, signature)
                    .is_ok()
            });
        if !verified {
            return Err(ChannelError::ForeignRevocations);
        }
        let list = list.tbs_cert_list;
        let number = list
            .crl_extensions
            .iter()
            .flatten()
            .find(|extension| extension.extn_id == <CrlNumber as AssociatedOid>::OID)
            .and_then(|extension| CrlNumber::from_der(extension.extn_value.as_bytes()).ok())
            .and_then(|number| number_of(number.0.as_bytes()))
            .ok_or_else(malformed)?;
        let next_update = list.next_update.ok_or_else(malformed)?.to_system_time();
        let revoked = list
            .revoked_certificates
            .iter()
            .flatten()
            .map(|revoked| Serial::from_bytes(revoked.serial_number.as_bytes()))
            .collect::<Option<_>>()
            .ok_or_else(malformed)?;
        Ok(Self {
            text: pem.to_owned(),
            der,
            number,
            next_update,
            revoked,
        })
    }

    pub(crate) fn figures(&self) -> Revocations {
        Revocations {
            number: self.number,
            revoked: self.revoked.len(),
            next_update: self.next_update,
        }
    }

    pub(crate) fn is_text(&self, text: &str) -> bool {
        self.text == text
    }

    pub(crate) fn der(&self) -> &CertificateRevocationListDer<'static> {
        &self.der
    }

    pub(crate) fn revokes(&self, serial: &Serial) -> bool {
        self.revoked.contains(serial)
    }
}

fn number_of(big_endian: &[u8]) -> Option<u64> {
    big_endian.iter().try_fold(0_u64, |number, &byte| {
        number.checked_mul(256)?.checked_add(u64::from(byte))
    })
}
