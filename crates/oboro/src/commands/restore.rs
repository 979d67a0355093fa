//! `oboro restore`: the owner's folder out of a backup.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use clap::Args;
use oboro_index::keys::backup::{self, BackupFile};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::durable;
use crate::failure::{Failure, Named, Outcome};
use crate::global::Global;
use crate::output::{self, Report};
use crate::passphrase::{self, Source};

/// Options of `oboro restore`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Backup that `oboro backup` wrote
    #[arg(value_name = "FILE")]
    pub(crate) backup: PathBuf,
    /// Folder for the keys, as `--keys` names it; existing files are never overwritten
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// The passphrase: the first line of a file, or what is typed at a `prompt`; asked for
    /// on the terminal when not given
    #[arg(long, value_name = "FILE|prompt", value_parser = passphrase::source)]
    pub(crate) passphrase_file: Option<Source>,
}

/// What was restored.
#[derive(Serialize)]
struct Restored {
    out: String,
    files: Vec<String>,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    let path = options.backup.display();
    // A backup's text is larger than its content by a third and its lines' ends.
    let most = 2 * backup::MAX_BYTES as u64;
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(&options.backup)
        .and_then(|file| file.take(most).read_to_string(&mut text))
        .named("read", &path)?;
    let passphrase = options
        .passphrase_file
        .as_ref()
        .or(backup::is_protected(&text).then_some(&Source::Prompt))
        .map(|source| source.read(&options.backup))
        .transpose()?;
    let files = backup::restore(&text, passphrase.as_ref().map(|text| text.as_str()))?;
    if let Some(path) = files
        .iter()
        .map(|file| options.out.join(file.name()))
        .find(|path| path.exists())
    {
        return Err(Failure::refused(format_args!(
            "{} exists already and keys are never overwritten; choose another folder with --out",
            path.display()
        )));
    }
    for (folder, files) in by_folder(&files)? {
        let out = options.out.join(folder);
        // A folder of keys comes back whole. Into one that is there already, file by file.
        if out.is_dir() {
            backup::write_files(&files, &out)?;
        } else {
            durable::folder(&out, |out| Ok(backup::write_files(&files, out)?))?;
        }
    }
    output::print(
        &Restored {
            out: options.out.display().to_string(),
            files: files.iter().map(|file| file.name().to_owned()).collect(),
        },
        global.json,
    )
}

/// The files of each folder, their names within it.
fn by_folder(files: &[BackupFile]) -> Outcome<BTreeMap<String, Vec<BackupFile>>> {
    let mut folders: BTreeMap<String, Vec<BackupFile>> = BTreeMap::new();
    for file in files {
        let (folder, name) = file.name().split_once('/').unwrap_or(("", file.name()));
        let content = Zeroizing::new(file.content().to_vec());
        let inner = BackupFile::new(name, content)?;
        folders.entry(folder.to_owned()).or_default().push(inner);
    }
    Ok(folders)
}

impl Report for Restored {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for name in &self.files {
            writeln!(out, "restored  {}/{name}", self.out)?;
        }
        Ok(())
    }
}
