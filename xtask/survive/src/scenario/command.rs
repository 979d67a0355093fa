//! Key files, through the command as people run it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oboro_index::keys::{backup, read_keeper_secret};
use oboro_index::{ClientKey, OwnerKey, ReleaseKey, StorageKey};

use super::{Durable, Scenario, fixture};
use crate::Outcome;
use crate::disk::{Disk, at};

/// A verb of `oboro` that writes keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Keygen,
    Grant,
    Revoke,
    Backup,
    Restore,
}

const KEYS: &str = "keys";
const CLIENT: &str = "friend";
const BACKUP: &str = "backup.txt";
const RESTORED: &str = "restored";

/// The files of each role.
const FILES: [(&str, &[&str]); 4] = [
    (
        "owner",
        &[
            "authority.pem",
            "identity.pem",
            "issued.txt",
            "keeper.pub",
            "owner.key",
            "revoked.crl",
            "trust.pem",
        ],
    ),
    (
        "client",
        &["client.key", "identity.pem", "revoked.crl", "trust.pem"],
    ),
    (
        "searcher",
        &["identity.pem", "revoked.crl", "storage.key", "trust.pem"],
    ),
    (
        "keeper",
        &[
            "identity.pem",
            "keeper.key",
            "keeper.pub",
            "release.key",
            "revoked.crl",
            "trust.pem",
        ],
    ),
];

/// The command, beside this program.
pub(crate) fn program() -> Outcome<PathBuf> {
    let here = std::env::current_exe().map_err(|error| error.to_string())?;
    // Tests lie one folder deeper.
    here.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("oboro"))
        .find(|program| program.is_file())
        .ok_or_else(|| {
            "the command is not beside this program; run `cargo build --release` first".to_owned()
        })
}

fn oboro(arguments: &[&str]) -> Outcome<Command> {
    let mut command = Command::new(program()?);
    command.args(["--json", "--quiet"]).args(arguments);
    command.stdin(Stdio::null());
    Ok(command)
}

fn finish(mut command: Command) -> Outcome<()> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "the command ends with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

/// A file of a role's folder, read whole and found to be what its name says.
fn check(path: &Path) -> Outcome<()> {
    let text = fs::read_to_string(path).map_err(at(path))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let whole = match name.as_ref() {
        "owner.key" => OwnerKey::read(path).map(drop).map_err(fixture::words),
        "client.key" => ClientKey::read(path).map(drop).map_err(fixture::words),
        "storage.key" => StorageKey::read(path).map(drop).map_err(fixture::words),
        "release.key" => ReleaseKey::read(path).map(drop).map_err(fixture::words),
        "keeper.key" => read_keeper_secret(path).map(drop).map_err(fixture::words),
        _ if name.ends_with(".pem") || name.ends_with(".crl") => {
            let ends = text.trim_end().ends_with("-----") && text.contains("-----END");
            ends.then_some(()).ok_or_else(|| "it ends early".to_owned())
        }
        _ => text
            .ends_with('\n')
            .then_some(())
            .ok_or_else(|| "it ends early".to_owned()),
    };
    whole.map_err(|error| format!("{name} is not whole: {error}"))
}

fn check_role(folder: &Path, role: &str) -> Outcome<()> {
    let files = FILES.iter().find(|(name, _)| *name == role);
    files.map_or(Ok(()), |(_, files)| {
        files.iter().try_for_each(|file| check(&folder.join(file)))
    })
}

fn check_keys(folder: &Path) -> Outcome<()> {
    FILES
        .iter()
        .try_for_each(|(role, _)| check_role(&folder.join(KEYS).join(role), role))
}

/// The owner's register of certificates.
fn issued(folder: &Path) -> Outcome<String> {
    let path = folder.join(KEYS).join("owner/issued.txt");
    fs::read_to_string(&path).map_err(at(&path))
}

fn is_revoked(issued: &str) -> bool {
    let mut lines = issued.lines();
    lines.any(|line| line.contains("\tclient\tclient\t") && !line.ends_with("\t-"))
}

impl Verb {
    fn arguments(self, folder: &Path) -> Vec<String> {
        let path = |name: &str| folder.join(name).display().to_string();
        let words: Vec<String> = match self {
            Self::Keygen => vec!["keygen".into(), "--out".into(), path(KEYS)],
            Self::Grant => vec![
                "grant".into(),
                CLIENT.into(),
                "--out".into(),
                path(CLIENT),
                "--keys".into(),
                path(KEYS),
            ],
            Self::Revoke => vec![
                "revoke".into(),
                "client".into(),
                "--keys".into(),
                path(KEYS),
            ],
            Self::Backup => vec![
                "backup".into(),
                "--keys".into(),
                path(KEYS),
                "--out".into(),
                path(BACKUP),
            ],
            Self::Restore => vec![
                "restore".into(),
                path(BACKUP),
                "--out".into(),
                path(RESTORED),
            ],
        };
        words
    }

    fn build(self, folder: &Path) -> Outcome<Command> {
        let arguments = self.arguments(folder);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        oboro(&arguments)
    }

    /// Whether it is done; an error where something is not whole.
    fn is_done(self, folder: &Path) -> Outcome<bool> {
        let path = |name: &str| folder.join(name);
        match self {
            Self::Keygen if !path(KEYS).exists() => return Ok(false),
            _ => check_keys(folder)?,
        }
        match self {
            Self::Keygen => Ok(true),
            Self::Grant if !path(CLIENT).exists() => Ok(false),
            Self::Grant => {
                check_role(&path(CLIENT), "client")?;
                if issued(folder)?.contains(&format!("\t{CLIENT}\t")) {
                    Ok(true)
                } else {
                    Err("a certificate is there and the register does not know it".to_owned())
                }
            }
            Self::Revoke => {
                let lists: BTreeSet<String> = FILES
                    .iter()
                    .map(|(role, _)| path(KEYS).join(role).join("revoked.crl"))
                    .map(|list| fs::read_to_string(&list).map_err(at(&list)))
                    .collect::<Outcome<_>>()?;
                Ok(lists.len() == 1 && is_revoked(&issued(folder)?))
            }
            Self::Backup | Self::Restore if !path(BACKUP).exists() => Ok(false),
            Self::Backup => {
                let text = fs::read_to_string(path(BACKUP)).map_err(at(&path(BACKUP)))?;
                let files = backup::restore(&text, None).map_err(fixture::words)?;
                for file in files {
                    let original = path(KEYS).join(file.name());
                    if fs::read(&original).map_err(at(&original))? != file.content() {
                        return Err("the backup holds something else".to_owned());
                    }
                }
                Ok(true)
            }
            Self::Restore => {
                let (_, files) = FILES[0];
                let mut missing = false;
                for file in files {
                    let restored = path(RESTORED).join("owner").join(file);
                    if !restored.exists() {
                        missing = true;
                        continue;
                    }
                    let original = path(KEYS).join("owner").join(file);
                    let found = fs::read(&restored).map_err(at(&restored))?;
                    if fs::read(&original).map_err(at(&original))? != found {
                        return Err(format!("{file} was restored half"));
                    }
                }
                Ok(!missing)
            }
        }
    }
}

impl Scenario for Verb {
    fn name(&self) -> String {
        match self {
            Self::Keygen => "keygen",
            Self::Grant => "grant",
            Self::Revoke => "revoke",
            Self::Backup => "backup",
            Self::Restore => "restore",
        }
        .to_owned()
    }

    fn prepare(&self, folder: &Path) -> Outcome<()> {
        if *self != Self::Keygen {
            finish(Self::Keygen.build(folder)?)?;
        }
        if *self == Self::Restore {
            finish(Self::Backup.build(folder)?)?;
        }
        Ok(())
    }

    fn steps(&self) -> usize {
        1
    }

    fn run(&self, folder: &Path, durable: Durable<'_>) -> Outcome<()> {
        if !self.is_done(folder)? {
            // What was registered and not handed out is revoked, as the command says.
            if *self == Self::Grant && issued(folder)?.contains(&format!("\t{CLIENT}\t")) {
                let keys = folder.join(KEYS).display().to_string();
                finish(oboro(&["revoke", CLIENT, "--keys", &keys])?)?;
            }
            // What was marked and not yet signed for all is signed.
            if *self == Self::Revoke && is_revoked(&issued(folder)?) {
                return self.settle(folder);
            }
            finish(self.build(folder)?)?;
        }
        durable(1)
    }

    fn state(&self, folder: &Path) -> Outcome<usize> {
        self.is_done(folder).map(usize::from)
    }

    fn settle(&self, folder: &Path) -> Outcome<()> {
        match self {
            // Signed anew.
            Self::Revoke => finish(oboro(&[
                "revoke",
                "--keys",
                &folder.join(KEYS).display().to_string(),
            ])?),
            _ => Ok(()),
        }
    }

    fn belongs(&self, folder: &Path) -> Outcome<BTreeSet<PathBuf>> {
        // Whole folders of keys, and no file in them that is not a key.
        Ok(Disk::read(folder)?
            .tree()
            .into_keys()
            .filter(|path| {
                path.components()
                    .all(|part| !part.as_os_str().as_encoded_bytes().starts_with(b"."))
            })
            .collect())
    }

    fn command(&self, folder: &Path) -> Outcome<Option<Command>> {
        self.build(folder).map(Some)
    }

    fn is_repeatable(&self) -> bool {
        false
    }

    fn available(&self) -> Outcome<()> {
        program().map(drop)
    }
}
