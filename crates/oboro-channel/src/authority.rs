//! The owner's certificate authority.

use crate::identity::{self, Identity, Trust};
use crate::{ChannelError, Role, pem_file};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use std::path::Path;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

/// How long the authority's own certificate is valid.
const AUTHORITY_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Clocks of two machines may differ by this much.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Issues identities. Its key decides who may take part; it stays with the owner.
///
/// # Security
/// The certificate can only vouch for names under `oboro.internal`. Key pairs are ECDSA
/// P-256 from the TLS library's own generator, which takes no generator from outside.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl Authority {
    /// A new authority, valid for ten years from `now`.
    ///
    /// # Errors
    /// [`ChannelError::Issue`] when the key pair cannot be made.
    pub fn generate(now: SystemTime) -> Result<Self, ChannelError> {
        let key = KeyPair::generate().map_err(issue)?;
        let mut params = authority_params();
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + AUTHORITY_VALIDITY).into();
        let certificate = params.self_signed(&key).map_err(issue)?.der().clone();
        Ok(Self {
            issuer: Issuer::new(authority_params(), key),
            certificate,
        })
    }

    /// Reads what [`to_pem`](Self::to_pem) wrote.
    ///
    /// # Errors
    /// [`ChannelError::Malformed`] or [`ChannelError::KeyMismatch`].
    pub fn from_pem(text: &str) -> Result<Self, ChannelError> {
        let malformed = || ChannelError::Malformed("authority key");
        let certificate =
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| malformed())?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| malformed())?;
        let key = KeyPair::try_from(&key).map_err(|_| malformed())?;
        if identity::public_key_of(&certificate)?.as_ref() != key.subject_public_key_info() {
            return Err(ChannelError::KeyMismatch);
        }
        Ok(Self {
            issuer: Issuer::new(authority_params(), key),
            certificate,
        })
    }

    /// Key and certificate as PEM text.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(self.issuer.key().serialize_pem());
        let certificate = identity::certificate_pem(&self.certificate);
        let mut text = Zeroizing::new(String::with_capacity(key.len() + certificate.len()));
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

    /// The certificate that everyone needs to check identities.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust::from_certificate(self.certificate.clone())
    }

    /// An identity for `role`, valid from now on for `validity`.
    ///
    /// # Errors
    /// [`ChannelError::Issue`] when it cannot be made.
    pub fn issue(
        &self,
        role: Role,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Identity, ChannelError> {
        let key = KeyPair::generate().map_err(issue)?;
        let mut params = CertificateParams::new(vec![role.dns_name().to_owned()]).map_err(issue)?;
        params.distinguished_name = name(&format!("Oboro {role}"));
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + validity).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(issue)?;
        Identity::new(
            certificate.der().clone(),
            Zeroizing::new(key.serialize_der()),
        )
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Oboro owner authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("oboro.internal".into())],
        excluded_subtrees: Vec::new(),
    });
    params
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn issue(error: rcgen::Error) -> ChannelError {
    ChannelError::Issue(error.to_string())
}
