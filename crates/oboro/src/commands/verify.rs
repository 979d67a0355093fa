//! `oboro verify`: every byte of an index against its checksums and keys.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use oboro_channel::Role;
use oboro_index::{
    BLIND_FILE, EpochKey, FileStatus, Index, IndexError, ReleaseKey, SealedBlind, StorageKey,
    WriterKey,
};
use serde::Serialize;

use super::trials::{self, Tried};
use crate::failure::{Failure, Outcome};
use crate::figures::counted;
use crate::global::Global;
use crate::keys::{Folder, OWNER_KEY, RELEASE_KEY, STORAGE_KEY};
use crate::output::{self, Report};
use crate::passphrase::KeyPassphrase;
use crate::progress::Progress;
use crate::roles;

/// Options of `oboro verify`.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Folder of the index
    #[arg(value_name = "INDEX")]
    pub(crate) index: PathBuf,
    /// Keys of the owner: the folder of `oboro keygen` or its owner/
    #[arg(long, default_value = "keys", value_name = "DIR")]
    pub(crate) keys: PathBuf,
    #[command(flatten)]
    pub(crate) passphrase: KeyPassphrase,
}

/// What was found.
#[derive(Serialize)]
struct Verified {
    sound: bool,
    vectors: u64,
    /// Deleted vectors that are still on the disk.
    deleted: u64,
    segments: usize,
    /// Whether there is a model, with which new vectors are encoded.
    model: bool,
    originals_opened: u64,
    /// Vectors that were searched for, where the keys allow it.
    trials: Option<Tried>,
    /// Why no vector was searched for.
    #[serde(skip_serializing_if = "Option::is_none")]
    trials_skipped: Option<&'static str>,
    files: Vec<File>,
    problems: Vec<String>,
    unlisted: Vec<String>,
    /// Bytes of originals that a compaction has written which is under way or was stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    compaction_bytes: Option<u64>,
}

#[derive(Serialize)]
struct File {
    name: String,
    bytes: u64,
    problem: Option<String>,
}

/// Runs the verb.
pub(crate) fn run(options: &Options, global: &Global) -> Outcome<()> {
    roles::check_index(&options.index)?;
    let Opening { key, writer, parts } =
        Opening::of(&options.keys, &options.index, &options.passphrase)?;
    let progress = Progress::new(global);
    let bar = progress.bar("verifying", None);
    let client = writer.as_ref().map(WriterKey::client_key);
    let mut report = oboro_index::verify(&options.index, &key, client)?;
    bar.finish_and_clear();
    if let Some(place) = report.unlisted.iter().position(|name| name == BLIND_FILE) {
        report.unlisted.remove(place);
        report.files.push(kept(&options.index, parts.as_ref()));
    }
    // A damaged index is not searched.
    let trials = match &writer {
        Some(writer) if report.is_sound() => {
            let bar = progress.bar("trial queries", None);
            let tried = trials::run(&Index::open(&options.index, &key)?, writer, &options.keys)?;
            bar.finish_and_clear();
            tried
        }
        _ => Err(trials::NO_OWNER),
    };
    let (trials, trials_skipped) = match trials {
        Ok(tried) => (Some(tried), None),
        Err(why) => (None, Some(why)),
    };
    let verified = Verified {
        sound: report.is_sound(),
        vectors: report.vectors,
        deleted: report.deleted,
        segments: report.segments.len(),
        model: report.model,
        trials,
        trials_skipped,
        originals_opened: report.records_opened,
        problems: report.all_problems().map(str::to_owned).collect(),
        files: report
            .files
            .iter()
            .map(|file| File {
                name: file.name.clone(),
                bytes: file.bytes,
                problem: file.problem.clone(),
            })
            .collect(),
        unlisted: report.unlisted.clone(),
        compaction_bytes: report.compaction,
    };
    // A damaged index is a failure, and a failure prints the one object.
    if let Some((first, others)) = verified.problems.split_first() {
        let sentence = match others.len() {
            0 => first.clone(),
            more => format!("{first} (and {} more)", counted(more as u64, "problem")),
        };
        return Err(Failure::input(sentence).with_problems(verified.problems));
    }
    if let Some(problem) = verified.trials.as_ref().and_then(Tried::problem) {
        return Err(problem);
    }
    output::print(&verified, global.json)
}

/// Looks at what searcher and keeper kept of a blind build: no manifest lists it.
fn kept(index: &Path, parts: Option<&(StorageKey, ReleaseKey)>) -> FileStatus {
    let check = || -> Result<u64, IndexError> {
        let Some(sealed) = SealedBlind::read(index)? else {
            return Ok(0);
        };
        let id = Index::peek(index)?.index_id;
        if sealed.head().index_id != id {
            return Err(IndexError::Damaged {
                file: BLIND_FILE.to_owned(),
                what: "it is of another index",
            });
        }
        if let Some((storage, release)) = parts {
            sealed.open(storage, &release.blind_part(&id))?;
            release.open_share(&id, sealed.keeper_share())?;
        }
        Ok(sealed.to_bytes().len() as u64)
    };
    let (bytes, problem) = match check() {
        Ok(bytes) => (bytes, None),
        Err(error) => (
            0,
            Some(format!(
                "{error}; the index can be searched, and nothing can be inserted"
            )),
        ),
    };
    FileStatus {
        name: BLIND_FILE.to_owned(),
        bytes,
        problem,
    }
}

/// What opens an index.
struct Opening {
    key: EpochKey,
    /// Where the folder can make it.
    writer: Option<WriterKey>,
    /// Both parts of the key of what was kept of a blind build.
    parts: Option<(StorageKey, ReleaseKey)>,
}

/// The key that opens an index, and a writer's key where the folder can make it.
pub(super) fn keys(
    folder: &Path,
    index: &Path,
    passphrase: &KeyPassphrase,
) -> Outcome<(EpochKey, Option<WriterKey>)> {
    let Opening { key, writer, .. } = Opening::of(folder, index, passphrase)?;
    Ok((key, writer))
}

impl Opening {
    fn of(folder: &Path, index: &Path, passphrase: &KeyPassphrase) -> Outcome<Self> {
        let head = Index::peek(index)?;
        let holds = |role: Role, name: &str| {
            folder.join(role.name()).join(name).is_file() || folder.join(name).is_file()
        };
        if holds(Role::Owner, OWNER_KEY) {
            let key = passphrase.owner_key(&Folder::of(folder, Role::Owner)?)?;
            return Ok(Self {
                key: key.epoch_key(&head.index_id, head.epoch, head.released),
                writer: Some(key.writer_key()),
                parts: Some((key.storage_key(), key.release_key())),
            });
        }
        if !holds(Role::Searcher, STORAGE_KEY) {
            return Err(Failure::input(format_args!(
                "{} holds neither {OWNER_KEY} nor {STORAGE_KEY}; give the owner's folder with --keys",
                folder.display()
            )));
        }
        let storage = Folder::of(folder, Role::Searcher)?.storage_key()?;
        let release = match (head.released, holds(Role::Keeper, RELEASE_KEY)) {
            (false, _) => None,
            (true, true) => Some(Folder::of(folder, Role::Keeper)?.release_key()?),
            (true, false) => {
                return Err(Failure::input(format_args!(
                    "{STORAGE_KEY} alone does not open this index, the keeper's part is needed as well; give the owner's folder with --keys"
                )));
            }
        };
        let share = release
            .as_ref()
            .map(|release| release.share(&head.index_id, head.epoch));
        Ok(Self {
            key: storage.for_epoch(share.as_ref(), &head.index_id, head.epoch),
            writer: None,
            parts: release.map(|release| (storage, release)),
        })
    }
}

impl Report for Verified {
    fn text(&self, out: &mut dyn Write) -> io::Result<()> {
        for file in &self.files {
            writeln!(
                out,
                "  sound  {:12} {}",
                output::bytes(file.bytes),
                file.name
            )?;
        }
        for name in &self.unlisted {
            writeln!(out, "  no part of the index: {name}")?;
        }
        if let Some(bytes) = self.compaction_bytes {
            writeln!(
                out,
                "a compaction is under way or was stopped and can be resumed: {} of originals are written",
                output::bytes(bytes)
            )?;
        }
        if let Some(tried) = &self.trials {
            writeln!(
                out,
                "{} of {} trial queries found the vector that they are, {}",
                tried.found,
                tried.queries,
                tried.in_the_clear.map_or_else(
                    || "by the encrypted path".to_owned(),
                    |why| format!("in the clear: {why}")
                )
            )?;
        }
        if let Some(why) = self.trials_skipped {
            writeln!(out, "no trial queries: {why}")?;
        }
        if self.deleted > 0 {
            writeln!(
                out,
                "deleted and still on the disk: {}",
                counted(self.deleted, "vector")
            )?;
        }
        match self.originals_opened {
            0 => writeln!(
                out,
                "{}: every checksum and seal of the searcher's part is right; the originals open under the owner's key only",
                counted(self.vectors, "vector")
            ),
            opened => writeln!(
                out,
                "{}: every checksum and seal is right, {} opened",
                counted(self.vectors, "vector"),
                counted(opened, "original")
            ),
        }
    }
}
