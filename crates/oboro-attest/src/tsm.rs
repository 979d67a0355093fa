//! Linux's interface to the platform's signed reports: `configfs-tsm`, since Linux 6.7.
//!
//! A request is a folder below `/sys/kernel/config/tsm/report`. Its attributes: `inblob`
//! takes the caller's data, `outblob` gives the signed report and `auxblob` what vouches
//! for its key, `provider` names the platform, and `generation` counts writes, so that a
//! reader notices that somebody else wrote to its request.

use crate::{AttestError, MAX_ENDORSEMENT_BYTES, MAX_STATEMENT_BYTES, Platform};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Where Linux keeps the requests.
pub const REPORT_FOLDER: &str = "/sys/kernel/config/tsm/report";

/// Attempts before it is given up that another program interferes.
const ATTEMPTS: usize = 4;

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// A report and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TsmReport {
    /// What the platform signed.
    pub report: Vec<u8>,
    /// Certificates, in the platform's own format; empty where it gives none.
    pub auxiliary: Vec<u8>,
}

/// The interface, for one platform.
#[derive(Clone, Debug)]
pub struct Tsm {
    folder: PathBuf,
    platform: Platform,
    provider: &'static str,
}

impl Tsm {
    /// The interface of a guest of AMD SEV-SNP, with its requests in `folder`, on a
    /// running system [`REPORT_FOLDER`].
    #[must_use]
    pub fn snp(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            platform: Platform::SevSnp,
            provider: "sev_guest",
        }
    }

    /// The interface of an Intel TDX domain.
    #[must_use]
    pub fn tdx(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            platform: Platform::Tdx,
            provider: "tdx_guest",
        }
    }

    /// Checks that the platform is there.
    ///
    /// # Errors
    /// [`AttestError::Platform`] with the reason where it is not.
    pub fn check(&self) -> Result<(), AttestError> {
        let request = self.request()?;
        self.check_provider(&request.0)
    }

    /// A report over `data`. Blocks until the platform has signed it.
    ///
    /// # Errors
    /// [`AttestError::Platform`] where the platform is another or none, fails, or where
    /// another program keeps writing to the request.
    pub fn report(&self, data: &[u8; 64]) -> Result<TsmReport, AttestError> {
        let request = self.request()?;
        self.report_in(&request.0, data)
    }

    fn refuse(&self, reason: impl Into<String>) -> AttestError {
        AttestError::Platform {
            platform: self.platform,
            reason: reason.into(),
        }
    }

    fn request(&self) -> Result<Request, AttestError> {
        for _ in 0..ATTEMPTS {
            let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
            let path = self
                .folder
                .join(format!("oboro-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Request(path)),
                // Left over by a program that had this process's number before.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(self.refuse(self.why_not(&error))),
            }
        }
        Err(self.refuse("requests of this process's number are left over; remove them"))
    }

    fn why_not(&self, error: &io::Error) -> String {
        let folder = self.folder.display();
        match error.kind() {
            ErrorKind::NotFound => format!(
                "there is no folder {folder}; it needs Linux 6.7 or newer in a guest of this platform, with configfs mounted"
            ),
            ErrorKind::PermissionDenied => {
                format!("no permission to make a request in {folder}; start as root")
            }
            // What configfs answers where no driver has registered.
            _ => format!("{folder} takes no request, so no such platform is here ({error})"),
        }
    }

    fn check_provider(&self, request: &Path) -> Result<(), AttestError> {
        let provider = read(request, "provider", 64).map_err(|error| self.failed(&error))?;
        let provider = provider.trim_ascii_end();
        if provider != self.provider.as_bytes() {
            return Err(self.refuse(format!(
                "reports here come from '{}', not from '{}'",
                String::from_utf8_lossy(provider).escape_default(),
                self.provider
            )));
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> AttestError {
        self.refuse(format!("a request failed: {error}"))
    }

    fn report_in(&self, request: &Path, data: &[u8; 64]) -> Result<TsmReport, AttestError> {
        self.check_provider(request)?;
        let io = |error: io::Error| self.failed(&error);
        for _ in 0..ATTEMPTS {
            let before = generation(request).map_err(io)?;
            fs::write(request.join("inblob"), data).map_err(io)?;
            let report = match read(request, "outblob", MAX_STATEMENT_BYTES) {
                Ok(report) => report,
                // Somebody else's write came between ours and the read.
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(io(error)),
            };
            // Platforms that give nothing answer with an error or have no such attribute.
            let auxiliary = read(request, "auxblob", MAX_ENDORSEMENT_BYTES).unwrap_or_default();
            if generation(request).map_err(io)? == before.wrapping_add(1) {
                if report.is_empty() {
                    return Err(self.refuse("the platform answered with an empty report"));
                }
                return Ok(TsmReport { report, auxiliary });
            }
        }
        Err(self.refuse("another program keeps writing to this one's request"))
    }
}

fn generation(request: &Path) -> io::Result<u64> {
    let text = read(request, "generation", 32)?;
    std::str::from_utf8(&text)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the generation is no number"))
}

fn read(request: &Path, attribute: &str, limit: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(request.join(attribute))?
        .take(limit as u64 + 1)
        .read_to_end(&mut content)?;
    if content.len() > limit {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!("{attribute} has more than {limit} bytes"),
        ));
    }
    Ok(content)
}

/// A request's folder, which goes away with it.
struct Request(PathBuf);

impl Drop for Request {
    fn drop(&mut self) {
        // configfs removes the attributes itself. A folder that stays behind is only
        // untidy: the next request takes another name.
        let _ = fs::remove_dir(&self.0);
    }
}

#[cfg(test)]
#[path = "tsm_tests.rs"]
mod tests;
