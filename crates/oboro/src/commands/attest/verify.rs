//! `oboro attest verify`: stored evidence under a policy, at any time.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use oboro_attest::snp::table::{self, EntryKind};
use oboro_attest::snp::{Report as SnpReport, SigningKey};
use oboro_attest::{AttestError, Identity, Platform, Policy, PolicyVerifier, Verified};
use oboro_server::evidence::{self, ClaimsReport, Stored};
use oboro_server::platforms::Platforms;
use oboro_server::policy::PolicyOptions;
use serde::Serialize;

use crate::failure::{Failure, Outcome};
use crate::global::Global;
use crate::output::{self, Report};
use crate::with_simulated::WithSimulated;

/// Options of `oboro attest verify`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Evidence as `oboro attest show --out` writes it, or a bare report, quote or document
    #[arg(value_name = "EVIDENCE")]
    evidence: PathBuf,
    #[command(flatten)]
    policy: PolicyOptions,
    /// Accept the simulated platform
    #[arg(long)]
    allow_simulated: bool,
    /// Judge as of this time: seconds since 1970, or 2026-01-31T12:00:00Z; now when not given
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<u64>,
    #[command(flatten)]
    statement: StatementOptions,
}

/// What a bare statement lacks.
#[derive(Args, Clone, Debug)]
pub(super) struct StatementOptions {
    /// Platform of a bare report, quote or document: sev-snp, tdx, sgx, nitro or tpm
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// What vouches for it: collateral of Intel's, AMD's certificate of the signing key in DER, or
    /// the certificate table of an SNP host
    #[arg(long, value_name = "FILE", requires = "platform")]
    endorsements: Option<PathBuf>,
}

impl StatementOptions {
    /// The platform of a bare statement and what vouches for it.
    pub(super) fn read(&self, statement: &[u8]) -> Outcome<(Platform, Vec<u8>)> {
        let names = || Platform::ALL.map(Platform::name).join(", ");
        let name = self.platform.as_deref().ok_or_else(|| {
            Failure::usage(format_args!(
                "the file is a bare statement, not evidence of Oboro's; say of which platform with --platform: {}",
                names()
            ))
        })?;
        let platform = Platform::from_name(name).ok_or_else(|| {
            Failure::usage(format_args!(
                "there is no platform \"{name}\"; choose one of {}",
                names()
            ))
        })?;
        let endorsements = match &self.endorsements {
            Some(path) => evidence::bounded(path)?,
            None => Vec::new(),
        };
        if platform == Platform::SevSnp && endorsements.first() == Some(&DER_SEQUENCE) {
            return Ok((platform, table_of(statement, &endorsements)?));
        }
        Ok((platform, endorsements))
    }
}

/// The first byte of a certificate in DER.
const DER_SEQUENCE: u8 = 0x30;

/// A certificate table with one certificate in it, that of the key which signed a report.
fn table_of(report: &[u8], certificate: &[u8]) -> Outcome<Vec<u8>> {
    let kind = match SnpReport::parse(report)?.signing_key {
        SigningKey::Vcek => EntryKind::Vcek,
        SigningKey::Vlek => EntryKind::Vlek,
    };
    Ok(table::encode(&[(kind, certificate)])?)
}

pub(super) fn time(text: &str) -> Result<u64, String> {
    output::seconds_of(text)
        .ok_or_else(|| "give seconds since 1970, or a time as 2026-01-31T12:00:00Z".to_owned())
}

/// Evidence that was accepted.
#[derive(Serialize)]
struct Accepted {
    accepted: bool,
    platform: &'static str,
    judged_at: String,
    measurement: String,
    /// Facts by name, in the platform's order.
    #[serde(serialize_with = "object")]
    facts: Vec<(&'static str, String)>,
    remarks: Vec<String>,
    /// What the evidence is bound to; a bare statement is bound to nothing of ours.
    claims: Option<ClaimsReport>,
    report_data: Option<String>,
}

/// Pairs as one JSON object.
fn object<S: serde::Serializer>(
    facts: &[(&'static str, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(facts.iter().map(|(name, value)| (name, value)))
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let stored = Stored::read(&options.evidence)?;
    let platforms = WithSimulated::new(options.allow_simulated);
    let now = options.at.unwrap_or_else(output::now);
    let verifier = options.policy.verifier(&platforms)?;
    let accepted = match stored {
        Stored::Evidence(bytes, _) => {
            let appraisal = verifier.appraise_stored(&bytes, now)?;
            Accepted {
                accepted: true,
                platform: appraisal.platform.name(),
                judged_at: output::utc(now),
                measurement: output::hex(&appraisal.identity.measurement),
                facts: appraisal.identity.facts,
                remarks: appraisal.remarks,
                claims: Some(ClaimsReport::new(&appraisal.claims)),
                report_data: None,
            }
        }
        Stored::Statement(statement) => {
            let (platform, endorsements) = options.statement.read(&statement)?;
            let verified = appraise_statement(
                &verifier,
                &platforms,
                platform,
                &statement,
                &endorsements,
                now,
            )?;
            let Identity { measurement, facts } = verified.identity;
            let mut remarks = verified.remarks;
            remarks.push(
                "a bare statement is bound to no session, key or index of Oboro: it tells of a platform, not of a server"
                    .to_owned(),
            );
            Accepted {
                accepted: true,
                platform: platform.name(),
                judged_at: output::utc(now),
                measurement: output::hex(&measurement),
                facts,
                remarks,
                claims: None,
                report_data: Some(output::hex(&verified.binding)),
            }
        }
    };
    output::print(&accepted, global.json)
}

/// Verifies a statement under the entries of a policy for its platform, whatever it is
/// bound to.
pub(super) fn appraise_statement(
    verifier: &PolicyVerifier,
    platforms: &dyn Platforms,
    platform: Platform,
    statement: &[u8],
    endorsements: &[u8],
    now: u64,
) -> Outcome<Verified> {
    let policy: &Policy = verifier.policy();
    let verifiers = platforms.verifiers();
    let of_platform = verifiers
        .iter()
        .find(|verifier| verifier.platform() == platform)
        .ok_or(AttestError::Unsupported(platform))?;
    let mut refused = AttestError::PlatformNotAccepted(platform);
    let entries = policy
        .accept
        .iter()
        .filter(|entry| entry.rules.platform() == platform);
    for entry in entries {
        match of_platform.verify(statement, endorsements, &entry.rules, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => refused = error,
        }
    }
    Err(refused.into())
}

impl Report for Accepted {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.platform == Platform::Simulated.name() {
            writeln!(out, "{}", output::SIMULATED)?;
        }
        writeln!(
            out,
            "accepted         {} as of {}",
            self.platform, self.judged_at
        )?;
        writeln!(out, "measurement      {}", self.measurement)?;
        for (name, value) in &self.facts {
            writeln!(out, "{name:16} {value}")?;
        }
        if let Some(claims) = &self.claims {
            for (name, value) in claims.lines() {
                writeln!(out, "{name:16} {value}")?;
            }
        }
        if let Some(data) = &self.report_data {
            writeln!(out, "{:16} {data}", "report data")?;
        }
        for remark in &self.remarks {
            writeln!(out, "{:16} {remark}", "note")?;
        }
        Ok(())
    }
}
