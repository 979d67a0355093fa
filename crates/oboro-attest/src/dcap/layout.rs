//! The layout of a quote, checked to the last byte.
//!
//! Some bytes of a quote are not signed: lengths, types, the text around certificates.
//! A lenient reader would accept many quotes that differ in those; here there is one.

use crate::AttestError;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

const HEADER: usize = 48;
const SGX_REPORT: usize = 384;
const TD_REPORT_1_0: usize = 584;
const TD_REPORT_1_5: usize = 648;
const TD_REPORT_1_5_EX: usize = 885;
const SIGNATURE_AND_KEY: usize = 64 + 64;
const QE_AUTHENTICATION: usize = 32;

/// Certificate data: a whole chain as text.
const CHAIN: u16 = 5;
/// Certificate data: the quoting enclave's report and a chain.
const QE_REPORT_AND_CHAIN: u16 = 6;

/// Which technology a quote is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Technology {
    Sgx,
    Tdx,
}

const SHORT: AttestError = AttestError::Malformed("the quote is cut short");

/// Checks the layout of `quote` and that its chain ends in `root`.
pub(super) fn check(quote: &[u8], root: &[u8]) -> Result<Technology, AttestError> {
    let mut rest = Reader(quote);
    let version = rest.u16()?;
    let _key_type = rest.u16()?;
    let technology = match rest.u32()? {
        0 => Technology::Sgx,
        0x81 => Technology::Tdx,
        _ => {
            return Err(AttestError::Malformed(
                "the quote is of neither SGX nor TDX",
            ));
        }
    };
    rest.skip(HEADER - 8)?;
    match (version, technology) {
        (3, Technology::Sgx) => rest.skip(SGX_REPORT)?,
        (4, Technology::Tdx) => rest.skip(TD_REPORT_1_0)?,
        (5, Technology::Tdx) => {
            let expected = match rest.u16()? {
                2 => TD_REPORT_1_0,
                3 => TD_REPORT_1_5,
                4 => TD_REPORT_1_5_EX,
                _ => {
                    return Err(AttestError::Malformed(
                        "the quote's report is of no known type",
                    ));
                }
            };
            if rest.u32()? as usize != expected {
                return Err(AttestError::Malformed(
                    "the quote's report has another length",
                ));
            }
            rest.skip(expected)?;
        }
        _ => return Err(AttestError::Malformed("the quote has an unknown version")),
    }
    let mut signature = rest.block()?;
    rest.end()?;
    signature.skip(SIGNATURE_AND_KEY)?;
    if technology == Technology::Tdx {
        let mut inner = signature.certificate_data(QE_REPORT_AND_CHAIN)?;
        signature.end()?;
        signature = std::mem::replace(&mut inner, Reader(&[]));
    }
    signature.skip(SGX_REPORT + 64)?;
    if usize::from(signature.u16()?) != QE_AUTHENTICATION {
        return Err(AttestError::Malformed(
            "the quoting enclave's data have another length",
        ));
    }
    signature.skip(QE_AUTHENTICATION)?;
    let chain = signature.certificate_data(CHAIN)?;
    signature.end()?;
    check_chain(chain.0, root)?;
    Ok(technology)
}

/// The length of a TDX quote at the start of `bytes`, which may be followed by others;
/// `None` where there is none.
pub(super) fn quote_length(bytes: &[u8]) -> Option<usize> {
    let mut rest = Reader(bytes);
    let version = rest.u16().ok()?;
    rest.skip(HEADER - 2).ok()?;
    let report = match version {
        4 => TD_REPORT_1_0,
        5 => {
            rest.u16().ok()?;
            rest.u32().ok()? as usize
        }
        _ => return None,
    };
    rest.skip(report).ok()?;
    rest.block().ok()?;
    Some(bytes.len() - rest.0.len())
}

/// Three certificates, the last one `root`, in the only form of text that is accepted:
/// lines of 64 characters that end in a line feed, and perhaps a zero byte at the end.
fn check_chain(text: &[u8], root: &[u8]) -> Result<(), AttestError> {
    const OTHER: AttestError = AttestError::Malformed("the quote's certificates are not in PEM");
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    let mut canonical = String::with_capacity(text.len());
    let mut last = None;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|_| OTHER)?;
        count += 1;
        if count > 3 {
            break;
        }
        canonical.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(&certificate);
        for line in encoded.as_bytes().chunks(64) {
            canonical.extend(line.iter().map(|&byte| char::from(byte)));
            canonical.push('\n');
        }
        canonical.push_str("-----END CERTIFICATE-----\n");
        last = Some(certificate);
    }
    if count != 3 || canonical.as_bytes() != text {
        return Err(OTHER);
    }
    if last.as_deref() != Some(root) {
        return Err(AttestError::Endorsement(
            "the quote's certificates do not end in the root this program trusts".to_owned(),
        ));
    }
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], AttestError> {
        let (first, others) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = others;
        Ok(first)
    }

    fn skip(&mut self, length: usize) -> Result<(), AttestError> {
        self.take(length).map(drop)
    }

    fn u16(&mut self) -> Result<u16, AttestError> {
        let (first, others) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = others;
        Ok(u16::from_le_bytes(*first))
    }

    fn u32(&mut self) -> Result<u32, AttestError> {
        let (first, others) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = others;
        Ok(u32::from_le_bytes(*first))
    }

    fn block(&mut self) -> Result<Self, AttestError> {
        let length = self.u32()? as usize;
        self.take(length).map(Reader)
    }

    fn certificate_data(&mut self, kind: u16) -> Result<Self, AttestError> {
        if self.u16()? != kind {
            return Err(AttestError::Malformed(
                "the quote carries another kind of certificate data than a chain",
            ));
        }
        self.block()
    }

    fn end(&self) -> Result<(), AttestError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(AttestError::Malformed(
                "bytes follow the quote or a part of it",
            ))
        }
    }
}
