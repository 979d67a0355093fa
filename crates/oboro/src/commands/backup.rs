//! `oboro backup`: the owner's folder as one text file.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use oboro_channel::Role;
use oboro_index::OwnerKey;
use oboro_index::keys::backup::{BackupFile, backup_owner};
use serde::Serialize;

use crate::durable;
use crate::failure::Outcome;
use crate::global::Global;
use crate::keys::{self, Folder, OWNER_KEY};
use crate::output::{self, Report};
use crate::passphrase::{self, Source};

/// Options of `oboro backup`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Keys of the owner: the folder of `oboro keygen` or its owner/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    /// File to make
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Encrypt it under a passphrase, which is asked for on the terminal, twice
    #[arg(long, conflicts_with = "passphrase_file")]
    pub(crate) passphrase: bool,
    /// Encrypt it under the first line of a file, or under what is typed at a `prompt`
    #[arg(long, value_name = "FILE|prompt", value_parser = passphrase::source)]
    pub(crate) passphrase_file: Option<Source>,
}

/// What was written.
#[derive(Serialize)]
struct BackedUp {
    out: String,
    encrypted: bool,
    /// Whether the owner's key in it has a passphrase of its own.
    owner_key_protected: bool,
    files: Vec<String>,
    bytes: usize,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let folder = Folder::of(&options.keys, Role::Owner)?;
    // Read once, so that a folder that is no owner's is told now and not after a disaster.
    folder.identity()?;
    // A key under a passphrase goes in as it is, and stays under that passphrase.
    let protected = OwnerKey::is_protected(folder.file(OWNER_KEY)?)?;
    if !protected {
        folder.owner_key()?;
    }
    let files = BackupFile::all_in(folder.path(), &format!("{}/", Role::Owner.name()))?;
    let passphrase = passphrase::wanted(
        options.passphrase,
        options.passphrase_file.as_ref(),
        &options.out,
    )?;
    let text = backup_owner(
        &files,
        passphrase.as_ref().map(|text| text.as_str()),
        &mut keys::os_rng()?,
    )?;
    durable::create(&options.out, text.as_bytes())?;
    output::print(
        &BackedUp {
            out: options.out.display().to_string(),
            encrypted: passphrase.is_some(),
            owner_key_protected: protected,
            files: files.iter().map(|file| file.name().to_owned()).collect(),
            bytes: text.len(),
        },
        global.json,
    )
}

impl Report for BackedUp {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "{}: {} files, {}",
            self.out,
            self.files.len(),
            output::bytes(self.bytes as u64)
        )?;
        writeln!(
            out,
            "{}",
            match (self.encrypted, self.owner_key_protected) {
                (true, _) =>
                    "Encrypted (age); without the passphrase nobody opens it, you neither.",
                (false, true) =>
                    "NOT encrypted: whoever reads it issues certificates as you do. --passphrase encrypts it.",
                (false, false) =>
                    "NOT encrypted: whoever reads it has the owner's keys. --passphrase encrypts it.",
            }
        )?;
        if self.owner_key_protected {
            writeln!(out, "{OWNER_KEY} in it is under its own passphrase still.")?;
        }
        Ok(())
    }
}
