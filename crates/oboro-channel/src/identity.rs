//! A party's key and certificate.

use crate::certificate::{Facts, public_key_of};
use crate::pem_file::{self, encode as pem};
use crate::{ChannelError, Clock, Grant, Role, Serial, certificate};
use rcgen::PublicKeyData;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use zeroize::Zeroizing;

/// A party's private key and certificate.
#[derive(Clone)]
pub struct Identity(Arc<Parts>);

struct Parts {
    facts: Facts,
    certificate: CertificateDer<'static>,
    /// PKCS #8.
    key: Zeroizing<Vec<u8>>,
}

impl Identity {
    pub(crate) fn new(
        certificate: CertificateDer<'static>,
        key: Zeroizing<Vec<u8>>,
    ) -> Result<Self, ChannelError> {
        let identity = Self(Arc::new(Parts {
            facts: Facts::of(&certificate)?,
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
        self.0.facts.role
    }

    /// What the certificate allows.
    #[must_use]
    pub fn grant(&self) -> Grant {
        self.0.facts.grant
    }

    /// The certificate's serial number, by which the owner revokes it.
    #[must_use]
    pub fn serial(&self) -> Serial {
        self.0.facts.serial
    }

    /// When the certificate expires.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.0.facts.not_after
    }

    /// The name that the owner gave its holder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.facts.name
    }

    /// SHA-256 of the public key (the DER of its SubjectPublicKeyInfo): the channel key
    /// that attestation evidence names.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.0.facts.spki_sha256
    }

    pub(crate) fn check_date(&self, clock: &Clock) -> Result<(), ChannelError> {
        if clock.now() > self.not_after() {
            return Err(ChannelError::Expired {
                role: self.role(),
                date: certificate::date(self.not_after()),
            });
        }
        Ok(())
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.0.certificate.clone()]
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.key.to_vec()).into()
    }
}

pub(crate) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", certificate).to_string()
}
