//! What stored evidence says about itself, before anyone has judged it.
//!
//! Nothing here is checked: it is for looking at evidence and for writing the first draft
//! of a policy, under which the evidence is then appraised.

use std::path::Path;

use oboro_attest::snp;
use oboro_attest::{Claims, Evidence, MAX_EVIDENCE_BYTES, Platform};
use serde::Serialize;

use crate::failure::{Failure, Named, Outcome};
use crate::output;

/// The first bytes of encoded evidence; a bare report or quote begins otherwise.
const MAGIC: &[u8] = b"OBEV";

/// Evidence from a file.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Evidence as Oboro's programs give it: claims and what the platform signed.
    Evidence(Vec<u8>, Box<Evidence>),
    /// Only what the platform signed: a report, quote or document from elsewhere.
    Statement(Vec<u8>),
}

impl Stored {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, is too long or begins as evidence and is none.
    pub fn read(path: &Path) -> Outcome<Self> {
        let bytes = bounded(path)?;
        if !bytes.starts_with(MAGIC) {
            return Ok(Self::Statement(bytes));
        }
        let evidence = Evidence::decode(&bytes)
            .map_err(|error| Failure::input(format_args!("{}: {error}", path.display())))?;
        Ok(Self::Evidence(bytes, Box::new(evidence)))
    }
}

/// Reads a file of at most as many bytes as evidence may have.
///
/// # Errors
/// If it cannot be read or is longer.
pub fn bounded(path: &Path) -> Outcome<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| {
            file.take(MAX_EVIDENCE_BYTES as u64 + 1)
                .read_to_end(&mut bytes)
        })
        .named("read", path.display())?;
    if bytes.len() > MAX_EVIDENCE_BYTES {
        return Err(Failure::input(format_args!(
            "{} is no evidence: it has more than {MAX_EVIDENCE_BYTES} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

/// The claims in words.
#[derive(Clone, Debug, Serialize)]
pub struct ClaimsReport {
    role: &'static str,
    issued_at: String,
    configuration: String,
    ckks_keys: String,
    index_id: String,
    epoch: u64,
    channel_key: String,
    session: String,
    nonce: String,
}

impl ClaimsReport {
    /// In words.
    #[must_use]
    pub fn new(claims: &Claims) -> Self {
        Self {
            role: claims.role.name(),
            issued_at: output::utc(claims.issued_at),
            configuration: output::hex(&claims.subject.configuration),
            ckks_keys: output::hex(&claims.subject.ckks_keys),
            index_id: output::hex(&claims.subject.index_id),
            epoch: claims.subject.epoch,
            channel_key: output::hex(&claims.channel_key),
            session: output::hex(&claims.session),
            nonce: output::hex(&claims.nonce),
        }
    }

    /// Names and values, for people.
    #[must_use]
    pub fn lines(&self) -> [(&'static str, String); 7] {
        [
            ("role", self.role.to_owned()),
            ("issued at", self.issued_at.clone()),
            ("configuration", self.configuration.clone()),
            ("CKKS keys", self.ckks_keys.clone()),
            ("index", self.index_id.clone()),
            ("epoch", self.epoch.to_string()),
            ("channel key", self.channel_key.clone()),
        ]
    }
}

/// The measurement that a statement names, unchecked; `None` where the statement has
/// another form.
#[must_use]
pub fn measurement(platform: Platform, statement: &[u8]) -> Option<Vec<u8>> {
    match platform {
        Platform::SevSnp | Platform::Simulated => {
            Some(snp::Report::parse(statement).ok()?.measurement.to_vec())
        }
        Platform::Tdx => {
            // Version 4: the report follows the header; version 5: its type and length
            // stand between them.
            let report = match statement.first_chunk::<2>()? {
                [4, 0] => 48,
                [5, 0] => 54,
                _ => return None,
            };
            part(statement, report + 136, 48)
        }
        Platform::Sgx => part(statement, 48 + 64, 32),
        Platform::Nitro | Platform::Tpm => None,
    }
}

fn part(bytes: &[u8], at: usize, length: usize) -> Option<Vec<u8>> {
    bytes.get(at..at + length).map(<[u8]>::to_vec)
}
