//! The owner's certificate authority.

use crate::certificate::public_key_of;
use crate::identity::{self, Identity};
use crate::{Access, ChannelError, Grant, Role, Serial, Trust, pem_file};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, PublicKeyData, RevokedCertParams,
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
    trust: Trust,
}

/// Longest name of a client; RFC 5280 allows no more in a common name.
const MAX_NAME: usize = 64;

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
            trust: Trust::from_certificate(certificate.clone())?,
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
        if public_key_of(&certificate)?.as_ref() != key.subject_public_key_info() {
            return Err(ChannelError::KeyMismatch);
        }
        Ok(Self {
            issuer: Issuer::new(authority_params(), key),
            trust: Trust::from_certificate(certificate.clone())?,
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
        self.trust.clone()
    }

    /// An identity for `role`, valid from now on for `validity`. That of a client is a
    /// reader of any index; [`issue_client`](Self::issue_client) makes others.
    ///
    /// # Errors
    /// [`ChannelError::Issue`] when it cannot be made.
    pub fn issue(
        &self,
        role: Role,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Identity, ChannelError> {
        if role == Role::Client {
            return self.issue_client(Grant::any(Access::Reader), "client", now, validity);
        }
        let names = vec![role.dns_name().to_owned()];
        self.sign(names, &format!("Oboro {role}"), now, validity)
    }

    /// An identity for a client who may do what `grant` says. `name` is for people: it
    /// tells the owner's clients apart.
    ///
    /// # Errors
    /// [`ChannelError::Grant`] for another access than reader or writer,
    /// [`ChannelError::Name`], or [`ChannelError::Issue`] when it cannot be made.
    pub fn issue_client(
        &self,
        grant: Grant,
        name: &str,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Identity, ChannelError> {
        if !matches!(grant.access, Access::Reader | Access::Writer) {
            return Err(ChannelError::Grant(grant.access));
        }
        let length = name.chars().count();
        if !(1..=MAX_NAME).contains(&length) || name.chars().any(char::is_control) {
            return Err(ChannelError::Name);
        }
        let names = vec![Role::Client.dns_name().to_owned(), grant.dns_name()];
        self.sign(names, name, now, validity)
    }

    fn sign(
        &self,
        dns_names: Vec<String>,
        common_name: &str,
        now: SystemTime,
        validity: Duration,
    ) -> Result<Identity, ChannelError> {
        let key = KeyPair::generate().map_err(issue)?;
        let mut params = CertificateParams::new(dns_names).map_err(issue)?;
        params.distinguished_name = name(common_name);
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

    /// The list of revoked certificates, as PEM text for
    /// [`Trust::with_revocation_file`]. Each list replaces the one before: it names all
    /// revoked certificates, and its `number` is larger.
    ///
    /// # Errors
    /// [`ChannelError::Issue`] when it cannot be made, as for a `next_update` that is not
    /// after `now`.
    ///
    /// # Security
    /// From `next_update` on, parties that use the list refuse everybody until they get a
    /// newer one. How far it is ahead is how long somebody who controls a party's disk
    /// can keep a revocation from it.
    pub fn revocation_list(
        &self,
        serials: &[Serial],
        number: u64,
        now: SystemTime,
        next_update: SystemTime,
    ) -> Result<String, ChannelError> {
        let revoked = |serial: &Serial| RevokedCertParams {
            serial_number: serial.as_bytes().to_vec().into(),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: next_update.into(),
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).map_err(issue)?;
        Ok(pem_file::encode("X509 CRL", list.der()).to_string())
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Oboro owner authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
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
