//! Attestation documents: decoding, certificates, signature.

use crate::{AttestError, MAX_STATEMENT_BYTES};
use coset::cbor::Value;
use coset::{CborSerializable, CoseSign1, Header, TaggedCborSerializable, iana};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::collections::BTreeMap;
use std::time::Duration;
use webpki::aws_lc_rs::ECDSA_P384_SHA384;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::KeyUsage;

/// Bytes of a PCR: SHA-384, the only digest there is.
pub(super) const PCR_BYTES: usize = 48;

/// The limits that AWS documents.
const MAX_PCRS: usize = 32;
const MAX_CERTIFICATE: usize = 1024;
const MAX_TEXT: usize = 1024;
/// Chains have four; the path builder takes at most seven.
const MAX_CHAIN: usize = 7;

const MALFORMED: AttestError = AttestError::Malformed("it is no Nitro document");

/// The first byte of COSE_Sign1 with its tag, 18.
const TAG: u8 = 0xd2;

/// What an attestation document says, its signature and certificates verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The Nitro Secure Module that signed it.
    pub module_id: String,
    /// When, in milliseconds since 1970.
    pub timestamp: u64,
    /// Platform configuration registers by number, 48 bytes each.
    pub pcrs: BTreeMap<u8, [u8; 48]>,
    /// A public key of the enclave's.
    pub public_key: Option<Vec<u8>>,
    /// The enclave's data.
    pub user_data: Option<Vec<u8>>,
    /// A nonce.
    pub nonce: Option<Vec<u8>>,
}

impl Document {
    /// Decodes a document and verifies its signature and its certificates up to `root`
    /// (DER, see [`AWS_ROOT`](super::AWS_ROOT)) at the time `now`, in seconds since 1970.
    ///
    /// # Security
    /// Says that a Nitro Secure Module signed it, not that its content is acceptable; for
    /// that there is [`NitroVerifier`](super::NitroVerifier).
    ///
    /// # Errors
    /// [`AttestError::Malformed`], [`AttestError::Endorsement`] for the certificates,
    /// [`AttestError::Signature`].
    pub fn verify(bytes: &[u8], root: &[u8], now: u64) -> Result<Self, AttestError> {
        let signed = envelope(bytes)?;
        let payload = signed.payload.as_deref().ok_or(MALFORMED)?;
        let Content {
            document,
            certificate,
            bundle,
        } = content(payload)?;
        check_chain(&certificate, &bundle, root, now)?;
        let certificate = CertificateDer::from_slice(&certificate);
        let key = webpki::EndEntityCert::try_from(&certificate)
            .map_err(|error| refused(&error.to_string()))?;
        signed.verify_signature(b"", |signature, data| {
            const WRONG: AttestError = AttestError::Signature("the document's own");
            let signature = der_signature(signature).ok_or(WRONG)?;
            key.verify_signature(ECDSA_P384_SHA384, data, &signature)
                .map_err(|_| WRONG)
        })?;
        Ok(document)
    }

    /// A register, where the document has it.
    #[must_use]
    pub fn pcr(&self, number: u8) -> Option<&[u8; 48]> {
        self.pcrs.get(&number)
    }
}

/// The COSE object, in its only encoding, with or without its tag.
fn envelope(bytes: &[u8]) -> Result<CoseSign1, AttestError> {
    if bytes.len() > MAX_STATEMENT_BYTES {
        return Err(AttestError::Malformed("the document is too long"));
    }
    let tagged = bytes.first() == Some(&TAG);
    let signed = if tagged {
        CoseSign1::from_tagged_slice(bytes)
    } else {
        CoseSign1::from_slice(bytes)
    }
    .map_err(|_| MALFORMED)?;
    let again = if tagged {
        signed.clone().to_tagged_vec()
    } else {
        signed.clone().to_vec()
    };
    if again.ok().as_deref() != Some(bytes) {
        return Err(AttestError::Malformed(
            "the document is not encoded as it should be",
        ));
    }
    let algorithm = Header {
        alg: Some(coset::RegisteredLabelWithPrivate::Assigned(
            iana::Algorithm::ES384,
        )),
        ..Header::default()
    };
    if signed.protected.header != algorithm || !signed.unprotected.is_empty() {
        return Err(AttestError::Malformed(
            "the document is signed with another algorithm than ES384, or has headers that nobody knows",
        ));
    }
    Ok(signed)
}

/// A payload, nothing of it verified yet.
struct Content {
    document: Document,
    /// The module's certificate.
    certificate: Vec<u8>,
    /// Certificates of authorities, the root first.
    bundle: Vec<Vec<u8>>,
}

fn content(payload: &[u8]) -> Result<Content, AttestError> {
    let Value::Map(entries) = Value::from_slice(payload).map_err(|_| MALFORMED)? else {
        return Err(MALFORMED);
    };
    let mut fields = BTreeMap::new();
    for (key, value) in entries {
        let key = key.into_text().map_err(|_| MALFORMED)?;
        if fields.insert(key, value).is_some() {
            return Err(AttestError::Malformed("the document repeats a key"));
        }
    }
    let mut take = |key: &str| fields.remove(key);
    let mut required = |key: &str| take(key).ok_or(MALFORMED);

    let module_id = required("module_id")?.into_text().map_err(|_| MALFORMED)?;
    if module_id.is_empty()
        || module_id.len() > MAX_TEXT
        || !module_id.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(MALFORMED);
    }
    if required("digest")?.as_text() != Some("SHA384") {
        return Err(AttestError::Malformed(
            "the document's digest is not SHA384",
        ));
    }
    let timestamp = required("timestamp")?
        .into_integer()
        .ok()
        .and_then(|number| u64::try_from(number).ok())
        .ok_or(MALFORMED)?;
    let pcrs = registers(required("pcrs")?)?;
    let certificate = certificate(required("certificate")?)?;
    let bundle = required("cabundle")?.into_array().map_err(|_| MALFORMED)?;
    if bundle.is_empty() || bundle.len() > MAX_CHAIN {
        return Err(AttestError::Malformed(
            "the document's certificates are too many or none",
        ));
    }
    let bundle = bundle
        .into_iter()
        .map(self::certificate)
        .collect::<Result<_, _>>()?;
    let document = Document {
        module_id,
        timestamp,
        pcrs,
        public_key: optional(take("public_key"))?,
        user_data: optional(take("user_data"))?,
        nonce: optional(take("nonce"))?,
    };
    if !fields.is_empty() {
        return Err(AttestError::Malformed(
            "the document has a key that nobody knows",
        ));
    }
    Ok(Content {
        document,
        certificate,
        bundle,
    })
}

fn registers(value: Value) -> Result<BTreeMap<u8, [u8; PCR_BYTES]>, AttestError> {
    let entries = value.into_map().map_err(|_| MALFORMED)?;
    if entries.is_empty() || entries.len() > MAX_PCRS {
        return Err(MALFORMED);
    }
    let mut pcrs = BTreeMap::new();
    for (number, value) in entries {
        let number = number
            .into_integer()
            .ok()
            .and_then(|number| u8::try_from(number).ok())
            .filter(|&number| usize::from(number) < MAX_PCRS)
            .ok_or(MALFORMED)?;
        let value = value
            .into_bytes()
            .ok()
            .and_then(|value| value.try_into().ok())
            .ok_or(AttestError::Malformed(
                "a PCR has another length than 48 bytes",
            ))?;
        if pcrs.insert(number, value).is_some() {
            return Err(AttestError::Malformed("the document repeats a PCR"));
        }
    }
    Ok(pcrs)
}

fn certificate(value: Value) -> Result<Vec<u8>, AttestError> {
    value
        .into_bytes()
        .ok()
        .filter(|bytes| !bytes.is_empty() && bytes.len() <= MAX_CERTIFICATE)
        .ok_or(MALFORMED)
}

fn optional(value: Option<Value>) -> Result<Option<Vec<u8>>, AttestError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bytes(bytes)) if bytes.len() <= MAX_TEXT => Ok(Some(bytes)),
        Some(_) => Err(MALFORMED),
    }
}

/// Root first in the bundle, every certificate of it on the path from the leaf, all of
/// them valid now and meant for what they do.
fn check_chain(
    certificate: &[u8],
    bundle: &[Vec<u8>],
    root: &[u8],
    now: u64,
) -> Result<(), AttestError> {
    let [first, intermediates @ ..] = bundle else {
        return Err(MALFORMED);
    };
    if first != root {
        return Err(refused(
            "they do not begin with the root this program trusts",
        ));
    }
    let usage = |der: &[u8]| -> Result<KeyUsage, AttestError> {
        x509_cert::Certificate::from_der(der)
            .ok()
            .and_then(|parsed| parsed.tbs_certificate().get_extension::<KeyUsage>().ok()?)
            .map(|(_, usage)| usage)
            .ok_or_else(|| refused("one of them does not say what it is for"))
    };
    if !usage(certificate)?.digital_signature() {
        return Err(refused("the module's may not sign"));
    }
    for authority in bundle {
        if !usage(authority)?.key_cert_sign() {
            return Err(refused("an authority's may not sign certificates"));
        }
    }
    let root = CertificateDer::from_slice(root);
    let anchors =
        [webpki::anchor_from_trusted_cert(&root).map_err(|error| refused(&error.to_string()))?];
    let intermediates: Vec<CertificateDer<'_>> = intermediates
        .iter()
        .map(|der| CertificateDer::from_slice(der))
        .collect();
    let leaf = CertificateDer::from_slice(certificate);
    let leaf =
        webpki::EndEntityCert::try_from(&leaf).map_err(|error| refused(&error.to_string()))?;
    let path = leaf
        .verify_for_usage(
            &[ECDSA_P384_SHA384],
            &anchors,
            &intermediates,
            UnixTime::since_unix_epoch(Duration::from_secs(now)),
            // Asked of certificates that name extended usages; AWS's name none.
            webpki::KeyUsage::client_auth(),
            None,
            None,
        )
        .map_err(|error| refused(&error.to_string()))?;
    if path.intermediate_certificates().count() != intermediates.len() {
        return Err(refused("one of them is not part of the chain"));
    }
    // A path from the leaf says nothing about the dates of the root itself.
    let validity =
        x509_cert::Certificate::from_der(&root).map_err(|_| refused("the root does not decode"))?;
    let validity = validity.tbs_certificate().validity();
    let now = Duration::from_secs(now);
    if now < validity.not_before.to_unix_duration() || now > validity.not_after.to_unix_duration() {
        return Err(refused("the root is not valid at this time"));
    }
    Ok(())
}

fn refused(what: &str) -> AttestError {
    AttestError::Endorsement(format!("the document's certificates: {what}"))
}

/// (r, s), 48 bytes each, as the DER that certificate libraries expect.
fn der_signature(signature: &[u8]) -> Option<Vec<u8>> {
    if signature.len() != 2 * PCR_BYTES {
        return None;
    }
    let (r, s) = signature.split_at(PCR_BYTES);
    vec![UintRef::new(r).ok()?, UintRef::new(s).ok()?]
        .to_der()
        .ok()
}
