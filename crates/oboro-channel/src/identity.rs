//! A party's key and certificate, and the certificate it trusts.

use crate::pem_file::{self, encode as pem};
use crate::{ChannelError, Role};
use rcgen::PublicKeyData;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer,
};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A party's private key and certificate.
#[derive(Clone)]
pub struct Identity(Arc<Parts>);

struct Parts {
    role: Role,
    certificate: CertificateDer<'static>,
    /// PKCS #8.
    key: Zeroizing<Vec<u8>>,
    spki_sha256: [u8; 32],
}

impl Identity {
    pub(crate) fn new(
        certificate: CertificateDer<'static>,
        key: Zeroizing<Vec<u8>>,
    ) -> Result<Self, ChannelError> {
        let identity = Self(Arc::new(Parts {
            role: role_of(&certificate)?,
            spki_sha256: spki_sha256(&certificate)?,
            certificate,
            key,
        }));
        let signer = rcgen::KeyPair::try_from(&PrivatePkcs8KeyDer::from(identity.0.key.as_slice()))
            .map_err(|_| ChannelError::Malformed("private key"))?;
        if public_key_of(&identity.0.certificate)?.as_ref() != signer.subject_public_key_info() {
            return Err(ChannelError::KeyMismatch);
        }
        Ok(identity)
    }

    /// Reads certificate and private key from one PEM text.
    ///
    /// # Errors
    /// [`ChannelError::Malformed`], [`ChannelError::NoRole`], [`ChannelError::KeyMismatch`].
    pub fn from_pem(text: &str) -> Result<Self, ChannelError> {
        let malformed = || ChannelError::Malformed("identity");
        let certificate =
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| malformed())?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| malformed())?;
        Self::new(certificate, Zeroizing::new(key.secret_pkcs8_der().to_vec()))
    }

    /// Certificate and private key as one PEM text.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let certificate = certificate_pem(&self.0.certificate);
        let key = pem("PRIVATE KEY", &self.0.key);
        let mut text = Zeroizing::new(String::with_capacity(certificate.len() + key.len()));
        text.push_str(&certificate);
        text.push_str(&key);
        text
    }

    /// Writes [`to_pem`](Self::to_pem) to a new file of mode 0600.
    ///
    /// # Errors
    /// [`ChannelError::Exists`] or [`ChannelError::File`].
    pub fn create_file(&self, path: &Path) -> Result<(), ChannelError> {
        pem_file::create(path, &self.to_pem(), true)
    }

    /// Reads a file of [`create_file`](Self::create_file).
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), and [`ChannelError::Permissions`] where others can
    /// read the file.
    pub fn read_file(path: &Path) -> Result<Self, ChannelError> {
        Self::from_pem(&pem_file::read(path, true)?)
    }

    /// The role the certificate names.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// SHA-256 of the public key (the DER of its SubjectPublicKeyInfo): the channel key
    /// that attestation evidence names.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.0.spki_sha256
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.0.certificate.clone()]
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.key.to_vec()).into()
    }
}

/// The certificate of the owner's authority.
#[derive(Clone)]
pub struct Trust(CertificateDer<'static>);

impl Trust {
    pub(crate) fn from_certificate(certificate: CertificateDer<'static>) -> Self {
        Self(certificate)
    }

    /// Reads the authority's certificate from PEM text.
    ///
    /// # Errors
    /// [`ChannelError::Malformed`].
    pub fn from_pem(text: &str) -> Result<Self, ChannelError> {
        let malformed = || ChannelError::Malformed("authority certificate");
        let certificate =
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| malformed())?;
        webpki::anchor_from_trusted_cert(&certificate).map_err(|_| malformed())?;
        Ok(Self(certificate))
    }

    /// The certificate as PEM text; it is public.
    #[must_use]
    pub fn to_pem(&self) -> String {
        certificate_pem(&self.0)
    }

    /// Writes [`to_pem`](Self::to_pem) to a new file.
    ///
    /// # Errors
    /// [`ChannelError::Exists`] or [`ChannelError::File`].
    pub fn create_file(&self, path: &Path) -> Result<(), ChannelError> {
        pem_file::create(path, &self.to_pem(), false)
    }

    /// Reads a file of [`create_file`](Self::create_file).
    ///
    /// # Errors
    /// [`ChannelError::File`] or [`ChannelError::Malformed`].
    pub fn read_file(path: &Path) -> Result<Self, ChannelError> {
        Self::from_pem(&pem_file::read(path, false)?)
    }

    pub(crate) fn roots(&self) -> Result<Arc<rustls::RootCertStore>, ChannelError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.clone())?;
        Ok(Arc::new(roots))
    }
}

/// The one role a certificate names.
pub(crate) fn role_of(certificate: &CertificateDer<'_>) -> Result<Role, ChannelError> {
    let parsed = parse(certificate)?;
    let mut names = parsed.valid_dns_names();
    match (names.next(), names.next()) {
        (Some(name), None) => Role::from_dns_name(name).ok_or(ChannelError::NoRole),
        _ => Err(ChannelError::NoRole),
    }
}

pub(crate) fn public_key_of(
    certificate: &CertificateDer<'_>,
) -> Result<SubjectPublicKeyInfoDer<'static>, ChannelError> {
    Ok(parse(certificate)?.subject_public_key_info())
}

pub(crate) fn spki_sha256(certificate: &CertificateDer<'_>) -> Result<[u8; 32], ChannelError> {
    Ok(Sha256::digest(public_key_of(certificate)?).into())
}

fn parse<'a>(
    certificate: &'a CertificateDer<'_>,
) -> Result<webpki::EndEntityCert<'a>, ChannelError> {
    webpki::EndEntityCert::try_from(certificate).map_err(|_| ChannelError::Malformed("certificate"))
}

pub(crate) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", certificate).to_string()
}
