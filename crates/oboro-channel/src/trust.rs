//! Whom a party trusts: the owner's authority, less what it has revoked.

use crate::certificate::date;
use crate::revocations::RevocationList;
use crate::tls::provider;
use crate::{ChannelError, Serial, pem_file};
use rustls::client::WebPkiServerVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// The certificate of the owner's authority, and its revocation list where there is one.
///
/// Clones share the list: a list that one of them picks up holds for all channels made
/// with any of them.
///
/// # Security
/// Without a list nothing is revoked. With one, a certificate on it is refused on both
/// sides, and once the list has expired everybody is: whoever controls the file can
/// withhold a newer list, but not for longer than until the old one's date.
#[derive(Clone)]
pub struct Trust(Arc<Shared>);

struct Shared {
    certificate: CertificateDer<'static>,
    /// Where newer lists appear.
    file: Option<PathBuf>,
    checks: RwLock<Arc<Checks>>,
}

/// What is checked of a certificate right now; replaced as a whole.
pub(crate) struct Checks {
    list: Option<RevocationList>,
    pub(crate) of_clients: Arc<dyn ClientCertVerifier>,
    pub(crate) of_servers: Arc<WebPkiServerVerifier>,
}

/// A revocation list in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocations {
    /// The list's number; every newer list has a larger one.
    pub number: u64,
    /// Revoked certificates.
    pub revoked: usize,
    /// When the list expires.
    pub next_update: SystemTime,
}

impl Trust {
    pub(crate) fn from_certificate(
        certificate: CertificateDer<'static>,
    ) -> Result<Self, ChannelError> {
        webpki::anchor_from_trusted_cert(&certificate)
            .map_err(|_| ChannelError::Malformed("authority certificate"))?;
        Self::with(certificate, None, None)
    }

    fn with(
        certificate: CertificateDer<'static>,
        file: Option<PathBuf>,
        list: Option<RevocationList>,
    ) -> Result<Self, ChannelError> {
        let checks = RwLock::new(Arc::new(Checks::new(&certificate, list)?));
        Ok(Self(Arc::new(Shared {
            certificate,
            file,
            checks,
        })))
    }

    /// Reads the authority's certificate from PEM text.
    ///
    /// # Errors
    /// [`ChannelError::Malformed`].
    pub fn from_pem(text: &str) -> Result<Self, ChannelError> {
        let certificate = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|_| ChannelError::Malformed("authority certificate"))?;
        Self::from_certificate(certificate)
    }

    /// The certificate as PEM text; it is public.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem_file::encode("CERTIFICATE", &self.0.certificate).to_string()
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

    /// The same authority with a list of
    /// [`Authority::revocation_list`](crate::Authority::revocation_list).
    ///
    /// # Errors
    /// [`ChannelError::Malformed`], or [`ChannelError::ForeignRevocations`] for a list of
    /// another authority.
    pub fn with_revocations(&self, pem: &str) -> Result<Self, ChannelError> {
        let list = RevocationList::read(pem, &self.0.certificate)?;
        Self::with(self.0.certificate.clone(), None, Some(list))
    }

    /// The same authority with the list in a file. Channels look at the file again every
    /// few seconds and take over a list of a higher number without a restart.
    ///
    /// # Errors
    /// As [`with_revocations`](Self::with_revocations), and [`ChannelError::File`].
    pub fn with_revocation_file(&self, path: &Path) -> Result<Self, ChannelError> {
        let list = RevocationList::read(&pem_file::read(path, false)?, &self.0.certificate)?;
        Self::with(
            self.0.certificate.clone(),
            Some(path.to_owned()),
            Some(list),
        )
    }

    /// The revocation list in use.
    #[must_use]
    pub fn revocations(&self) -> Option<Revocations> {
        self.checks().list.as_ref().map(RevocationList::figures)
    }

    /// Reads the file of [`with_revocation_file`](Self::with_revocation_file) again;
    /// whether there was a newer list in it.
    ///
    /// # Errors
    /// As [`with_revocation_file`](Self::with_revocation_file), and
    /// [`ChannelError::OlderRevocations`]; the list in use stays in use.
    pub fn refresh(&self) -> Result<bool, ChannelError> {
        let Some(path) = &self.0.file else {
            return Ok(false);
        };
        let text = pem_file::read(path, false)?;
        let same = |checks: &Checks| checks.list.as_ref().is_some_and(|list| list.is_text(&text));
        if same(&self.checks()) {
            return Ok(false);
        }
        let list = RevocationList::read(&text, &self.0.certificate)?;
        let found = list.figures().number;
        // Compared and replaced under one lock: of two that read at the same time, the
        // one with the older list must not come last.
        let mut checks = self
            .0
            .checks
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if same(&checks) {
            return Ok(false);
        }
        if let Some(held) = checks.list.as_ref().map(|held| held.figures().number)
            && held >= found
        {
            return Err(ChannelError::OlderRevocations { found, held });
        }
        *checks = Arc::new(Checks::new(&self.0.certificate, Some(list))?);
        Ok(true)
    }

    pub(crate) fn checks(&self) -> Arc<Checks> {
        self.0
            .checks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Checks {
    fn new(
        certificate: &CertificateDer<'static>,
        list: Option<RevocationList>,
    ) -> Result<Self, ChannelError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone())?;
        let roots = Arc::new(roots);
        let lists = || list.iter().map(|list| list.der().clone());
        let unusable =
            |error: rustls::client::VerifierBuilderError| ChannelError::Issue(error.to_string());
        // Where a list is given, rustls refuses certificates that no list is about.
        let of_clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .with_crls(lists())
            .enforce_revocation_expiration()
            .build()
            .map_err(unusable)?;
        let of_servers = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .with_crls(lists())
            .enforce_revocation_expiration()
            .build()
            .map_err(unusable)?;
        Ok(Self {
            list,
            of_clients,
            of_servers,
        })
    }

    /// Why a connection to the holder of this certificate must end.
    pub(crate) fn objection(
        &self,
        serial: &Serial,
        not_after: SystemTime,
        now: SystemTime,
    ) -> Option<String> {
        if now > not_after {
            return Some(format!("its certificate expired on {}", date(not_after)));
        }
        let list = self.list.as_ref()?;
        if list.revokes(serial) {
            return Some("its certificate is revoked".into());
        }
        let next_update = list.figures().next_update;
        (now >= next_update).then(|| expired_list(&date(next_update)))
    }
}

pub(crate) fn expired_list(date: &str) -> String {
    format!("this side's revocation list expired on {date}; get a new one from the owner")
}
