//! `oboro keygen`: the keys of all roles, one folder for each.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use oboro_attest::unix_seconds;
use oboro_channel::{Access, Authority, Grant, Role};
use oboro_ckks::{ParameterSet, SecretKey};
use oboro_index::keys::{self as key_files, OwnerKey};
use serde::Serialize;

use super::revoke;
use crate::durable;
use crate::failure::{Failure, Named, Outcome};
use crate::global::Global;
use crate::keys::{
    self, AUTHORITY, CLIENT_KEY, IDENTITY, KEEPER_KEY, KEEPER_PUBLIC, OWNER_KEY, RELEASE_KEY,
    REVOKED, STORAGE_KEY, TRUST,
};
use crate::output::{self, Report};
use crate::passphrase::{self, Source};
use crate::register::{Issued, Register};

/// Options of `oboro keygen`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Folder to make; existing key files are never overwritten
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Encryption parameters: N2048_Q50, or N4096_Q100 with more noise to hide the key behind
    #[arg(long, default_value = "N2048_Q50", value_name = "SET")]
    pub(crate) set: String,
    /// How long the TLS certificates are good for, in days
    #[arg(long, default_value_t = 365, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub(crate) days: u32,
    /// Encrypt owner.key under a passphrase, which is asked for on the terminal, twice
    #[arg(long, conflicts_with = "passphrase_file")]
    pub(crate) passphrase: bool,
    /// Encrypt owner.key under the first line of a file, or under what is typed at a `prompt`
    #[arg(long, value_name = "FILE|prompt", value_parser = passphrase::source)]
    pub(crate) passphrase_file: Option<Source>,
}

/// What was made.
#[derive(Serialize)]
pub(crate) struct Keys {
    parameter_set: &'static str,
    security_bits: u32,
    keeper_fingerprint: String,
    valid_days: u32,
    /// Whether the owner's key is under a passphrase.
    owner_key_protected: bool,
    folders: Vec<RoleFolder>,
}

#[derive(Serialize)]
struct RoleFolder {
    role: &'static str,
    path: String,
    channel_fingerprint: String,
    purpose: &'static str,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let set = parameter_set(&options.set)?;
    refuse_existing(&options.out)?;
    let passphrase = passphrase::wanted(
        options.passphrase,
        options.passphrase_file.as_ref(),
        &options.out.join(Role::Owner.name()).join(OWNER_KEY),
    )?;
    let passphrase = passphrase.as_ref().map(|text| text.as_str());
    let made = make(&options.out, set, options.days, passphrase)?;
    if !global.json && !global.quiet {
        // Public, and worth comparing over another channel than the files'.
        eprintln!("keeper's public key  {}", made.keeper_fingerprint);
        for folder in &made.folders {
            eprintln!(
                "{:20} {}",
                format!("{}'s TLS key", folder.role),
                folder.channel_fingerprint
            );
        }
    }
    output::print(&made, global.json)
}

/// The set of a name, or the names there are.
pub(crate) fn parameter_set(name: &str) -> Outcome<ParameterSet> {
    ParameterSet::from_name(name).ok_or_else(|| {
        let names: Vec<_> = ParameterSet::ALL.iter().map(|set| set.name()).collect();
        Failure::usage(format_args!(
            "there is no parameter set \"{name}\"; choose {}",
            names.join(" or ")
        ))
    })
}

fn refuse_existing(out: &Path) -> Outcome<()> {
    if out
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some())
        || out.is_file()
    {
        return Err(Failure::refused(format_args!(
            "{} exists already and keys are never overwritten; choose another folder with --out",
            out.display()
        )));
    }
    Ok(())
}

/// Makes the folders of all roles, all or none.
pub(crate) fn make(
    out: &Path,
    set: ParameterSet,
    days: u32,
    passphrase: Option<&str>,
) -> Outcome<Keys> {
    refuse_existing(out)?;
    durable::folder(out, |root| write(root, out, set, days, passphrase))
}

/// Writes into `root` what will lie in `out`.
fn write(
    root: &Path,
    out: &Path,
    set: ParameterSet,
    days: u32,
    passphrase: Option<&str>,
) -> Outcome<Keys> {
    let mut rng = keys::os_rng()?;
    let owner_key = OwnerKey::generate(&mut rng);
    let keeper_key = SecretKey::generate(set, &mut rng);
    let keeper_public = keeper_key.public_key(&mut rng);
    let authority = Authority::generate(SystemTime::now())?;
    let validity = Duration::from_secs(u64::from(days) * 86_400);
    let mut register = Register::default();

    let mut folders = Vec::new();
    for role in Role::ALL {
        let folder = root.join(role.name());
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .named("make", folder.display())?;
        let now = SystemTime::now();
        let (identity, access) = match role {
            Role::Client => (
                authority.issue_client(Grant::any(Access::Reader), role.name(), now, validity)?,
                Access::Reader.name(),
            ),
            role => (authority.issue(role, now, validity)?, role.name()),
        };
        register.add(Issued {
            serial: identity.serial().to_string(),
            name: role.name().to_owned(),
            role: role.name().to_owned(),
            access: access.to_owned(),
            index: "any".to_owned(),
            expires: unix_seconds(now + validity),
            revoked: None,
        })?;
        identity.create_file(&folder.join(IDENTITY))?;
        authority.trust().create_file(&folder.join(TRUST))?;
        let purpose = match role {
            Role::Owner => {
                let path = folder.join(OWNER_KEY);
                match passphrase {
                    Some(passphrase) => owner_key.write_protected(path, passphrase, &mut rng)?,
                    None => owner_key.write(path)?,
                }
                authority.create_file(&folder.join(AUTHORITY))?;
                key_files::write_keeper_public(folder.join(KEEPER_PUBLIC), &keeper_public)?;
                "builds indexes; keep it where the vectors are, and a copy in a safe"
            }
            Role::Client => {
                owner_key.client_key().write(folder.join(CLIENT_KEY))?;
                "searches any index; `oboro grant` makes a folder for each further client"
            }
            Role::Searcher => {
                owner_key.storage_key().write(folder.join(STORAGE_KEY))?;
                "opens the index; put it on the machine with the index"
            }
            Role::Generator => {
                "builds indexes in an enclave; holds no key of any index: put it on that machine"
            }
            Role::Keeper => {
                key_files::write_keeper_secret(folder.join(KEEPER_KEY), &keeper_key)?;
                key_files::write_keeper_public(folder.join(KEEPER_PUBLIC), &keeper_public)?;
                owner_key.release_key().write(folder.join(RELEASE_KEY))?;
                "decrypts masked tables; put it on another machine than searcher/, never on the same in production"
            }
        };
        folders.push(RoleFolder {
            role: role.name(),
            path: out.join(role.name()).display().to_string(),
            channel_fingerprint: output::hex(&identity.spki_sha256()),
            purpose,
        });
    }
    register.write(&root.join(Role::Owner.name()))?;
    // An empty list from the beginning: a role watches the list that it started with.
    let now = SystemTime::now();
    let list = revoke::list(&authority, &register, now, now + validity)?;
    for role in Role::ALL {
        durable::replace(&root.join(role.name()).join(REVOKED), list.as_bytes())?;
    }
    Ok(Keys {
        parameter_set: set.name(),
        security_bits: set.security_bits(),
        keeper_fingerprint: output::hex(&keeper_public.fingerprint()),
        valid_days: days,
        owner_key_protected: passphrase.is_some(),
        folders,
    })
}

impl Report for Keys {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "Keys for {} ({} bits of security), TLS identities for {} days:",
            self.parameter_set, self.security_bits, self.valid_days
        )?;
        for folder in &self.folders {
            writeln!(out, "  {:28} {}", folder.path, folder.purpose)?;
        }
        if self.owner_key_protected {
            writeln!(
                out,
                "{OWNER_KEY} is encrypted (age); without the passphrase nobody opens it, you neither."
            )?;
        }
        Ok(())
    }
}
