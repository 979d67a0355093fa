//! Evidence of this machine or of a server, and what a set-up's digest is.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use clap::{Args, ValueEnum};
use oboro_attest::{
    Appraisal, AttestError, AttestedRole, Claims, Evidence, Expected, Subject, Verifier,
};
use oboro_channel::{ConnectOptions, Demand, Role, connect};
use serde::Serialize;
use serde_json::Value;

use crate::evidence::{self, ClaimsReport};
use crate::failure::{Failure, Named, Outcome};
use crate::keys::{self, Folder};
use crate::output::{self, Report};
use crate::platforms::Platforms;
use crate::roles;
use crate::{generator, keeper, searcher};

/// Options of `show`.
#[derive(Args, Clone, Debug, Default)]
#[group(skip)]
pub struct Options {
    /// Show the evidence of the server at this address, not of this machine
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<String>,
    /// The role of that server
    #[arg(long, value_name = "ROLE", value_enum, default_value_t)]
    pub role: ServerRole,
    /// Keys to reach that server with, or whose authority the set-up is to trust: the folder
    /// of `oboro keygen`, its owner/ or client/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub keys: PathBuf,
    /// Write the evidence to a new file
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print the digest of a role's set-up; the role's options follow after `--`
    #[arg(long, value_name = "ROLE", value_enum, conflicts_with_all = ["address", "out"])]
    pub configuration: Option<ServerRole>,
    /// Options of that role
    #[arg(last = true, value_name = "OPTIONS", requires = "configuration")]
    pub options: Vec<String>,
}

/// A role that is attested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ServerRole {
    /// Holds the index
    #[default]
    Searcher,
    /// Holds the decryption key
    Keeper,
    /// Builds an index and forgets it
    Generator,
}

impl ServerRole {
    const fn attested(self) -> AttestedRole {
        match self {
            Self::Searcher => AttestedRole::Searcher,
            Self::Keeper => AttestedRole::Keeper,
            Self::Generator => AttestedRole::Generator,
        }
    }

    const fn role(self) -> Role {
        match self {
            Self::Searcher => Role::Searcher,
            Self::Keeper => Role::Keeper,
            Self::Generator => Role::Generator,
        }
    }
}

/// What was found.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Machine {
        platforms: Vec<PlatformReport>,
        evidence: Option<EvidenceReport>,
        #[serde(skip_serializing_if = "Option::is_none")]
        no_evidence: Option<String>,
    },
    Server {
        address: String,
        evidence: EvidenceReport,
    },
    Configuration {
        configuration: String,
        settings: std::collections::BTreeMap<&'static str, Value>,
    },
}

/// One platform on this machine.
#[derive(Clone, Debug, Serialize)]
pub struct PlatformReport {
    /// Its name in policies.
    pub name: &'static str,
    /// Whether it can attest here.
    pub available: bool,
    /// Why, or why not.
    pub detail: String,
}

/// Every platform on this machine.
#[must_use]
pub fn platforms(platforms: &dyn Platforms) -> Vec<PlatformReport> {
    platforms
        .detections()
        .into_iter()
        .map(|detection| PlatformReport {
            name: detection.platform.name(),
            available: detection.available,
            detail: detection.detail,
        })
        .collect()
}

/// Evidence in words; nothing in it is checked.
#[derive(Serialize)]
struct EvidenceReport {
    platform: &'static str,
    measurement: Option<String>,
    claims: ClaimsReport,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<String>,
}

/// Shows this machine, a server or a set-up, whichever the options name.
///
/// # Errors
/// If a server cannot be reached, gives no evidence, or a file exists.
pub fn run(options: &Options, json: bool, platforms: &dyn Platforms) -> Outcome<()> {
    let shown = match (options.configuration, &options.address) {
        (Some(role), _) => configuration(role, options, platforms)?,
        (None, Some(address)) => {
            let bytes = of_server(address, options.role, &options.keys)?;
            Shown::Server {
                address: address.clone(),
                evidence: report(&bytes, options.out.as_deref())?,
            }
        }
        (None, None) => machine(options, platforms)?,
    };
    output::print(&shown, json)
}

fn configuration(role: ServerRole, options: &Options, platforms: &dyn Platforms) -> Outcome<Shown> {
    let (keys, options) = (&options.keys, &options.options);
    let configuration = match role {
        ServerRole::Keeper => keeper::configuration_of(options, keys, platforms)?,
        ServerRole::Searcher => searcher::configuration_of(options, keys, platforms)?,
        ServerRole::Generator => generator::configuration_of(options, keys)?,
    };
    Ok(Shown::Configuration {
        configuration: output::hex(&configuration.digest()),
        settings: configuration.settings().clone(),
    })
}

fn machine(options: &Options, platforms: &dyn Platforms) -> Outcome<Shown> {
    // Of no session and no key: good for looking at and for policies.
    let evidence = platforms.attester().and_then(|attester| {
        Ok(attester.attest(&Claims {
            role: options.role.attested(),
            session: [0; 32],
            nonce: keys::os_seed()?,
            channel_key: [0; 32],
            subject: Subject::new([0; 32]),
            issued_at: output::now(),
        })?)
    });
    let (evidence, no_evidence) = match evidence {
        Ok(bytes) => (Some(report(&bytes, options.out.as_deref())?), None),
        // Without a file to write, what there is to say has been said.
        Err(failure) if options.out.is_none() => (None, Some(failure.message)),
        Err(failure) => return Err(failure),
    };
    Ok(Shown::Machine {
        platforms: self::platforms(platforms),
        evidence,
        no_evidence,
    })
}

fn report(bytes: &[u8], out: Option<&Path>) -> Outcome<EvidenceReport> {
    let evidence = Evidence::decode(bytes)?;
    if let Some(out) = out {
        write_new(out, bytes)?;
    }
    Ok(EvidenceReport {
        platform: evidence.platform.name(),
        measurement: evidence::measurement(evidence.platform, &evidence.statement)
            .map(|measurement| output::hex(&measurement)),
        claims: ClaimsReport::new(&evidence.claims),
        bytes: bytes.len(),
        out: out.map(|path| path.display().to_string()),
    })
}

/// Writes a file that does not exist yet.
///
/// # Errors
/// If it exists or cannot be written.
pub fn write_new(path: &Path, bytes: &[u8]) -> Outcome<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .named("write", path.display())
}

/// The evidence that a server gives on a connection of ours; not judged.
///
/// # Errors
/// If the server cannot be reached or gives none.
pub fn of_server(address: &str, role: ServerRole, keys: &Path) -> Outcome<Vec<u8>> {
    let own = match role {
        ServerRole::Searcher if !has(keys, Role::Owner) => Role::Client,
        _ => Role::Owner,
    };
    let folder = Folder::of(keys, own)?;
    let (identity, trust) = (folder.identity()?, folder.trust()?);
    let seen = Arc::new(Seen::default());
    let options = ConnectOptions {
        demand: Some(Demand::new(seen.clone(), role.attested())),
        ..ConnectOptions::default()
    };
    let outcome =
        roles::runtime(1)?.block_on(connect(address, &identity, &trust, role.role(), options));
    let evidence = seen.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (evidence, outcome) {
        (Some(evidence), _) => Ok(evidence),
        (None, Err(error)) => Err(error.into()),
        (None, Ok(_)) => Err(Failure::failed("the server was asked for no evidence")),
    }
}

fn has(keys: &Path, role: Role) -> bool {
    let identity = |folder: &Path| {
        oboro_channel::Identity::read_file(&folder.join(keys::IDENTITY))
            .is_ok_and(|identity| identity.role() == role)
    };
    identity(&keys.join(role.name())) || identity(keys)
}

/// Keeps the evidence of one connection and hangs up.
#[derive(Default)]
struct Seen(Mutex<Option<Vec<u8>>>);

impl Verifier for Seen {
    fn appraise(
        &self,
        evidence: &[u8],
        expected: &Expected,
        _now: u64,
    ) -> Result<Appraisal, AttestError> {
        // What is bound to another session was relayed and is about another machine.
        let claims = Evidence::decode(evidence)?.claims;
        if claims.session != expected.session || claims.nonce != expected.nonce {
            return Err(AttestError::Session);
        }
        if claims.channel_key != expected.channel_key {
            return Err(AttestError::ChannelKey);
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(evidence.to_vec());
        Err(AttestError::Policy("it was only looked at".to_owned()))
    }
}

impl Report for Shown {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Machine {
                platforms,
                evidence,
                no_evidence,
            } => {
                for platform in platforms {
                    writeln!(out, "{platform}")?;
                }
                if let Some(evidence) = evidence {
                    writeln!(out, "\nevidence of this machine, not judged")?;
                    evidence.text(out)?;
                }
                if let Some(reason) = no_evidence {
                    writeln!(out, "\nno evidence: {reason}")?;
                }
                Ok(())
            }
            Self::Server { address, evidence } => {
                writeln!(out, "evidence of {address}, not judged")?;
                evidence.text(out)
            }
            Self::Configuration {
                configuration,
                settings,
            } => {
                writeln!(out, "configuration  {configuration}")?;
                for (name, value) in settings {
                    writeln!(out, "  {name:24} {value}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::fmt::Display for PlatformReport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.available { "here" } else { "not here" };
        write!(
            formatter,
            "platform       {:10} {state}: {}",
            self.name, self.detail
        )
    }
}

impl EvidenceReport {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "  {:14} {}", "platform", self.platform)?;
        writeln!(
            out,
            "  {:14} {}",
            "measurement",
            self.measurement
                .as_deref()
                .unwrap_or("see `oboro attest verify`")
        )?;
        for (name, value) in self.claims.lines() {
            writeln!(out, "  {name:14} {value}")?;
        }
        writeln!(out, "  {:14} {}", "size", output::bytes(self.bytes as u64))?;
        if let Some(path) = &self.out {
            writeln!(out, "  {:14} {path}", "written to")?;
        }
        Ok(())
    }
}
