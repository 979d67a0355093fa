//! Policies as TOML; [`Policy::from_toml`] shows one.

use crate::{Acceptance, AttestError, AttestedRole, Platform, Policy, Rules, hex};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;
use toml::{Table, Value};

/// Most bytes of a policy file.
pub const MAX_POLICY_BYTES: usize = 256 << 10;

/// Most entries of a policy.
const MAX_ENTRIES: usize = 256;

const VERSION: i64 = 1;

/// The longest age and clock skew that a policy may allow.
const MAX_SECONDS: u64 = 366 * 24 * 3600;

fn unusable(what: impl Into<String>) -> AttestError {
    AttestError::Policy(what.into())
}

/// The keys that entries of all platforms have.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Common {
    platform: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(default, with = "hex::arrays", skip_serializing_if = "Vec::is_empty")]
    configurations: Vec<[u8; 32]>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    version: i64,
    #[serde(default = "default_max_age")]
    max_age: u64,
    #[serde(default = "default_clock_skew")]
    clock_skew: u64,
    #[serde(default)]
    accept: Vec<Table>,
}

fn default_max_age() -> u64 {
    Policy::default().max_age.as_secs()
}

fn default_clock_skew() -> u64 {
    Policy::default().clock_skew.as_secs()
}

impl Policy {
    /// Reads a policy file. The files that it names lie in `folder` or below and are read
    /// now.
    ///
    /// ```
    /// # use oboro_attest::Policy;
    /// let policy = Policy::from_toml(
    ///     r#"
    /// version = 1
    /// max-age = 300          # seconds; these are the defaults
    /// clock-skew = 60
    ///
    /// [[accept]]
    /// platform = "sev-snp"
    /// role = "keeper"        # without it: any role
    /// ## Digests of configurations; without them: any.
    /// configurations = ["0000000000000000000000000000000000000000000000000000000000000001"]
    /// ## From here on the platform's own keys: those of its rules, here `SnpRules`.
    /// measurements = ["000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001"]
    /// minimum-tcb = { bootloader = 4, tee = 0, snp = 24, microcode = 219 }
    /// "#,
    ///     std::path::Path::new("."),
    /// )?;
    /// assert_eq!(policy.accept.len(), 1);
    /// # Ok::<(), oboro_attest::AttestError>(())
    /// ```
    ///
    /// # Errors
    /// [`AttestError::Policy`], which names entry and key, for anything that is not
    /// exactly a policy: unknown keys, entries that would accept any program, a file
    /// without entries, files that are missing; [`AttestError::SimulatedRefused`] for an
    /// entry of the simulated platform, see
    /// [`from_toml_with_simulated`](Self::from_toml_with_simulated).
    pub fn from_toml(text: &str, folder: &Path) -> Result<Self, AttestError> {
        let policy = Self::from_toml_with_simulated(text, folder)?;
        if policy.accepted(Platform::Simulated).next().is_some() {
            return Err(AttestError::SimulatedRefused);
        }
        Ok(policy)
    }

    /// As [`from_toml`](Self::from_toml), and the file may accept the simulated platform.
    ///
    /// # Security
    /// Only where whoever runs the program has asked for it by name; the simulated
    /// platform protects nothing.
    ///
    /// # Errors
    /// [`AttestError::Policy`] as there.
    pub fn from_toml_with_simulated(text: &str, folder: &Path) -> Result<Self, AttestError> {
        if text.len() > MAX_POLICY_BYTES {
            return Err(unusable(format!(
                "it has {} bytes; at most {MAX_POLICY_BYTES} are read",
                text.len()
            )));
        }
        let table: Table =
            toml::from_str(text).map_err(|error| unusable(one_line(&error.to_string())))?;
        let file: File = read(table)?;
        if file.version != VERSION {
            return Err(unusable(format!(
                "it has version {}; this release knows version {VERSION}",
                file.version
            )));
        }
        for (key, seconds) in [("max-age", file.max_age), ("clock-skew", file.clock_skew)] {
            if seconds > MAX_SECONDS {
                return Err(unusable(format!(
                    "'{key}' is {seconds} seconds; at most {MAX_SECONDS} are possible"
                )));
            }
        }
        if file.accept.is_empty() || file.accept.len() > MAX_ENTRIES {
            return Err(unusable(format!(
                "it has {} [[accept]] entries; between 1 and {MAX_ENTRIES} are needed",
                file.accept.len()
            )));
        }
        let accept = file
            .accept
            .into_iter()
            .enumerate()
            .map(|(index, entry)| {
                acceptance(entry, folder).map_err(|error| {
                    let number = index + 1;
                    match error {
                        AttestError::Policy(what) => {
                            unusable(format!("[[accept]] entry {number}: {what}"))
                        }
                        other => unusable(format!("[[accept]] entry {number}: {other}")),
                    }
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            max_age: Duration::from_secs(file.max_age),
            clock_skew: Duration::from_secs(file.clock_skew),
            accept,
        })
    }

    /// Writes the policy as [`from_toml`](Self::from_toml) reads it. Files are named, not
    /// contained.
    ///
    /// # Errors
    /// [`AttestError::Policy`] for values that TOML cannot hold.
    pub fn to_toml(&self) -> Result<String, AttestError> {
        let accept = self
            .accept
            .iter()
            .map(entry)
            .collect::<Result<_, toml::ser::Error>>();
        accept
            .and_then(|accept| {
                toml::to_string(&File {
                    version: VERSION,
                    max_age: self.max_age.as_secs(),
                    clock_skew: self.clock_skew.as_secs(),
                    accept,
                })
            })
            .map_err(|error| unusable(one_line(&error.to_string())))
    }
}

fn acceptance(mut entry: Table, folder: &Path) -> Result<Acceptance, AttestError> {
    let mut common = Table::new();
    for key in ["platform", "role", "configurations"] {
        if let Some(value) = entry.remove(key) {
            common.insert(key.to_owned(), value);
        }
    }
    let common: Common = read(common)?;
    let platform = Platform::from_name(&common.platform).ok_or_else(|| {
        unusable(format!(
            "'platform' is '{}'; known are {}",
            common.platform,
            Platform::ALL.map(Platform::name).join(", ")
        ))
    })?;
    let role = common
        .role
        .map(|name| {
            AttestedRole::from_name(&name).ok_or_else(|| {
                unusable(format!(
                    "'role' is '{name}'; known are searcher, keeper and generator"
                ))
            })
        })
        .transpose()?;
    let mut rules = match platform {
        Platform::SevSnp => Rules::SevSnp(read(entry)?),
        Platform::Tdx => Rules::Tdx(read(entry)?),
        Platform::Sgx => Rules::Sgx(read(entry)?),
        Platform::Nitro => Rules::Nitro(read(entry)?),
        Platform::Tpm => Rules::Tpm(read(entry)?),
        Platform::Simulated => Rules::Simulated(read(entry)?),
    };
    rules.check()?;
    rules.load_files(folder)?;
    Ok(Acceptance {
        role,
        configurations: common.configurations,
        rules,
    })
}

fn read<T: serde::de::DeserializeOwned>(table: Table) -> Result<T, AttestError> {
    Value::Table(table)
        .try_into()
        .map_err(|error: toml::de::Error| unusable(one_line(&error.to_string())))
}

fn entry(acceptance: &Acceptance) -> Result<Table, toml::ser::Error> {
    let common = Common {
        platform: acceptance.rules.platform().name().to_owned(),
        role: acceptance.role.map(|role| role.name().to_owned()),
        configurations: acceptance.configurations.clone(),
    };
    let mut table = Table::try_from(&common)?;
    table.extend(match &acceptance.rules {
        Rules::SevSnp(rules) => Table::try_from(rules)?,
        Rules::Tdx(rules) | Rules::Sgx(rules) => Table::try_from(rules)?,
        Rules::Nitro(rules) => Table::try_from(rules)?,
        Rules::Tpm(rules) => Table::try_from(rules)?,
        Rules::Simulated(rules) => Table::try_from(rules)?,
    });
    Ok(table)
}

/// A message of the TOML reader on one line, without its drawing of the place.
fn one_line(message: &str) -> String {
    message
        .lines()
        .filter(|line| !line.trim_start().starts_with('|') && !line.contains(" | "))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}
