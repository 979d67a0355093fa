//! `oboro attest policy`: a policy file from evidence, with comments; or a check of one.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use oboro_attest::{Acceptance, AttestedRole, Evidence, Platform, Policy, PolicyVerifier};
use oboro_server::evidence::Stored;
use oboro_server::platforms::Platforms;
use oboro_server::show::{self, ServerRole};
use serde::Serialize;

use super::draft::{self, Draft};
use super::verify::{self, StatementOptions, appraise_statement};
use crate::failure::{Failure, Outcome};
use crate::global::Global;
use crate::output::{self, Report};
use crate::with_simulated::WithSimulated;

/// Options of `oboro attest policy`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Evidence as `oboro attest show --out` writes it, or a bare report, quote or document
    #[arg(value_name = "EVIDENCE", conflicts_with_all = ["address", "check"])]
    evidence: Option<PathBuf>,
    /// Take the evidence of the server at this address, as it is now
    #[arg(long, value_name = "ADDRESS", conflicts_with = "check")]
    address: Option<String>,
    /// The role of that server
    #[arg(long, value_name = "ROLE", value_enum, default_value_t)]
    role: ServerRole,
    /// Keys to reach that server with: the folder of `oboro keygen`, its owner/ or client/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    keys: PathBuf,
    /// Accept only the set-up that the evidence names, too
    #[arg(long)]
    pin_configuration: bool,
    /// Accept the simulated platform
    #[arg(long)]
    allow_simulated: bool,
    /// Policy file to make; standard output when not given
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    out: Option<PathBuf>,
    /// Only check this policy file and the files that it names
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Judge as of this time: seconds since 1970, or 2026-01-31T12:00:00Z; now when not given
    #[arg(long, value_name = "TIME", value_parser = verify::time)]
    at: Option<u64>,
    #[command(flatten)]
    statement: StatementOptions,
}

/// What was made.
#[derive(Serialize)]
#[serde(untagged)]
enum Made {
    Policy {
        platform: &'static str,
        /// Whether the evidence is accepted under the policy as it stands.
        accepted: bool,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        out: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        policy: Option<String>,
    },
    Checked {
        valid: bool,
        entries: Vec<Entry>,
        max_age_seconds: u64,
        digest: String,
    },
}

#[derive(Serialize)]
struct Entry {
    platform: &'static str,
    role: &'static str,
    configurations: usize,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let platforms = WithSimulated::new(options.allow_simulated);
    let made = match &options.check {
        Some(path) => check(path, options.allow_simulated)?,
        None => make(options, &platforms)?,
    };
    output::print(&made, global.json)
}

fn check(path: &Path, simulated: bool) -> Outcome<Made> {
    let policy = oboro_server::policy::read(path, simulated)?;
    Ok(Made::Checked {
        valid: true,
        entries: policy
            .accept
            .iter()
            .map(|entry| Entry {
                platform: entry.rules.platform().name(),
                role: entry.role.map_or("any", AttestedRole::name),
                configurations: entry.configurations.len(),
            })
            .collect(),
        max_age_seconds: policy.max_age.as_secs(),
        digest: output::hex(&oboro_server::policy::digest(&policy)?),
    })
}

/// What a policy is made from.
struct Source {
    platform: Platform,
    statement: Vec<u8>,
    endorsements: Vec<u8>,
    /// The whole of it, where it is evidence of Oboro's.
    evidence: Option<(Vec<u8>, Evidence)>,
}

impl Source {
    fn read(options: &Options) -> Outcome<Self> {
        let stored = match (&options.evidence, &options.address) {
            (Some(path), _) => Stored::read(path)?,
            (None, Some(address)) => {
                let bytes = show::of_server(address, options.role, &options.keys)?;
                let evidence = Evidence::decode(&bytes)?;
                Stored::Evidence(bytes, Box::new(evidence))
            }
            (None, None) => {
                return Err(Failure::usage(
                    "name a file of evidence, a server with --address, or a policy to --check",
                ));
            }
        };
        Ok(match stored {
            Stored::Evidence(bytes, evidence) => Self {
                platform: evidence.platform,
                statement: evidence.statement.clone(),
                endorsements: evidence.endorsements.clone(),
                evidence: Some((bytes, *evidence)),
            },
            Stored::Statement(statement) => {
                let (platform, endorsements) = options.statement.read(&statement)?;
                Self {
                    platform,
                    statement,
                    endorsements,
                    evidence: None,
                }
            }
        })
    }
}

fn make(options: &Options, platforms: &WithSimulated) -> Outcome<Made> {
    let source = Source::read(options)?;
    if source.platform == Platform::Simulated && !platforms.accepts_simulated() {
        return Err(Failure::refused(
            "the evidence is of the simulated platform, which protects nothing; pass --allow-simulated to make a policy for trials",
        ));
    }
    let now = options.at.unwrap_or_else(output::now);
    let draft = draft::of(
        source.platform,
        &source.statement,
        &source.endorsements,
        now,
    )?;
    let claims = source
        .evidence
        .as_ref()
        .map(|(_, evidence)| evidence.claims);
    let configurations = match (options.pin_configuration, claims) {
        (true, Some(claims)) => vec![claims.subject.configuration],
        (true, None) => {
            return Err(Failure::usage(
                "a bare statement names no configuration to pin; leave out --pin-configuration",
            ));
        }
        (false, _) => Vec::new(),
    };
    let policy = Policy {
        accept: vec![Acceptance {
            role: claims.map(|claims| claims.role),
            configurations,
            rules: draft.rules.clone(),
        }],
        ..Policy::default()
    };
    let text = text(&source, &draft, &policy, now)?;
    // The file decides, not what it was made from.
    let refusal = refusal(&source, &policy, platforms, now);
    if let Some(out) = &options.out {
        show::write_new(out, text.as_bytes())?;
    }
    Ok(Made::Policy {
        platform: source.platform.name(),
        accepted: refusal.is_none(),
        reason: refusal,
        out: options.out.as_ref().map(|path| path.display().to_string()),
        policy: options.out.is_none().then_some(text),
    })
}

/// Why the evidence is refused under its own policy, if it is.
fn refusal(
    source: &Source,
    policy: &Policy,
    platforms: &WithSimulated,
    now: u64,
) -> Option<String> {
    let verifier = PolicyVerifier::new(policy.clone(), platforms.verifiers());
    let outcome: Outcome<()> = match &source.evidence {
        Some((bytes, _)) => verifier
            .appraise_stored(bytes, now)
            .map(|_| ())
            .map_err(Into::into),
        None => appraise_statement(
            &verifier,
            platforms,
            source.platform,
            &source.statement,
            &source.endorsements,
            now,
        )
        .map(|_| ()),
    };
    outcome.err().map(|failure| failure.message)
}

fn text(source: &Source, draft: &Draft, policy: &Policy, now: u64) -> Outcome<String> {
    let mut text = format!(
        "# Which programs are trusted. Made from evidence of {} on {}.\n# The evidence shows what runs there now, not that it is what you want to trust:\n# compare the values with those of your own build.\n",
        source.platform,
        output::utc(now)
    );
    for comment in &draft.comments {
        text.push_str(&format!("# {comment}\n"));
    }
    text.push_str("#\n# configurations = [\"...\"] in an entry accepts only those set-ups;\n# `oboro attest show --configuration` prints the digest of one.\n\n");
    text.push_str(&policy.to_toml()?);
    Ok(text)
}

impl Report for Made {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Policy {
                platform,
                reason,
                out: file,
                policy,
                ..
            } => {
                if let Some(policy) = policy {
                    out.write_all(policy.as_bytes())?;
                }
                let hash = if policy.is_some() { "\n# " } else { "" };
                if let Some(file) = file {
                    writeln!(out, "{file}: a policy for {platform}")?;
                }
                match reason {
                    None => writeln!(out, "{hash}The evidence is accepted under this policy."),
                    Some(reason) => writeln!(
                        out,
                        "{hash}The evidence is NOT accepted under this policy yet: {reason}"
                    ),
                }
            }
            Self::Checked {
                entries,
                max_age_seconds,
                digest,
                ..
            } => {
                for entry in entries {
                    writeln!(
                        out,
                        "accepts  {:10} role {:9} {}",
                        entry.platform,
                        entry.role,
                        match entry.configurations {
                            0 => "any configuration".to_owned(),
                            count => format!("{count} configurations"),
                        }
                    )?;
                }
                writeln!(out, "evidence at most {max_age_seconds} s old")?;
                writeln!(out, "digest   {digest}")
            }
        }
    }
}
