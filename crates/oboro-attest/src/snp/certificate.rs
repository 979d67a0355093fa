//! AMD's certificates and revocation lists.

use super::Product;
use super::tcb::Tcb;
use crate::AttestError;
use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::{BitString, Ia5StringRef, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Reader, SliceReader, oid::AssociatedOid};
use x509_cert::ext::pkix::name::{GeneralName, GeneralNames};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};
use x509_cert::spki::AlgorithmIdentifierOwned;

const RSASSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

const CERTIFICATE_ISSUER: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.29");

const PRODUCT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.2");
const HARDWARE_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.4");
const PROVIDER_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.3704.1.5");
const VERSIONS: &str = "1.3.6.1.4.1.3704.1.3.";

/// Most bytes of one certificate; AMD's have below 1,700.
const MAX_CERTIFICATE_BYTES: usize = 16 << 10;

fn unusable(subject: &str, what: &str) -> AttestError {
    AttestError::Endorsement(format!("{subject} {what}"))
}

/// A parsed certificate with the bytes its signature covers.
#[derive(Clone)]
pub(crate) struct Certificate {
    parsed: x509_cert::Certificate,
    signed: Vec<u8>,
    /// Its common name, for messages.
    pub(crate) name: String,
}

impl Certificate {
    /// Reads one certificate in DER and nothing after it.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, AttestError> {
        let malformed = || unusable("a certificate", "is malformed");
        if der.len() > MAX_CERTIFICATE_BYTES {
            return Err(malformed());
        }
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| malformed())?;
        let signed = signed_part(der).ok_or_else(malformed)?;
        if parsed.signature_algorithm() != parsed.tbs_certificate().signature() {
            return Err(malformed());
        }
        let extensions = parsed.tbs_certificate().extensions();
        let mut seen: Vec<_> = extensions
            .into_iter()
            .flatten()
            .map(|e| e.extn_id)
            .collect();
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        if seen.len() != count {
            return Err(malformed());
        }
        let name = common_name(parsed.tbs_certificate().subject());
        Ok(Self {
            parsed,
            signed,
            name,
        })
    }

    fn extension(&self, oid: ObjectIdentifier) -> Option<&[u8]> {
        self.parsed
            .tbs_certificate()
            .extensions()?
            .iter()
            .find(|extension| extension.extn_id == oid)
            .map(|extension| extension.extn_value.as_bytes())
    }

    /// Whether `authority`'s subject is this certificate's issuer.
    pub(crate) fn names_as_issuer(&self, authority: &Self) -> bool {
        self.parsed.tbs_certificate().issuer() == authority.parsed.tbs_certificate().subject()
    }

    /// Checks that `authority` signed this certificate.
    pub(crate) fn check_issued_by(&self, authority: &Self) -> Result<(), AttestError> {
        if !self.names_as_issuer(authority) {
            return Err(unusable(&self.name, "names another issuer"));
        }
        authority
            .check_signature(
                self.parsed.signature_algorithm(),
                &self.signed,
                self.parsed.signature(),
            )
            .map_err(|()| {
                unusable(
                    &self.name,
                    &format!("does not carry the signature of {}", authority.name),
                )
            })
    }

    fn check_signature(
        &self,
        algorithm: &AlgorithmIdentifierOwned,
        signed: &[u8],
        signature: &BitString,
    ) -> Result<(), ()> {
        let key = self.parsed.tbs_certificate().subject_public_key_info();
        if algorithm.oid != RSASSA_PSS || key.algorithm.oid != RSA {
            return Err(());
        }
        let (key, signature) = (
            key.subject_public_key.as_bytes().ok_or(())?,
            signature.as_bytes().ok_or(())?,
        );
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, key)
            .verify(signed, signature)
            .map_err(|_| ())
    }

    /// Checks that `now` lies within the certificate's dates.
    pub(crate) fn check_dates(&self, now: u64) -> Result<(), AttestError> {
        let validity = self.parsed.tbs_certificate().validity();
        if now < validity.not_before.to_unix_duration().as_secs() {
            return Err(unusable(&self.name, "is not valid yet"));
        }
        if now > validity.not_after.to_unix_duration().as_secs() {
            return Err(unusable(&self.name, "has expired"));
        }
        Ok(())
    }

    /// Checks that it is an authority's.
    pub(crate) fn check_authority(&self) -> Result<(), AttestError> {
        let no_authority = || unusable(&self.name, "is not the certificate of an authority");
        let constraints = self
            .extension(BasicConstraints::OID)
            .and_then(|value| BasicConstraints::from_der(value).ok());
        let usage = self
            .extension(KeyUsage::OID)
            .and_then(|value| KeyUsage::from_der(value).ok());
        if !constraints.is_some_and(|constraints| constraints.ca)
            || !usage.is_some_and(|usage| usage.0.contains(KeyUsages::KeyCertSign))
        {
            return Err(no_authority());
        }
        self.check_critical(&[BasicConstraints::OID, KeyUsage::OID])
    }

    /// Refuses critical extensions other than those `known`.
    pub(crate) fn check_critical(&self, known: &[ObjectIdentifier]) -> Result<(), AttestError> {
        let unknown = self
            .parsed
            .tbs_certificate()
            .extensions()
            .into_iter()
            .flatten()
            .any(|extension| extension.critical && !known.contains(&extension.extn_id));
        if unknown {
            return Err(unusable(
                &self.name,
                "has a critical extension of unknown meaning",
            ));
        }
        Ok(())
    }

    /// Its P-384 public key as an uncompressed point.
    pub(crate) fn p384_key(&self) -> Result<&[u8], AttestError> {
        let key = self.parsed.tbs_certificate().subject_public_key_info();
        let curve = key
            .algorithm
            .parameters
            .as_ref()
            .and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
        key.subject_public_key
            .as_bytes()
            .filter(|point| key.algorithm.oid == EC_KEY && curve == Some(P384) && point.len() == 97)
            .ok_or_else(|| unusable(&self.name, "has no P-384 key"))
    }

    /// The product name in AMD's extension, such as `Milan-B0`.
    pub(crate) fn product_name(&self) -> Result<String, AttestError> {
        self.text(PRODUCT_NAME)
            .ok_or_else(|| unusable(&self.name, "names no product"))
    }

    /// The chip that a VCEK belongs to, padded with zeros to 64 bytes.
    pub(crate) fn hardware_id(&self, product: Product) -> Result<[u8; 64], AttestError> {
        let length = match product {
            Product::Milan | Product::Genoa => 64,
            Product::Turin => 8,
        };
        let mut id = [0; 64];
        let value = self
            .extension(HARDWARE_ID)
            .filter(|value| value.len() == length)
            .ok_or_else(|| unusable(&self.name, "names no chip"))?;
        id[..length].copy_from_slice(value);
        Ok(id)
    }

    /// The cloud provider that a VLEK belongs to; `None` in a VCEK.
    pub(crate) fn provider_id(&self) -> Option<String> {
        self.text(PROVIDER_ID)
    }

    fn text(&self, oid: ObjectIdentifier) -> Option<String> {
        let text = Ia5StringRef::from_der(self.extension(oid)?).ok()?;
        Some(text.as_str().to_owned())
    }

    /// The TCB version in AMD's extensions.
    pub(crate) fn tcb(&self, product: Product) -> Result<Tcb, AttestError> {
        let version = |number: u8| -> Result<u8, AttestError> {
            let oid = ObjectIdentifier::new(&format!("{VERSIONS}{number}"))
                .map_err(|_| unusable(&self.name, "states no TCB version"))?;
            self.extension(oid)
                .and_then(|value| u8::from_der(value).ok())
                .ok_or_else(|| unusable(&self.name, "states no TCB version"))
        };
        Ok(Tcb {
            fmc: match product {
                Product::Milan | Product::Genoa => 0,
                Product::Turin => version(9)?,
            },
            bootloader: version(1)?,
            tee: version(2)?,
            snp: version(3)?,
            microcode: version(8)?,
        })
    }
}

/// The first element of a signed ASN.1 structure, as it was received.
fn signed_part(der: &[u8]) -> Option<Vec<u8>> {
    let mut reader = SliceReader::new(der).ok()?;
    let signed = reader
        .sequence(|inner| {
            let signed = inner.tlv_bytes()?;
            inner.tlv_bytes()?;
            inner.tlv_bytes()?;
            Ok::<_, x509_cert::der::Error>(signed.to_vec())
        })
        .ok()?;
    reader.is_finished().then_some(signed)
}

fn common_name(name: &x509_cert::name::Name) -> String {
    name.common_name().ok().flatten().map_or_else(
        || "a certificate without name".to_owned(),
        |name| name.value().into_owned(),
    )
}

/// A parsed revocation list with the bytes its signature covers.
pub(crate) struct RevocationList {
    parsed: CertificateList,
    signed: Vec<u8>,
}

impl RevocationList {
    /// Reads one list in DER and nothing after it.
    pub(crate) fn parse(der: &[u8]) -> Result<Self, AttestError> {
        let malformed = || unusable("a revocation list", "is malformed");
        let parsed = CertificateList::from_der(der).map_err(|_| malformed())?;
        let signed = signed_part(der).ok_or_else(malformed)?;
        let list = &parsed.tbs_cert_list;
        if parsed.signature_algorithm != list.signature
            || list
                .crl_extensions
                .iter()
                .flatten()
                .any(|extension| extension.critical)
        {
            return Err(malformed());
        }
        Ok(Self { parsed, signed })
    }

    /// Whether `authority` is the issuer it names.
    pub(crate) fn names_as_issuer(&self, authority: &Certificate) -> bool {
        self.parsed.tbs_cert_list.issuer == *authority.parsed.tbs_certificate().subject()
    }

    /// Checks that `authority` signed it and that it is current.
    pub(crate) fn check(&self, authority: &Certificate, now: u64) -> Result<(), AttestError> {
        let of = format!("the revocation list of {}", authority.name);
        authority
            .check_signature(
                &self.parsed.signature_algorithm,
                &self.signed,
                &self.parsed.signature,
            )
            .map_err(|()| unusable(&of, "does not carry its signature"))?;
        let list = &self.parsed.tbs_cert_list;
        if now < list.this_update.to_unix_duration().as_secs() {
            return Err(unusable(&of, "is not valid yet"));
        }
        match &list.next_update {
            Some(next) if now <= next.to_unix_duration().as_secs() => Ok(()),
            Some(_) => Err(unusable(&of, "has expired; fetch the current one")),
            None => Err(unusable(&of, "does not say until when it holds")),
        }
    }

    /// Whether it revokes `certificate`.
    ///
    /// An entry is about a certificate of the list's issuer unless it (or, as RFC 5280
    /// has it, one before it) names another issuer.
    pub(crate) fn revokes(&self, certificate: &Certificate) -> Result<bool, AttestError> {
        let list = &self.parsed.tbs_cert_list;
        let subject = certificate.parsed.tbs_certificate();
        let wanted = subject.issuer().to_der().ok();
        let mut issuer = list.issuer.to_der().ok();
        for entry in list.revoked_certificates.iter().flatten() {
            for extension in entry.crl_entry_extensions.iter().flatten() {
                if extension.extn_id == CERTIFICATE_ISSUER {
                    let names = GeneralNames::from_der(extension.extn_value.as_bytes())
                        .map_err(|_| unusable("a revocation list", "is malformed"))?;
                    issuer = names.iter().find_map(|name| match name {
                        GeneralName::DirectoryName(name) => name.to_der().ok(),
                        _ => None,
                    });
                } else if extension.critical {
                    return Err(unusable(
                        "a revocation list",
                        "has a critical extension of unknown meaning",
                    ));
                }
            }
            if entry.serial_number == *subject.serial_number() && issuer == wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
