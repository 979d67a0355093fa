//! The producing side, in a domain of TDX.

use super::{collateral, layout};
use crate::tsm::{REPORT_FOLDER, Tsm};
use crate::{AttestError, Attester, Claims, Evidence, Platform};
use std::path::PathBuf;

/// Evidence from the kernel of a TDX domain, see [`crate::tsm`]. The host must run
/// Intel's quote generation service.
///
/// Collateral is public and changes every few weeks. Either the attester sends it
/// ([`with_collateral`](Self::with_collateral)), or those that verify have their own
/// ([`DcapRules::collateral`](super::DcapRules::collateral)).
#[derive(Clone, Debug)]
pub struct TdxAttester {
    tsm: Tsm,
    collateral: Vec<u8>,
}

impl TdxAttester {
    /// An attester of this machine.
    ///
    /// # Errors
    /// [`AttestError::Platform`] where this machine is no such domain.
    pub fn new() -> Result<Self, AttestError> {
        Self::with_folder(REPORT_FOLDER)
    }

    /// An attester with the kernel's requests in another folder.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_folder(folder: impl Into<PathBuf>) -> Result<Self, AttestError> {
        let tsm = Tsm::tdx(folder);
        tsm.check()?;
        Ok(Self {
            tsm,
            collateral: Vec::new(),
        })
    }

    /// This attester, which sends `collateral` (JSON) along with its quotes.
    ///
    /// # Errors
    /// [`AttestError::Endorsement`] for what is no collateral or too long.
    pub fn with_collateral(mut self, collateral: Vec<u8>) -> Result<Self, AttestError> {
        collateral::parse(&collateral)?;
        self.collateral = collateral;
        Ok(self)
    }
}

impl Attester for TdxAttester {
    fn platform(&self) -> Platform {
        Platform::Tdx
    }

    fn attest(&self, claims: &Claims) -> Result<Vec<u8>, AttestError> {
        let binding = claims.binding();
        let statement = quote_over(&binding, self.tsm.report(&binding)?.report)?;
        Evidence {
            platform: Platform::Tdx,
            claims: *claims,
            statement,
            endorsements: self.collateral.clone(),
        }
        .encode()
    }
}

/// The quote at the start of `bytes`, whose rest is padding, if it is over `binding`.
fn quote_over(binding: &[u8; 64], mut bytes: Vec<u8>) -> Result<Vec<u8>, AttestError> {
    let failed = |reason: &str| AttestError::Platform {
        platform: Platform::Tdx,
        reason: reason.to_owned(),
    };
    let length = layout::quote_length(&bytes)
        .ok_or_else(|| failed("the platform answered with something else than a quote"))?;
    if bytes[length..].iter().any(|&byte| byte != 0) {
        return Err(failed("the platform answered with more than a quote"));
    }
    bytes.truncate(length);
    let signed = dcap_qvl::quote::Quote::parse(&bytes)
        .ok()
        .and_then(|quote| quote.report.as_td10().map(|report| report.report_data));
    if signed != Some(*binding) {
        return Err(failed("the platform signed other data than it was given"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttestedRole, Subject};

    /// A real quote with 70 zero bytes after it, as the kernel hands it out.
    const PADDED: &[u8] = include_bytes!("../../tests/fixtures/dcap/tdx-v4.quote");
    const EXTENDED: &[u8] = include_bytes!("../../tests/fixtures/dcap/tdx-v5-ex.quote");

    fn data(quote: &[u8], at: usize) -> [u8; 64] {
        quote[at..at + 64].try_into().unwrap()
    }

    #[test]
    fn padding_is_removed() {
        let binding = data(PADDED, 48 + 520);
        assert_eq!(
            quote_over(&binding, PADDED.to_vec()).unwrap(),
            &PADDED[..PADDED.len() - 70]
        );
        let binding = data(EXTENDED, 54 + 520);
        assert_eq!(quote_over(&binding, EXTENDED.to_vec()).unwrap(), EXTENDED);
    }

    #[test]
    fn fail_other_data_and_other_answers() {
        let binding = data(PADDED, 48 + 520);
        let refused = |binding: &[u8; 64], bytes: Vec<u8>| {
            matches!(
                quote_over(binding, bytes),
                Err(AttestError::Platform {
                    platform: Platform::Tdx,
                    ..
                })
            )
        };
        assert!(refused(&[1; 64], PADDED.to_vec()));
        assert!(refused(&binding, [PADDED, &[1]].concat()));
        for length in 0..PADDED.len() - 70 {
            assert!(refused(&binding, PADDED[..length].to_vec()));
        }
    }

    #[test]
    fn fail_without_the_interface() {
        let folder = tempfile::tempdir().unwrap();
        let error = TdxAttester::with_folder(folder.path().join("absent")).unwrap_err();
        assert!(matches!(
            error,
            AttestError::Platform {
                platform: Platform::Tdx,
                ..
            }
        ));
        let attester = TdxAttester {
            tsm: Tsm::tdx(folder.path().join("absent")),
            collateral: Vec::new(),
        };
        assert!(attester.clone().with_collateral(b"{}".to_vec()).is_err());
        let claims = Claims {
            role: AttestedRole::Searcher,
            session: [0; 32],
            nonce: [0; 32],
            channel_key: [0; 32],
            subject: Subject::new([0; 32]),
            issued_at: 0,
        };
        assert!(attester.attest(&claims).is_err());
    }
}
