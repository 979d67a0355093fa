//! Checkpoints: folders that hold all that a run needs to go on.
//!
//! ```text
//! RUN/step-00001200/MANIFEST              JSON in one line, then its BLAKE3 hash
//!                   network.safetensors   the network, as `Network::to_bytes` gives it
//!                   state.safetensors     the loss's parameters, the optimizer's moments
//! ```
//!
//! `state.safetensors` names its tensors `loss.PATH`, `first.MODULE.PATH` and
//! `second.MODULE.PATH`; MODULE is `network` or `loss`. `MANIFEST` holds size
//! and hash of both files, the step, the number of updates of every parameter,
//! the best validation so far, the settings, and what the caller says about
//! the run. A folder is written under another name, made durable and renamed:
//! what is called `step-N` is whole, or its disk has changed it since.

use super::Config;
use super::parameters::{self, Values};
use crate::LearnError;
use crate::losses::AnyLoss;
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const FORMAT: &str = "oboro-learn checkpoint";
const VERSION: u32 = 1;
/// Names of the three files.
const MANIFEST: &str = "MANIFEST";
/// The network of a checkpoint, for [`Network::from_bytes`](crate::model::Network::from_bytes).
pub const NETWORK: &str = "network.safetensors";
const STATE: &str = "state.safetensors";
/// Most bytes of a manifest.
const MANIFEST_LIMIT: u64 = 16 << 20;
/// Most bytes of a file of tensors.
const TENSORS_LIMIT: u64 = 64 << 30;

/// The best validation of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Steps done.
    pub step: u64,
    /// The figure that decides.
    #[serde(with = "exact")]
    pub figure: f64,
}

/// Numbers as text: a JSON number need not come back to the last bit, and a
/// resumed run must decide as the uninterrupted one does.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{value:?}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    bytes: u64,
    blake3: String,
}

impl Entry {
    fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            blake3: blake3::hash(bytes).to_hex().to_string(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: String,
    version: u32,
    step: u64,
    best: Option<Best>,
    stale: u64,
    config: Config,
    /// The hash of the training set's labels.
    labels: String,
    about: serde_json::Value,
    updates: BTreeMap<String, u64>,
    network: Entry,
    state: Entry,
}

/// A checkpoint: all that a run needs to go on.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    pub(super) step: u64,
    pub(super) best: Option<Best>,
    /// Validations since the best one.
    pub(super) stale: u64,
    pub(super) config: Config,
    pub(super) labels: String,
    pub(super) about: serde_json::Value,
    pub(super) network: Vec<u8>,
    pub(super) loss: BTreeMap<String, Values>,
    /// Updates, first and second moment by `module.path`.
    pub(super) moments: BTreeMap<String, (u64, Values, Values)>,
}

impl Checkpoint {
    /// Reads the checkpoint in a folder named `step-N`.
    ///
    /// # Errors
    /// When a file is missing, longer or shorter than the manifest says, or
    /// has another hash.
    ///
    /// # Security
    /// Sizes are checked before anything is read. The hashes tell damage, not
    /// malice: whoever can write the folder can write a manifest.
    pub fn read(folder: &Path) -> Result<Self, LearnError> {
        let path = folder.join(MANIFEST);
        let bytes = read_file(&path, None)?;
        let manifest = parse_manifest(&bytes).map_err(|what| malformed(&path, what))?;
        let listed = |name: &str, entry: &Entry| {
            let path = folder.join(name);
            let bytes = read_file(&path, Some(entry.bytes))?;
            if blake3::hash(&bytes).to_hex().as_str() != entry.blake3 {
                return Err(malformed(
                    &path,
                    "its hash is not the manifest's".to_owned(),
                ));
            }
            Ok(bytes)
        };
        let network = listed(NETWORK, &manifest.network)?;
        let state = listed(STATE, &manifest.state)?;
        let (loss, moments) = parse_state(&state, manifest.updates)
            .map_err(|what| malformed(&folder.join(STATE), what))?;
        Ok(Self {
            step: manifest.step,
            best: manifest.best,
            stale: manifest.stale,
            config: manifest.config,
            labels: manifest.labels,
            about: manifest.about,
            network,
            loss,
            moments,
        })
    }

    /// The folders of a run's checkpoints, oldest first.
    ///
    /// # Errors
    /// When the run's folder cannot be read.
    pub fn list(run: &Path) -> Result<Vec<PathBuf>, LearnError> {
        let steps = steps(run).map_err(|source| LearnError::Read {
            path: run.to_owned(),
            source,
        })?;
        Ok(steps.into_iter().map(|step| folder(run, step)).collect())
    }

    /// The folder of the newest checkpoint of a run, if there is one.
    ///
    /// # Errors
    /// When the run's folder cannot be read.
    pub fn latest(run: &Path) -> Result<Option<PathBuf>, LearnError> {
        Ok(Self::list(run)?.pop())
    }

    /// The folder of the checkpoint with the best validation, or the newest
    /// one where nothing was validated.
    ///
    /// # Errors
    /// When the newest checkpoint cannot be read.
    pub fn best_of(run: &Path) -> Result<Option<PathBuf>, LearnError> {
        let Some(latest) = Self::latest(run)? else {
            return Ok(None);
        };
        let best = Self::read(&latest)?.best;
        Ok(Some(best.map_or(latest, |best| folder(run, best.step))))
    }

    /// Steps done.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The best validation so far.
    #[must_use]
    pub fn best(&self) -> Option<Best> {
        self.best
    }

    /// The settings of the run.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the caller of the trainer has said about the run.
    #[must_use]
    pub fn about(&self) -> &serde_json::Value {
        &self.about
    }

    /// The network, for [`Network::from_bytes`](crate::model::Network::from_bytes).
    #[must_use]
    pub fn network(&self) -> &[u8] {
        &self.network
    }

    /// The loss with the proxies of this checkpoint.
    ///
    /// # Errors
    /// When the checkpoint is of a loss with other parameters.
    pub fn restore_loss(&self, loss: AnyLoss) -> Result<AnyLoss, LearnError> {
        parameters::restore(loss, self.loss.clone()).map_err(|what| LearnError::Malformed {
            path: PathBuf::from(STATE),
            what: format!("{what}; give the loss that it was written with"),
        })
    }

    /// Writes the checkpoint into a run's folder, then removes old ones but
    /// for the newest `keep` and the best.
    pub(super) fn write(self, run: &Path) -> Result<PathBuf, LearnError> {
        let step = self.step;
        let keep = self.config.keep;
        let best = self.best.map(|best| best.step);
        let files = self.files().map_err(|what| LearnError::Setting {
            what: "a checkpoint",
            actual: what,
            wanted: "make the network or its loss smaller",
        })?;
        clear(run);
        let making = run.join(format!(".making-{}", name(step)));
        let done = folder(run, step);
        let written = (|| {
            fs::create_dir(&making)?;
            for (name, bytes) in &files {
                let mut file = File::create(making.join(name))?;
                file.write_all(bytes)?;
                file.sync_all()?;
            }
            sync_folder(&making)?;
            fs::rename(&making, &done)?;
            sync_folder(run)
        })();
        if let Err(source) = written {
            // What was there before is as it was.
            clear(run);
            return Err(LearnError::Checkpoint { path: done, source });
        }
        match prune(run, keep, best) {
            Ok(()) => Ok(done),
            Err(source) => Err(LearnError::Write {
                path: run.to_owned(),
                source,
            }),
        }
    }

    /// The files with their contents.
    fn files(self) -> Result<Vec<(&'static str, Vec<u8>)>, String> {
        let mut updates = BTreeMap::new();
        let mut tensors: Vec<(String, Flat)> = Vec::new();
        for (path, values) in &self.loss {
            tensors.push((format!("loss.{path}"), Flat::of(values)));
        }
        for (path, (count, first, second)) in &self.moments {
            tensors.push((format!("first.{path}"), Flat::of(first)));
            tensors.push((format!("second.{path}"), Flat::of(second)));
            updates.insert(path.clone(), *count);
        }
        let state = safetensors::serialize(tensors, None).map_err(|error| error.to_string())?;
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            version: VERSION,
            step: self.step,
            best: self.best,
            stale: self.stale,
            config: self.config,
            labels: self.labels,
            about: self.about,
            updates,
            network: Entry::of(&self.network),
            state: Entry::of(&state),
        };
        let mut text = serde_json::to_string(&manifest).map_err(|error| error.to_string())?;
        let hash = blake3::hash(text.as_bytes()).to_hex();
        text.push('\n');
        text.push_str(&hash);
        text.push('\n');
        Ok(vec![
            (NETWORK, self.network),
            (STATE, state),
            (MANIFEST, text.into_bytes()),
        ])
    }
}

/// A tensor's bytes, as safetensors writes them.
struct Flat {
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Flat {
    fn of(values: &Values) -> Self {
        Self {
            shape: values.shape.clone(),
            bytes: values.values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        }
    }
}

impl View for Flat {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn parse_manifest(bytes: &[u8]) -> Result<Manifest, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let mut lines = text.split('\n');
    let (Some(json), Some(hash), Some(""), None) =
        (lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return Err("it has not two lines".to_owned());
    };
    if blake3::hash(json.as_bytes()).to_hex().as_str() != hash {
        return Err("its hash is not that of its first line".to_owned());
    }
    // Before the other fields: those of another version may differ.
    #[derive(Deserialize)]
    struct Head {
        format: String,
        version: u32,
    }
    let head: Head = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if head.format != FORMAT || head.version != VERSION {
        return Err(format!(
            "it is \"{}\" version {}, not \"{FORMAT}\" version {VERSION}",
            head.format, head.version
        ));
    }
    serde_json::from_str(json).map_err(|error| error.to_string())
}

type State = (
    BTreeMap<String, Values>,
    BTreeMap<String, (u64, Values, Values)>,
);

fn parse_state(bytes: &[u8], updates: BTreeMap<String, u64>) -> Result<State, String> {
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let mut found: BTreeMap<String, Values> = BTreeMap::new();
    for (name, tensor) in tensors.iter() {
        if tensor.dtype() != Dtype::F32 {
            return Err(format!("{name} is not in single precision"));
        }
        let values = tensor.data().as_chunks::<4>().0.iter();
        found.insert(
            name.to_owned(),
            Values {
                shape: tensor.shape().to_vec(),
                values: values.map(|&bytes| f32::from_le_bytes(bytes)).collect(),
            },
        );
    }
    let mut moments = BTreeMap::new();
    for (path, count) in updates {
        let mut take = |kind: &str| {
            found
                .remove(&format!("{kind}.{path}"))
                .filter(|values| values.shape.len() == 1)
                .ok_or_else(|| format!("the {kind} moment of {path} is not in it"))
        };
        let (first, second) = (take("first")?, take("second")?);
        if first.shape != second.shape {
            return Err(format!("the moments of {path} differ in length"));
        }
        moments.insert(path, (count, first, second));
    }
    let mut loss = BTreeMap::new();
    for (name, values) in found {
        match name.strip_prefix("loss.") {
            Some(path) => loss.insert(path.to_owned(), values),
            None => return Err(format!("nothing belongs to its tensor {name}")),
        };
    }
    Ok((loss, moments))
}

/// Reads a file of the given size, or one within a manifest's limit.
fn read_file(path: &Path, expected: Option<u64>) -> Result<Vec<u8>, LearnError> {
    let failed = |source| LearnError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(malformed(path, "it is not there".to_owned()));
        }
        opened => opened.map_err(failed)?,
    };
    let size = file.metadata().map_err(failed)?.len();
    let limit = if expected.is_some() {
        TENSORS_LIMIT
    } else {
        MANIFEST_LIMIT
    };
    if size > limit || expected.is_some_and(|expected| expected != size) {
        return Err(malformed(
            path,
            match expected {
                Some(expected) => format!("it has {size} bytes where {expected} were written"),
                None => format!("it has {size} bytes where at most {limit} are read"),
            },
        ));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(size).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn malformed(path: &Path, what: String) -> LearnError {
    LearnError::Malformed {
        path: path.to_owned(),
        what: format!("{what}; remove its folder to resume from the checkpoint before it"),
    }
}

fn name(step: u64) -> String {
    format!("step-{step:08}")
}

pub(super) fn folder(run: &Path, step: u64) -> PathBuf {
    run.join(name(step))
}

/// The steps of which there are checkpoints, ascending.
fn steps(run: &Path) -> io::Result<Vec<u64>> {
    let mut steps = Vec::new();
    for entry in fs::read_dir(run)? {
        let entry = entry?.file_name();
        let number = entry.to_str().and_then(|name| name.strip_prefix("step-"));
        if let Some(step) = number.and_then(|number| number.parse().ok())
            && entry.to_str() == Some(name(step).as_str())
        {
            steps.push(step);
        }
    }
    steps.sort_unstable();
    Ok(steps)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes what a kill or a full disk has left behind. What stays for want of
/// permission is in nobody's way.
fn clear(run: &Path) {
    let Ok(entries) = fs::read_dir(run) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(".making-step-") || name.starts_with(".going-step-") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn prune(run: &Path, keep: usize, best: Option<u64>) -> io::Result<()> {
    let mut old = steps(run)?;
    old.truncate(old.len().saturating_sub(keep));
    for step in old {
        if Some(step) != best {
            // A folder that is half removed must not pass for a checkpoint.
            let going = run.join(format!(".going-{}", name(step)));
            fs::rename(folder(run, step), &going)?;
            fs::remove_dir_all(&going)?;
        }
    }
    Ok(())
}
