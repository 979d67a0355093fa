//! The producing side, in a guest of SEV-SNP.

use super::Report;
use super::table::{self, EntryKind};
use crate::tsm::{REPORT_FOLDER, Tsm, TsmReport};
use crate::{AttestError, Attester, Claims, Evidence, Platform, Sealer};
use hkdf::Hkdf;
use sha2::Sha256;
use std::path::PathBuf;
use zeroize::Zeroizing;

fn failed(reason: impl Into<String>) -> AttestError {
    AttestError::Platform {
        platform: Platform::SevSnp,
        reason: reason.into(),
    }
}

/// Evidence from the kernel of a guest, see [`crate::tsm`].
#[derive(Clone, Debug)]
pub struct SnpAttester {
    tsm: Tsm,
}

impl SnpAttester {
    /// An attester of this machine.
    ///
    /// # Errors
    /// [`AttestError::Platform`] where this machine is no such guest.
    pub fn new() -> Result<Self, AttestError> {
        Self::with_folder(REPORT_FOLDER)
    }

    /// An attester with the kernel's requests in another folder.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_folder(folder: impl Into<PathBuf>) -> Result<Self, AttestError> {
        let tsm = Tsm::snp(folder);
        tsm.check()?;
        Ok(Self { tsm })
    }
}

impl Attester for SnpAttester {
    fn platform(&self) -> Platform {
        Platform::SevSnp
    }

    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, AttestError> {
        evidence(claims, &self.tsm.report(&claims.binding())?)
    }
}

fn evidence(claims: &Claims, signed: &TsmReport) -> Result<Vec<u8>, AttestError> {
    if Report::parse(&signed.report)?.report_data != claims.binding() {
        return Err(failed("the platform signed other data than it was given"));
    }
    // The kernel hands out whole pages; the root is of no use to a verifier.
    let mut entries = table::parse(&signed.auxiliary)?;
    entries.retain(|(kind, _)| *kind != EntryKind::Root);
    Evidence {
        platform: Platform::SevSnp,
        claims: *claims,
        statement: signed.report.clone(),
        endorsements: table::encode(&entries)?,
    }
    .encode()
}

/// Keys that the processor derives from its own, the guest's launch measurement and the
/// guest's policy.
pub struct SnpSealer {
    root: Zeroizing<[u8; 32]>,
}

impl SnpSealer {
    /// Asks the processor of this machine.
    ///
    /// # Errors
    /// [`AttestError::Platform`] where this machine is no such guest or the firmware
    /// refuses.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub fn new() -> Result<Self, AttestError> {
        use sev::firmware::guest::{DerivedKey, Firmware, GuestFieldSelect};
        /// Bits of the guest policy and of the measurement.
        const MIXED_IN: u64 = 1 | 1 << 3;
        let mut firmware = Firmware::open()
            .map_err(|error| failed(format!("/dev/sev-guest cannot be opened: {error}")))?;
        let request = DerivedKey::new(false, GuestFieldSelect(MIXED_IN), 0, 0, 0, None);
        let root = firmware
            .get_derived_key(Some(1), request)
            .map_err(|error| failed(format!("the firmware derives no key: {error}")))?;
        Ok(Self {
            root: Zeroizing::new(root),
        })
    }

    /// Asks the processor of this machine.
    ///
    /// # Errors
    /// [`AttestError::Platform`]: such guests are Linux on x86-64.
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    pub fn new() -> Result<Self, AttestError> {
        Err(failed("keys are derived on Linux on x86-64 only"))
    }
}

impl Sealer for SnpSealer {
    fn platform(&self) -> Platform {
        Platform::SevSnp
    }

    fn sealing_key(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, AttestError> {
        let mut key = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(b"oboro sev-snp sealing v1"), &*self.root)
            .expand(purpose.as_bytes(), &mut *key)
            .map_err(|_| failed("a purpose is too long"))?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{AttestedRole, Subject};

    fn claims() -> Claims {
        Claims {
            role: AttestedRole::Searcher,
            session: [1; 32],
            nonce: [2; 32],
            channel_key: [3; 32],
            subject: Subject::new([4; 32]),
            issued_at: 5,
        }
    }

    fn signed(data: [u8; 64]) -> TsmReport {
        let mut report = include_bytes!("../../tests/fixtures/snp/milan.report").to_vec();
        report[0x50..0x90].copy_from_slice(&data);
        let mut auxiliary = table::encode(&[
            (EntryKind::Root, b"root"),
            (EntryKind::Vcek, b"leaf"),
            (EntryKind::Intermediate, b"authority"),
        ])
        .unwrap();
        auxiliary.resize(2 * 4096, 0);
        TsmReport { report, auxiliary }
    }

    #[test]
    fn evidence_carries_report_and_certificates_but_neither_root_nor_padding() {
        let signed = signed(claims().binding());
        let evidence = Evidence::decode(&evidence(&claims(), &signed).unwrap()).unwrap();
        assert_eq!(evidence.claims, claims());
        assert_eq!(evidence.statement, signed.report);
        assert!(evidence.endorsements.len() < 100);
        assert_eq!(
            table::parse(&evidence.endorsements).unwrap(),
            [
                (EntryKind::Vcek, &b"leaf"[..]),
                (EntryKind::Intermediate, b"authority")
            ]
        );
    }

    #[test]
    fn fail_a_platform_that_signs_other_data() {
        let error = evidence(&claims(), &signed([9; 64])).unwrap_err();
        assert!(error.to_string().contains("other data"), "{error}");
    }

    #[test]
    fn sealing_keys_differ_by_purpose_and_root() {
        let sealer = |root| SnpSealer {
            root: Zeroizing::new([root; 32]),
        };
        let key = sealer(1).sealing_key("state").unwrap();
        assert_eq!(key, sealer(1).sealing_key("state").unwrap());
        assert_ne!(key, sealer(1).sealing_key("other").unwrap());
        assert_ne!(key, sealer(2).sealing_key("state").unwrap());
    }
}
